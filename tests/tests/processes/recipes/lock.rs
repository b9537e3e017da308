use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use stead_client::{
    Op, Revision, Tenant,
    recipes::{Lock, LockGuard},
};
use stead_tests::process::exclusive_lock;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{cluster, kill_leaders, retry_until_known, service};

const TTL: Duration = Duration::from_secs(2);
const WAIT_MAX: Duration = Duration::from_secs(20);

fn lock(tenant: &Tenant) -> Lock {
    Lock::new(tenant, "lock", TTL).unwrap()
}

/// Writes the key that the lock protects, if the lock is still held; returns the revision if it was.
async fn write_if_held(tenant: &Tenant, held: &LockGuard, value: String) -> Option<Revision> {
    let write = || async {
        let txn = tenant.txn().when(held.key().clone(), held.held_condition());
        txn.then(Op::put("protected", value.clone())).send().await
    };
    let done = retry_until_known(write).await;
    done.succeeded.then_some(done.header.revision)
}

/// Resource outside the store that is protected by fencing tokens: it remembers the highest one.
#[derive(Default)]
struct FencedResource(AtomicU64);

impl FencedResource {
    fn admits(&self, token: Revision) -> bool {
        self.0.fetch_max(token.to_u64(), Ordering::SeqCst) <= token.to_u64()
    }
}

/// Time for which one holder had the lock, in revisions of the store.
struct LockHold {
    token: Revision,
    last_write: Revision,
}

async fn contend(tenant: Tenant, resource: Arc<FencedResource>, stop: Arc<AtomicBool>) -> Vec<LockHold> {
    let mut holds = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let held = lock(&tenant).acquire().await.unwrap();
        let token = held.token();
        // The holder of the lock is never refused for a later one, unless it has lost the lock.
        assert!(resource.admits(token) || held.is_lost());
        let mut last_write = token;
        for number in 0..5 {
            match write_if_held(&tenant, &held, format!("{token} {number}")).await {
                Some(revision) => last_write = revision,
                None => break,
            }
        }
        holds.push(LockHold { token, last_write });
        let _given = held.release().await;
    }
    holds
}

#[tokio::test]
async fn lock_is_exclusive_while_leaders_die() {
    let _lock = exclusive_lock();
    let cluster = cluster().await;
    let (resource, stop) = (Arc::new(FencedResource::default()), Arc::new(AtomicBool::new(false)));
    let mut contenders = JoinSet::new();
    for region in ["eu-west", "us-east"] {
        let tenant = service(&cluster, region).await;
        contenders.spawn(contend(tenant, resource.clone(), stop.clone()));
    }
    kill_leaders(&cluster, 2).await;
    stop.store(true, Ordering::Relaxed);
    let mut holds = Vec::new();
    let mut each = Vec::new();
    while let Some(contender) = timeout(WAIT_MAX, contenders.join_next()).await.unwrap() {
        let of_one = contender.unwrap();
        each.push(of_one.len());
        holds.extend(of_one);
    }
    assert!(each.iter().all(|holds| *holds > 0), "each held it: {each:?}");
    holds.sort_by_key(|held| held.token);
    for pair in holds.windows(2) {
        let [one, next] = pair else { unreachable!() };
        assert!(one.token < next.token, "a token is given once");
        assert!(
            one.last_write < next.token,
            "{} wrote while {} held",
            one.token,
            next.token
        );
    }
}

#[tokio::test]
async fn fenced_lock_holder_cannot_write() {
    let _lock = exclusive_lock();
    let cluster = cluster().await;
    let (old, new) = (service(&cluster, "eu-west").await, service(&cluster, "us-east").await);
    old.put("fence", "0".repeat(20)).await.unwrap();
    let first = lock(&old).acquire().await.unwrap();
    assert!(lock(&new).try_acquire().await.unwrap().is_none());
    assert!(write_if_held(&old, &first, "mine".into()).await.is_some());
    // Longer than its TTL: it is renewed in the background.
    sleep(TTL + TTL / 2).await;
    assert!(!first.is_lost() && lock(&new).try_acquire().await.unwrap().is_none());
    first.renew().await.unwrap();

    // To the store a frozen holder is one whose key expires.
    let waiting = lock(&new);
    let next = tokio::spawn(async move { waiting.acquire().await });
    old.delete("lock").await.unwrap();
    let second = timeout(WAIT_MAX, next).await.unwrap().unwrap().unwrap();
    assert!(second.token() > first.token());
    assert_eq!(write_if_held(&old, &first, "mine still".into()).await, None);
    let fenced = async |tenant: &Tenant, held: &LockGuard| {
        let txn = tenant.txn().when("fence", held.fencing_condition());
        txn.then(Op::put("fence", held.token_bytes()))
            .send()
            .await
            .unwrap()
            .succeeded
    };
    assert!(fenced(&new, &second).await);
    assert!(!fenced(&old, &first).await, "a later holder was here");
    assert!(fenced(&new, &second).await, "its own mark does not stop it");
    timeout(WAIT_MAX, first.lost()).await.unwrap();
    assert!(first.is_lost() && !second.is_lost());
    assert!(first.renew().await.is_err());
    assert!(
        !first.release().await.unwrap(),
        "it is not the old holder's to give back"
    );
    assert!(second.release().await.unwrap());

    // Dropped, and released in the background, long before its TTL is over.
    let long = Lock::new(&old, "lock", Duration::from_secs(3600)).unwrap();
    drop(long.acquire().await.unwrap());
    let begun = Instant::now();
    drop(timeout(WAIT_MAX, lock(&new).acquire()).await.unwrap().unwrap());
    assert!(begun.elapsed() < WAIT_MAX);
}

#[tokio::test]
async fn partitioned_lock_holder_learns_of_loss_first() {
    let _lock = exclusive_lock();
    let cluster = cluster().await;
    let (far, near) = (service(&cluster, "us-east").await, service(&cluster, "eu-west").await);
    let held = lock(&far).acquire().await.unwrap();
    cluster.cut("eu-west", "us-east").unwrap();
    let lost_at = async {
        held.lost().await;
        Instant::now()
    };
    let taken = async {
        let next = lock(&near).acquire().await.unwrap();
        (Instant::now(), next)
    };
    let (lost_at, (taken_at, next)) = timeout(WAIT_MAX * 2, async { tokio::join!(lost_at, taken) })
        .await
        .unwrap();
    assert!(lost_at <= taken_at, "it went on for {:?}", lost_at - taken_at);
    assert!(next.token() > held.token());
    cluster.heal_all();
}
