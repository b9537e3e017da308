//! A copy that was rewound equals one that never had the tail, and its fork has all that was cut.

use proptest::prelude::*;
use stead_types::{Revision, Sequence, TenantTime};

use super::{
    group::{Group, TENANT},
    histories::{Clock, Happens, histories},
};
use crate::{
    rows::{change, current, kind},
    shard::{
        ApplyResult,
        apply_result::GuardFailure,
        command::{ContinueRewind, DiscardFork, FeedRecords},
        digest::Digests,
        read::{AtForkPoint, ForkClass, ForkEntry, ForkKey, ForkReader},
        record::Fork,
    },
};

/// A home, a follower that has all of its changes, one that has only those up to the cut, and the home as of the cut.
struct World {
    clock: Clock,
    home: Group,
    ahead: Group,
    twin: Group,
    promoted: Group,
}

impl World {
    /// Everything happens to the home; what comes after the cut reaches only one follower.
    fn new(before: &[Happens], after: &[Happens]) -> Self {
        let mut clock = Clock::new();
        let mut home = Group::owner();
        let mut followers = [Group::follower(&home), Group::follower(&home)];
        for follower in &mut followers {
            follower.attach(&home);
        }
        let [mut ahead, mut twin] = followers;
        for happens in before {
            happen(&mut clock, &mut home, happens);
            feed(&home, &mut ahead);
            feed(&home, &mut twin);
        }
        let promoted = home.copied();
        for happens in after {
            happen(&mut clock, &mut home, happens);
            feed(&home, &mut ahead);
        }
        Self {
            clock,
            home,
            ahead,
            twin,
            promoted,
        }
    }

    fn point(&self) -> Revision {
        self.promoted.record().live.revision
    }

    /// Ends the rewind of the follower that is ahead, and looks at each step. `reopens` are the steps after which the
    /// group is opened anew.
    fn rewind(&mut self, reopens: &[bool]) {
        let mut steps = 0;
        while let Some(rewind) = self.ahead.record().rewind {
            assert!(rewind.next > self.point().sequence());
            check_counters(&self.ahead);
            assert!(self.ahead.shard.reading(&self.ahead.rows, TENANT).is_none());
            let refused = self.ahead.begin_attach_anyway();
            assert_eq!(refused, ApplyResult::GuardFailed(GuardFailure::Rewinding));
            if reopens.get(steps).copied().unwrap_or(false) {
                self.ahead.reopen();
            }
            let next = ContinueRewind { tenant: TENANT };
            assert_eq!(self.ahead.apply(0, next.encode()), ApplyResult::Done);
            steps += 1;
        }
        check_counters(&self.ahead);
        assert_eq!(self.ahead.shard.rewinding().len(), 0);
    }

    /// Gives the twin the floor that the other has: it came with changes that the twin never had.
    fn level_floors(&mut self) {
        let floor = self.ahead.record().live.retention_floor;
        if self.twin.record().session.is_none() {
            return;
        }
        let mut data = self.promoted.data_for(&self.twin, self.point(), Sequence::MAX);
        data.records = FeedRecords {
            changes: Vec::new(),
            digests: None,
            retention_floor: floor,
        };
        self.twin.apply(0, data.encode());
    }

    /// Seeds the windows of the follower that was rewound from the new home, in parts, while things go on there.
    fn seed_windows(&mut self, len_max: usize, meanwhile: &[Happens]) {
        let number = self.ahead.record().seeds.next();
        let seed = self.promoted.seed_windows(&self.ahead, number);
        assert_eq!(self.ahead.apply(0, seed.encode()), ApplyResult::Done);
        let again = self.promoted.seed_windows(&self.ahead, number.next());
        let refused = self.ahead.apply(0, again.encode());
        assert_eq!(
            refused,
            ApplyResult::GuardFailed(GuardFailure::Seed),
            "one is under way"
        );
        self.ahead.begin_attach();
        let mut meanwhile = meanwhile.iter().filter(|happens| !matches!(happens, Happens::Floor(_)));
        loop {
            let loaded = self.ahead.shard.clients_loaded(TENANT).unwrap();
            if loaded.is_complete() {
                break;
            }
            let part = self.promoted.reading().chunk_of_clients(loaded, len_max);
            let chunk = self.promoted.chunk(&self.ahead, part).encode();
            assert_eq!(self.ahead.apply(0, chunk), ApplyResult::Done);
            if let Some(happens) = meanwhile.next() {
                happen(&mut self.clock, &mut self.promoted, happens);
                feed(&self.promoted, &mut self.ahead);
                feed(&self.promoted, &mut self.twin);
            }
            self.ahead.reopen();
        }
        feed(&self.promoted, &mut self.ahead);
        assert!(self.ahead.record().live.rewound, "until the swap");
        let swap = self.promoted.swap(&self.ahead);
        assert_eq!(self.ahead.apply(0, swap.encode()), ApplyResult::Done);
        assert_eq!(self.ahead.attach(&self.promoted), ApplyResult::Done);
        let record = self.ahead.record();
        assert!(!record.live.rewound && record.shadow.is_none());
        assert_eq!(record.live.digests, self.promoted.record().live.digests);
        self.compare_with_home();
        self.ahead.reopen();
        self.compare_with_home();
    }

