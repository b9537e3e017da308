//! A write is executed once, however often it is sent and however much is forgotten.

use bytes::Bytes;
use stead_types::{ClientId, IdempotencyKey, Revision, Sequence, TenantTime};

use super::group::{Group, TENANT};
use crate::shard::{
    Answer,
    command::{Effect, Operation, Part, Write},
    window::{CLIENTS_MAX, OUTCOMES_MAX, REMEMBERED_MS_MAX},
};

fn write(client: u128, sequence: u64, first_sent: u64) -> Bytes {
    let key = IdempotencyKey {
        client: ClientId(client),
        sequence,
        first_sent: TenantTime(first_sent),
    };
    let operation = Operation::new("k", Effect::put("v"));
    Write::new(TENANT, Some(key), operation).encode()
}

/// Returns the revision's sequence of a write that was executed now.
fn executed(answer: &Answer) -> Option<u64> {
    let Answer::Written(written) = answer else { return None };
    (!written.repeated).then(|| written.revision.sequence().get())
}

/// The refusal of a write that may have been forgotten, as of what the group has applied.
fn expired(home: &Group, edge: u64, now: u64) -> Answer {
    let at = home.record().live.evaluated();
    assert_eq!(at.time, TenantTime(now));
    let edge = TenantTime(edge);
    Answer::Expired { edge, at }
}

#[test]
fn past_the_number_the_oldest_outcome_is_forgotten_and_refused() {
    let mut home = Group::owner();
    for number in 0..=OUTCOMES_MAX as u64 {
        assert!(executed(&home.apply(1_000 + number, write(1, number, 0))).is_some());
    }
    let now = 1_000 + OUTCOMES_MAX as u64;
    assert_eq!(home.apply(now, write(1, 0, 0)), expired(&home, 1_000, now));
    let Answer::Written(second) = home.apply(now, write(1, 1, 0)) else {
        panic!()
    };
    assert!(second.repeated);
    home.reopen();
    assert_eq!(home.apply(now, write(1, 0, 0)), expired(&home, 1_000, now));
}

#[test]
fn past_the_time_outcomes_are_forgotten_by_the_next_write() {
    let mut home = Group::owner();
    home.apply(1_000, write(1, 0, 0));
    home.apply(2_000, write(1, 1, 1_000));
    let later = 1_500 + REMEMBERED_MS_MAX;
    assert!(matches!(home.apply(later, write(1, 0, 0)), Answer::Written(again) if again.repeated));
    home.apply(later, write(1, 2, 2_000));
    assert_eq!(home.apply(later, write(1, 0, 0)), expired(&home, 1_000, later));
    assert!(matches!(home.apply(later, write(1, 1, 1_000)), Answer::Written(again) if again.repeated));
    assert_eq!(
        home.apply(later, write(1, 3, 1_000)),
        expired(&home, 1_000, later),
        "a stamp at the edge"
    );
    assert!(executed(&home.apply(later, write(1, 3, 1_001))).is_some());
}

#[test]
fn a_stamp_that_this_history_never_showed_is_refused() {
    let mut home = Group::owner();
    home.apply(1_000, write(1, 0, 0));
    assert_eq!(home.apply(9_000, write(1, 1, 1_001)), expired(&home, 0, 1_000));
    assert!(executed(&home.apply(9_000, write(1, 1, 1_000))).is_some());
}

#[test]
fn past_the_number_of_clients_the_quietest_is_forgotten_for_good() {
    let mut home = Group::owner();
    for client in 0..=CLIENTS_MAX as u128 {
        assert!(executed(&home.apply(1_000 + client as u64, write(client, 7, 0))).is_some());
    }
    let now = 1_000 + CLIENTS_MAX as u64;
    assert_eq!(
        home.apply(now, write(0, 7, 0)),
        expired(&home, 1_000, now),
        "the quietest went"
    );
    assert!(matches!(home.apply(now, write(1, 7, 0)), Answer::Written(again) if again.repeated));
    assert_eq!(
        home.apply(now, write(77_777, 1, 0)),
        expired(&home, 1_000, now),
        "an id not kept"
    );
    assert!(executed(&home.apply(now, write(77_777, 1, now))).is_some());
    assert_eq!(home.record().live.edge.0, 1_001, "client 1 made room");
    // Client 0 comes back with a new write; what it had written before stays refused.
    assert!(executed(&home.apply(now, write(0, 8, now))).is_some());
    assert_eq!(home.apply(now, write(0, 7, 0)), expired(&home, 1_002, now));
    home.reopen();
    assert_eq!(home.apply(now, write(0, 7, 0)), expired(&home, 1_002, now));
}

