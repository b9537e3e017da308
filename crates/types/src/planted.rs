//! Planted bugs (fault seeding): bugs that tests can switch on to see which checker finds them. A checker that has
//! never failed is not known to work.
//!
//! The switch is the environment variable [`VARIABLE`], with the name of one bug, in the process that is to have it.
//! The switches exist only with the feature `planted`, which nothing but `tests/planted.sh` asks for: without it
//! [`is`] is a constant `false`. A build with the feature and without debug assertions, as a release is, does not
//! compile.

#[cfg(all(feature = "planted", not(debug_assertions)))]
compile_error!("the feature `planted` of stead-types is for tests: no release may have it");

/// Environment variable that names the active bug.
pub const VARIABLE: &str = "STEAD_PLANTED";

/// Switch of one planted bug. Each occurs in the code in one place, in one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "ALL says what each of them is")]
pub enum Bug {
    LogNotSynced,
    VoteNotSynced,
    VoteLostAtTruncation,
    ReadRoundJoined,
    ReadIndexSkipped,
    ReadBeforeApply,
    DurableAheadOfFreeze,
    WindowsNotFlushed,
    InstallUnpinned,
    SnapshotWithoutWindows,
    SnapshotCutLate,
    CheckpointNotWritten,
    LostDiskAdmitted,
    SeedToAnybody,
    FeedToAnybody,
    FeedOpenedUnread,
    PongBeforeData,
    FreshFromAnswer,
    FeedGapIgnored,
    FeedDigestNotCompared,
    SwapDigestNotCompared,
    UnknownFollowerHoldsNothing,
    TrimmedAboveFloor,
    SessionGateEarly,
    BoundIgnored,
    ServingCheckIgnored,
    LateCalledUndone,
    ProposedTwice,
    WindowNotChecked,
    EdgeNotRaised,
    ConditionsIgnored,
    TxnTorn,
    EpochNotGuarded,
    ExpiredTooEarly,
    NeverExpired,
    WatchSkipsOne,
    WatchRepeatsOne,
    LockCountedFromAnswer,
}

/// Description of a planted bug.
#[derive(Clone, Copy, Debug)]
pub struct PlantedBug {
    /// The bug.
    pub bug: Bug,
    /// Name in the environment and in tables.
    pub name: &'static str,
    /// Wrong behaviour.
    pub wrong: &'static str,
    /// Rule or invariant that it breaks.
    pub breaks: &'static str,
}

const fn planted(bug: Bug, name: &'static str, wrong: &'static str, breaks: &'static str) -> PlantedBug {
    PlantedBug {
        bug,
        name,
        wrong,
        breaks,
    }
}