    /// Checks that the follower has the outcomes of the new home. The edge of a window that began while others were loaded
    /// may be higher, up to that of clients that were evicted meanwhile.
    fn compare_with_home(&self) {
        let windows = |group: &Group| group.shard.clients(TENANT).unwrap().windows().clone();
        let (here, home) = (windows(&self.ahead), windows(&self.promoted));
        assert!(here.keys().eq(home.keys()));
        let evicted = self.promoted.record().live.edge;
        for (window, expected) in here.values().zip(home.values()) {
            assert!(window.outcomes().eq(expected.outcomes()));
            assert!(window.edge() >= expected.edge() && window.edge() <= expected.edge().max(evicted));
        }
    }

    fn compare(&mut self) {
        let (ahead, twin) = (&mut self.ahead, &mut self.twin);
        ahead.maintain();
        twin.maintain();
        let (one, other) = (&ahead.record().live, &twin.record().live);
        assert_eq!((one.number, one.revision), (other.number, other.revision));
        assert_eq!(
            (one.keys, one.len, one.digests.keys),
            (other.keys, other.len, other.digests.keys)
        );
        assert_eq!((one.retention_floor, one.swept), (other.retention_floor, other.swept));
        let (rows, expected) = (ahead.live_rows(), twin.live_rows());
        for (key, row) in &rows {
            assert_eq!(expected.get(key), Some(row), "{key:?}");
        }
        assert_eq!(rows.len(), expected.len(), "a row is missing");
        self.compare_windows();
    }

    fn compare_windows(&self) {
        let windows = |group: &Group| group.shard.clients(TENANT).unwrap().windows().clone();
        let (rewound, expected) = (windows(&self.ahead), windows(&self.twin));
        if !self.ahead.record().live.rewound && self.ahead.record().owned().is_none() {
            assert_eq!(self.ahead.record().live.digests, self.twin.record().live.digests);
        }
        for (client, window) in &rewound {
            // Edges that evictions of the tail have raised stay: what they cover is refused, never executed.
            let whole = expected.get(client).expect("no outcome of the tail is left");
            assert!(
                window
                    .outcomes()
                    .all(|outcome| whole.outcomes().any(|one| one == outcome))
            );
            assert!(window.edge() >= whole.edge());
        }
    }

    /// Checks that the fork has every change that was cut, with the versions that they replaced.
    fn check_fork(&self) {
        let record = self.ahead.record();
        let Some(fork) = record.forks.first() else {
            assert_eq!(self.home.record().live.revision, self.point());
            return;
        };
        let tail = fork.tail.expect("history reaches the fork point");
        assert_eq!((tail.after, fork.point), (self.point(), self.point().sequence()));
        let copy = self.ahead.shard.prefix().copy(TENANT, fork.copy.number);
        let rows = self.ahead.all_rows();
        let of_fork = copy.range(kind::CHANGE);
        let held = rows.range(of_fork.start..of_fork.end);
        let held: Vec<_> = held
            .map(|(key, row)| {
                let (sequence, effect) = change::parse_key(key.clone()).unwrap();
                change::decode(sequence, effect, row.clone()).unwrap()
            })
            .filter(|change| change.revision > self.point())
            .collect();
        let cut = self.home.reading().changes(
            self.home.record().live.retention_floor.max(self.point()),
            Sequence::MAX,
            usize::MAX,
        );
        let cut = cut.unwrap().changes;
        let later = held
            .iter()
            .filter(|change| change.revision > self.home.record().live.retention_floor);
        let essence = |change: &change::Change| {
            (
                change.revision,
                change.effect,
                change.key.clone(),
                change.value.clone(),
                change.outcome.clone(),
            )
        };
        assert!(later.map(essence).eq(cut.iter().map(essence)));
        let last = held.last().map(|change| change.revision);
        assert_eq!(last, Some(fork.copy.revision));
        self.check_fork_reads(fork);
    }

