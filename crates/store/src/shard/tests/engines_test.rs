//! One log on all three engines: equal results and equal state, across restarts, snapshots and compaction.

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use proptest::prelude::*;
use stead_state::{codec::encode_entry, shard::command::RetentionFloor};
use stead_types::GroupId;
use tempfile::TempDir;

use super::{
    super::ShardMachine,
    node::{create, tenant},
    random_command::{RandomCommand, random_command},
    state::State,
};
use crate::{
    background::Background,
    engine::{Engine, fjall, memory::Disk, sled},
    machine::{CommittedEntry, Machine, Payload},
};

const GROUP: GroupId = GroupId::new(1);

#[derive(Clone, Debug)]
enum Step {
    Propose(RandomCommand),
    Floor,
    Checkpoint,
    /// Closes and opens; the log is applied again from the last checkpoint.
    Restart,
    /// All three install the snapshot of one of them.
    Snapshot(usize),
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        40 => random_command().prop_map(Step::Propose),
        2 => Just(Step::Floor),
        2 => Just(Step::Checkpoint),
        1 => Just(Step::Restart),
        1 => (0usize..3).prop_map(Step::Snapshot),
    ]
}

/// Storage of one machine's rows.
enum EngineStorage {
    Fjall(TempDir),
    Sled(TempDir),
    Memory(Disk),
}

struct Node {
    storage: EngineStorage,
    /// `None` while it restarts: an engine is opened once at a time.
    machine: Option<ShardMachine>,
}

impl EngineStorage {
    fn open(&self) -> ShardMachine {
        let of = |opened: fn(&Path) -> std::io::Result<Arc<dyn Engine>>, dir: &TempDir| opened(dir.path()).unwrap();
        let engine = match self {
            Self::Fjall(dir) => of(fjall::open, dir),
            Self::Sled(dir) => of(sled::open, dir),
            Self::Memory(disk) => disk.open(),
        };
        ShardMachine::open(engine, Arc::new(Background::inline()), GROUP).unwrap()
    }
}

impl Node {
    fn new(storage: EngineStorage) -> Self {
        let machine = Some(storage.open());
        Self { storage, machine }
    }

    fn machine(&self) -> &ShardMachine {
        self.machine.as_ref().unwrap()
    }

    fn restart(&mut self, log: &[CommittedEntry]) {
        self.machine = None;
        self.machine = Some(self.storage.open());
        let applied = self.machine().applied().index;
        let rest = log.iter().filter(|entry| entry.index > applied).cloned().collect();
        self.machine().apply(rest).unwrap();
    }
}

struct World {
    nodes: [Node; 3],
    log: Vec<CommittedEntry>,
}

impl World {
    fn new() -> Self {
        let dir = || tempfile::tempdir().unwrap();
        let storages = [
            EngineStorage::Fjall(dir()),
            EngineStorage::Sled(dir()),
            EngineStorage::Memory(Disk::default()),
        ];
        Self {
            nodes: storages.map(Node::new),
            log: Vec::new(),
        }
    }

    fn propose(&mut self, command: Bytes) {
        let index = self.log.len() as u64 + 1;
        let entry = CommittedEntry {
            index,
            log_id: Bytes::copy_from_slice(&index.to_be_bytes()),
            payload: Payload::Commands(encode_entry(1_000 + 3 * index, &[command])),
        };
        self.log.push(entry.clone());
        let answers = self.nodes.each_ref().map(|node| {
            let answers = node.machine().apply(vec![entry.clone()]).unwrap();
            answers.into_iter().flatten().collect::<Vec<_>>()
        });
        assert!(answers.iter().all(|other| *other == answers[0]), "{answers:?}");
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Propose(command) => self.propose(command.encode(tenant(1))),
            Step::Floor => {
                let index = self.log.len() as u64;
                self.propose(RetentionFloor { index, tenants: vec![] }.encode());
            }
            Step::Checkpoint => self.nodes.iter().for_each(|node| node.machine().checkpoint().unwrap()),
            Step::Restart => {
                let log = self.log.clone();
                self.nodes.iter_mut().for_each(|node| node.restart(&log));
                self.check();
            }
            Step::Snapshot(of) => {
                for to in 0..self.nodes.len() {
                    let snapshot = self.nodes[of].machine().snapshot().unwrap();
                    self.nodes[to].machine().install(snapshot).unwrap();
                }
                self.check();
            }
        }
    }

    fn check(&self) {
        let states = self.nodes.each_ref().map(|node| State::of(node.machine()));
        for state in &states[1..] {
            assert_eq!(*state, states[0]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn three_engines_reach_equal_state(steps in prop::collection::vec(steps(), 1..120)) {
        let mut world = World::new();
        world.propose(create(1));
        for step in steps {
            world.step(step);
        }
        world.check();
    }
}
