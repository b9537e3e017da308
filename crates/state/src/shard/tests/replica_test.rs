//! Replicas of one group that took different ways to the same entry are equal: one that ran through, one that was
//! reopened before each entry, and one that flushed its memory to rows now and then.

use bytes::Bytes;
use proptest::prelude::*;
use stead_types::{
    ClientId, Epoch, GroupId, IdempotencyKey, Incarnation, Revision, Sequence, TenantNumber, TenantTime,
};

use super::group::{Group, TENANT, version};
use crate::{
    lineage::Lineage,
    rows::{
        Rows as _,
        change::{Cause, Change, IdempotencyOutcome, Value},
        kind,
    },
    shard::{
        ApplyResult,
        client_windows::ClientWindows,
        command::{
            Attach, BeginAttach, Chunk, ChunkContent, Data, DataHeader, Effect, Erase, FeedRecords, Follow, Operation,
            Seed, Swap, Write,
        },
        digest::Digests,
        record::{ClientsLoaded, Role, TenantRecord},
    },
};

const OTHER: GroupId = GroupId::new(3);

#[derive(Clone, Debug)]
enum Step {
    /// A write by the owner, with or without a client.
    Write(u8, Option<u8>),
    /// A new home, whose history keeps all but this many of the last changes.
    Follow(bool, u64),
    /// An attempt to attach starts.
    Begin,
    /// The last attempt succeeds.
    Attach,
    /// This many changes from the home; with digests that are right, wrong, or none.
    Data(u8, Option<bool>),
    /// The copy is seeded, whole or in part.
    Seed(bool),
    Swap,
    Erase,
    /// One of the replicas flushes its memory to rows.
    Flush,
    Maintain,
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..4_u8, prop::option::of(0..3_u8)).prop_map(|(key, client)| Step::Write(key, client)),
        3 => (any::<bool>(), 0..3_u64).prop_map(|(other, back)| Step::Follow(other, back)),
        3 => Just(Step::Begin),
        2 => Just(Step::Attach),
        4 => (1..4_u8, prop::option::of(any::<bool>())).prop_map(|(count, right)| Step::Data(count, right)),
        2 => any::<bool>().prop_map(Step::Seed),
        2 => Just(Step::Swap),
        1 => Just(Step::Erase),
        2 => Just(Step::Flush),
        1 => Just(Step::Maintain),
    ]
}

struct Replicas {
    through: Group,
    reopened: Group,
    flushed: Group,
    /// Counts writes and effects, so that no two are the same.
    count: u64,
    view: u64,
}

impl Replicas {
    fn new() -> Self {
        Self {
            through: Group::owner(),
            reopened: Group::owner(),
            flushed: Group::owner(),
            count: 0,
            view: 1,
        }
    }

    fn apply(&mut self, command: Bytes) -> ApplyResult {
        let time = 1_000 + self.count;
        self.reopened.reopen();
        let answer = self.through.apply(time, command.clone());
        for other in [&mut self.reopened, &mut self.flushed] {
            assert_eq!(other.apply(time, command.clone()), answer);
        }
        answer
    }

    fn record(&self) -> &TenantRecord {
        self.through.record()
    }

    fn step(&mut self, step: Step) {
        self.count += 1;
        match step {
            Step::Write(key, client) => drop(self.write(key, client)),
            Step::Follow(other, back) => self.follow(if other { OTHER } else { GroupId::new(4) }, back),
            Step::Begin => self.begin(),
            Step::Attach => self.attach(),
            Step::Data(count, right) => self.data(u64::from(count), right),
            Step::Seed(whole) => self.seed(whole),
            Step::Swap => self.swap(),
            Step::Erase => self.erase(),
            Step::Flush => self.flushed.reopen(),
            Step::Maintain => self.flushed.maintain(),
        }
    }

    fn write(&mut self, key: u8, client: Option<u8>) -> ApplyResult {
        let idempotency = client.map(|client| IdempotencyKey {
            client: ClientId(u128::from(client)),
            sequence: self.count,
            first_sent: TenantTime(0),
        });
        let operation = Operation::new(vec![key], Effect::put(vec![key; 3]));
        self.apply(Write::new(TENANT, idempotency, operation).encode())
    }