/// All planted bugs.
#[rustfmt::skip]
pub const ALL: &[PlantedBug] = &[
    planted(Bug::LogNotSynced, "log-not-synced", "entries count as durable once they are written", "raft/log.rs 1"),
    planted(Bug::VoteNotSynced, "vote-not-synced", "a vote counts as durable once it is written", "raft/log.rs 1"),
    planted(Bug::VoteLostAtTruncation, "vote-lost-at-truncation", "the vote is not saved again after a truncation, so it is not durable", "raft/log.rs 2"),
    planted(Bug::ReadRoundJoined, "read-round-joined", "a read that arrives during a read index round is answered by that round", "raft/read_index.rs 1"),
    planted(Bug::ReadIndexSkipped, "read-index-skipped", "a read index is returned without a round", "PROTOCOL \"Leases\" 4"),
    planted(Bug::ReadBeforeApply, "read-before-apply", "a read does not wait until its index is applied", "PROTOCOL \"Reads\""),
    planted(Bug::DurableAheadOfFreeze, "durable-ahead-of-freeze", "the durable position is taken after the checkpoint, not when its rows were frozen", "store/group_rows 2"),
    planted(Bug::WindowsNotFlushed, "windows-not-flushed", "a checkpoint leaves out the idempotency windows", "store/group_rows 1"),
    planted(Bug::InstallUnpinned, "install-unpinned", "maintenance goes on while a snapshot is installed", "store/shard/install.rs"),
    planted(Bug::SnapshotWithoutWindows, "snapshot-without-windows", "a snapshot leaves out the idempotency windows", "CONTRIBUTING \"Add a kind of row\""),
    planted(Bug::SnapshotCutLate, "snapshot-cut-late", "a snapshot has changes from after its cut", "store/shard/snapshot.rs"),
    planted(Bug::CheckpointNotWritten, "checkpoint-not-written", "applied entries count as durable without a checkpoint, and the log is purged up to them", "raft/log_compaction.rs 1"),
    planted(Bug::LostDiskAdmitted, "lost-disk-admitted", "a voter that lost its disk joins its group again", "raft/group_bootstrap.rs 1"),
    planted(Bug::SeedToAnybody, "seed-to-anybody", "chunks of a seed go to a group that may not follow", "PROTOCOL \"Residency\""),
    planted(Bug::FeedToAnybody, "feed-to-anybody", "batches go to a group that may not follow", "PROTOCOL \"Residency\""),
    planted(Bug::FeedOpenedUnread, "feed-opened-unread", "a feed is opened without a read index", "replication/source/open.rs"),
    planted(Bug::PongBeforeData, "pong-before-data", "a ping is answered before earlier batches are sent", "PROTOCOL \"Freshness without clocks\""),
    planted(Bug::FreshFromAnswer, "fresh-from-answer", "staleness is counted from a ping's response, not from its send time", "PROTOCOL \"Freshness without clocks\""),
    planted(Bug::FeedGapIgnored, "feed-gap-ignored", "a follower applies changes after a gap", "PROTOCOL `Data`"),
    planted(Bug::FeedDigestNotCompared, "feed-digest-not-compared", "a follower does not compare digests", "PROTOCOL \"Digests\""),
    planted(Bug::SwapDigestNotCompared, "swap-digest-not-compared", "a seeded copy is swapped in without comparing digests", "PROTOCOL `Swap`"),
    planted(Bug::UnknownFollowerHoldsNothing, "unknown-follower-holds-nothing", "a follower of unknown position holds no history", "replication/retention 3"),
    planted(Bug::TrimmedAboveFloor, "trimmed-above-floor", "versions are removed up to the last change, not up to the retention floor", "PROTOCOL \"Floor\""),
    planted(Bug::SessionGateEarly, "session-gate-early", "a session is served one revision before its token", "state/freshness/gate.rs 1"),
    planted(Bug::BoundIgnored, "bound-ignored", "a bounded read is served from a copy of any staleness", "state/freshness/gate.rs 4"),
    planted(Bug::ServingCheckIgnored, "serving-check-ignored", "a write is acknowledged though the serving check failed", "PROTOCOL \"Leases\" 5"),
    planted(Bug::LateCalledUndone, "late-called-undone", "a write whose deadline passes while it is in flight is answered as not executed", "PROTOCOL \"Leases\" 5"),
    planted(Bug::ProposedTwice, "proposed-twice", "commands whose leader changed are proposed again", "raft/proposer.rs 1"),
    planted(Bug::WindowNotChecked, "window-not-checked", "a repeated write is executed again", "PROTOCOL \"Idempotency\""),
    planted(Bug::EdgeNotRaised, "edge-not-raised", "an evicted outcome does not raise the window's lower edge", "state/shard/idempotency_window.rs 1"),
    planted(Bug::ConditionsIgnored, "conditions-ignored", "a transaction's conditions are not evaluated", "the API's promise"),
    planted(Bug::TxnTorn, "txn-torn", "a transaction loses its last effect", "the API's promise"),
    planted(Bug::EpochNotGuarded, "epoch-not-guarded", "feed data of another epoch's session is applied", "PROTOCOL `Data`"),
    planted(Bug::ExpiredTooEarly, "expired-too-early", "a key with a TTL expires after half its time", "PROTOCOL \"Time inside the data\""),
    planted(Bug::NeverExpired, "never-expired", "an expired key is not removed", "PROTOCOL \"Time inside the data\""),
    planted(Bug::WatchSkipsOne, "watch-skips-one", "a watch that resumes from history skips a change", "server/watch/hub.rs 1"),
    planted(Bug::WatchRepeatsOne, "watch-repeats-one", "a resumed watch repeats a change", "server/watch/hub.rs 1"),
    planted(Bug::LockCountedFromAnswer, "lock-counted-from-answer", "a lock's TTL is counted from the response, not from the request", "client/recipes/lock"),
];

/// Tells whether a bug is active in this process.
#[cfg(not(feature = "planted"))]
#[inline]
pub const fn is(_: Bug) -> bool {
    false
}

/// Tells whether a bug is active in this process.
#[cfg(feature = "planted")]
pub fn is(bug: Bug) -> bool {
    let is = switch::bug() == Some(bug);
    if is {
        switch::REACHED.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
    is
}

/// Returns how often the active bug was reached.
#[cfg(feature = "planted")]
pub fn reached() -> u64 {
    switch::REACHED.load(std::sync::atomic::Ordering::Relaxed)
}

#[cfg(feature = "planted")]
mod switch {
    use std::sync::{OnceLock, atomic::AtomicU64};

    use super::{ALL, Bug, VARIABLE};

    pub(super) static REACHED: AtomicU64 = AtomicU64::new(0);
    static BUG: OnceLock<Option<Bug>> = OnceLock::new();

    pub(super) fn bug() -> Option<Bug> {
        *BUG.get_or_init(|| {
            let name = std::env::var(VARIABLE).unwrap_or_default();
            let name = name.trim();
            let known = ALL.iter().find(|planted| planted.name == name);
            assert!(known.is_some() || name.is_empty(), "{VARIABLE}: there is no bug {name}");
            known.map(|planted| planted.bug)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bug_has_one_line_and_unique_name() {
        for (position, planted) in ALL.iter().enumerate() {
            assert_eq!(
                planted.bug as usize, position,
                "{} stands in the order of bugs",
                planted.name
            );
            assert!(!ALL[..position].iter().any(|other| other.name == planted.name));
        }
    }

    #[cfg(not(feature = "planted"))]
    #[test]
    fn bug_cannot_be_activated_without_feature() {
        const { assert!(!is(Bug::LogNotSynced)) };
    }
}
