//! The shard agrees with the model, and so do followers built from the feed alone and from seeds.

use bytes::Bytes;
use proptest::prelude::*;
use stead_types::{ClientId, GroupId, IdempotencyKey, Revision, Sequence};

use super::{
    expected::revision_ago,
    group::{Group, TENANT},
    model::{Model, at, version},
};
use crate::{
    rows::Order,
    shard::{
        ApplyResult,
        apply_result::GuardFailure,
        command::{
            Branches, Chunk, ChunkContent, Comparison, Condition, DeleteRange, Effect, Expire, Increment, Operand,
            Operation, Relation, RetentionFloor, Step as TxnStep, Swap, Txn, Write,
        },
        digest::{self, Digests},
        read::{ReadError, Scan},
    },
};

#[derive(Clone, Debug)]
enum Step {
    Write(u8, Does, Holds),
    Txn(Vec<(u8, Holds)>, Vec<(u8, Option<Does>)>, Vec<(u8, Option<Does>)>),
    DeleteRange(u8, u8),
    Expire,
    /// Sends again, word for word, the command with this number, if it had an idempotency key.
    Again(prop::sample::Index),
    Get(u8, prop::sample::Index),
    Scan(u8, u8, bool, usize, prop::sample::Index),
    Floor(prop::sample::Index),
    Maintain,
    Reopen,
    Feed(usize),
    Seed,
    /// The home reads a chunk of changes for the follower being seeded, and one of clients.
    ReadChunks,
    /// The first chunk that was read arrives.
    ChunkArrives,
    Swap,
}

/// Effect of a write on its key.
#[derive(Clone, Debug)]
enum Does {
    Put(u8, Option<u64>),
    Delete,
    Increment(Increment),
    Append(u8, u32),
}

#[derive(Clone, Copy, Debug)]
enum Holds {
    Always,
    Absent,
    Exists,
    /// The key's revision at some time, and its relation to the current one.
    Modified(u8, Relation),
    Created(u8, Relation),
    Version(u64, Relation),
    Value(u8, Relation),
}

fn steps() -> impl Strategy<Value = Step> {
    let key = || 0u8..5;
    let index = any::<prop::sample::Index>;
    let branch = || prop::collection::vec((key(), prop::option::weighted(0.8, does())), 0..4);
    let compares = prop::collection::vec((key(), holds()), 0..3);
    prop_oneof![
        20 => (key(), does(), holds()).prop_map(|(key, does, holds)| Step::Write(key, does, holds)),
        8 => (compares, branch(), branch()).prop_map(|(compares, then, or)| Step::Txn(compares, then, or)),
        2 => (key(), key()).prop_map(|(from, to)| Step::DeleteRange(from, to)),
        3 => Just(Step::Expire),
        3 => index().prop_map(Step::Again),
        3 => (key(), index()).prop_map(|(key, at)| Step::Get(key, at)),
        3 => (key(), key(), any::<bool>(), 1usize..4, index())
            .prop_map(|(from, to, down, page, at)| Step::Scan(from, to, down, page, at)),
        1 => index().prop_map(Step::Floor),
        1 => Just(Step::Maintain),
        1 => Just(Step::Reopen),
        4 => (1usize..4).prop_map(Step::Feed),
        1 => Just(Step::Seed),
        3 => Just(Step::ReadChunks),
        3 => Just(Step::ChunkArrives),
        2 => Just(Step::Swap),
    ]
}

fn does() -> impl Strategy<Value = Does> {
    let ttl = prop::option::of(prop_oneof![Just(1u64), Just(15), Just(200)]);
    prop_oneof![
        4 => (any::<u8>(), ttl).prop_map(|(value, ttl)| Does::Put(value, ttl)),
        2 => Just(Does::Delete),
        3 => increments().prop_map(Does::Increment),
        2 => (any::<u8>(), 0u32..9).prop_map(|(byte, max)| Does::Append(byte, max)),
    ]
}

