//! Replays: what a promotion cut is written again at the home, once, whatever happens between and afterwards.

use proptest::prelude::*;
use stead_types::{ClientId, GroupId, IdempotencyKey, Revision, Sequence, TenantTime};

use super::group::{Group, TENANT, epoch, version};
use crate::shard::{
    ApplyResult,
    apply_result::{ReplayOutcome, ReplayResult},
    command::{
        Activate, Chunk, ContinueRewind, Effect, Freeze, Increment, Operation, Replay, ReplayClasses, Seed, Swap, Write,
    },
    idempotency_window::IDEMPOTENCY_MS_MAX,
    read::ForkClass,
    record::{ClientsLoaded, LeaseLossPolicy, OperationId},
};

const ALL: ReplayClasses = ReplayClasses {
    clean: true,
    commutative: true,
    uncertain: true,
    conflict: true,
    expired: true,
};
const SAFE: ReplayClasses = ReplayClasses {
    clean: true,
    commutative: true,
    uncertain: false,
    conflict: false,
    expired: false,
};

fn put(value: &'static str) -> Effect {
    Effect::put(value)
}

fn add(delta: i64) -> Effect {
    Effect::Increment(Increment {
        delta,
        ..Increment::default()
    })
}

fn append(bytes: &'static str) -> Effect {
    Effect::Append {
        bytes: bytes.into(),
        len_max: 100,
    }
}

/// Writes a key as write `number` of client 7.
fn write(home: &mut Group, time: u64, number: u64, key: &'static str, effect: Effect) -> ApplyResult {
    let first_sent = home.record().live.time;
    let idempotency = Some(IdempotencyKey {
        client: ClientId(7),
        sequence: number,
        first_sent,
    });
    let write = Write {
        notes_operation: true,
        ..Write::new(TENANT, idempotency, Operation::new(key, effect))
    };
    home.apply(time, write.encode())
}

fn feed(home: &Group, follower: &mut Group) {
    let after = follower.record().live.revision;
    let data = home.data_for(follower, after, Sequence::MAX);
    assert!(matches!(follower.apply(0, data.encode()), ApplyResult::Data(_)));
}

fn attached(home: &Group, follower: &mut Group) {
    if follower.record().session.is_none() {
        assert_eq!(follower.begin_attach(), ApplyResult::Done);
    }
    assert_eq!(follower.attach(home), ApplyResult::Done);
}

/// Replaces the copy of a follower by a seeded one.
fn seed(home: &Group, follower: &mut Group) {
    let seed = Seed {
        home: home.shard.prefix().group,
        ..home.next_seed(follower)
    };
    assert_eq!(follower.apply(0, seed.encode()), ApplyResult::Done);
    let parts = [
        home.reading()
            .chunk_of_changes(Sequence::ZERO, seed.first, 1 << 20)
            .unwrap(),
        home.reading().chunk_of_clients(ClientsLoaded::default(), 1 << 20),
    ];
    for part in parts {
        let chunk = Chunk {
            home: seed.home,
            ..home.chunk(follower, part)
        };
        assert_eq!(follower.apply(0, chunk.encode()), ApplyResult::Done);
    }
    let swap = Swap {
        home: seed.home,
        ..home.swap(follower)
    };
    assert_eq!(follower.apply(0, swap.encode()), ApplyResult::Done);
}

fn finish_rewind(group: &mut Group) {
    while group.record().rewind.is_some() {
        group.apply(0, ContinueRewind { tenant: TENANT }.encode());
    }
}

/// Promotes a follower, with what it holds, to an epoch.
fn promote(follower: &mut Group, time: u64, number: u32) {
    let kept = follower.record().live.revision;
    let view = |after: u64| version(2 * u64::from(number) + after);
    let freeze = Freeze {
        tenant: TENANT,
        version: view(0),
        operation: OperationId(u64::from(number)),
        epoch: epoch(number),
        lineage: follower.record().lineage.clone(),
    };
    assert_eq!(follower.apply(time, freeze.encode()), ApplyResult::Done);
    let activate = Activate {
        tenant: TENANT,
        version: view(1),
        home: follower.shard.prefix().group,
        epoch: epoch(number),
        kept,
        time: follower.record().live.time,
        policy: LeaseLossPolicy::Stop,
        uncounted: Vec::new(),
    };
    assert_eq!(follower.apply(time, activate.encode()), ApplyResult::Done);
    assert_eq!(follower.record().owned(), Some(epoch(number)));
}

