use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use stead_client::{
    ErrorKind,
    recipes::{Credits, Overdraft, SettleOutcome},
};
use stead_tests::process::exclusive_lock;
use tokio::{task::JoinSet, time::sleep};

use super::{cluster, kill_leaders, retry_until_known, service};

const WORKERS: u64 = 16;
const GRANT: u64 = 1_000;
/// Reservations of services that died are reclaimed after this time.
const TTL: Duration = Duration::from_millis(400);
/// TTL of reservations that do not expire in a test.
const LONG: Duration = Duration::from_secs(600);

/// Counts of the workers' known outcomes.
#[derive(Default)]
struct WorkerCounts {
    spent: AtomicU64,
    settled: AtomicU64,
    refused: AtomicU64,
    abandoned: AtomicU64,
}

/// Reserves, works and settles, or dies in between. Some work so slowly that their reservation is reclaimed before.
async fn work(credits: Credits, worker: u64, counts: Arc<WorkerCounts>, stop: Arc<AtomicBool>) {
    let mut random = StdRng::seed_from_u64(worker);
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let id = format!("{worker}-{number}");
        let (estimate, actual) = (random.random_range(1..150), random.random_range(0..200));
        let slow = random.random_bool(0.1);
        let reserved = retry_until_known(|| async {
            match credits.reserve(&id, estimate, TTL).await {
                // It was reserved by an attempt of unknown outcome, and reclaimed since.
                Err(error) if error.kind == ErrorKind::Conflict => Ok(None),
                other => other,
            }
        });
        let Some(reservation) = reserved.await else {
            counts.refused.fetch_add(1, Ordering::Relaxed);
            sleep(Duration::from_millis(10)).await;
            continue;
        };
        if random.random_bool(0.2) {
            counts.abandoned.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        let pause = if slow { TTL * 2 } else { Duration::from_millis(5) };
        sleep(pause).await;
        let settle = || credits.settle(&reservation, actual, Overdraft::Refused);
        match retry_until_known(settle).await {
            SettleOutcome::Spent(spent) => {
                assert_eq!(spent, actual);
                counts.spent.fetch_add(spent, Ordering::Relaxed);
                counts.settled.fetch_add(1, Ordering::Relaxed);
            }
            SettleOutcome::InsufficientBalance(_) => {
                // Never more than was reserved: that is always there, unless it was reclaimed.
                let less = || async {
                    credits
                        .settle(&reservation, actual.min(estimate), Overdraft::Refused)
                        .await
                };
                if let SettleOutcome::Spent(spent) = retry_until_known(less).await {
                    counts.spent.fetch_add(spent, Ordering::Relaxed);
                }
            }
            SettleOutcome::Gone => panic!("{id} is remembered for a day"),
        }
    }
}

#[tokio::test]
async fn credits_balance_while_services_and_leaders_die() {
    let _lock = exclusive_lock();
    let cluster = cluster().await;
    let regions = ["eu-west", "us-east"];
    let first = Credits::new(&service(&cluster, "eu-west").await, "credits").unwrap();
    retry_until_known(|| first.grant("november", GRANT)).await;
    let (counts, stop) = (Arc::new(WorkerCounts::default()), Arc::new(AtomicBool::new(false)));
    let mut workers = JoinSet::new();
    for worker in 0..WORKERS {
        let region = regions[usize::try_from(worker).unwrap() % regions.len()];
        let credits = Credits::new(&service(&cluster, region).await, "credits").unwrap();
        workers.spawn(work(credits, worker, counts.clone(), stop.clone()));
    }
    let grants = async {
        for day in 0..8 {
            sleep(Duration::from_millis(300)).await;
            let id = format!("day {day}");
            // Sent twice, granted once.
            for _ in 0..2 {
                retry_until_known(|| first.grant(&id, GRANT)).await;
            }
            let account = retry_until_known(|| first.account()).await;
            assert!(account.is_balanced(), "in the middle of it: {account:?}");
        }
    };
    tokio::join!(kill_leaders(&cluster, 2), grants);
    stop.store(true, Ordering::Relaxed);
    while let Some(worker) = workers.join_next().await {
        worker.unwrap();
    }
    // The last reservation expires soon after it was made.
    sleep(TTL * 2).await;
    retry_until_known(|| first.reclaim()).await;
    let account = retry_until_known(|| first.account()).await;
    assert!(account.is_balanced(), "{account:?}");
    assert_eq!((account.reserved, account.reservations), (0, 0), "{account:?}");
    assert_eq!(account.granted, GRANT * 9);
    assert_eq!(
        account.spent,
        counts.spent.load(Ordering::Relaxed),
        "each was settled once"
    );
    assert!(account.balance >= 0, "{account:?}");
    for (what, count) in [
        ("settled", &counts.settled),
        ("refused", &counts.refused),
        ("abandoned", &counts.abandoned),
    ] {
        assert!(
            count.load(Ordering::Relaxed) > 0,
            "nothing was {what}: the test shows nothing"
        );
    }
}

