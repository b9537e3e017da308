//! Floors and resume points name a change by the epoch that it was made in, and an owner knows when its keys expire,
//! however it got its copy.

use bytes::Bytes;
use stead_types::{Revision, Sequence, TenantTime};

use super::group::{Group, TENANT, epoch, revision};
use crate::shard::{
    ApplyResult,
    command::{Effect, Operation, RetentionFloor, Write},
    read::ReadError,
    record::ClientsLoaded,
};

fn put(key: &'static str, ttl: Option<u64>) -> Bytes {
    let effect = Effect::Put { value: "v".into(), ttl };
    Write::new(TENANT, None, Operation::new(key, effect)).encode()
}

/// A home of epoch 5 that made its changes in epochs 1, 3 and 5, two in each.
fn moved_twice() -> Group {
    let mut home = Group::owner();
    for number in [1, 3, 5] {
        let record = &mut home.shard.tenants.get_mut(&TENANT).unwrap().record;
        record.epoch = epoch(number);
        record.promised = epoch(number);
        record.lineage.record_move(epoch(number));
        for _ in 0..2 {
            home.apply(1_000, put("k", None));
        }
    }
    assert_eq!(home.record().live.revision, revision("5.6"));
    home
}

#[test]
fn retention_floor_keeps_epoch_of_its_change() {
    let mut home = moved_twice();
    let changes = |home: &Group, after: &str| {
        let found = home.reading().changes(revision(after), Sequence::MAX, usize::MAX);
        found.map(|found| found.changes.len())
    };
    // The tenant was created by the first entry.
    for (index, floor) in [(3, "1.2"), (4, "3.3"), (6, "5.5"), (9, "5.6")] {
        let tenants = Vec::new();
        assert_eq!(
            home.apply(1_000, RetentionFloor { index, tenants }.encode()),
            ApplyResult::Done
        );
        assert_eq!(
            home.record().live.retention_floor,
            revision(floor),
            "up to entry {index}"
        );
        let left = 6 - revision(floor).sequence().get() as usize;
        assert_eq!(changes(&home, floor).unwrap(), left, "what is kept is not compacted");
        home.reopen();
    }
    assert!(matches!(changes(&home, "5.5"), Err(ReadError::Compacted { oldest }) if oldest == revision("5.6")));
}

#[test]
fn revision_of_sequence_has_epoch_of_its_change() {
    let mut home = moved_twice();
    let named = |home: &Group, number| {
        let sequence = Sequence::new(number).unwrap();
        home.reading().revision_of(sequence).unwrap()
    };
    let all: Vec<_> = (0..=7).map(|number| named(&home, number)).collect();
    let expected = ["0.0", "1.1", "1.2", "3.3", "3.4", "5.5", "5.6", "5.6"].map(revision);
    assert_eq!(all, expected);
    let floor = RetentionFloor {
        index: 0,
        tenants: vec![(TENANT, revision("3.3"))],
    };
    home.apply(1_000, floor.encode());
    home.maintain();
    assert_eq!(named(&home, 1), revision("3.3"), "history begins there");
    assert_eq!(named(&home, 4), revision("3.4"));
}

#[test]
fn copy_of_new_owner_has_next_expiry() {
    let mut home = Group::owner();
    home.apply(1_000, put("a", Some(500)));
    home.apply(1_000, put("b", Some(200)));
    home.apply(1_000, put("c", None));
    let due = Some((TenantTime(1_200), TENANT));
    assert_eq!(home.shard.first_due(), due);
    // A copy that came by the feed, and one that was seeded.
    let mut fed = Group::follower(&home);
    fed.apply(0, home.data(Revision::ZERO, Sequence::MAX).encode());
    let mut seeded = Group::follower(&home);
    assert_eq!(seeded.apply(0, home.next_seed(&seeded).encode()), ApplyResult::Done);
    let first = home.record().live.revision;
    let parts = [
        home.reading().chunk_of_changes(Sequence::ZERO, first, 1 << 20).unwrap(),
        home.reading().chunk_of_clients(ClientsLoaded::default(), 1 << 20),
    ];
    for part in parts {
        assert_eq!(seeded.apply(0, home.chunk(&seeded, part).encode()), ApplyResult::Done);
    }
    assert_eq!(seeded.apply(0, home.swap(&seeded).encode()), ApplyResult::Done);
    home.apply(1_000, home.relinquish(fed.shard.prefix().group, 2).encode());
    for mut copy in [fed, seeded] {
        assert_eq!(
            copy.shard.first_due(),
            None,
            "followers do not expire keys by themselves"
        );
        assert_eq!(copy.begin_attach(), ApplyResult::Done);
        assert_eq!(copy.attach(&home), ApplyResult::Done);
        assert_eq!(copy.apply(1_000, copy.accept(&home).encode()), ApplyResult::Done);
        assert_eq!(copy.record().owned(), Some(epoch(2)));
        assert_eq!(copy.record().promised, epoch(2));
        assert_eq!(copy.shard.first_due(), due);
        copy.reopen();
        assert_eq!(copy.shard.first_due(), due);
    }
}