fn holds() -> impl Strategy<Value = Holds> {
    let relation = || {
        let (equal, less) = (Just(Relation::Equal), Just(Relation::Less));
        prop_oneof![3 => equal, 1 => Just(Relation::NotEqual), 1 => less, 1 => Just(Relation::Greater)]
    };
    prop_oneof![
        6 => Just(Holds::Always),
        1 => Just(Holds::Absent),
        1 => Just(Holds::Exists),
        2 => (0u8..3, relation()).prop_map(|(back, relation)| Holds::Modified(back, relation)),
        1 => (0u8..3, relation()).prop_map(|(back, relation)| Holds::Created(back, relation)),
        1 => (0u64..4, relation()).prop_map(|(version, relation)| Holds::Version(version, relation)),
        1 => (0u8..3, relation()).prop_map(|(byte, relation)| Holds::Value(byte, relation)),
    ]
}

/// Increments that meet bounds, windows and the ends of 64 bits.
fn increments() -> impl Strategy<Value = Increment> {
    let delta = prop_oneof![8 => -3i64..4, 1 => Just(i64::MAX), 1 => Just(i64::MIN)];
    let bound = || prop::option::of(-3i64..4);
    let window = prop::option::of(prop_oneof![Just(1u64), Just(30), Just(1_000)]);
    (delta, bound(), bound(), window).prop_map(|(delta, floor, ceiling, window)| Increment {
        delta,
        floor,
        ceiling,
        window,
    })
}

/// A command that was sent: its bytes, those of another command under the same key, and its result.
#[derive(Clone)]
struct Sent {
    bytes: Bytes,
    other: Option<Bytes>,
    answer: ApplyResult,
}

/// A home, its model, a follower that is fed from the beginning and one that is seeded now and then.
struct World {
    home: Group,
    model: Model,
    sent: Vec<Sent>,
    fed: Group,
    seeded: Group,
    chunks: Vec<Chunk>,
    time: u64,
}

impl World {
    fn new() -> Self {
        let home = Group::owner();
        let (fed, seeded) = (Group::follower(&home), Group::follower(&home));
        Self {
            home,
            model: Model::default(),
            sent: Vec::new(),
            fed,
            seeded,
            chunks: Vec::new(),
            time: 1_000,
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Write(key, does, holds) => self.write(key, &does, holds),
            Step::Txn(compares, then, otherwise) => self.txn(&compares, then, otherwise),
            Step::DeleteRange(from, to) => self.delete_range(from, to),
            Step::Expire => self.expire(),
            Step::Again(which) => self.again(which),
            Step::Get(key, which) => self.get(key, which),
            Step::Scan(from, to, down, page, which) => self.scan((from, to), down, page, which),
            Step::Floor(which) => self.floor(which),
            Step::Maintain => self.groups().for_each(Group::maintain),
            Step::Reopen => self.groups().for_each(Group::reopen),
            Step::Feed(count) => self.feed(count),
            Step::Seed => self.seed(),
            Step::ReadChunks => self.read_chunks(),
            Step::ChunkArrives => self.chunk_arrives(),
            Step::Swap => self.swap(),
        }
    }

    fn groups(&mut self) -> impl Iterator<Item = &mut Group> {
        [&mut self.home, &mut self.fed, &mut self.seeded].into_iter()
    }

    fn condition(&self, key: u8, holds: Holds) -> Option<Condition> {
        let ago = |back| revision_ago(&self.model, key, usize::from(back));
        let (relation, operand) = match holds {
            Holds::Always => return None,
            Holds::Absent => return Some(Condition::Absent),
            Holds::Exists => return Some(Condition::Exists),
            Holds::Modified(back, relation) => (relation, Operand::Modified(ago(back))),
            Holds::Created(back, relation) => (relation, Operand::Created(ago(back))),
            Holds::Version(version, relation) => (relation, Operand::Version(version)),
            Holds::Value(byte, relation) => (relation, Operand::Value(vec![byte; 3].into())),
        };
        Some(Condition::Compared(relation, operand))
    }

    /// Three of four commands have an idempotency key.
    fn idempotency(&self) -> Option<IdempotencyKey> {
        let number = self.sent.len() as u64;
        (!number.is_multiple_of(4)).then(|| IdempotencyKey {
            client: ClientId(u128::from(number % 3)),
            sequence: number / 3,
            first_sent: self.home.record().live.time,
        })
    }

