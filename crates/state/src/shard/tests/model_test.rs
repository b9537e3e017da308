//! The shard agrees with the model, and so do followers built from the feed alone and from seeds.

use bytes::Bytes;
use proptest::prelude::*;
use stead_types::{ClientId, GroupId, IdempotencyKey, Revision, Sequence, TenantTime};

use super::{
    group::{Group, HOME, TENANT, epoch},
    model::{Model, at},
};
use crate::{
    rows::Order,
    shard::{
        Answer,
        answer::{Made, Unfit, Version, Void},
        command::{Chunk, Condition, Effect, Floor, Increment, Operation, Part, Seed, Swap, Write},
        digest,
        read::{Refused, Scan},
    },
};

#[derive(Clone, Debug)]
enum Step {
    Put(u8, u8, Holds),
    Delete(u8, Holds),
    Increment(u8, Increment, Holds),
    Append(u8, u8, u32, Holds),
    /// Sends again, word for word, the write with this number, if it had an idempotency key.
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

#[derive(Clone, Copy, Debug)]
enum Holds {
    Always,
    Absent,
    Exists,
    /// The key's revision at some time.
    Revision(u8),
}

fn steps() -> impl Strategy<Value = Step> {
    let key = 0u8..5;
    let holds = prop_oneof![
        4 => Just(Holds::Always),
        1 => Just(Holds::Absent),
        1 => Just(Holds::Exists),
        2 => (0u8..3).prop_map(Holds::Revision),
    ];
    prop_oneof![
        10 => (key.clone(), any::<u8>(), holds.clone()).prop_map(|(key, value, holds)| Step::Put(key, value, holds)),
        5 => (key.clone(), holds.clone()).prop_map(|(key, holds)| Step::Delete(key, holds)),
        8 => (key.clone(), increments(), holds.clone()).prop_map(|(key, by, holds)| Step::Increment(key, by, holds)),
        5 => (key.clone(), any::<u8>(), 0u32..9, holds).prop_map(|(key, byte, max, holds)| Step::Append(key, byte, max, holds)),
        3 => any::<prop::sample::Index>().prop_map(Step::Again),
        3 => (key.clone(), any::<prop::sample::Index>()).prop_map(|(key, at)| Step::Get(key, at)),
        3 => (key.clone(), key, any::<bool>(), 1usize..4, any::<prop::sample::Index>())
            .prop_map(|(from, to, down, page, at)| Step::Scan(from, to, down, page, at)),
        1 => any::<prop::sample::Index>().prop_map(Step::Floor),
        1 => Just(Step::Maintain),
        1 => Just(Step::Reopen),
        4 => (1usize..4).prop_map(Step::Feed),
        1 => Just(Step::Seed),
        3 => Just(Step::ReadChunks),
        3 => Just(Step::ChunkArrives),
        2 => Just(Step::Swap),
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

/// A home, its model, a follower that is fed from the beginning and one that is seeded now and then.
struct World {
    home: Group,
    model: Model,
    sent: Vec<(Write, Answer)>,
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
            // Half of them are numbers.
            Step::Put(key, value, holds) if value % 2 == 0 => {
                self.write(key, Effect::Put(vec![b'0' + value % 10; 2].into()), holds);
            }
            Step::Put(key, value, holds) => self.write(key, Effect::Put(vec![value; 3].into()), holds),
            Step::Delete(key, holds) => self.write(key, Effect::Delete, holds),
            Step::Increment(key, by, holds) => self.write(key, Effect::Increment(by), holds),
            Step::Append(key, byte, len_max, holds) => {
                let bytes = vec![byte; 2].into();
                self.write(key, Effect::Append { bytes, len_max }, holds);
            }
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
        match holds {
            Holds::Always => None,
            Holds::Absent => Some(Condition::Absent),
            Holds::Exists => Some(Condition::Exists),
            Holds::Revision(back) => {
                let ago = self.model.changes.len().saturating_sub(usize::from(back));
                let held = self.model.as_of(at(ago)).get(&vec![key]).cloned();
                Some(Condition::Revision(held.map_or(Revision::ZERO, |held| held.0)))
            }
        }
    }

    fn write(&mut self, key: u8, effect: Effect, holds: Holds) {
        let condition = self.condition(key, holds);
        let operation = Operation {
            condition,
            previous: true,
            ..Operation::new(vec![key], effect.clone())
        };
        let number = self.sent.len() as u64;
        let idempotency = (!number.is_multiple_of(4)).then(|| IdempotencyKey {
            client: ClientId(u128::from(number % 3)),
            sequence: number / 3,
            first_sent: self.home.record().live.time,
        });
        let write = Write::new(TENANT, idempotency, operation);
        self.time += 10;
        let answer = self.home.apply(self.time, write.encode());
        let expected = self.expected(key, effect, condition);
        assert_eq!(answer, expected, "{write:?}");
        self.sent.push((write, answer));
    }

    /// What a write that is sent for the first time comes to.
    fn expected(&mut self, key: u8, effect: Effect, condition: Option<Condition>) -> Answer {
        let held = self.model.now().get(&vec![key]).cloned();
        let current = held.as_ref().map_or(Revision::ZERO, |held| held.0);
        let holds = match condition {
            None => true,
            Some(Condition::Absent) => held.is_none(),
            Some(Condition::Exists) => held.is_some(),
            Some(Condition::Revision(wanted)) => held.is_some() && wanted == current,
        };
        let evaluated = crate::shard::answer::Evaluated {
            revision: self.model.revision(),
            time: self.home.record().live.time,
        };
        if !holds {
            return Answer::ConditionFailed { current, at: evaluated };
        }
        let before = held.as_ref().map(|held| held.3.clone());
        let (value, made) = match effect {
            Effect::Put(value) => (Some(value.to_vec()), None),
            Effect::Delete if held.is_none() => return Answer::Unchanged(evaluated),
            Effect::Delete => (None, None),
            Effect::Append { bytes, len_max } => {
                let mut value = before.unwrap_or_default();
                let len = value.len() as u64;
                value.extend_from_slice(&bytes);
                if value.len() > len_max as usize {
                    return Answer::Unfit(Unfit::TooLong { len });
                }
                let len = value.len() as u64;
                (Some(value), Some(Made::Length(len)))
            }
            Effect::Increment(by) => {
                let Some(number) = before.map_or(Some(0), |before| String::from_utf8(before).ok()?.parse().ok()) else {
                    return Answer::Unfit(Unfit::NotANumber);
                };
                let since = held.as_ref().map_or(0, |held| self.model.time_of(held.0));
                let is_over = by.window.is_some_and(|window| since / window != self.time / window);
                let number: i64 = if is_over { 0 } else { number };
                let sum = i128::from(number) + i128::from(by.delta);
                let Ok(sum) = i64::try_from(sum) else {
                    return Answer::Unfit(Unfit::Overflow { number });
                };
                let is_beyond = (by.delta > 0 && by.ceiling.is_some_and(|ceiling| ceiling < sum))
                    || (by.delta < 0 && by.floor.is_some_and(|floor| sum < floor));
                if is_beyond {
                    return Answer::BoundReached { number, at: evaluated };
                }
                (Some(sum.to_string().into_bytes()), Some(Made::Number(sum)))
            }
        };
        let revision = self.model.change(&[key], value, self.time);
        Answer::Written(crate::shard::answer::Written {
            revision,
            time: TenantTime(self.time),
            previous: held.map(version),
            repeated: false,
            made,
        })
    }

    fn again(&mut self, which: prop::sample::Index) {
        if self.sent.is_empty() {
            return;
        }
        let (write, first) = which.get(&self.sent).clone();
        let Answer::Written(first) = first else { return };
        if write.idempotency.is_none() {
            return;
        }
        let before = self.home.record().clone();
        let answer = self.home.apply(self.time, write.encode());
        let Answer::Written(again) = answer else {
            panic!("{answer:?}")
        };
        assert_eq!((again.revision, again.repeated), (first.revision, true));
        if first.revision > before.live.floor {
            assert_eq!((again.previous, again.made), (first.previous, first.made));
        }
        assert_eq!(self.home.record(), &before);
        let other = Write {
            request: write.request ^ 1,
            ..write
        };
        assert_eq!(self.home.apply(self.time, other.encode()), Answer::KeyReused);
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
                    Err(Refused::NotReached { .. } | Refused::Compacted { .. })
                ));
            }
        }
    }

    fn readable(&self, group: &Group, revision: Revision) -> bool {
        let live = &group.record().live;
        live.floor <= revision && revision <= live.revision
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

    /// Whoever is behind the floor cannot be fed any more, so it does not pass the followers here.
    fn floor(&mut self, which: prop::sample::Index) {
        let index = which.index(self.home.index as usize + 1) as u64;
        let slowest = self.fed.record().live.revision.min(self.position_of_seeded());
        let own = (slowest < self.home.record().live.revision).then_some((TENANT, slowest));
        let floor = Floor {
            index,
            tenants: own.into_iter().collect(),
        };
        let before = self.home.record().live.floor;
        assert_eq!(self.home.apply(self.time, floor.encode()), Answer::Done);
        assert!(before <= self.home.record().live.floor);
    }

    /// How far a feed to the seeded follower must go back.
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
            matches!(answer, Answer::Fed(fed) if fed.detached.is_none()),
            "{answer:?}"
        );
        let position = self.position_of_seeded();
        let data = self.home.data(position, self.limit(position, count));
        let answer = self.seeded.apply(0, data.encode());
        assert!(
            matches!(answer, Answer::Fed(fed) if fed.detached.is_none()),
            "{answer:?}"
        );
    }

    fn limit(&self, after: Revision, count: usize) -> Sequence {
        Sequence::new(after.sequence().get() + count as u64).unwrap()
    }

    fn seed(&mut self) {
        self.chunks.clear();
        let seed = Seed {
            tenant: TENANT,
            home: HOME,
            epoch: epoch(1),
            first: self.home.record().live.revision,
            lineage: self.home.record().lineage.clone(),
        };
        assert_eq!(self.seeded.apply(0, seed.encode()), Answer::Done);
    }

    fn read_chunks(&mut self) {
        let Some(shadow) = &self.seeded.record().shadow else {
            return;
        };
        let reading = self.home.reading();
        let chunk = |part| Chunk {
            tenant: TENANT,
            home: HOME,
            epoch: epoch(1),
            first: shadow.seed,
            read_at: reading.state().revision,
            part,
        };
        let changes = reading.chunk_of_changes(shadow.loaded, shadow.seed, 70).unwrap();
        let clients = reading.chunk_of_clients(shadow.clients_loaded_to(), 40);
        let chunks = [chunk(changes), chunk(clients)];
        self.chunks.extend(chunks);
    }

    fn chunk_arrives(&mut self) {
        if self.chunks.is_empty() {
            return;
        }
        let chunk = self.chunks.remove(0);
        let shadow = self.seeded.record().shadow.clone();
        let answer = self.seeded.apply(0, chunk.encode());
        let Some(shadow) = shadow else {
            assert_eq!(answer, Answer::Void(Void::Seed));
            return;
        };
        let (next, passed) = match &chunk.part {
            Part::Changes { after, .. } => (*after == shadow.loaded, false),
            Part::Clients { after, .. } => {
                let all = shadow.clients_loaded_to() == Some(ClientId(u128::MAX));
                (
                    *after == shadow.clients_loaded_to() && !all,
                    shadow.state.revision > chunk.read_at,
                )
            }
        };
        assert_eq!(answer == Answer::Done, next && !passed, "{chunk:?} {answer:?}");
    }

    fn swap(&mut self) {
        let shadow = self.seeded.record().shadow.clone();
        let live = self.home.record().live.clone();
        let swap = Swap {
            tenant: TENANT,
            home: HOME,
            epoch: epoch(1),
            revision: live.revision,
            digest: live.digest,
        };
        let wrong = Swap {
            digest: live.digest ^ 1,
            ..swap
        };
        assert_ne!(self.seeded.apply(0, wrong.encode()), Answer::Done);
        let swapped = self.seeded.apply(0, swap.encode());
        let whole = shadow.is_some_and(|shadow| shadow.is_whole() && shadow.state.revision == live.revision);
        assert_eq!(swapped == Answer::Done, whole, "{swapped:?}");
    }

    fn check(&mut self) {
        let to_end = self.model.changes.len() + 1;
        self.feed(to_end);
        let home = self.home.record().live.clone();
        let now = self.model.now();
        assert_eq!(home.revision, self.model.revision());
        assert_eq!(home.keys, now.len() as u64);
        let len: usize = now.iter().map(|(key, held)| key.len() + held.3.len()).sum();
        assert_eq!(home.len, len as u64);
        let windows = self.home.shard.clients(TENANT).unwrap().windows();
        let outcomes = windows
            .iter()
            .flat_map(|(id, window)| window.outcomes().map(|outcome| digest::of_outcome(*id, outcome)));
        assert_eq!(
            home.digest,
            outcomes.fold(self.model.digest_of_keys(), u128::wrapping_add)
        );
        for follower in [&self.fed, &self.seeded] {
            let live = &follower.record().live;
            assert_eq!(
                (live.revision, live.digest, live.keys, live.len),
                (home.revision, home.digest, home.keys, home.len)
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
                    group.shard.place().group
                );
            }
        }
    }

    /// After the floor has reached the end and everything is maintained, a row of each kind is left for each live key.
    fn check_rows(&mut self) {
        let floor = Floor {
            index: self.home.index,
            tenants: vec![(TENANT, self.model.revision())],
        };
        self.home.apply(self.time, floor.encode());
        self.home.maintain();
        let clients = self.home.data_rows() - 2 * self.model.now().len();
        assert!(clients <= 3, "{clients} rows too many");
    }
}

fn version((revision, create, version, bytes): super::model::Held) -> Version {
    let value = crate::rows::change::Value {
        create,
        version,
        bytes: bytes.into(),
    };
    Version { revision, value }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_shard_and_its_followers_agree_with_a_plain_map(steps in prop::collection::vec(steps(), 1..150)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.check();
        world.check_rows();
    }
}

#[test]
fn a_group_that_has_nothing_of_a_tenant_says_so() {
    let mut group = Group::new(GroupId::new(9));
    let write = Write::new(TENANT, None, Operation::new("k", Effect::Delete));
    assert_eq!(group.apply(0, write.encode()), Answer::Void(Void::NoRecord));
    assert!(group.shard.reading(&group.rows, TENANT).is_none());
}
