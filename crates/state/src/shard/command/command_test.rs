//! Round trips of every command, and their bytes against the golden file.

use std::fmt::Write as _;

use stead_types::{ClientId, IdempotencyKey, TenantTime};

use super::*;
use crate::{
    lineage::Lineage,
    rows::change::{Cause, Change, IdempotencyOutcome, NotedOperation, ReplayOrigin, Value},
    shard::{
        digest::Digests,
        idempotency_window::IdempotencyRecord,
        record::{AttachNumber, ClientsLoaded, LeaseLossPolicy, OperationId, SeedNumber},
    },
};

fn at(text: &str) -> Revision {
    text.parse().unwrap()
}

fn change() -> Change {
    Change {
        revision: at("3.10"),
        effect: 0,
        more: false,
        cause: Cause::Write,
        time: TenantTime(2_000),
        previous: None,
        chain: crate::rows::chain::VersionChain::default(),
        outcome: Some(IdempotencyOutcome {
            client: ClientId(0xabc),
            sequence: 12,
            request: 99,
            evicted: 1,
            others: vec![(ClientId(7), 300)],
        }),
        operation: None,
        origin: None,
        key: Bytes::from_static(b"k"),
        value: Some(Value {
            create: at("1.2"),
            version: 2,
            expires: None,
            bytes: Bytes::from_static(b"v"),
        }),
    }
}

fn delete() -> Change {
    Change {
        value: None,
        outcome: None,
        revision: at("3.11"),
        ..change()
    }
}

fn window() -> WindowPart {
    let outcome = IdempotencyRecord {
        sequence: 12,
        revision: at("3.10"),
        request: 99,
        time: TenantTime(2_000),
    };
    WindowPart {
        client: ClientId(0xabc),
        edge: TenantTime(5),
        oldest: at("3.4"),
        outcomes: vec![outcome],
    }
}

const TENANT: TenantNumber = TenantNumber::new(300);
const HOME: GroupId = GroupId::new(4);
const VERSION: DirectoryVersion = DirectoryVersion {
    incarnation: Incarnation(1),
    index: 77,
};

fn epoch_of_feed() -> Epoch {
    Epoch::new(3).unwrap()
}

fn lineage() -> Lineage {
    let mut lineage = Lineage::starting(Epoch::FIRST);
    lineage.record_promotion(epoch_of_feed(), Sequence::new(9).unwrap());
    lineage
}

macro_rules! each {
    ($($name:literal $kind:ident $command:expr;)*) => {
        vec![$({ let command = $command; let bytes = command.encode(); ($name, Command::$kind(command), bytes) }),*]
    };
}