    fn send(&mut self, bytes: Bytes, other: Option<Bytes>, expected: ApplyResult) {
        let answer = self.home.apply(self.time, bytes.clone());
        assert_eq!(answer, expected);
        self.sent.push(Sent { bytes, other, answer });
    }

    fn write(&mut self, key: u8, does: &Does, holds: Holds) {
        let operation = Operation {
            condition: self.condition(key, holds),
            previous: true,
            ..Operation::new(vec![key], effect(does))
        };
        let idempotency = self.idempotency();
        let write = Write::new(TENANT, idempotency, operation);
        let other = idempotency.map(|_| {
            Write {
                request: write.request ^ 2,
                ..write.clone()
            }
            .encode()
        });
        self.time += 10;
        self.model.applying = self.home.index + 1;
        let expected = self.model.write(self.time, &write.operation);
        self.send(write.encode(), other, expected);
    }

    fn txn(&mut self, compares: &[(u8, Holds)], then: Vec<(u8, Option<Does>)>, otherwise: Vec<(u8, Option<Does>)>) {
        let compare = |(key, holds): &(u8, Holds)| {
            let condition = self.condition(*key, *holds)?;
            Some(Comparison {
                key: vec![*key].into(),
                condition,
            })
        };
        let branches = Branches {
            compares: compares.iter().filter_map(compare).collect(),
            then: branch(then),
            otherwise: branch(otherwise),
        };
        let idempotency = self.idempotency();
        let txn = Txn::new(TENANT, idempotency, branches);
        let other = idempotency.map(|_| {
            Txn {
                request: txn.request ^ 2,
                ..txn.clone()
            }
            .encode()
        });
        self.time += 10;
        self.model.applying = self.home.index + 1;
        let expected = self.model.txn(self.time, &txn.branches);
        self.send(txn.encode(), other, expected);
    }

    fn delete_range(&mut self, from: u8, to: u8) {
        let idempotency = self.idempotency();
        let range = DeleteRange::new(TENANT, idempotency, vec![from].into(), Some(vec![to].into()));
        let other = idempotency.map(|_| {
            DeleteRange {
                request: range.request ^ 2,
                ..range.clone()
            }
            .encode()
        });
        self.time += 10;
        self.model.applying = self.home.index + 1;
        let expected = self.model.delete_range(self.time, (&[from], &[to]));
        self.send(range.encode(), other, expected);
    }

    fn expire(&mut self) {
        let due = self.home.shard.first_due();
        self.model.applying = self.home.index + 1;
        let expected = self.model.expire(self.time);
        if matches!(expected, ApplyResult::Write(_)) {
            assert!(
                due.is_some_and(|(due, tenant)| due.0 <= self.time && tenant == TENANT),
                "{due:?}"
            );
        }
        let answer = self.home.apply(self.time, Expire { tenant: TENANT }.encode());
        assert_eq!(answer, expected);
        let next = self.model.now().values().filter_map(|held| held.expires).min();
        let due = self.home.shard.first_due().map(|(due, _)| due.0);
        assert!(due <= next || next.is_none(), "{due:?} {next:?}");
    }

