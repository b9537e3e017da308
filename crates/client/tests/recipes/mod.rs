//! Recipes against mock nodes, where a response is lost at the worst moment.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use futures::FutureExt;
use stead_client::{ErrorKind, Tenant, recipes::Lock};

use crate::{
    client,
    mock::{Cluster, until},
};

/// Longer than any test, so that nothing expires.
const LONG: Duration = Duration::from_secs(3600);

async fn acme(cluster: &Cluster) -> Tenant {
    client(cluster).await.tenant("acme").unwrap()
}

fn full() -> Option<ErrorKind> {
    Some(ErrorKind::QuotaExceeded { limit: "bytes".into() })
}

fn is_free(cluster: &Cluster) -> bool {
    cluster.store.rows.lock().is_empty()
}

#[tokio::test]
async fn lock_with_lost_response_is_found_or_unknown() {
    let cluster = Cluster::start(&["eu"]).await;
    let tenant = acme(&cluster).await;
    // With a known time its writes are stamped, and no read comes between the attempts.
    cluster.store.time.store(40, SeqCst);
    tenant.get("k").await.unwrap();
    let lock = Lock::new(&tenant, "lock", LONG).unwrap();
    let faults = &cluster.nodes[0].faults;
    // The lock was acquired, the response was lost, and the next attempt says nothing of the first one.
    let lost = |then: Option<ErrorKind>| {
        faults.cut_after_write.store(true, SeqCst);
        faults.refusals.lock().extend([None, full(), then]);
    };
    lost(None);
    let held = lock.try_acquire().await.unwrap().unwrap();
    assert!(held.release().await.unwrap());
    lost(full());
    let error = lock.try_acquire().await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::OutcomeUnknown { .. }), "{error}");
}

#[tokio::test]
async fn lock_acquired_too_late_is_released() {
    let cluster = Cluster::start(&["eu"]).await;
    let lock = Lock::new(&acme(&cluster).await, "lock", Duration::from_millis(600)).unwrap();
    let faults = &cluster.nodes[0].faults;
    // An election takes more than a third of the time to live; then the lock is acquired, and cannot be renewed.
    faults.no_leader.store(5, SeqCst);
    faults.refusals.lock().extend([None, full()]);
    let error = lock.try_acquire().await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::OutcomeUnknown { .. }), "{error}");
    until("it is free", || is_free(&cluster)).await;
}

#[tokio::test]
async fn dropped_release_future_still_releases() {
    let cluster = Cluster::start(&["eu"]).await;
    let lock = Lock::new(&acme(&cluster).await, "lock", LONG).unwrap();
    let held = lock.acquire().await.unwrap();
    assert!(!is_free(&cluster));
    assert!(held.release().now_or_never().is_none(), "it takes a while");
    until("it is free", || is_free(&cluster)).await;
}