type Named = (&'static str, Command, Bytes);

fn one_of_each() -> Vec<Named> {
    [
        of_callers(),
        of_ownership_and_feed(),
        of_seeds(),
        of_leaving(),
        of_moves(),
        of_promotions(),
        of_replays(),
    ]
    .concat()
}

fn of_callers() -> Vec<Named> {
    let tenant = TENANT;
    let idempotency = Some(IdempotencyKey {
        client: ClientId(0xabc),
        sequence: 12,
        first_sent: TenantTime(1_000),
    });
    each! {
        "put" Write Write::new(tenant, idempotency, Operation {
            condition: Some(Condition::modified_at(at("1.2"))), previous: true, ..Operation::new("k", Effect::put("v"))
        });
        "delete" Write Write::new(tenant, None, Operation {
            condition: Some(Condition::Exists), ..Operation::new("k", Effect::Delete)
        });
        "increment" Write Write::new(tenant, None, Operation::new("k", Effect::Increment(Increment {
            delta: -5, floor: Some(0), ceiling: None, window: Some(60_000),
        })));
        "append" Write Write::new(tenant, None, Operation::new("k", Effect::Append { bytes: "v".into(), len_max: 1 << 20 }));
        "put-expiring" Write Write::new(tenant, None, Operation {
            condition: Some(Condition::Compared(Relation::Less, Operand::Version(300))),
            ..Operation::new("k", Effect::Put { value: "v".into(), ttl: Some(30_000) })
        });
        "txn" Txn Txn::new(tenant, idempotency, Branches {
            compares: vec![
                Comparison { key: "a".into(), condition: Condition::Absent },
                Comparison { key: "b".into(), condition: Condition::Compared(Relation::NotEqual, Operand::Value("v".into())) },
                Comparison { key: "c".into(), condition: Condition::Compared(Relation::Greater, Operand::Created(at("1.2"))) },
                Comparison { key: "d".into(), condition: Condition::Compared(Relation::Greater, Operand::Modified(at("1.2"))) },
            ],
            then: vec![Step::Get("k".into()), Step::Write(Operation::new("l", Effect::Delete))],
            otherwise: vec![Step::Write(Operation::new("m", Effect::put("v")))],
        });
        "delete-range" DeleteRange DeleteRange::new(tenant, idempotency, "a".into(), Some("b".into()));
        "delete-range-on" DeleteRange DeleteRange::new(tenant, None, "a".into(), None).from("b".into(), Some(at("3.10")));
        "expire" Expire Expire { tenant };
    }
}

fn of_ownership_and_feed() -> Vec<Named> {
    let (tenant, home, version, epoch, lineage) = (TENANT, HOME, VERSION, epoch_of_feed(), lineage());
    let (change, delete) = (change(), delete());
    let head = DataHeader {
        tenant,
        home,
        epoch,
        version,
        attach: AttachNumber(200),
    };
    each! {
        "data-expiring" Data Data { head, records: FeedRecords { changes: vec![
            Change { value: Some(Value { expires: Some(TenantTime(9_000)), ..change.value.clone().unwrap() }), ..change.clone() },
            Change { cause: Cause::Expiry, ..delete.clone() },
        ], digests: None, retention_floor: at("1.4") } };
        "create" Create Create { tenant, version, policy: LeaseLossPolicy::Stop };
        "follow" Follow Follow { tenant, version, home, epoch, lineage: lineage.clone() };
        "attach" Attach Attach {
            tenant, home, epoch, version, number: AttachNumber(200), position: at("1.9"), lineage
        };
        "begin-attach" BeginAttach BeginAttach {
            tenant, home, incarnation: Incarnation(1), epoch, version, number: AttachNumber(200)
        };
        "detach" Detach Detach { tenant, home, number: AttachNumber(200) };
        "data" Data Data { head, records: FeedRecords {
            changes: vec![change, delete], digests: Some(Digests { keys: 8, outcomes: 7 }), retention_floor: at("1.4")
        } };
        "offset" Offset Offset { home, offset: FeedOffset { incarnation: Incarnation(1), index: 500 } };
    }
}

fn of_seeds() -> Vec<Named> {
    let (tenant, home, version, epoch, number) = (TENANT, HOME, VERSION, epoch_of_feed(), SeedNumber(5));
    each! {
        "seed" Seed Seed { tenant, home, epoch, version, number, first: at("3.10"), lineage: lineage() };
        "seed-windows" SeedWindows SeedWindows { tenant, home, epoch, version, number };
        "chunk-changes" Chunk Chunk { tenant, home, epoch, number, read_at: at("3.12"), part: ChunkContent::Changes {
            after: Sequence::ZERO, up_to: Sequence::new(10).unwrap(), changes: vec![change()],
        } };
        "chunk-clients" Chunk Chunk { tenant, home, epoch, number, read_at: at("3.12"), part: ChunkContent::Clients {
            after: ClientsLoaded { whole: Some(ClientId(6)), part: Some((ClientId(7), at("3.2"))) }, up_to: Some(ClientId(u128::MAX)), time: TenantTime(2_000), edge: TenantTime(3), windows: vec![window()],
        } };
        "swap" Swap Swap {
            tenant, home, epoch, version, number, revision: at("3.12"), digests: Digests { keys: 9, outcomes: 10 }
        };
    }
}

fn of_leaving() -> Vec<Named> {
    let (tenant, version) = (TENANT, VERSION);
    each! {
        "erase" Erase Erase { tenant, version, deleted: true, forks: vec![2], recorded: None };
        "rejoin" Rejoin Rejoin { tenant, version };
        "floor" RetentionFloor RetentionFloor { index: 450, tenants: vec![(tenant, at("1.4"))] };
    }
}

fn of_moves() -> Vec<Named> {
    let (tenant, version, to, recorded_epoch) = (TENANT, VERSION, GroupId::new(9), epoch_of_feed());
    let (operation, epoch) = (OperationId(200), Epoch::new(5).unwrap());
    let head = DataHeader {
        tenant,
        home: HOME,
        epoch: recorded_epoch,
        version,
        attach: AttachNumber(200),
    };
    let baton = Baton {
        operation,
        to,
        from_epoch: recorded_epoch,
        epoch,
        last: at("3.12"),
        digests: Digests { keys: 9, outcomes: 10 },
        policy: LeaseLossPolicy::Continue,
        time: TenantTime(2_000),
        retention_floor: at("1.4"),
        uncounted: vec![GroupId::new(300)],
    };
    each! {
        "heir" Heir Heir { tenant, version, operation, to, recorded_epoch, epoch };
        "cancel-heir" CancelHeir CancelHeir { tenant, version, operation, last_operation: OperationId(201) };
        "relinquish" Relinquish Relinquish { tenant, version, operation, to, recorded_epoch, epoch };
        "refuse" Refuse Refuse { tenant, version, operation };
        "accept" Accept baton.accept(head, Incarnation(1));
        "uncount" Uncount Uncount { tenant, version, group: to };
        "count" Count Count { tenant, version, group: to };
        "erase-follower" Erase Erase { tenant, version, deleted: false, forks: vec![2], recorded: Some(epoch) };
        "lease-loss" SetLeaseLossPolicy SetLeaseLossPolicy { tenant, version, policy: LeaseLossPolicy::Continue };
    }
}

fn of_promotions() -> Vec<Named> {
    let (tenant, version, operation, epoch) = (TENANT, VERSION, OperationId(200), Epoch::new(5).unwrap());
    let head = PullHeader {
        tenant,
        version,
        operation,
        epoch,
        from: HOME,
        after: at("1.9"),
        last: at("3.11"),
        lineage: lineage(),
    };
    each! {
        "freeze" Freeze Freeze { tenant, version, operation, epoch, lineage: lineage() };
        "pull" Pull Pull { head, records: FeedRecords {
            changes: vec![change(), delete()], digests: Some(Digests { keys: 8, outcomes: 7 }), retention_floor: at("1.4")
        } };
        "activate" Activate Activate {
            tenant, version, home: HOME, epoch, kept: at("3.11"), time: TenantTime(2_000), policy: LeaseLossPolicy::Continue,
            uncounted: vec![GroupId::new(300)],
        };
        "discard-fork" DiscardFork DiscardFork { tenant, fork: 200 };
        "continue-rewind" ContinueRewind ContinueRewind { tenant };
        "confirm-remote" ConfirmRemote ConfirmRemote { tenant, epoch, index: 500 };
    }
}

fn of_replays() -> Vec<Named> {
    let (tenant, increment) = (
        TENANT,
        Increment {
            delta: 7,
            ..Increment::default()
        },
    );
    let origin = ReplayOrigin {
        revision: at("1.10"),
        group: HOME,
        fork: 300,
        over_others: false,
    };
    let replayed = Change {
        operation: Some(NotedOperation::Increment(increment)),
        origin: Some(origin),
        outcome: None,
        ..change()
    };
    let head = DataHeader {
        tenant,
        home: HOME,
        epoch: epoch_of_feed(),
        version: VERSION,
        attach: AttachNumber(200),
    };
    each! {
        "replay" Replay Replay {
            tenant, origin, point: Sequence::new(9).unwrap(), lineage: Lineage::starting(Epoch::FIRST),
            time: TenantTime(2_000), is_expiry: false,
            write: Some(ReplayedWrite { client: ClientId(0xabc), sequence: 12, request: 98 }),
            limits: WindowLimits { clients: 4_096, outcomes: 300 },
            allowed: ReplayClasses { clean: true, commutative: true, ..ReplayClasses::default() },
            effects: vec![
                ReplayEffect {
                    key: "k".into(), value: Some(("v".into(), Some(TenantTime(9_000)))), was_absent: true, operation: None,
                },
                ReplayEffect { key: "l".into(), value: None, was_absent: false, operation: None },
                ReplayEffect {
                    key: "n".into(), value: Some(("7".into(), None)), was_absent: false,
                    operation: Some(NotedOperation::Increment(increment)),
                },
                ReplayEffect {
                    key: "t".into(), value: Some(("xy".into(), None)), was_absent: false,
                    operation: Some(NotedOperation::Append { len: 1, len_max: 300 }),
                },
            ],
        };
        "data-replayed" Data Data { head, records: FeedRecords {
            changes: vec![replayed], digests: None, retention_floor: at("1.4")
        } };
    }
}

#[test]
fn note_of_operation_is_at_end_of_command_and_not_part_of_request() {
    let idempotency = Some(IdempotencyKey {
        client: ClientId(7),
        sequence: 1,
        first_sent: TenantTime(5),
    });
    let operation = Operation::new(
        "n",
        Effect::Increment(Increment {
            delta: 1,
            ..Increment::default()
        }),
    );
    let plain = Write::new(TENANT, idempotency, operation.clone());
    let noted = Write {
        notes_operation: true,
        ..plain.clone()
    };
    assert_eq!(noted.encode(), [&plain.encode()[..], &[1]].concat());
    assert_eq!(noted.request, plain.request);
    let steps = Branches {
        then: vec![Step::Write(operation)],
        ..Branches::default()
    };
    let plain_txn = Txn::new(TENANT, idempotency, steps);
    let noted_txn = Txn {
        notes_operations: true,
        ..plain_txn.clone()
    };
    assert_eq!(noted_txn.encode(), [&plain_txn.encode()[..], &[1]].concat());
    for (bytes, command) in [
        (plain.encode(), Command::Write(plain)),
        (noted.encode(), Command::Write(noted)),
        (plain_txn.encode(), Command::Txn(plain_txn)),
        (noted_txn.encode(), Command::Txn(noted_txn)),
    ] {
        assert_eq!(Command::decode(bytes[0], bytes.slice(1..)), Ok(command));
    }
}

#[test]
fn pull_header_is_within_bound() {
    let mut lineage = Lineage::starting(Epoch::FIRST);
    for number in 0..crate::lineage::RUNS_MAX as u32 {
        let epoch = Epoch::new(Epoch::MAX.get() - 100 + number).unwrap();
        lineage.record_promotion(
            epoch,
            Sequence::new(Sequence::MAX.get() - 100 + u64::from(number)).unwrap(),
        );
    }
    let largest = Revision::from_u64(u64::MAX);
    let head = PullHeader {
        tenant: TenantNumber::new(u64::MAX),
        version: DirectoryVersion {
            incarnation: Incarnation(u32::MAX),
            index: u64::MAX,
        },
        operation: OperationId(u64::MAX),
        epoch: Epoch::MAX,
        from: GroupId::new(u32::MAX),
        after: largest,
        last: largest,
        lineage,
    };
    let len = head.command(&[]).len();
    assert!(
        (PullHeader::LEN_MAX - 300..=PullHeader::LEN_MAX).contains(&len),
        "{len}"
    );
}

#[test]
fn unknown_kind_is_rejected() {
    for kind in [0].into_iter().chain(34..=44).chain(46..=u8::MAX) {
        assert!(Command::decode(kind, Bytes::new()).is_err(), "{kind}");
    }
}

#[test]
fn baton_of_feed_round_trips() {
    let Some((_, Command::Accept(accept), _)) = of_moves().into_iter().nth(4) else {
        panic!()
    };
    assert_eq!(Baton::decode(accept.baton.encode()), Ok(accept.baton));
}

#[test]
fn command_round_trips_and_prefixes_are_rejected() {
    for (name, command, bytes) in one_of_each() {
        assert_eq!(Command::decode(bytes[0], bytes.slice(1..)), Ok(command), "{name}");
        for end in 1..bytes.len() {
            assert!(
                Command::decode(bytes[0], bytes.slice(1..end)).is_err(),
                "{name} cut at {end}"
            );
        }
    }
}

#[test]
fn command_encoding_matches_golden_file() {
    let mut written = String::new();
    for (name, _, bytes) in one_of_each() {
        write!(written, "{name} ").unwrap();
        for byte in &bytes {
            write!(written, "{byte:02x}").unwrap();
        }
        written.push('\n');
    }
    assert_eq!(written, include_str!("golden.txt"), "a changed form needs a new kind");
}
