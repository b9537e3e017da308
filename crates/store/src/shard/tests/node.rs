//! A machine of one group with its disk and its log, and the commands that tests apply to it.

use std::sync::Arc;

use bytes::Bytes;
use stead_state::{
    codec::encode_entry,
    shard::{
        ApplyResult,
        command::{BeginAttach, Condition, Create, Effect, Operation, Write},
        record::{AttachNumber, LeaseLossPolicy},
    },
};
use stead_types::{ClientId, DirectoryVersion, Epoch, GroupId, IdempotencyKey, Incarnation, TenantNumber, TenantTime};

use super::{super::ShardMachine, state::State};
use crate::{
    background::Background,
    engine::memory::Disk,
    machine::{CommittedEntry, Machine, Payload, Snapshot},
};

pub(super) const HOME: GroupId = GroupId::new(1);
pub(super) const FOLLOWER: GroupId = GroupId::new(2);

/// Machine with its disk and its log.
pub(super) struct Node {
    pub(super) group: GroupId,
    pub(super) disk: Disk,
    pub(super) machine: ShardMachine,
    pub(super) log: Vec<CommittedEntry>,
    /// Index of the entry before the first of the log.
    pub(super) log_start: u64,
}

impl Node {
    pub(super) fn new(group: GroupId) -> Self {
        let disk = Disk::default();
        Self {
            group,
            machine: open(&disk, group),
            disk,
            log: Vec::new(),
            log_start: 0,
        }
    }

    /// Applies one entry and returns its results.
    pub(super) fn propose(&mut self, commands: &[Bytes]) -> Vec<ApplyResult> {
        let index = self.machine.applied().index + 1;
        let entry = CommittedEntry {
            index,
            log_id: Bytes::copy_from_slice(&index.to_be_bytes()),
            payload: Payload::Commands(encode_entry(1_000 + index, commands)),
        };
        self.log.push(entry.clone());
        let answers = self.machine.apply(vec![entry]).unwrap();
        answers.into_iter().flatten().collect()
    }

    /// Kills the node; the batches since the last checkpoint survive in part. Then the log is applied again.
    pub(super) fn power_loss(&mut self, survivors: usize) {
        self.disk.power_loss(survivors);
        self.machine = open(&self.disk, self.group);
        let applied = self.machine.applied();
        assert_eq!(applied, self.machine.durable());
        let again = (applied.index - self.log_start) as usize;
        self.machine.apply(self.log[again..].to_vec()).unwrap();
    }

    pub(super) fn state(&self) -> State {
        State::of(&self.machine)
    }
}

pub(super) fn open(disk: &Disk, group: GroupId) -> ShardMachine {
    ShardMachine::open(disk.open(), Arc::new(Background::inline()), group).unwrap()
}

/// Installs a machine's snapshot on a new node.
pub(super) fn installed(snapshot: Snapshot, group: GroupId) -> Node {
    let mut node = Node::new(group);
    let index = snapshot.applied.index;
    node.machine.install(snapshot).unwrap();
    node.log_start = index;
    node
}

pub(super) fn version(index: u64) -> DirectoryVersion {
    DirectoryVersion {
        incarnation: Incarnation::FIRST,
        index,
    }
}

pub(super) fn begin_attach(number: u64, attempt: u64) -> Bytes {
    let begin = BeginAttach {
        tenant: tenant(number),
        home: HOME,
        incarnation: Incarnation::FIRST,
        epoch: Epoch::FIRST,
        version: version(1),
        number: AttachNumber(attempt),
    };
    begin.encode()
}

pub(super) fn tenant(number: u64) -> TenantNumber {
    TenantNumber::new(number)
}

pub(super) fn create(number: u64) -> Bytes {
    let create = Create {
        tenant: tenant(number),
        version: version(1),
        policy: LeaseLossPolicy::Stop,
    };
    create.encode()
}

pub(super) fn put(number: u64, key: u8, value: u64) -> Bytes {
    let value_bytes = Bytes::copy_from_slice(&value.to_be_bytes());
    let operation = Operation::new(vec![b'k', key], Effect::put(value_bytes));
    let idempotency = (!value.is_multiple_of(3)).then_some(IdempotencyKey {
        client: ClientId(u128::from(value % 5)),
        sequence: value,
        first_sent: TenantTime(0),
    });
    Write::new(tenant(number), idempotency, operation).encode()
}

pub(super) fn delete(number: u64, key: u8) -> Bytes {
    let operation = Operation {
        condition: Some(Condition::Exists),
        ..Operation::new(vec![b'k', key], Effect::Delete)
    };
    Write::new(tenant(number), None, operation).encode()
}