#[tokio::test]
async fn credit_reservation_is_settled_once() {
    let _lock = exclusive_lock();
    let cluster = cluster().await;
    let credits = Credits::new(&service(&cluster, "eu-west").await, "credits").unwrap();
    let elsewhere = Credits::new(&service(&cluster, "us-east").await, "credits").unwrap();
    assert_eq!(credits.reserve("early", 1, LONG).await.unwrap(), None);
    credits.grant("g", 100).await.unwrap();
    assert_eq!(credits.grant("g", 99).await.unwrap_err().kind, ErrorKind::Conflict);

    let first = credits.reserve("a", 60, LONG).await.unwrap().unwrap();
    assert_eq!(elsewhere.reserve("a", 60, LONG).await.unwrap(), Some(first.clone()));
    assert_eq!(elsewhere.find("a").await.unwrap(), Some(first.clone()));
    assert_eq!(credits.reserve("b", 41, LONG).await.unwrap(), None);
    // 40 are left, and 60 reserved: 101 cannot be paid.
    let refused = Overdraft::Refused;
    assert_eq!(
        credits.settle(&first, 101, refused).await.unwrap(),
        SettleOutcome::InsufficientBalance(40)
    );
    assert_eq!(
        credits.settle(&first, 70, refused).await.unwrap(),
        SettleOutcome::Spent(70)
    );
    assert_eq!(
        elsewhere.settle(&first, 5, refused).await.unwrap(),
        SettleOutcome::Spent(70)
    );
    assert_eq!(credits.release(&first).await.unwrap(), SettleOutcome::Spent(70));
    assert_eq!(
        credits.reserve("a", 60, LONG).await.unwrap_err().kind,
        ErrorKind::Conflict
    );

    // The service dies; the next one that is refused reclaims its reservation.
    let dead = credits.reserve("dead", 30, TTL).await.unwrap().unwrap();
    assert_eq!(
        elsewhere.reserve("next", 30, TTL).await.unwrap(),
        None,
        "its time is not over"
    );
    sleep(TTL + Duration::from_millis(200)).await;
    let next = elsewhere.reserve("next", 30, LONG).await.unwrap().unwrap();
    assert_eq!(credits.reclaim().await.unwrap(), 0);
    // It was not dead after all, and settles late.
    assert_eq!(
        credits.settle(&dead, 10, refused).await.unwrap(),
        SettleOutcome::InsufficientBalance(0)
    );
    let allowed = Overdraft::Allowed;
    assert_eq!(
        credits.settle(&dead, 10, allowed).await.unwrap(),
        SettleOutcome::Spent(10)
    );
    assert_eq!(
        credits.settle(&dead, 10, allowed).await.unwrap(),
        SettleOutcome::Spent(10)
    );
    let account = credits.account().await.unwrap();
    assert_eq!((account.balance, account.reserved, account.spent), (-10, 30, 80));
    assert_eq!(elsewhere.release(&next).await.unwrap(), SettleOutcome::Spent(0));
    let account = elsewhere.account().await.unwrap();
    assert!(account.is_balanced(), "{account:?}");
    assert_eq!((account.balance, account.reserved, account.spent), (20, 0, 80));

    // No reservation was refused meanwhile, so that it is still there: reserving it again renews its whole TTL.
    let old = credits.reserve("late", 10, TTL).await.unwrap().unwrap();
    sleep(TTL + Duration::from_millis(200)).await;
    let again = elsewhere.reserve("late", 10, LONG).await.unwrap().unwrap();
    assert!(again.deadline() > old.deadline(), "{again:?} {old:?}");
    assert_eq!(credits.reclaim().await.unwrap(), 0, "its time is not over");
    assert_eq!(
        credits.settle(&old, 10, refused).await.unwrap(),
        SettleOutcome::Spent(10)
    );
    let account = elsewhere.account().await.unwrap();
    assert!(account.is_balanced(), "{account:?}");
    assert_eq!((account.balance, account.reservations, account.spent), (10, 0, 90));
}