    fn follow(&mut self, home: GroupId, back: u64) {
        let record = self.record();
        let epoch = record.promised.next().unwrap();
        let kept = record.live.revision.sequence().get().saturating_sub(back);
        let mut lineage = if record.role == Role::Erased {
            Lineage::starting(Epoch::FIRST)
        } else {
            record.lineage.clone()
        };
        lineage.record_promotion(epoch, Sequence::new(kept).unwrap());
        self.view += 1;
        let follow = Follow {
            tenant: TENANT,
            version: version(self.view),
            home,
            epoch,
            lineage,
        };
        self.apply(follow.encode());
        let record = self.record();
        if record.live.revision == Revision::ZERO {
            assert!(!record.suspect, "nothing is wrong with an empty copy");
        }
    }

    fn home(&self) -> GroupId {
        self.record().home().unwrap_or(OTHER)
    }

    fn begin(&mut self) {
        let record = self.record();
        let begin = BeginAttach {
            tenant: TENANT,
            home: self.home(),
            incarnation: Incarnation::FIRST,
            epoch: record.epoch,
            version: version(self.view),
            number: record.attach.next(),
        };
        self.apply(begin.encode());
    }

    fn attach(&mut self) {
        let record = self.record();
        let attach = Attach {
            tenant: TENANT,
            home: self.home(),
            epoch: record.epoch,
            version: version(self.view),
            number: record.attach,
            position: record.live.revision,
            lineage: record.lineage.clone(),
        };
        self.apply(attach.encode());
    }

    /// Returns a change from the home, of a client in two of three.
    fn change(&self, sequence: u64) -> Change {
        let number = self.count * 10 + sequence;
        let revision = Revision::new(self.record().epoch, Sequence::new(sequence).unwrap());
        let outcome = IdempotencyOutcome {
            client: ClientId(u128::from(number % 3)),
            sequence: number,
            request: 2,
            evicted: 0,
            others: Vec::new(),
        };
        Change {
            revision,
            effect: 0,
            more: false,
            cause: Cause::Write,
            time: TenantTime(2_000 + self.count),
            previous: None,
            chain: crate::rows::chain::VersionChain::default(),
            outcome: Some(outcome).filter(|_| !number.is_multiple_of(3)),
            operation: None,
            origin: None,
            key: vec![(number % 4) as u8].into(),
            value: Some(Value {
                create: revision,
                version: 1,
                expires: None,
                bytes: Bytes::from_static(b"fed"),
            }),
        }
    }

    fn data(&mut self, count: u64, right: Option<bool>) {
        let last = self.record().live.revision.sequence().get();
        let head = DataHeader {
            tenant: TENANT,
            home: self.home(),
            epoch: self.record().epoch,
            version: version(self.view),
            attach: self.record().attach,
        };
        let records = FeedRecords {
            changes: (last + 1..=last + count)
                .map(|sequence| self.change(sequence))
                .collect(),
            digests: None,
            retention_floor: Revision::ZERO,
        };
        // What is right is asked of a copy that takes the changes in.
        let digests = right.and_then(|right| {
            let records = records.clone();
            let mut digests = self.after(&Data { head, records })?;
            digests.keys ^= u128::from(!right);
            Some(digests)
        });
        let records = FeedRecords { digests, ..records };
        self.apply(Data { head, records }.encode());
    }

    fn after(&mut self, data: &Data) -> Option<Digests> {
        self.reopened.reopen();
        let mut copy = self.reopened.copy();
        copy.apply(0, data.encode());
        copy.shard.record(TENANT).map(|record| record.live.digests)
    }

    fn seed(&mut self, whole: bool) {
        let record = self.record();
        let (home, epoch, first) = (
            self.home(),
            record.epoch,
            Revision::new(record.epoch, Sequence::new(2).unwrap()),
        );
        let seed = Seed {
            tenant: TENANT,
            home,
            epoch,
            version: version(self.view),
            number: record.seeds.next(),
            first,
            lineage: record.lineage.clone(),
        };
        let number = seed.number;
        self.apply(seed.encode());
        let changes = ChunkContent::Changes {
            after: Sequence::ZERO,
            up_to: first.sequence(),
            changes: vec![self.change(1), self.change(2)],
        };
        let clients = ChunkContent::Clients {
            after: ClientsLoaded::default(),
            up_to: Some(ClientId(u128::MAX)),
            time: TenantTime(2_000),
            edge: TenantTime(0),
            windows: Vec::new(),
        };
        for part in [changes, clients].into_iter().take(if whole { 2 } else { 1 }) {
            let chunk = Chunk {
                tenant: TENANT,
                home,
                epoch,
                number,
                read_at: first,
                part,
            };
            self.apply(chunk.encode());
        }
    }

