//! A follower's machine against its home's, in random steps: feed, seeds, crashes and snapshots.

use proptest::prelude::*;
use stead_state::{
    lineage::Lineage,
    shard::{
        ApplyResult,
        command::{Attach, Chunk, Data, DataHeader, FeedRecords, Follow, Offset, RetentionFloor, Seed, Swap},
        record::{AttachNumber, Role, TenantRecord},
    },
};
use stead_types::{Epoch, FeedOffset, Incarnation, Revision, Sequence};

use super::{
    node::{FOLLOWER, HOME, Node, begin_attach, create, delete, installed, put, tenant, version},
    random_command::{RandomCommand, random_command},
    state::data,
};
use crate::machine::Machine;

/// Step of the random test.
#[derive(Clone, Debug)]
enum Step {
    Put(u64, u8, u64),
    Delete(u64, u8),
    Propose(u64, RandomCommand),
    Floor,
    Checkpoint,
    PowerLoss(usize),
    Snapshot,
    Seed(u64),
    Chunks(u64),
    Swap(u64),
}

fn steps() -> impl Strategy<Value = Step> {
    let number = 1u64..3;
    prop_oneof![
        8 => (number.clone(), 0u8..6, 0u64..40).prop_map(|(number, key, value)| Step::Put(number, key, value)),
        3 => (number.clone(), 0u8..6).prop_map(|(number, key)| Step::Delete(number, key)),
        8 => (number.clone(), random_command()).prop_map(|(number, command)| Step::Propose(number, command)),
        1 => Just(Step::Floor),
        1 => Just(Step::Checkpoint),
        1 => (0usize..3).prop_map(Step::PowerLoss),
        1 => Just(Step::Snapshot),
        1 => number.clone().prop_map(Step::Seed),
        3 => number.clone().prop_map(Step::Chunks),
        2 => number.prop_map(Step::Swap),
    ]
}