/// Makes a group follow a promoted home; what it holds more becomes a fork.
fn return_to(home: &Group, group: &mut Group) {
    assert_eq!(group.follow(home), ApplyResult::Done);
    finish_rewind(group);
}

/// The old home with a fork, another follower that has a part of the same tail, and the new home.
struct World {
    old: Group,
    other: Group,
    home: Group,
}

/// Writes of the tail: client 7's numbers 10, 11, ...
fn world(tail: &[(&'static str, Effect)], shared: usize) -> World {
    let mut old = Group::owner();
    let [mut other, mut home] = [3, 2].map(|group| Group::follower_in(GroupId::new(group), &old));
    for (number, (key, effect)) in [("a", put("1")), ("n", add(5)), ("t", put("x"))]
        .into_iter()
        .enumerate()
    {
        write(&mut old, 1_000, number as u64, key, effect);
    }
    for follower in [&mut other, &mut home] {
        attached(&old, follower);
        feed(&old, follower);
    }
    for (number, (key, effect)) in tail.iter().cloned().enumerate() {
        let written = write(&mut old, 2_000 + number as u64, 10 + number as u64, key, effect);
        assert!(matches!(written, ApplyResult::Write(_)), "{written:?}");
        if number < shared {
            feed(&old, &mut other);
        }
    }
    promote(&mut home, 3_000, 2);
    for group in [&mut old, &mut other] {
        return_to(&home, group);
    }
    World { old, other, home }
}

fn replays(group: &Group) -> Vec<Replay> {
    let Some(fork) = group.record().forks.last() else {
        return Vec::new();
    };
    let reader = group.shard.fork(&group.rows, TENANT, fork.copy.number).unwrap();
    let (mut after, mut all) = (None, Vec::new());
    loop {
        // Pages of one change have the same changes.
        let page = reader.replays(after, 1, 1 << 20).unwrap();
        all.extend(page.replays.into_iter().map(|replay| replay.command));
        after = page.next;
        if after.is_none() {
            return all;
        }
    }
}

fn replay(home: &mut Group, time: u64, replay: &Replay, allowed: ReplayClasses) -> ReplayResult {
    let command = Replay {
        allowed,
        ..replay.clone()
    };
    let result = home.apply(time, command.encode());
    let ApplyResult::Replay(replayed) = result else {
        panic!("{result:?}")
    };
    replayed
}

fn outcomes(home: &mut Group, time: u64, from: &[Replay], allowed: ReplayClasses) -> Vec<(ForkClass, ReplayOutcome)> {
    let replayed = from.iter().map(|one| replay(home, time, one, allowed));
    replayed.map(|result| (result.class, result.outcome)).collect()
}

fn value(group: &Group, key: &str) -> Option<String> {
    let version = group.reading().get(key.as_bytes(), None).unwrap()?;
    Some(String::from_utf8(version.value.bytes.to_vec()).unwrap())
}

fn written(outcome: (ForkClass, ReplayOutcome)) -> Revision {
    let ReplayOutcome::Written(revision) = outcome.1 else {
        panic!("{outcome:?}")
    };
    revision
}

#[test]
fn each_class_of_change_is_replayed_or_left() {
    let tail = [
        ("a", put("cut")),
        ("a", put("later")),
        ("n", add(3)),
        ("n", add(4)),
        ("t", append("yz")),
        ("c", put("cut")),
        ("again", put("sent twice")),
    ];
    let World { old, mut home, .. } = world(&tail, 0);
    let all = replays(&old);
    assert_eq!(all.len(), tail.len());
    // The home goes on: it increments, appends and puts, and one client sends its write again.
    write(&mut home, 4_000, 100, "n", add(10));
    write(&mut home, 4_000, 101, "t", append("!"));
    write(&mut home, 4_000, 102, "c", put("live"));
    let again = write(&mut home, 4_000, 16, "again", put("sent twice"));
    assert!(matches!(again, ApplyResult::Write(result) if !result.repeated));
    let done = outcomes(&mut home, 5_000, &all, SAFE);
    let classes: Vec<ForkClass> = done.iter().map(|(class, _)| *class).collect();
    use ForkClass::{Absorbed, Clean, Commutative, Conflict};
    assert_eq!(
        classes,
        [Clean, Clean, Commutative, Commutative, Commutative, Conflict, Absorbed]
    );
    assert_eq!(done[5].1, ReplayOutcome::Left);
    assert!(matches!(done[6].1, ReplayOutcome::Found(_)));
    let values = ["a", "n", "t", "c", "again"].map(|key| value(&home, key).unwrap());
    assert_eq!(values, ["later", "22", "x!yz", "live", "sent twice"]);
    // Named, the conflict replaces what is there, and says what that was.
    let before = home.reading().get(b"c", None).unwrap().unwrap().revision;
    let named = replay(&mut home, 5_000, &all[5], ALL);
    assert!(matches!(named.outcome, ReplayOutcome::Written(_)));
    assert_eq!(named.touched.iter().map(|key| key.live).collect::<Vec<_>>(), [before]);
    assert_eq!(value(&home, "c").unwrap(), "cut");
}

/// Writes of others between are not lost under a put that comes after a replayed increment.
#[test]
fn put_after_commutative_replay_is_conflict() {
    let World { old, mut home, .. } = world(&[("n", add(3)), ("n", put("100"))], 0);
    write(&mut home, 4_000, 100, "n", add(10));
    let done = outcomes(&mut home, 5_000, &replays(&old), SAFE);
    assert_eq!(done[0].0, ForkClass::Commutative);
    assert_eq!(done[1], (ForkClass::Conflict, ReplayOutcome::Left));
    assert_eq!(value(&home, "n").unwrap(), "18");
}

#[test]
fn replay_is_done_once_whichever_fork_it_is_from() {
    let tail = [("n", add(3)), ("n", add(4)), ("a", put("cut"))];
    let World { old, other, mut home } = world(&tail, 2);
    let (of_old, of_other) = (replays(&old), replays(&other));
    assert_eq!((of_old.len(), of_other.len()), (3, 2));
    let first = outcomes(&mut home, 4_000, &of_other, SAFE);
    let second = outcomes(&mut home, 4_000, &of_old, SAFE);
    for (one, other) in first.iter().zip(&second) {
        assert_eq!(*other, (ForkClass::Replayed, ReplayOutcome::Found(written(*one))));
    }
    written(second[2]);
    let before = home.record().live.revision;
    for from in [&of_old, &of_other] {
        let again = outcomes(&mut home, 4_100, from, ALL);
        assert!(
            again.iter().all(|(class, _)| *class == ForkClass::Replayed),
            "{again:?}"
        );
    }
    assert_eq!(home.record().live.revision, before, "nothing happens");
    assert_eq!(value(&home, "n").unwrap(), "12");
}

#[test]
fn replay_is_remembered_after_crash_move_seed_and_window() {
    let World { mut old, mut home, .. } = world(&[("n", add(3)), ("a", put("cut"))], 0);
    let all = replays(&old);
    let done = outcomes(&mut home, 4_000, &all, SAFE);
    home.reopen();
    // More time than any window, with writes that evict what may be evicted.
    let later = 4_000 + 3 * IDEMPOTENCY_MS_MAX;
    for number in 0..50 {
        write(&mut home, later + number, 200 + number, "other", put("v"));
    }
    let window = &home.shard.clients(TENANT).unwrap().windows()[&ClientId(7)];
    assert!(
        window.find(10).is_none(),
        "the window has evicted the outcome of the replayed write"
    );
    let is_found = |home: &mut Group, time| {
        for (one, before) in all.iter().zip(&done) {
            let found = replay(home, time, one, ALL).outcome;
            assert_eq!(found, ReplayOutcome::Found(written(*before)));
        }
    };
    is_found(&mut home, later + 100);
    // The old home follows, by the feed, and tells the same of its fork.
    attached(&home, &mut old);
    feed(&home, &mut old);
    assert_eq!(old.record().live.digests, home.record().live.digests);
    let reader = old
        .shard
        .fork(&old.rows, TENANT, old.record().forks[0].copy.number)
        .unwrap();
    let keys = reader.keys(None, TenantTime(later), 10, 1 << 20).unwrap().keys;
    assert!(keys.iter().all(|key| key.class == ForkClass::Replayed), "{keys:?}");
    assert_eq!(old.shard.forks(&old.rows, TENANT).unwrap()[0].replayed, 2);
    // A copy that was seeded remembers too.
    seed(&home, &mut old);
    old.reopen();
    assert_eq!(old.record().live.digests, home.record().live.digests);
    // It takes over by a baton, and is the home that is asked.
    let heir = old.record().role;
    assert!(matches!(heir, crate::shard::record::Role::Follower { .. }));
    assert_eq!(old.begin_attach(), ApplyResult::Done);
    attached(&home, &mut old);
    let to = old.shard.prefix().group;
    assert_eq!(
        home.apply(later + 200, home.relinquish(to, 3).encode()),
        ApplyResult::Done
    );
    let accept = old.accept(&home);
    assert_eq!(old.apply(later + 200, accept.encode()), ApplyResult::Done);
    is_found(&mut old, later + 300);
}

#[test]
fn replay_that_is_cut_is_done_again_once() {
    let World {
        old,
        mut other,
        mut home,
    } = world(&[("n", add(3)), ("a", put("cut"))], 0);
    let of_old = replays(&old);
    attached(&home, &mut other);
    feed(&home, &mut other);
    // Replayed at a home that is lost before anybody received it: the next home does not remember, and has not the change.
    outcomes(&mut home, 4_000, &of_old, SAFE);
    promote(&mut other, 5_000, 3);
    return_to(&other, &mut home);
    assert_eq!(
        home.shard.clients(TENANT).unwrap().replays().map(|window| window.len()),
        None
    );
    let of_home = replays(&home);
    assert_eq!(of_home.len(), 2);
    let first = outcomes(&mut other, 6_000, &of_home, SAFE);
    let second = outcomes(&mut other, 6_000, &of_old, SAFE);
    for (one, other) in first.iter().zip(&second) {
        assert_eq!(other.1, ReplayOutcome::Found(written(*one)), "the same change");
    }
    assert_eq!(value(&other, "n").unwrap(), "8");
}

#[test]
fn client_that_sends_write_again_gets_outcome_of_replay() {
    let World { old, mut home, .. } = world(&[("n", add(3))], 0);
    let done = outcomes(&mut home, 4_000, &replays(&old), SAFE);
    let again = write(&mut home, 4_100, 10, "n", add(3));
    let ApplyResult::Write(again) = again else {
        panic!("{again:?}")
    };
    assert_eq!((again.repeated, again.revision), (true, written(done[0])));
    assert_eq!(value(&home, "n").unwrap(), "8");
}

#[test]
fn commutative_change_beyond_window_is_uncertain_until_named() {
    let World { old, mut home, .. } = world(&[("n", add(3)), ("a", put("cut"))], 0);
    let all = replays(&old);
    let later = 4_000 + 2 * IDEMPOTENCY_MS_MAX;
    write(&mut home, 4_000, 100, "n", add(10));
    for number in 0..20 {
        write(&mut home, later + number, 200 + number, "other", put("v"));
    }
    let done = outcomes(&mut home, later + 100, &all, SAFE);
    assert_eq!(done[0], (ForkClass::Uncertain, ReplayOutcome::Left));
    assert_eq!(
        done[1].0,
        ForkClass::Clean,
        "nobody has touched the key, so it was not sent again"
    );
    written(done[1]);
    let named = ReplayClasses {
        uncertain: true,
        ..SAFE
    };
    assert!(matches!(
        replay(&mut home, later + 100, &all[0], named).outcome,
        ReplayOutcome::Written(_)
    ));
    assert_eq!(value(&home, "n").unwrap(), "18");
}

#[test]
fn expired_value_and_counted_window_are_left() {
    let put = Effect::Put {
        value: "brief".into(),
        ttl: Some(1_000),
    };
    let counted = Effect::Increment(Increment {
        delta: 2,
        window: Some(10_000),
        ..Increment::default()
    });
    let World { old, mut home, .. } = world(&[("brief", put), ("rate", counted)], 0);
    let all = replays(&old);
    let early = home.copied();
    let (mut early, late) = (early, 60_000);
    let at_once: Vec<_> = outcomes(&mut early, 2_500, &all, SAFE);
    assert!(
        at_once.iter().all(|(class, _)| *class == ForkClass::Clean),
        "{at_once:?}"
    );
    assert_eq!(value(&early, "rate").unwrap(), "2");
    let done = outcomes(&mut home, late, &all, SAFE);
    assert_eq!(done, [(ForkClass::Expired, ReplayOutcome::Left); 2]);
    let named = ReplayClasses { expired: true, ..SAFE };
    written(outcomes(&mut home, late, &all[..1], named)[0]);
    assert_eq!(value(&home, "brief").unwrap(), "brief");
}

#[test]
fn change_on_lineage_and_replay_at_follower_write_nothing() {
    let World { mut old, mut home, .. } = world(&[("a", put("cut"))], 0);
    let all = replays(&old);
    let mut live = all[0].clone();
    live.origin.revision = home.record().live.revision;
    let found = replay(&mut home, 4_000, &live, ALL);
    assert_eq!(
        (found.class, found.outcome),
        (ForkClass::Absorbed, ReplayOutcome::Found(live.origin.revision))
    );
    let refused = old.apply(4_000, all[0].encode());
    assert!(matches!(refused, ApplyResult::GuardFailed(_)), "{refused:?}");
    assert_eq!(old.apply(4_000, all[0].encode()), refused);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever is replayed in whatever order, how often and from which fork, with crashes between: each increment
    /// counts once, and each append is there once.
    #[test]
    fn every_increment_and_append_counts_once(
        deltas in prop::collection::vec(1..100_i64, 1..12),
        shared in 0..6_usize,
        steps in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>(), 0..4_u8), 0..40),
    ) {
        let tail: Vec<_> = deltas.iter().flat_map(|delta| [("n", add(*delta)), ("t", append("z"))]).collect();
        let World { old, other, mut home } = world(&tail, shared);
        let (of_old, of_other) = (replays(&old), replays(&other));
        let (mut done, mut written_here, mut time) = (std::collections::BTreeSet::new(), 0, 4_000);
        for (index, is_from_other, what) in steps {
            time += 10;
            let from = if is_from_other && !of_other.is_empty() { &of_other } else { &of_old };
            let one = &from[index.index(from.len())];
            match what {
                0 => { write(&mut home, time, time, "n", add(1_000)); written_here += 1_000; }
                1 => home.reopen(),
                _ => {
                    replay(&mut home, time, one, SAFE);
                    done.insert(one.origin.revision);
                }
            }
        }
        let first = of_old[0].origin.revision.sequence().get();
        let at = |revision: &Revision| (revision.sequence().get() - first) as usize;
        let (numbers, letters): (Vec<usize>, Vec<usize>) = done.iter().map(at).partition(|at| at % 2 == 0);
        let sum: i64 = numbers.iter().map(|at| deltas[at / 2]).sum();
        prop_assert_eq!(value(&home, "n").unwrap(), (5 + sum + written_here).to_string());
        prop_assert_eq!(value(&home, "t").unwrap().len(), 1 + letters.len());
        let replays = home.shard.clients(TENANT).unwrap().replays().map_or(0, |window| window.len());
        prop_assert_eq!(replays, done.len());
    }
}