    fn again(&mut self, which: prop::sample::Index) {
        if self.sent.is_empty() {
            return;
        }
        let Sent { bytes, other, answer } = which.get(&self.sent).clone();
        let Some(other) = other else { return };
        let before = self.home.record().clone();
        let is_kept = |revision: Revision| revision > before.live.retention_floor;
        // What had no effect may be executed again, to another end.
        let had_effect = match &answer {
            ApplyResult::Write(_) => true,
            ApplyResult::Txn(first) => first.changed,
            ApplyResult::DeleteRange(first) => first.keys > 0,
            ApplyResult::TxnFailed { .. }
            | ApplyResult::TxnTooLarge { .. }
            | ApplyResult::Unchanged(_)
            | ApplyResult::BoundReached { .. }
            | ApplyResult::ValueError { .. }
            | ApplyResult::ConditionFailed { .. }
            | ApplyResult::Forked { .. }
            | ApplyResult::KeyReused(_)
            | ApplyResult::Expired { .. }
            | ApplyResult::Replay(_)
            | ApplyResult::Done
            | ApplyResult::Data(_)
            | ApplyResult::GuardFailed(_) => false,
        };
        if !had_effect {
            return;
        }
        let again = self.home.apply(self.time, bytes);
        if let (ApplyResult::Write(first), ApplyResult::Write(again)) = (&answer, &again) {
            assert_eq!((again.revision, again.repeated), (first.revision, true));
            if is_kept(first.revision) {
                assert_eq!((&again.previous, again.output), (&first.previous, first.output));
            }
        } else if let (ApplyResult::Txn(first), ApplyResult::Txn(again)) = (&answer, &again) {
            assert_eq!(
                (again.at.revision, again.succeeded),
                (first.at.revision, first.succeeded)
            );
            assert!(again.repeated && again.changed);
            if is_kept(first.at.revision) {
                assert_eq!(again.results, first.results);
            }
        } else if let (ApplyResult::DeleteRange(first), ApplyResult::DeleteRange(again)) = (&answer, &again) {
            assert_eq!((again.at.revision, again.keys), (first.at.revision, 0));
            assert!(again.repeated && again.next.is_some());
        } else {
            panic!("{answer:?}, then {again:?}");
        }
        assert_eq!(self.home.record(), &before);
        let at = before.live.evaluation_point();
        assert_eq!(again.evaluation_point().map(|at| at.index), Some(at.index));
        assert_eq!(self.home.apply(self.time, other), ApplyResult::KeyReused(at));
    }

    fn some_revision(&self, which: prop::sample::Index) -> Revision {
        at(which.index(self.model.changes.len() + 2))
    }

    fn get(&self, key: u8, which: prop::sample::Index) {
        let revision = self.some_revision(which);
        for group in [&self.home, &self.fed, &self.seeded] {
            let got = group.reading().get(&[key], Some(revision));
            if self.readable(group, revision) {
                let held = self.model.as_of(revision).get(&vec![key]).cloned();
                assert_eq!(got.unwrap(), held.map(version), "at {revision}");
            } else {
                assert!(matches!(
                    got,
                    Err(ReadError::NotReached { .. } | ReadError::Compacted { .. })
                ));
            }
        }
    }

    fn readable(&self, group: &Group, revision: Revision) -> bool {
        let live = &group.record().live;
        live.retention_floor <= revision && revision <= live.revision
    }

    fn scan(&self, (from, to): (u8, u8), down: bool, page: usize, which: prop::sample::Index) {
        let revision = self.some_revision(which);
        for group in [&self.home, &self.fed, &self.seeded] {
            if !self.readable(group, revision) {
                continue;
            }
            let mut scan = Scan {
                start: vec![from].into(),
                end: Some(vec![to].into()),
                order: if down { Order::Descending } else { Order::Ascending },
                keys_only: page == 2,
                at: Some(revision),
                after: None,
                keys_max: page,
                len_max: 1 << 20,
            };
            let mut found = Vec::new();
            loop {
                let page = group.reading().scan(&scan).unwrap();
                assert_eq!(page.revision, revision);
                assert!(page.entries.len() <= scan.keys_max);
                found.extend(page.entries);
                scan.after = page.next;
                if scan.after.is_none() {
                    break;
                }
            }
            let held = self.model.as_of(revision).into_iter();
            let held = held.filter(|(key, _)| vec![from] <= *key && *key < vec![to]);
            let mut expected: Vec<_> = held.map(|(key, held)| (Bytes::from(key), version(held))).collect();
            if down {
                expected.reverse();
            }
            if scan.keys_only {
                expected.iter_mut().for_each(|(_, version)| version.value.bytes.clear());
            }
            assert_eq!(found, expected);
        }
    }

    /// A follower behind the retention floor cannot be fed any more, so the floor does not pass the followers here.
    fn floor(&mut self, which: prop::sample::Index) {
        let index = which.index(self.home.index as usize + 1) as u64;
        let slowest = self.fed.record().live.revision.min(self.position_of_seeded());
        let own = (slowest < self.home.record().live.revision).then_some((TENANT, slowest));
        let floor = RetentionFloor {
            index,
            tenants: own.into_iter().collect(),
        };
        let before = self.home.record().live.retention_floor;
        assert_eq!(self.home.apply(self.time, floor.encode()), ApplyResult::Done);
        assert!(before <= self.home.record().live.retention_floor);
    }