    fn swap(&mut self) {
        let record = self.record();
        let shadow = record
            .shadow
            .as_ref()
            .map(|shadow| shadow.state.clone())
            .unwrap_or_default();
        let swap = Swap {
            tenant: TENANT,
            home: self.home(),
            epoch: record.epoch,
            version: version(self.view),
            number: record.seeds,
            revision: shadow.revision,
            digests: shadow.digests,
        };
        self.apply(swap.encode());
    }

    fn erase(&mut self) {
        self.view += 1;
        let erase = Erase {
            tenant: TENANT,
            version: version(self.view),
            deleted: true,
            forks: self.record().forks.iter().map(|fork| fork.copy.number).collect(),
            recorded: None,
        };
        self.apply(erase.encode());
    }

    /// Checks that all replicas are equal, in memory and in rows.
    fn check(mut self) {
        let groups = [&mut self.through, &mut self.reopened, &mut self.flushed];
        let states = groups.map(|group| {
            let memory = memory(group);
            group.maintain();
            group.reopen();
            assert_eq!(memory, self::memory(group), "reading back changes nothing");
            group.shard.tenants.values_mut().for_each(|tenant| tenant.dirty = true);
            (memory, rows(group))
        });
        assert_eq!(states[0], states[1]);
        assert_eq!(states[0], states[2]);
    }
}

type Memory = Vec<(TenantNumber, TenantRecord, Vec<String>, Vec<TenantNumber>)>;

/// Returns the state in memory, without local progress of maintenance.
fn memory(group: &Group) -> Memory {
    let windows = |clients: &ClientWindows| format!("{:?}", clients.windows());
    let tenants = group.shard.tenants.iter();
    tenants
        .map(|(number, tenant)| {
            let mut record = tenant.record.clone();
            record.live.trimmed = Sequence::ZERO;
            let detached = [OTHER, GroupId::new(4)].map(|home| group.shard.detached(home).collect::<Vec<_>>());
            let windows = vec![windows(&tenant.clients), windows(&tenant.shadow_clients)];
            (*number, record, windows, detached.concat())
        })
        .collect()
}

/// Returns every row but the record, which `memory` has.
fn rows(group: &Group) -> Vec<(Bytes, Bytes)> {
    let rows = group.all_rows().iter();
    rows.filter(|(key, _)| key[0] != kind::TENANT)
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn replicas_are_equal_after_reopen_and_flush(steps in prop::collection::vec(steps(), 1..40)) {
        let mut replicas = Replicas::new();
        for step in steps {
            replicas.step(step);
        }
        replicas.check();
    }
}

#[test]
fn windows_of_fork_are_in_every_replica() {
    let mut replicas = Replicas::new();
    replicas.step(Step::Write(1, Some(1)));
    replicas.step(Step::Write(2, Some(1)));
    // Nothing is rewound to before the first change: the whole copy is the fork.
    replicas.step(Step::Follow(true, 2));
    replicas.through.reopen();
    let copy = {
        let fork = &replicas.record().forks[0].copy;
        replicas.through.shard.prefix().copy(TENANT, fork.number)
    };
    let range = copy.range(kind::CLIENT);
    let rows = replicas
        .through
        .rows
        .range(&range.start..&range.end, crate::rows::Order::Ascending);
    assert_ne!(
        rows.count(),
        0,
        "the fork has the outcomes that no checkpoint had written"
    );
    replicas.check();
}

#[test]
fn empty_copy_after_fork_is_not_suspect() {
    let mut replicas = Replicas::new();
    replicas.step(Step::Write(1, None));
    replicas.step(Step::Follow(true, 0));
    replicas.step(Step::Begin);
    replicas.step(Step::Attach);
    replicas.step(Step::Data(1, Some(false)));
    assert!(replicas.record().suspect);
    replicas.step(Step::Follow(false, 2));
    assert!(!replicas.record().suspect);
    assert_eq!(replicas.record().live.revision, Revision::ZERO);
    replicas.check();
}