/// Home, and a follower fed from it entry by entry; both crash and are replaced by snapshots.
struct World {
    home: Node,
    follower: Node,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            home: Node::new(HOME),
            follower: Node::new(FOLLOWER),
        };
        for number in [1, 2] {
            world.home.propose(&[create(number)]);
            let lineage = world.lineage(number);
            let follow = Follow {
                tenant: tenant(number),
                version: version(1),
                home: HOME,
                epoch: Epoch::FIRST,
                lineage: lineage.clone(),
            };
            let attach = Attach {
                tenant: tenant(number),
                home: HOME,
                epoch: Epoch::FIRST,
                version: version(1),
                number: AttachNumber(1),
                position: Revision::ZERO,
                lineage,
            };
            let begin = begin_attach(number, 1);
            let answers = world.follower.propose(&[follow.encode(), begin, attach.encode()]);
            assert_eq!(answers, [ApplyResult::Done, ApplyResult::Done, ApplyResult::Done]);
        }
        world
    }

    fn at_follower(&self, number: u64) -> TenantRecord {
        let machine = &self.follower.machine;
        machine
            .read(|view| view.record(tenant(number)).unwrap().clone())
            .unwrap()
    }

    fn lineage(&self, number: u64) -> Lineage {
        self.home
            .machine
            .read(|view| view.record(tenant(number)).unwrap().lineage.clone())
            .unwrap()
    }

    /// Sends the follower the entries that it lacks.
    fn feed(&mut self) {
        let index = self
            .follower
            .machine
            .read(|view| view.shard().stream(HOME).index)
            .unwrap();
        let commands = self
            .home
            .machine
            .read(|view| {
                let mut commands = Vec::new();
                for (at, feed) in view.feed(index, 10).unwrap() {
                    for touched in feed.touched {
                        let reading = view.reading(touched.tenant).unwrap();
                        let after = Revision::new(Epoch::FIRST, Sequence::new(touched.first.get() - 1).unwrap());
                        let found = reading.changes(after, touched.last, usize::MAX).unwrap();
                        let head = DataHeader {
                            tenant: touched.tenant,
                            home: HOME,
                            epoch: Epoch::FIRST,
                            version: version(1),
                            attach: self.at_follower(touched.tenant.get()).attach,
                        };
                        let records = FeedRecords {
                            changes: found.changes,
                            digests: Some(reading.state().digests),
                            retention_floor: reading.state().retention_floor,
                        };
                        let data = Data { head, records };
                        commands.push(data.encode());
                    }
                    let offset = FeedOffset {
                        incarnation: Incarnation::FIRST,
                        index: at,
                    };
                    commands.push(Offset { home: HOME, offset }.encode());
                }
                commands
            })
            .unwrap();
        if commands.is_empty() {
            return;
        }
        for answer in self.follower.propose(&commands) {
            if let ApplyResult::Data(fed) = answer {
                assert_eq!(fed.detached, None);
            } else {
                assert_eq!(answer, ApplyResult::Done);
            }
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Put(number, key, value) => {
                self.home.propose(&[put(number, key, value)]);
            }
            Step::Delete(number, key) => {
                self.home.propose(&[delete(number, key)]);
            }
            Step::Propose(number, command) => {
                self.home.propose(&[command.encode(tenant(number))]);
            }
            Step::Floor => {
                let index = self.home.machine.applied().index;
                self.home.propose(&[RetentionFloor { index, tenants: vec![] }.encode()]);
            }
            Step::Checkpoint => {
                self.home.machine.checkpoint().unwrap();
                self.follower.machine.checkpoint().unwrap();
            }
            Step::PowerLoss(survivors) => {
                let before = (self.home.state(), self.follower.state());
                self.home.power_loss(survivors);
                self.follower.power_loss(survivors);
                assert_eq!((self.home.state(), self.follower.state()), before);
            }
            Step::Snapshot => {
                for node in [&mut self.home, &mut self.follower] {
                    let other = installed(node.machine.snapshot().unwrap(), node.group);
                    assert_eq!(other.state(), node.state());
                    *node = other;
                }
            }
            Step::Seed(number) => self.seed(number),
            Step::Chunks(number) => self.chunks(number),
            Step::Swap(number) => self.swap(number),
        }
        self.feed();
    }

    fn seed(&mut self, number: u64) {
        let first = self
            .home
            .machine
            .read(|view| view.record(tenant(number)).unwrap().live.revision)
            .unwrap();
        let seed = Seed {
            tenant: tenant(number),
            home: HOME,
            epoch: Epoch::FIRST,
            version: version(1),
            number: self.at_follower(number).seeds.next(),
            first,
            lineage: self.lineage(number),
        };
        let begin = begin_attach(number, self.at_follower(number).attach.next().0);
        let answers = self.follower.propose(&[seed.encode(), begin]);
        assert_eq!(answers, [ApplyResult::Done, ApplyResult::Done]);
    }

    fn chunks(&mut self, number: u64) {
        let (shadow, loaded) = self
            .follower
            .machine
            .read(|view| {
                let shadow = view.record(tenant(number)).unwrap().shadow.clone();
                (shadow, view.shard().clients_loaded(tenant(number)))
            })
            .unwrap();
        let (Some(shadow), Some(loaded)) = (shadow, loaded) else {
            return;
        };
        let chunks = self
            .home
            .machine
            .read(|view| {
                let reading = view.reading(tenant(number)).unwrap();
                let changes = reading.chunk_of_changes(shadow.loaded, shadow.seed, 100).unwrap();
                let clients = reading.chunk_of_clients(loaded, 40);
                let done = loaded.is_complete();
                let parts = [
                    (shadow.loaded < shadow.seed.sequence()).then_some(changes),
                    (!done).then_some(clients),
                ];
                let chunk = |part| Chunk {
                    tenant: tenant(number),
                    home: HOME,
                    epoch: Epoch::FIRST,
                    number: shadow.number,
                    read_at: reading.state().revision,
                    part,
                };
                parts
                    .into_iter()
                    .flatten()
                    .map(|part| chunk(part).encode())
                    .collect::<Vec<_>>()
            })
            .unwrap();
        for answer in self.follower.propose(&chunks) {
            assert_eq!(answer, ApplyResult::Done);
        }
    }

    fn swap(&mut self, number: u64) {
        let whole = self
            .follower
            .machine
            .read(|view| {
                let record = view.record(tenant(number)).unwrap();
                record.shadow.as_ref().is_some_and(|shadow| shadow.is_complete())
            })
            .unwrap();
        let state = self
            .home
            .machine
            .read(|view| view.record(tenant(number)).unwrap().live.clone())
            .unwrap();
        let swap = Swap {
            tenant: tenant(number),
            home: HOME,
            epoch: Epoch::FIRST,
            version: version(1),
            number: self.at_follower(number).seeds,
            revision: state.revision,
            digests: state.digests,
        };
        let answers = self.follower.propose(&[swap.encode()]);
        assert_eq!(answers == [ApplyResult::Done], whole, "{answers:?}");
    }

    /// Checks that the follower equals the home.
    fn check(&self) {
        let (home, follower) = (self.home.state(), self.follower.state());
        assert_eq!(home.data, follower.data);
        assert_eq!(home.clients, follower.clients);
        for ((_, at_home), (_, here)) in home.records.iter().zip(&follower.records) {
            assert_eq!(here.role, Role::Follower { home: HOME });
            assert!(!here.suspect);
            let figures = |record: &TenantRecord| {
                let live = &record.live;
                (live.revision, live.digests, live.keys, live.len, live.time, live.edge)
            };
            assert_eq!(figures(at_home), figures(here));
        }
        self.check_history();
    }

    /// Checks that reads of older revisions agree where both have the history.
    fn check_history(&self) {
        for number in [1, 2].map(tenant) {
            let state = |node: &Node| {
                node.machine
                    .read(|view| view.record(number).unwrap().live.clone())
                    .unwrap()
            };
            let (home, follower) = (state(&self.home), state(&self.follower));
            let from = home
                .retention_floor
                .max(follower.retention_floor)
                .sequence()
                .get()
                .max(1);
            for sequence in from..=home.revision.sequence().get() {
                let at = Some(Revision::new(Epoch::FIRST, Sequence::new(sequence).unwrap()));
                let read = |node: &Node| node.machine.read(|view| data(&view, number, at)).unwrap();
                assert_eq!(read(&self.home), read(&self.follower), "at {sequence}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn follower_equals_home_through_crashes_snapshots_and_seeds(steps in prop::collection::vec(steps(), 1..120)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.check();
    }
}