    /// Returns the position that a feed to the seeded follower must go back to.
    fn position_of_seeded(&self) -> Revision {
        let record = self.seeded.record();
        record.shadow.as_ref().map_or(record.live.revision, |shadow| {
            shadow.state.revision.min(record.live.revision)
        })
    }

    fn feed(&mut self, count: usize) {
        let to_fed = self.home.data(
            self.fed.record().live.revision,
            self.limit(self.fed.record().live.revision, count),
        );
        let answer = self.fed.apply(0, to_fed.encode());
        assert!(
            matches!(answer, ApplyResult::Data(fed) if fed.detached.is_none()),
            "{answer:?}"
        );
        let position = self.position_of_seeded();
        let data = self.home.data_for(&self.seeded, position, self.limit(position, count));
        let answer = self.seeded.apply(0, data.encode());
        assert!(
            matches!(answer, ApplyResult::Data(fed) if fed.detached.is_none()),
            "{answer:?}"
        );
    }

    fn limit(&self, after: Revision, count: usize) -> Sequence {
        Sequence::new(after.sequence().get() + count as u64).unwrap()
    }

    fn seed(&mut self) {
        self.chunks.clear();
        let seed = self.home.next_seed(&self.seeded);
        assert_eq!(self.seeded.apply(0, seed.encode()), ApplyResult::Done);
        assert_eq!(self.seeded.begin_attach(), ApplyResult::Done);
    }

    fn read_chunks(&mut self) {
        let Some(shadow) = &self.seeded.record().shadow else {
            return;
        };
        let reading = self.home.reading();
        let chunk = |part| self.home.chunk(&self.seeded, part);
        let changes = reading.chunk_of_changes(shadow.loaded, shadow.seed, 70).unwrap();
        let loaded = self.seeded.shard.clients_loaded(TENANT).unwrap();
        let clients = reading.chunk_of_clients(loaded, 40);
        let chunks = [chunk(changes), chunk(clients)];
        self.chunks.extend(chunks);
    }

    fn chunk_arrives(&mut self) {
        if self.chunks.is_empty() {
            return;
        }
        let chunk = self.chunks.remove(0);
        let shadow = self.seeded.record().shadow.clone();
        let loaded = self.seeded.shard.clients_loaded(TENANT).unwrap_or_default();
        let answer = self.seeded.apply(0, chunk.encode());
        let Some(shadow) = shadow else {
            assert_eq!(answer, ApplyResult::GuardFailed(GuardFailure::Seed));
            return;
        };
        let (next, passed) = match &chunk.part {
            ChunkContent::Changes { after, .. } => (*after == shadow.loaded, false),
            ChunkContent::Clients { after, .. } => (
                *after == loaded && !loaded.is_complete(),
                shadow.state.revision > chunk.read_at,
            ),
        };
        assert_eq!(answer == ApplyResult::Done, next && !passed, "{chunk:?} {answer:?}");
    }

    fn swap(&mut self) {
        let shadow = self.seeded.record().shadow.clone();
        let live = self.home.record().live.clone();
        let swap = self.home.swap(&self.seeded);
        let unlike = |keys, outcomes| Digests {
            keys: live.digests.keys ^ keys,
            outcomes: live.digests.outcomes ^ outcomes,
        };
        for digests in [unlike(1, 0), unlike(0, 1)] {
            let wrong = Swap { digests, ..swap };
            assert_ne!(self.seeded.apply(0, wrong.encode()), ApplyResult::Done);
        }
        let swapped = self.seeded.apply(0, swap.encode());
        let whole = shadow.is_some_and(|shadow| shadow.is_complete() && shadow.state.revision == live.revision);
        assert_eq!(swapped == ApplyResult::Done, whole, "{swapped:?}");
    }

