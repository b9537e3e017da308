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
use stead_tests::process::alone;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{cluster, kill_leaders, service, settled};

const TTL: Duration = Duration::from_secs(2);
const SOON: Duration = Duration::from_secs(20);

fn lock(tenant: &Tenant) -> Lock {
    Lock::new(tenant, "lock", TTL).unwrap()
}

/// Writes what the lock protects, if it is still held; says whether that happened.
async fn protected(tenant: &Tenant, held: &LockGuard, value: String) -> Option<Revision> {
    let write = || async {
        let txn = tenant.txn().when(held.key().clone(), held.still());
        txn.then(Op::put("protected", value.clone())).send().await
    };
    let done = settled(write).await;
    done.succeeded.then_some(done.header.revision)
}

/// What a thing that is no part of the store does: it remembers the highest token.
#[derive(Default)]
struct Elsewhere(AtomicU64);

impl Elsewhere {
    fn admits(&self, token: Revision) -> bool {
        self.0.fetch_max(token.to_u64(), Ordering::SeqCst) <= token.to_u64()
    }
}

/// A holder's life, by the revisions of the store.
struct Held {
    token: Revision,
    last_write: Revision,
}

async fn contend(tenant: Tenant, elsewhere: Arc<Elsewhere>, over: Arc<AtomicBool>) -> Vec<Held> {
    let mut lives = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let held = lock(&tenant).acquire().await.unwrap();
        let token = held.token();
        // One who holds the lock is never refused for a later one, unless it has lost the lock.
        assert!(elsewhere.admits(token) || held.is_lost());
        let mut last_write = token;
        for number in 0..5 {
            match protected(&tenant, &held, format!("{token} {number}")).await {
                Some(revision) => last_write = revision,
                None => break,
            }
        }
        lives.push(Held { token, last_write });
        let _given = held.release().await;
    }
    lives
}

#[tokio::test]
async fn two_never_hold_a_lock_at_once_while_leaders_die() {
    let _alone = alone();
    let cluster = cluster().await;
    let (elsewhere, over) = (Arc::new(Elsewhere::default()), Arc::new(AtomicBool::new(false)));
    let mut contenders = JoinSet::new();
    for region in ["eu-west", "us-east"] {
        let tenant = service(&cluster, region).await;
        contenders.spawn(contend(tenant, elsewhere.clone(), over.clone()));
    }
    kill_leaders(&cluster, 2).await;
    over.store(true, Ordering::Relaxed);
    let mut lives = Vec::new();
    let mut each = Vec::new();
    while let Some(contender) = timeout(SOON, contenders.join_next()).await.unwrap() {
        let of_one = contender.unwrap();
        each.push(of_one.len());
        lives.extend(of_one);
    }
    assert!(each.iter().all(|lives| *lives > 0), "each held it: {each:?}");
    lives.sort_by_key(|held| held.token);
    for pair in lives.windows(2) {
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
async fn one_who_was_frozen_while_the_lock_went_on_writes_nothing() {
    let _alone = alone();
    let cluster = cluster().await;
    let (old, new) = (service(&cluster, "eu-west").await, service(&cluster, "us-east").await);
    old.put("fence", "0".repeat(20)).await.unwrap();
    let first = lock(&old).acquire().await.unwrap();
    assert!(lock(&new).try_acquire().await.unwrap().is_none());
    assert!(protected(&old, &first, "mine".into()).await.is_some());
    // Longer than its time: it is renewed by itself.
    sleep(TTL + TTL / 2).await;
    assert!(!first.is_lost() && lock(&new).try_acquire().await.unwrap().is_none());
    first.renew().await.unwrap();

    // What a holder that is frozen looks like to the store: its key goes.
    let waiting = lock(&new);
    let next = tokio::spawn(async move { waiting.acquire().await });
    old.delete("lock").await.unwrap();
    let second = timeout(SOON, next).await.unwrap().unwrap().unwrap();
    assert!(second.token() > first.token());
    assert_eq!(protected(&old, &first, "mine still".into()).await, None);
    let fenced = async |tenant: &Tenant, held: &LockGuard| {
        let txn = tenant.txn().when("fence", held.fence());
        txn.then(Op::put("fence", held.mark())).send().await.unwrap().succeeded
    };
    assert!(fenced(&new, &second).await);
    assert!(!fenced(&old, &first).await, "a later holder was here");
    assert!(fenced(&new, &second).await, "its own mark does not stop it");
    timeout(SOON, first.lost()).await.unwrap();
    assert!(first.is_lost() && !second.is_lost());
    assert!(first.renew().await.is_err());
    assert!(
        !first.release().await.unwrap(),
        "it is not the old holder's to give back"
    );
    assert!(second.release().await.unwrap());

    // Dropped, and given back in the background, long before its time is over.
    let long = Lock::new(&old, "lock", Duration::from_secs(3600)).unwrap();
    drop(long.acquire().await.unwrap());
    let begun = Instant::now();
    drop(timeout(SOON, lock(&new).acquire()).await.unwrap().unwrap());
    assert!(begun.elapsed() < SOON);
}

#[tokio::test]
async fn one_who_cannot_reach_the_home_is_told_before_another_one_has_the_lock() {
    let _alone = alone();
    let cluster = cluster().await;
    let (far, near) = (service(&cluster, "us-east").await, service(&cluster, "eu-west").await);
    let held = lock(&far).acquire().await.unwrap();
    cluster.cut("eu-west", "us-east").unwrap();
    let told = async {
        held.lost().await;
        Instant::now()
    };
    let taken = async {
        let next = lock(&near).acquire().await.unwrap();
        (Instant::now(), next)
    };
    let (told, (taken, next)) = timeout(SOON * 2, async { tokio::join!(told, taken) }).await.unwrap();
    assert!(told <= taken, "it went on for {:?}", told - taken);
    assert!(next.token() > held.token());
    cluster.heal_all();
}
