//! Tests of outgoing seeds.

use stead_types::Incarnation;

use super::*;

const T: TenantNumber = TenantNumber::new(7);
const F: GroupId = GroupId::new(2);
const LIMITS: SeedLimits = SeedLimits {
    history_max: 10_000,
    bytes_per_second_max: 1 << 20,
};

fn at(number: u64) -> Revision {
    Revision::new(Epoch::FIRST, Sequence::new(number).unwrap())
}

fn start(first: u64) -> SeedStart {
    SeedStart {
        epoch: Epoch::FIRST,
        first: at(first),
        keys: 0,
        bytes: 0,
        state: Some(TenantUsage {
            keys: 1_000,
            bytes: 1_000_000,
        }),
    }
}

fn version(index: u64) -> DirectoryVersion {
    let incarnation = Incarnation::FIRST;
    DirectoryVersion { incarnation, index }
}

/// Writes and copies for some seconds, at these rates.
async fn run(seeds: &OutgoingSeeds, seconds: u64, written: u64, copied: u64) {
    let usage = TenantUsage {
        keys: 1_000,
        bytes: 1_000_000,
    };
    for _ in 0..seconds {
        let (.., reached) = seeds.keys()[0];
        seeds.record_request(T, written);
        seeds.record_history(T, F, written, reached.next().unwrap());
        if copied > 0 {
            seeds.record_chunk(T, F, 1, copied);
        }
        tokio::time::advance(Duration::from_secs(1)).await;
        seeds.observe(T, F, usage, version(1));
    }
}

/// Invariant 1.
#[tokio::test(start_paused = true)]
async fn history_is_held_until_the_copy_is_attached() {
    let seeds = OutgoingSeeds::new(LIMITS);
    seeds.begin(T, F, start(10)).unwrap();
    seeds.begin(T, GroupId::new(3), start(5)).unwrap();
    assert_eq!(seeds.holds(), [(T, at(5))].into());
    seeds.complete(T, GroupId::new(3));
    seeds.catch_up(T, F, Epoch::FIRST, at(12)).unwrap();
    assert_eq!(
        seeds.holds(),
        [(T, at(10))].into(),
        "all of it, until it is acknowledged"
    );
    seeds.complete(T, F);
    assert!(seeds.holds().is_empty() && !seeds.is_seeding(T, F));
}

/// Invariant 2.
#[tokio::test(start_paused = true)]
async fn seed_that_could_not_catch_up_is_refused_until_its_tenant_changes() {
    let seeds = OutgoingSeeds::new(LIMITS);
    seeds.begin(T, F, start(10)).unwrap();
    run(&seeds, 11, 1_000, 50_000).await;
    assert_eq!(seeds.write_rate(T).map(|rate| (800..1_000).contains(&rate)), Some(true));
    run(&seeds, 30, 1_000, 1_000).await;
    let failure = seeds.failure(T, F, version(1)).unwrap();
    assert_eq!(failure.reason, SeedFailureReason::CannotCatchUp);
    assert_eq!(
        (seeds.begin(T, F, start(60)), seeds.write_rate(T)),
        (Err(failure), None)
    );
    assert!(seeds.is_refused(T, F) && seeds.holds().is_empty());
    assert_eq!(seeds.failure(T, F, version(2)), None, "a move that was planned later");
    seeds.observe(T, F, TenantUsage::default(), version(1));
    assert!(seeds.is_refused(T, F));
    seeds.observe(T, F, TenantUsage::default(), version(2));
    assert_eq!(seeds.begin(T, F, start(60)), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn stalled_seed_begins_again_with_its_follower() {
    let seeds = OutgoingSeeds::new(LIMITS);
    seeds.begin(T, F, start(10)).unwrap();
    run(&seeds, 20, 1_000, 0).await;
    assert_eq!(
        seeds.failure(T, F, version(1)).map(|failure| failure.reason),
        Some(SeedFailureReason::Stalled)
    );
    assert!(seeds.holds().is_empty() && !seeds.is_refused(T, F));
    seeds.begin(T, F, start(30)).unwrap();
    assert_eq!(seeds.holds(), [(T, at(30))].into());
}

/// Writes after the start are history, and count once.
#[tokio::test(start_paused = true)]
async fn bytes_to_go_are_state_at_start_and_history() {
    let seeds = OutgoingSeeds::new(LIMITS);
    let progress = || seeds.progress()[0];
    seeds.begin(T, F, start(10)).unwrap();
    assert_eq!(
        (progress().bytes, progress().bytes_total),
        (0, 1_000_000),
        "known at once"
    );
    seeds.record_chunk(T, F, 600, 600_000);
    seeds.record_history(T, F, 5_000, at(20).sequence());
    let grown = TenantUsage {
        keys: 1_010,
        bytes: 1_005_000,
    };
    seeds.observe(T, F, grown, version(1));
    assert_eq!(progress().bytes_to_go, 400_000 + 5_000);
    assert_eq!((progress().keys_total, progress().bytes_total), (1_000, 1_000_000));
}

/// A new leader learns of the seed from the opening of a stream.
#[tokio::test(start_paused = true)]
async fn state_of_seed_that_goes_on_is_measured_once() {
    let seeds = OutgoingSeeds::new(LIMITS);
    seeds
        .begin(
            T,
            F,
            SeedStart {
                state: None,
                ..start(10)
            },
        )
        .unwrap();
    for bytes in [700_000, 900_000] {
        seeds.observe(T, F, TenantUsage { keys: 9, bytes }, version(1));
        assert_eq!(seeds.progress()[0].bytes_total, 700_000);
    }
}

/// Beyond the cap, a seed of which only client windows are left advances with each chunk of them.
#[tokio::test(start_paused = true)]
async fn chunks_of_client_windows_are_progress() {
    for (windows, is_running) in [(1_000, true), (0, false)] {
        let seeds = OutgoingSeeds::new(LIMITS);
        seeds.begin(T, F, start(10)).unwrap();
        // The rest of its keys is replaced by now.
        seeds.record_chunk(T, F, 800, 800_000);
        seeds.record_history(T, F, 10_500, at(20).sequence());
        for _ in 0..30 {
            if windows > 0 {
                seeds.record_windows(T, F, windows);
            }
            tokio::time::advance(Duration::from_secs(1)).await;
            seeds.observe(T, F, TenantUsage::default(), version(1));
        }
        assert_eq!(seeds.is_seeding(T, F), is_running, "{:?}", seeds.progress());
    }
}

/// Neither is a range of the log whose changes are all replaced a stall.
#[tokio::test(start_paused = true)]
async fn chunks_without_keys_are_progress() {
    let seeds = OutgoingSeeds::new(LIMITS);
    seeds.begin(T, F, start(10)).unwrap();
    seeds.record_chunk(T, F, 0, 0);
    seeds.record_history(T, F, 10_500, at(20).sequence());
    for _ in 0..15 {
        seeds.record_chunk(T, F, 0, 0);
        tokio::time::advance(Duration::from_secs(1)).await;
        seeds.observe(T, F, TenantUsage::default(), version(1));
    }
    assert!(seeds.is_seeding(T, F), "{:?}", seeds.progress());
}
