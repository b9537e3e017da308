use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use stead_client::{
    KeyRange, Revision, WatchFrom, WatchMessage, WatchOptions,
    recipes::{RateLimitDecision, RateLimiter},
};
use stead_tests::process::exclusive_lock;
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{cluster, is_transient, kill_leaders, retry_until_known, service};

const LIMIT: u64 = 20;
const WINDOW: Duration = Duration::from_millis(500);
const CALLERS: usize = 8;

async fn ask(limiter: RateLimiter, stop: Arc<AtomicBool>) -> (Vec<Revision>, u64) {
    let (mut admitted, mut refused) = (Vec::new(), 0);
    while !stop.load(Ordering::Relaxed) {
        match limiter.admit(1).await {
            Ok(RateLimitDecision::Admitted(one)) => admitted.push(one.header.revision),
            Ok(RateLimitDecision::Wait(wait)) => {
                assert!(!wait.is_zero() && wait <= WINDOW, "{wait:?}");
                refused += 1;
                // Sooner than the response says, so that the end of each window is tried as well.
                sleep(wait / 4).await;
            }
            Err(error) => assert!(is_transient(&error.kind), "{error}"),
        }
    }
    (admitted, refused)
}

#[tokio::test]
async fn rate_limiter_keeps_its_limit_while_leaders_die() {
    let _lock = exclusive_lock();
    let cluster = cluster().await;
    let watching = service(&cluster, "us-east").await;
    let watch = WatchOptions {
        ranges: vec![KeyRange::key("limit")],
        from: WatchFrom::Now,
        ..WatchOptions::default()
    };
    let mut counts = watching.watch(watch).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let mut callers = JoinSet::new();
    for number in 0..CALLERS {
        let tenant = service(&cluster, ["eu-west", "us-east"][number % 2]).await;
        let limiter = RateLimiter::new(&tenant, "limit", LIMIT, WINDOW).unwrap();
        callers.spawn(ask(limiter, stop.clone()));
    }
    kill_leaders(&cluster, 2).await;
    stop.store(true, Ordering::Relaxed);
    let (mut admitted, mut refused) = (BTreeSet::new(), 0);
    while let Some(asked) = callers.join_next().await {
        let (by_one, refused_one) = asked.unwrap();
        refused += refused_one;
        for revision in by_one {
            assert!(admitted.insert(revision), "{revision} admitted two");
        }
    }
    assert!(refused > 0, "the limit was never reached: the test shows nothing");

    // A window begins where the count starts again: the counts of the store, in its order.
    let last = *admitted.last().unwrap();
    let (mut window, mut before, mut windows) = (0, 0, BTreeMap::<u32, Vec<Revision>>::new());
    let mut reached = Revision::ZERO;
    while reached < last {
        let message = timeout(Duration::from_secs(30), counts.next()).await.unwrap().unwrap();
        let WatchMessage::Changes(events) = message else {
            continue;
        };
        for event in events {
            let count: u64 = String::from_utf8_lossy(&event.item.value).parse().unwrap();
            window += u32::from(count <= before);
            before = count;
            reached = event.item.modified;
            if admitted.remove(&reached) {
                windows.entry(window).or_default().push(reached);
            }
        }
    }
    assert!(admitted.is_empty(), "admitted without a count: {admitted:?}");
    let full = windows.values().filter(|window| window.len() as u64 == LIMIT).count();
    assert!(windows.len() > 3 && full > 1, "{windows:?}");
    for window in windows.values() {
        assert!(window.len() as u64 <= LIMIT, "{window:?}");
    }
}

#[tokio::test]
async fn rate_limiter_windows_are_one_window_apart() {
    let _lock = exclusive_lock();
    let cluster = cluster().await;
    let tenant = service(&cluster, "eu-west").await;
    let limiter = RateLimiter::new(&tenant, "limit", 1, WINDOW).unwrap();
    let mut windows = BTreeSet::new();
    for _ in 0..3 {
        limiter.wait(1).await.unwrap();
        let RateLimitDecision::Wait(wait) = limiter.admit(1).await.unwrap() else {
            panic!("one only");
        };
        assert!(wait <= WINDOW);
        let item = retry_until_known(|| tenant.get("limit")).await;
        assert!(windows.insert(item.header.tenant_time.0 / 500), "two in one window");
    }
    assert!(limiter.admit(2).await.unwrap_err().message.contains("limit of 1"));
}
