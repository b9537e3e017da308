//! Recipes against mock nodes, where an answer is lost at the worst moment.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use futures::FutureExt;
use stead_client::{ErrorKind, Tenant, recipes::Lock};

use crate::{
    client,
    mock::{Cluster, until},
};

/// So long that nothing goes by itself.
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
async fn a_lock_that_may_have_been_got_is_looked_for_and_else_unknown() {
    let cluster = Cluster::start(&["eu"]).await;
    let lock = Lock::new(&acme(&cluster).await, "lock", LONG).unwrap();
    let manners = &cluster.nodes[0].manners;
    // It was got, the answer was lost, and the next attempt says nothing of the first one.
    let lost = |then: Option<ErrorKind>| {
        manners.cut_after_write.store(true, SeqCst);
        manners.refusals.lock().extend([None, full(), then]);
    };
    lost(None);
    let held = lock.try_acquire().await.unwrap().unwrap();
    assert!(held.release().await.unwrap());
    lost(full());
    let error = lock.try_acquire().await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::OutcomeUnknown { .. }), "{error}");
}

#[tokio::test]
async fn a_lock_that_was_got_too_late_is_given_back() {
    let cluster = Cluster::start(&["eu"]).await;
    let lock = Lock::new(&acme(&cluster).await, "lock", Duration::from_millis(600)).unwrap();
    let manners = &cluster.nodes[0].manners;
    // An election takes more than a third of its time; then it is got, and cannot be renewed.
    manners.no_leader.store(5, SeqCst);
    manners.refusals.lock().extend([None, full()]);
    let error = lock.try_acquire().await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::OutcomeUnknown { .. }), "{error}");
    until("it is free", || is_free(&cluster)).await;
}

#[tokio::test]
async fn a_release_that_is_dropped_releases() {
    let cluster = Cluster::start(&["eu"]).await;
    let lock = Lock::new(&acme(&cluster).await, "lock", LONG).unwrap();
    let held = lock.acquire().await.unwrap();
    assert!(!is_free(&cluster));
    assert!(held.release().now_or_never().is_none(), "it takes a while");
    until("it is free", || is_free(&cluster)).await;
}