    /// Checks what an operator reads of the fork, in pages of a few changes.
    fn check_fork_reads(&self, fork: &Fork) {
        let (shard, rows) = (&self.ahead.shard, &self.ahead.rows);
        let [summary] = &shard.forks(rows, TENANT).unwrap()[..] else {
            panic!("there is one fork")
        };
        let cut = fork.copy.revision.sequence().get() - fork.point.get();
        assert_eq!(
            (summary.number, summary.entries, summary.is_whole),
            (fork.copy.number, cut, false)
        );
        assert_eq!(summary.first.map(|first| first.sequence()), fork.point.next());
        assert_eq!(shard.fork(rows, TENANT, fork.copy.number + 1).map(|_| ()), None);
        let reader = shard.fork(rows, TENANT, fork.copy.number).unwrap();
        let (mut after, mut entries) = (None, Vec::new());
        loop {
            let page = reader.entries(after, 3, 1 << 20).unwrap();
            assert!(page.entries.len() <= 3);
            entries.extend(page.entries);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(entries.len() as u64, cut);
        assert_eq!(entries.last().map(|entry| entry.revision), Some(fork.copy.revision));
        for effect in entries.iter().flat_map(|entry| &entry.effects) {
            let at_point = self.promoted.reading().get(&effect.key, Some(self.point())).unwrap();
            assert_eq!(effect.before, AtForkPoint::Known(at_point));
            assert_eq!(effect.live, self.ahead.reading().get(&effect.key, None).unwrap());
        }
        let now = self.promoted.record().live.time;
        assert_eq!(shard.forked(TENANT).collect::<Vec<_>>(), [TENANT]);
        for (keys_max, len_max) in [(1, 1 << 20), (2, 1 << 20), (100, 0), (100, 10), (1_000, 1 << 20)] {
            check_fork_keys(&reader, &entries, now, keys_max, len_max);
        }
    }
}

/// Checks that pages of keys, of whatever size, have each effect of the changes once, with its change's class.
fn check_fork_keys(reader: &ForkReader<'_>, entries: &[ForkEntry], now: TenantTime, keys_max: usize, len_max: usize) {
    let (mut from, mut keys) = (None, Vec::new());
    loop {
        let page = reader.keys(from, now, keys_max, len_max).unwrap();
        assert!(!page.keys.is_empty() && page.keys.len() <= keys_max);
        assert!(len_max > 0 || page.keys.len() == 1);
        keys.extend(page.keys);
        assert!(page.next.is_none() || page.next > from);
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    let expected = entries.iter().flat_map(|entry| {
        let effects = entry.effects.iter().cloned();
        effects.map(move |effect| (entry.revision, entry.time, effect))
    });
    // Nothing was written on the lineage yet, but what has expired by now will be removed before.
    let expires = |key: &ForkKey| {
        key.effect
            .live
            .as_ref()
            .is_some_and(|live| live.value.expires.is_some())
    };
    let may_expire = keys.iter().any(expires);
    let is_expected = |key: &ForkKey| match key.class {
        ForkClass::Clean | ForkClass::Expired => true,
        ForkClass::Conflict => may_expire,
        ForkClass::Replayed | ForkClass::Absorbed | ForkClass::Commutative | ForkClass::Uncertain => false,
    };
    assert!(keys.iter().all(is_expected), "{keys:?}");
    let keys = keys.into_iter().map(|key| (key.revision, key.time, key.effect));
    assert!(keys.eq(expected), "pages of {keys_max} keys and {len_max} bytes");
}

impl Group {
    /// Sends a command about the tenant that a follower could apply.
    fn begin_attach_anyway(&mut self) -> ApplyResult {
        let rejoin = crate::shard::command::Rejoin {
            tenant: TENANT,
            version: self.record().view_version,
        };
        self.apply(0, rejoin.encode())
    }
}

fn happen(clock: &mut Clock, home: &mut Group, happens: &Happens) -> Option<ApplyResult> {
    let command = clock.command(home, happens)?;
    Some(home.apply(clock.time, command))
}

fn feed(home: &Group, follower: &mut Group) {
    let after = follower.record().live.revision;
    if after < home.record().live.retention_floor {
        return;
    }
    let data = home.data_for(follower, after, Sequence::MAX);
    let fed = follower.apply(0, data.encode());
    assert!(
        matches!(fed, ApplyResult::Data(result) if result.detached.is_none()),
        "{fed:?}"
    );
}

/// Invariant 1 of rewinds: counters, digest and expiry index are those of the rows.
fn check_counters(group: &Group) {
    let copy = group.shard.prefix().copy(TENANT, group.record().live.number);
    let live: Vec<_> = group
        .current_rows()
        .into_iter()
        .filter(|(key, _)| key.starts_with(&copy.key(kind::CURRENT, 0).finish()))
        .filter_map(|(key, row)| Some((current::parse_key(&key), current::decode(row).unwrap().live?)))
        .collect();
    let mut digests = Digests::default();
    live.iter().for_each(|(_, live)| digests.add_key(live.hash));
    let state = &group.record().live;
    assert_eq!((state.keys, state.digests.keys), (live.len() as u64, digests.keys));
    let len = live.iter().map(|(key, live)| key.len() as u64 + u64::from(live.len));
    assert_eq!(state.len, len.sum::<u64>());
    let expiring = live.iter().filter(|(_, live)| live.expires.is_some()).count();
    let expiry = copy.range(kind::EXPIRY);
    assert_eq!(group.all_rows().range(expiry.start..expiry.end).count(), expiring);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 256 } else { 1024 }))]

    #[test]
    fn rewound_follower_equals_one_that_never_had_tail(
        before in histories(0..40),
        after in histories(0..30),
        later in histories(0..20),
        reopens in prop::collection::vec(any::<bool>(), 0..20),
        windows in prop::option::of((1usize..400, histories(0..6))),
    ) {
        let mut world = World::new(&before, &after);
        let point = world.point();
        prop_assert_eq!(world.promoted.freeze(world.clock.time, 2), ApplyResult::Done);
        prop_assert_eq!(world.promoted.activate(world.clock.time, point), ApplyResult::Done);
        let floor = world.ahead.record().live.retention_floor;
        let has_tail = world.ahead.record().live.revision > point;
        for follower in [&mut world.ahead, &mut world.twin] {
            prop_assert_eq!(follower.follow(&world.promoted), ApplyResult::Done);
        }
        if has_tail && (floor > point || point == Revision::ZERO) {
            prop_assert_eq!(world.ahead.record().forks[0].tail, None);
            prop_assert_eq!(world.ahead.record().live.revision, Revision::ZERO);
            return Ok(());
        }
        world.rewind(&reopens);
        world.check_fork();
        for follower in [&mut world.ahead, &mut world.twin] {
            follower.begin_attach();
            prop_assert_eq!(follower.attach(&world.promoted), ApplyResult::Done);
        }
        world.level_floors();
        world.compare();
        if let Some((len_max, meanwhile)) = windows.filter(|_| world.ahead.record().live.rewound) {
            world.seed_windows(len_max, &meanwhile);
        }
        for happens in &later {
            // Floors would leave one of the two behind that has lower ones.
            if !matches!(happens, Happens::Floor(_)) {
                happen(&mut world.clock, &mut world.promoted, happens);
            }
            feed(&world.promoted, &mut world.ahead);
            feed(&world.promoted, &mut world.twin);
        }
        world.ahead.reopen();
        world.twin.reopen();
        prop_assert!(!world.ahead.record().suspect && !world.twin.record().suspect);
        prop_assert!(!world.twin.record().live.rewound);
        world.compare();
        if let Some(fork) = world.ahead.record().forks.first().map(|fork| fork.copy.number) {
            let discard = |fork| DiscardFork { tenant: TENANT, fork }.encode();
            let unknown = world.ahead.apply(0, discard(fork + 1));
            prop_assert_eq!(unknown, ApplyResult::GuardFailed(GuardFailure::UnknownFork));
            prop_assert_eq!(world.ahead.shard.forked_count(), 1);
            prop_assert_eq!(world.ahead.apply(0, discard(fork)), ApplyResult::Done);
            prop_assert_eq!(world.ahead.shard.forked_count(), 0);
            world.ahead.maintain();
            prop_assert_eq!(world.ahead.data_rows() - world.ahead.client_rows().len(), world.ahead.live_rows().len());
        }
    }

    #[test]
    fn rewound_owner_equals_one_that_never_had_tail(
        before in histories(1..40),
        after in histories(0..30),
        later in histories(0..20),
        reopens in prop::collection::vec(any::<bool>(), 0..20),
    ) {
        let mut world = World::new(&before, &after);
        let point = world.point();
        let floor = world.ahead.record().live.retention_floor;
        if point == Revision::ZERO || floor > point {
            return Ok(());
        }
        let highest = world.ahead.record().live.time;
        for group in [&mut world.ahead, &mut world.twin] {
            prop_assert_eq!(group.freeze(world.clock.time, 2), ApplyResult::Done);
            prop_assert_eq!(group.activate_with(world.clock.time, point, highest), ApplyResult::Done);
        }
        world.rewind(&reopens);
        world.check_fork();
        prop_assert!(!world.ahead.record().live.rewound, "its windows have raised edges instead");
        world.clock.is_anonymous = true;
        world.clock.time += 1_000;
        for happens in &later {
            let mut clock = world.clock.clone();
            if matches!(happens, Happens::Floor(_)) {
                continue;
            }
            let one = happen(&mut world.clock, &mut world.ahead, happens);
            let other = happen(&mut clock, &mut world.twin, happens);
            if let (Some(one), Some(other)) = (one, other) {
                let of = |result: &ApplyResult| (std::mem::discriminant(result), result.evaluation_point().map(|at| at.revision));
                prop_assert_eq!(of(&one), of(&other));
            }
        }
        let (one, other) = (world.ahead.live_rows(), world.twin.live_rows());
        let current = |rows: &std::collections::BTreeMap<bytes::Bytes, bytes::Bytes>| {
            let live = rows.iter().filter(|(key, _)| key[0] == kind::CURRENT);
            live.filter_map(|(key, row)| Some((key.clone(), current::decode(row.clone()).unwrap().live?.hash))).collect::<Vec<_>>()
        };
        prop_assert_eq!(current(&one).len(), current(&other).len());
        check_counters(&world.ahead);
    }
}

