//! Tests of hubs.

use super::{super::change_fixture::change, *};

const KEY: HubKey = (GroupId::new(1), TenantNumber::new(7));
const OTHER: HubKey = (GroupId::new(1), TenantNumber::new(8));

fn revision(sequence: u64) -> Revision {
    format!("1.{sequence}").parse().unwrap()
}

/// Returns a batch of one change after a revision.
fn batch(after: u64, len: usize) -> Batch {
    Batch {
        after: revision(after),
        changes: vec![change(&revision(after + 1).to_string(), "a", Some(len))],
        next: revision(after + 1),
    }
}

fn found(set: &HubSet, key: HubKey, position: u64) -> String {
    match set.hubs.get(&key).map(|hub| hub.batch_after(revision(position))) {
        Some(NextBatch::Batch(batch)) => format!("{} to {}", batch.after, batch.next),
        Some(NextBatch::UpToDate) => "nothing".into(),
        Some(NextBatch::Evicted) => "gone".into(),
        None => "no hub".into(),
    }
}

#[test]
fn hub_returns_next_batch_or_evicted() {
    // Invariant 1.
    let mut set = HubSet::default();
    let (number, head) = set.subscribe(KEY, revision(5)).unwrap();
    assert_eq!(found(&set, KEY, 5), "nothing");
    for after in 5..8 {
        assert!(set.publish(KEY, number, batch(after, 10)));
    }
    assert_eq!(*head.borrow(), revision(8));
    let found = |position| found(&set, KEY, position);
    assert_eq!(
        [4, 5, 7, 8, 9].map(found),
        ["gone", "1.5 to 1.6", "1.7 to 1.8", "nothing", "nothing"]
    );
    assert!(set.subscribe(KEY, revision(4)).is_none());
    assert!(!set.publish(KEY, number + 1, batch(8, 10)), "of a hub before it");
}

#[test]
fn hub_set_memory_is_bounded_with_slow_readers() {
    // Invariant 3.
    let mut set = HubSet::default();
    let (slow, _head) = set.subscribe(OTHER, revision(0)).unwrap();
    assert!(set.publish(OTHER, slow, batch(0, 10)));
    let (number, _head) = set.subscribe(KEY, revision(0)).unwrap();
    for after in 0..100 {
        assert!(set.publish(KEY, number, batch(after, 1 << 20)));
        assert!(set.len <= BUFFERED_LEN_MAX);
    }
    assert_eq!(found(&set, OTHER, 0), "gone", "its reader must go to history");
    assert_eq!(found(&set, KEY, 0), "gone");
    assert_eq!(found(&set, KEY, 99), "1.99 to 1.100");
    assert!(set.publish(KEY, number, batch(100, BUFFERED_LEN_MAX)));
    assert_eq!((set.len, set.order.len()), (0, 0));
    assert_eq!(found(&set, KEY, 100), "gone", "it alone is too much");
}

#[test]
fn hub_closes_with_last_subscriber_reader_with_last_hub() {
    // Invariant 2.
    let mut set = HubSet::default();
    set.readers.insert(KEY.0, Arc::default());
    let (number, _first) = set.subscribe(KEY, revision(0)).unwrap();
    let (again, _second) = set.subscribe(KEY, revision(0)).unwrap();
    assert_eq!(number, again);
    assert!(set.publish(KEY, number, batch(0, 10)));
    set.unsubscribe(KEY, number);
    assert!(set.keep_reader(KEY.0));
    set.unsubscribe(KEY, number);
    assert_eq!((set.len, set.order.len()), (0, 0));
    let (newer, _third) = set.subscribe(KEY, revision(1)).unwrap();
    set.unsubscribe(KEY, number);
    assert_ne!(newer, number);
    assert!(set.keep_reader(KEY.0), "another hub's");
    set.unsubscribe(KEY, newer);
    assert!(!set.keep_reader(KEY.0));
    assert!(set.readers.is_empty() && set.added.is_empty());
}

#[test]
fn reader_looks_at_changed_and_new_hubs_only() {
    // Invariant 4.
    const HUBS: u64 = 10_000;
    let mut set = HubSet::default();
    let key = |tenant| (KEY.0, TenantNumber::new(tenant));
    let heads: Vec<_> = (1..=HUBS)
        .filter_map(|tenant| set.subscribe(key(tenant), revision(0)))
        .collect();
    let unread = |set: &mut HubSet, changed: Option<&[u64]>| {
        let changed = changed.map(|changed| changed.iter().copied().map(TenantNumber::new).collect());
        let unread = set.take_unread(KEY.0, changed);
        unread.iter().map(|at| at.key.1.get()).collect::<Vec<_>>()
    };
    assert_eq!(unread(&mut set, Some(&[])).len(), heads.len(), "all are new");
    assert_eq!(unread(&mut set, Some(&[])), [0; 0]);
    assert_eq!(unread(&mut set, Some(&[7, HUBS + 1])), [7], "no hub for the other one");
    let _later = set.subscribe(key(HUBS + 2), revision(0)).unwrap();
    assert_eq!(unread(&mut set, Some(&[9])), [9, HUBS + 2]);
    assert_eq!(
        unread(&mut set, None).len(),
        heads.len() + 1,
        "what has changed is not known"
    );
}