#[test]
fn a_follower_forgets_what_its_home_forgot() {
    let mut home = Group::owner();
    let mut follower = Group::follower(&home);
    let mut number = 0;
    for step in 0..3_000u64 {
        number += 1;
        let now = 1_000 + step * REMEMBERED_MS_MAX / 40;
        home.apply(
            now,
            write(u128::from(step * step % 37), number, home.record().live.time.0),
        );
        if step % 7 == 0 {
            let data = home.data(follower.record().live.revision, Sequence::MAX);
            assert!(matches!(follower.apply(0, data.encode()), Answer::Fed(fed) if fed.detached.is_none()));
        }
    }
    let data = home.data(follower.record().live.revision, Sequence::MAX);
    follower.apply(0, data.encode());
    let windows = |group: &Group| group.shard.clients(TENANT).unwrap().windows().clone();
    assert_eq!(windows(&home), windows(&follower));
    assert!(windows(&home).len() < 37, "quiet clients went");
    let (at_home, here) = (&home.record().live, &follower.record().live);
    assert_eq!((at_home.digests, at_home.edge), (here.digests, here.edge));
}

/// Windows are read in two chunks, clients come and go between them.
#[test]
fn a_seed_brings_windows_that_change_while_it_is_read() {
    let mut home = Group::owner();
    let mut follower = Group::follower(&home);
    for client in 1..=6 {
        home.apply(1_000 * client as u64, write(client, 1, 0));
    }
    let first = home.record().live.revision;
    assert_eq!(follower.apply(0, home.next_seed(&follower).encode()), Answer::Done);
    assert_eq!(follower.begin_attach(), Answer::Done);
    // The first half of the clients, and what has come since.
    let part = home.reading().chunk_of_clients(None, 100);
    assert!(matches!(&part, Part::Clients { windows, .. } if windows.len() == 3));
    let part = home.chunk(&follower, part).encode();
    assert_eq!(follower.apply(0, part), Answer::Done);
    let feed = |home: &Group, follower: &mut Group| {
        let after = follower.record().shadow.as_ref().unwrap().state.revision;
        follower.apply(0, home.data_for(follower, after, Sequence::MAX).encode());
    };
    // Time passes: this forgets clients of both halves, and begins a client in the first one anew.
    home.apply(4_500 + REMEMBERED_MS_MAX, write(100, 1, 6_000));
    home.apply(4_500 + REMEMBERED_MS_MAX, write(2, 9, 6_000));
    feed(&home, &mut follower);
    let after = follower.record().shadow.as_ref().unwrap().clients_loaded_to();
    let part = home.chunk(&follower, home.reading().chunk_of_clients(after, 10_000));
    assert_eq!(follower.apply(0, part.encode()), Answer::Done);
    let changes = home.reading().chunk_of_changes(Sequence::ZERO, first, 10_000).unwrap();
    let part = home.chunk(&follower, changes);
    assert_eq!(follower.apply(0, part.encode()), Answer::Done);
    home.apply(4_600 + REMEMBERED_MS_MAX, write(3, 9, 6_000));
    feed(&home, &mut follower);
    let live = home.record().live.clone();
    assert_eq!(follower.apply(0, home.swap(&follower).encode()), Answer::Done);
    let windows = |group: &Group| group.shard.clients(TENANT).unwrap().windows().clone();
    assert_eq!(windows(&home), windows(&follower));
    assert_eq!(live.edge, follower.record().live.edge);
    assert_ne!(live.revision, Revision::ZERO);
}