#[test]
fn outcomes_that_differ_after_promotion_make_windows_incomplete_until_they_agree() {
    let mut home = Group::owner();
    let mut clock = Clock::new();
    happen(&mut clock, &mut home, &Happens::Put(1, 1, None, Some(1)));
    let mut follower = Group::follower(&home);
    follower.attach(&home);
    feed(&home, &mut follower);
    let at = home.record().live.revision;
    assert_eq!(home.freeze(clock.time, 2), ApplyResult::Done);
    assert_eq!(home.activate(clock.time, at), ApplyResult::Done);
    assert_eq!(follower.follow(&home), ApplyResult::Done);
    follower.begin_attach();
    follower.attach(&home);
    happen(&mut clock, &mut home, &Happens::Put(1, 2, None, Some(1)));
    // The home was rewound before it took over, and lacks an outcome.
    let mut data = home.data_for(&follower, at, Sequence::MAX);
    data.records.digests.as_mut().unwrap().outcomes ^= 1;
    let fed = follower.apply(0, data.encode());
    assert!(matches!(fed, ApplyResult::Data(result) if result.detached.is_none()));
    assert!(follower.record().live.rewound && !follower.record().suspect);
    follower.reopen();
    assert!(follower.record().live.rewound, "it is in the row");
    happen(&mut clock, &mut home, &Happens::Put(1, 3, None, Some(1)));
    feed(&home, &mut follower);
    assert!(!follower.record().live.rewound);
}

#[test]
fn feed_has_no_changes_that_were_cut() {
    let mut home = Group::owner();
    let mut clock = Clock::new();
    for value in 0..4 {
        happen(&mut clock, &mut home, &Happens::Put(1, value, None, None));
    }
    let second = home.reading().revision_of(Sequence::new(2).unwrap()).unwrap();
    assert_eq!(home.freeze(clock.time, 2), ApplyResult::Done);
    assert_eq!(home.activate(clock.time, second), ApplyResult::Done);
    let touched = home
        .shard
        .feed(&home.rows, 0, 100)
        .unwrap()
        .into_iter()
        .flat_map(|(_, entry)| entry.touched);
    let revisions: Vec<String> = touched.map(|touched| touched.revision().to_string()).collect();
    assert_eq!(revisions, ["1.1", "1.2", "1.2"]);
    // The floor of an entry that was cut is nobody's.
    let floor = crate::shard::command::RetentionFloor {
        index: home.index,
        tenants: vec![],
    };
    home.apply(clock.time, floor.encode());
    assert_eq!(home.record().live.retention_floor, second);
}