    fn check(&mut self) {
        let to_end = self.model.changes.len() + 1;
        self.feed(to_end);
        let home = self.home.record().live.clone();
        let now = self.model.now();
        assert_eq!(home.revision, self.model.revision());
        assert_eq!(home.keys, now.len() as u64);
        let len: usize = now.iter().map(|(key, held)| key.len() + held.value.len()).sum();
        assert_eq!(home.len, len as u64);
        let windows = self.home.shard.clients(TENANT).unwrap().windows();
        let outcomes = windows
            .iter()
            .flat_map(|(id, window)| window.outcomes().map(|outcome| digest::of_outcome(*id, outcome)));
        let digests = Digests {
            keys: self.model.digest_of_keys(),
            outcomes: outcomes.fold(0, u128::wrapping_add),
        };
        assert_eq!(home.digests, digests);
        for follower in [&self.fed, &self.seeded] {
            let live = &follower.record().live;
            assert_eq!(
                (live.revision, live.digests, live.keys, live.len),
                (home.revision, home.digests, home.keys, home.len)
            );
            assert_eq!((live.time, live.edge), (home.time, home.edge));
            assert_eq!(windows, follower.shard.clients(TENANT).unwrap().windows());
        }
        for sequence in 0..=self.model.changes.len() {
            for key in 0..5 {
                self.get_at(key, at(sequence));
            }
        }
    }

    fn get_at(&self, key: u8, revision: Revision) {
        for group in [&self.home, &self.fed, &self.seeded] {
            if self.readable(group, revision) {
                let held = self.model.as_of(revision).get(&vec![key]).cloned();
                let got = group.reading().get(&[key], Some(revision)).unwrap();
                assert_eq!(
                    got,
                    held.map(version),
                    "key {key} at {revision} in {}",
                    group.shard.prefix().group
                );
            }
        }
    }

    /// After the floor has reached the end and everything is maintained, a row of each kind is left for each live key.
    fn check_rows(&mut self) {
        let floor = RetentionFloor {
            index: self.home.index,
            tenants: vec![(TENANT, self.model.revision())],
        };
        self.home.apply(self.time, floor.encode());
        self.home.maintain();
        let now = self.model.now();
        let expiring = now.values().filter(|held| held.expires.is_some()).count();
        let clients = self.home.data_rows() - 2 * now.len() - expiring;
        // A head and a page for each of three clients.
        assert!(clients <= 6, "{clients} rows too many");
    }
}

fn effect(does: &Does) -> Effect {
    match *does {
        // Half of them are numbers.
        Does::Put(value, ttl) if value % 2 == 0 => Effect::Put {
            value: vec![b'0' + value % 10; 2].into(),
            ttl,
        },
        Does::Put(value, ttl) => Effect::Put {
            value: vec![value % 5; 3].into(),
            ttl,
        },
        Does::Delete => Effect::Delete,
        Does::Increment(by) => Effect::Increment(by),
        Does::Append(byte, len_max) => Effect::Append {
            bytes: vec![byte; 2].into(),
            len_max,
        },
    }
}

/// A branch has each key once.
fn branch(mut steps: Vec<(u8, Option<Does>)>) -> Vec<TxnStep> {
    steps.sort_by_key(|(key, _)| *key);
    steps.dedup_by_key(|(key, _)| *key);
    let step = |(key, does): (u8, Option<Does>)| match does {
        None => TxnStep::Get(vec![key].into()),
        Some(does) => TxnStep::Write(Operation {
            previous: key % 2 == 0,
            ..Operation::new(vec![key], effect(&does))
        }),
    };
    steps.into_iter().map(step).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn shard_and_followers_agree_with_model(steps in prop::collection::vec(steps(), 1..150)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.check();
        world.check_rows();
    }
}

#[test]
fn write_for_unknown_tenant_is_rejected() {
    let mut group = Group::new(GroupId::new(9));
    let write = Write::new(TENANT, None, Operation::new("k", Effect::Delete));
    assert_eq!(
        group.apply(0, write.encode()),
        ApplyResult::GuardFailed(GuardFailure::NoRecord)
    );
    assert!(group.shard.reading(&group.rows, TENANT).is_none());
}
