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
    recipes::{Credits, Overdraft, Settled},
};
use stead_tests::process::alone;
use tokio::{task::JoinSet, time::sleep};

use super::{cluster, kill_leaders, service, settled};

const WORKERS: u64 = 16;
const GRANTED: u64 = 1_000;
/// Reservations whose service died are given back after this.
const TTL: Duration = Duration::from_millis(400);
/// One that a living service never outlasts.
const LONG: Duration = Duration::from_secs(600);

/// What the workers know to have happened.
#[derive(Default)]
struct Known {
    spent: AtomicU64,
    settled: AtomicU64,
    refused: AtomicU64,
    abandoned: AtomicU64,
}

/// Reserves, works, settles; or dies in between. Some are so slow that their reservation is given back before.
async fn work(credits: Credits, worker: u64, known: Arc<Known>, over: Arc<AtomicBool>) {
    let mut random = StdRng::seed_from_u64(worker);
    let mut number = 0;
    while !over.load(Ordering::Relaxed) {
        number += 1;
        let id = format!("{worker}-{number}");
        let (estimate, actual) = (random.random_range(1..150), random.random_range(0..200));
        let slow = random.random_bool(0.1);
        let reserved = settled(|| async {
            match credits.reserve(&id, estimate, TTL).await {
                // It was reserved by an attempt that was not known, and given back since.
                Err(error) if error.kind == ErrorKind::Conflict => Ok(None),
                other => other,
            }
        });
        let Some(reservation) = reserved.await else {
            known.refused.fetch_add(1, Ordering::Relaxed);
            sleep(Duration::from_millis(10)).await;
            continue;
        };
        if random.random_bool(0.2) {
            known.abandoned.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        let pause = if slow { TTL * 2 } else { Duration::from_millis(5) };
        sleep(pause).await;
        let settle = || credits.settle(&reservation, actual, Overdraft::Refused);
        match settled(settle).await {
            Settled::Spent(spent) => {
                assert_eq!(spent, actual);
                known.spent.fetch_add(spent, Ordering::Relaxed);
                known.settled.fetch_add(1, Ordering::Relaxed);
            }
            Settled::Short(_) => {
                // Never more than was set aside: that is always there, unless it was given back.
                let less = || async {
                    credits
                        .settle(&reservation, actual.min(estimate), Overdraft::Refused)
                        .await
                };
                if let Settled::Spent(spent) = settled(less).await {
                    known.spent.fetch_add(spent, Ordering::Relaxed);
                }
            }
            Settled::Gone => panic!("{id} is remembered for a day"),
        }
    }
}

#[tokio::test]
async fn c1_not_one_credit_is_lost_or_made_while_services_and_leaders_die() {
    let _alone = alone();
    let cluster = cluster().await;
    let regions = ["eu-west", "us-east"];
    let first = Credits::new(&service(&cluster, "eu-west").await, "credits").unwrap();
    settled(|| first.grant("november", GRANTED)).await;
    let (known, over) = (Arc::new(Known::default()), Arc::new(AtomicBool::new(false)));
    let mut workers = JoinSet::new();
    for worker in 0..WORKERS {
        let region = regions[usize::try_from(worker).unwrap() % regions.len()];
        let credits = Credits::new(&service(&cluster, region).await, "credits").unwrap();
        workers.spawn(work(credits, worker, known.clone(), over.clone()));
    }
    let topping = async {
        for day in 0..8 {
            sleep(Duration::from_millis(300)).await;
            let id = format!("day {day}");
            // Asked twice, granted once.
            for _ in 0..2 {
                settled(|| first.grant(&id, GRANTED)).await;
            }
            let account = settled(|| first.account()).await;
            assert!(account.is_balanced(), "in the middle of it: {account:?}");
        }
    };
    tokio::join!(kill_leaders(&cluster, 2), topping);
    over.store(true, Ordering::Relaxed);
    while let Some(worker) = workers.join_next().await {
        worker.unwrap();
    }
    // Their time is over soon after the last one was made.
    sleep(TTL * 2).await;
    settled(|| first.reclaim()).await;
    let account = settled(|| first.account()).await;
    assert!(account.is_balanced(), "{account:?}");
    assert_eq!((account.reserved, account.reservations), (0, 0), "{account:?}");
    assert_eq!(account.granted, GRANTED * 9);
    assert_eq!(
        account.spent,
        known.spent.load(Ordering::Relaxed),
        "each was settled once"
    );
    assert!(account.balance >= 0, "{account:?}");
    for (what, count) in [
        ("settled", &known.settled),
        ("refused", &known.refused),
        ("abandoned", &known.abandoned),
    ] {
        assert!(
            count.load(Ordering::Relaxed) > 0,
            "nothing was {what}: the test shows nothing"
        );
    }
}

#[tokio::test]
async fn c2_a_reservation_ends_once_whoever_asks_and_however_late() {
    let _alone = alone();
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
    // 40 are left, and 60 set aside: 101 cannot be paid.
    let refused = Overdraft::Refused;
    assert_eq!(credits.settle(&first, 101, refused).await.unwrap(), Settled::Short(40));
    assert_eq!(credits.settle(&first, 70, refused).await.unwrap(), Settled::Spent(70));
    assert_eq!(elsewhere.settle(&first, 5, refused).await.unwrap(), Settled::Spent(70));
    assert_eq!(credits.release(&first).await.unwrap(), Settled::Spent(70));
    assert_eq!(
        credits.reserve("a", 60, LONG).await.unwrap_err().kind,
        ErrorKind::Conflict
    );

    // The service dies; the next one who is refused gets what it had set aside.
    let dead = credits.reserve("dead", 30, TTL).await.unwrap().unwrap();
    assert_eq!(
        elsewhere.reserve("next", 30, TTL).await.unwrap(),
        None,
        "its time is not over"
    );
    sleep(TTL + Duration::from_millis(200)).await;
    let next = elsewhere.reserve("next", 30, LONG).await.unwrap().unwrap();
    assert_eq!(credits.reclaim().await.unwrap(), 0);
    // It was not dead after all, and is charged as late as it comes.
    assert_eq!(credits.settle(&dead, 10, refused).await.unwrap(), Settled::Short(0));
    let allowed = Overdraft::Allowed;
    assert_eq!(credits.settle(&dead, 10, allowed).await.unwrap(), Settled::Spent(10));
    assert_eq!(credits.settle(&dead, 10, allowed).await.unwrap(), Settled::Spent(10));
    let account = credits.account().await.unwrap();
    assert_eq!((account.balance, account.reserved, account.spent), (-10, 30, 80));
    assert_eq!(elsewhere.release(&next).await.unwrap(), Settled::Spent(0));
    let account = elsewhere.account().await.unwrap();
    assert!(account.is_balanced(), "{account:?}");
    assert_eq!((account.balance, account.reserved, account.spent), (20, 0, 80));

    // Nobody was refused meanwhile, so that it is still there: whoever asks for it has it for the whole time.
    let old = credits.reserve("late", 10, TTL).await.unwrap().unwrap();
    sleep(TTL + Duration::from_millis(200)).await;
    let again = elsewhere.reserve("late", 10, LONG).await.unwrap().unwrap();
    assert!(again.deadline() > old.deadline(), "{again:?} {old:?}");
    assert_eq!(credits.reclaim().await.unwrap(), 0, "its time is not over");
    assert_eq!(credits.settle(&old, 10, refused).await.unwrap(), Settled::Spent(10));
    let account = elsewhere.account().await.unwrap();
    assert!(account.is_balanced(), "{account:?}");
    assert_eq!((account.balance, account.reservations, account.spent), (10, 0, 90));
}
