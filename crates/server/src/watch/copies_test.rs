//! Tests of where copies in all states let watches start and continue.

use std::sync::Arc;

use bytes::Bytes;
use stead_api::proto::v1::{self, WatchCreate};
use stead_state::{
    codec::encode_entry,
    directory::Tenant,
    lineage::{Lineage, RUNS_MAX},
    rows::change::Change,
    shard::{
        command::{
            Attach, BeginAttach, Create, Data, DataHeader, Effect, FeedRecords, Follow, Operation, RetentionFloor,
            Write,
        },
        digest::Digests,
        record::{AttachNumber, LeaseLossPolicy},
    },
};
use stead_store::{
    background::Background,
    engine::memory::Disk,
    machine::{CommittedEntry, Machine, Payload},
    shard::ShardMachine,
};
use stead_types::{DirectoryVersion, Epoch, Error, ErrorKind, GroupId, Incarnation, Revision, Sequence, TenantNumber};

use super::{
    change_fixture,
    spec::{self, WatchSpec},
    start::{StartCheck, check_start, not_reached},
    watcher::read_copy,
};
use crate::{router::ReadNotServed, tenant_fixture};

const TENANT: TenantNumber = TenantNumber::new(7);
const HOME: GroupId = GroupId::new(1);

struct Copy(ShardMachine);

impl Copy {
    fn of(group: u32, commands: &[Bytes]) -> Self {
        let background = Arc::new(Background::inline());
        let machine = ShardMachine::open(Disk::default().open(), background, GroupId::new(group)).unwrap();
        for (index, command) in (1..).zip(commands) {
            let entry = CommittedEntry {
                index,
                log_id: Bytes::new(),
                payload: Payload::Commands(encode_entry(1_000, std::slice::from_ref(command))),
            };
            machine.apply(vec![entry]).unwrap();
        }
        Self(machine)
    }

    /// Returns a follower that was fed three changes; `floor` and `digests` are those of its home's copy.
    fn fed(floor: &str, digests: Option<Digests>) -> Self {
        let data = Data {
            head: DataHeader {
                tenant: TENANT,
                home: HOME,
                epoch: Epoch::FIRST,
                version: version(),
                attach: AttachNumber(1),
            },
            records: FeedRecords {
                changes: (1..=3).map(change).collect(),
                digests,
                retention_floor: revision(floor),
            },
        };
        Self::of(2, &[follow(), begin_attach(), attach(), data.encode()])
    }

    fn begin(&self, after: Option<&str>) -> Result<StartCheck, Error> {
        self.begin_at(&tenant(), after)
    }

    fn begin_at(&self, tenant: &Tenant, after: Option<&str>) -> Result<StartCheck, Error> {
        let reach = self
            .0
            .read(|view| check_start(view.reading(TENANT), tenant, &spec(after)));
        reach.unwrap()
    }

    fn changes_after(&self, after: &str) -> Result<usize, ErrorKind> {
        let changes = |view: stead_store::shard::ReadView<'_>| {
            read_copy(view.reading(TENANT), |reading| {
                Ok(reading.changes(revision(after), Sequence::MAX, 1)?.changes.len())
            })
        };
        self.0.read(changes).unwrap().map_err(|error| error.kind)
    }
}

fn spec(after: Option<&str>) -> WatchSpec {
    let from = |after| stead_api::convert::id::from_revision(revision(after));
    spec::parse(&WatchCreate {
        tenant: "acme".into(),
        from: after.map(|after| v1::watch_create::From::AfterRevision(from(after))),
        ..WatchCreate::default()
    })
    .unwrap()
}

fn revision(text: &str) -> Revision {
    text.parse().unwrap()
}

fn change(sequence: u64) -> Change {
    change_fixture::change(&format!("1.{sequence}"), format!("key {sequence}"), Some(1))
}

fn version() -> DirectoryVersion {
    DirectoryVersion {
        incarnation: Incarnation::FIRST,
        index: 1,
    }
}

/// Returns the tenant as in the directory.
fn tenant() -> Tenant {
    Tenant {
        version: version(),
        ..tenant_fixture::tenant(TENANT.get(), &[])
    }
}

fn follow() -> Bytes {
    let follow = Follow {
        tenant: TENANT,
        version: version(),
        home: HOME,
        epoch: Epoch::FIRST,
        lineage: Lineage::starting(Epoch::FIRST),
    };
    follow.encode()
}

fn begin_attach() -> Bytes {
    let begin = BeginAttach {
        tenant: TENANT,
        home: HOME,
        incarnation: Incarnation::FIRST,
        epoch: Epoch::FIRST,
        version: version(),
        number: AttachNumber(1),
    };
    begin.encode()
}

fn attach() -> Bytes {
    let attach = Attach {
        tenant: TENANT,
        home: HOME,
        epoch: Epoch::FIRST,
        version: version(),
        number: AttachNumber(1),
        position: Revision::ZERO,
        lineage: Lineage::starting(Epoch::FIRST),
    };
    attach.encode()
}

fn home(written: usize) -> Vec<Bytes> {
    let create = Create {
        tenant: TENANT,
        version: version(),
        policy: LeaseLossPolicy::Stop,
    };
    let put = |number: usize| {
        let operation = Operation::new(format!("key {number}"), Effect::put("x"));
        Write::new(TENANT, None, operation).encode()
    };
    std::iter::once(create.encode()).chain((1..=written).map(put)).collect()
}

/// History that a copy lacks sends the watch to the home and does not end it.
#[test]
fn watch_start_missing_at_copy_goes_to_home() {
    // Invariant 4.
    let later = |has_copy| Ok(StartCheck::NotReached { has_copy });
    assert_eq!(Copy::of(2, &[]).begin(None), later(false), "not made yet");
    assert_eq!(Copy::of(2, &[follow()]).begin(None), later(false), "a seed under way");
    let attached = Copy::of(2, &[follow(), begin_attach(), attach()]);
    assert_eq!(
        attached.begin(None),
        Ok(StartCheck::Ready(Revision::ZERO)),
        "empty as its home"
    );

    let fed = Copy::fed("0.0", None);
    assert_eq!(fed.begin(None), Ok(StartCheck::Ready(revision("1.3"))));
    assert_eq!(fed.begin(Some("1.1")), Ok(StartCheck::Ready(revision("1.1"))));
    assert_eq!(fed.begin(Some("1.4")), later(true));
    let seeded = Copy::fed("1.2", None);
    assert_eq!(seeded.begin(Some("1.2")), Ok(StartCheck::Ready(revision("1.2"))));
    assert_eq!(seeded.begin(Some("1.1")), Ok(StartCheck::HomeOnly));
    let suspect = Copy::fed("0.0", Some(Digests::default()));
    assert_eq!(suspect.begin(None), Ok(StartCheck::HomeOnly));
}

#[test]
fn watch_start_is_checked_against_view_lineage() {
    // The directory has recorded a promotion that this copy has not received.
    let mut promoted = tenant();
    promoted.epoch = Epoch::new(3).unwrap();
    promoted
        .lineage
        .record_promotion(promoted.epoch, Sequence::new(2).unwrap());
    let copy = Copy::fed("0.0", None);
    let cut = copy.begin_at(&promoted, Some("1.3")).unwrap_err().kind;
    assert!(matches!(cut, ErrorKind::Forked { .. }), "{cut:?}");
    assert_eq!(
        copy.begin_at(&promoted, Some("1.2")),
        Ok(StartCheck::HomeOnly),
        "it shows nothing"
    );
    assert_eq!(copy.begin_at(&promoted, None), Ok(StartCheck::HomeOnly));
    promoted.lineage = Lineage::starting(Epoch::FIRST);
    promoted
        .lineage
        .record_promotion(promoted.epoch, Sequence::new(3).unwrap());
    assert_eq!(
        copy.begin_at(&promoted, Some("1.2")),
        Ok(StartCheck::Ready(revision("1.2")))
    );
}

#[test]
fn watch_start_missing_at_home_is_compacted() {
    let mut commands = home(3);
    let all = Copy::of(1, &commands);
    assert_eq!(all.begin(Some("1.1")), Ok(StartCheck::Ready(revision("1.1"))));
    assert_eq!(all.begin(Some("1.4")), Ok(StartCheck::NotReached { has_copy: true }));
    commands.push(
        RetentionFloor {
            index: 3,
            tenants: vec![],
        }
        .encode(),
    );
    let some = Copy::of(1, &commands);
    let compacted = ErrorKind::Compacted {
        oldest: revision("1.2"),
    };
    assert_eq!(some.begin(Some("1.1")).unwrap_err().kind, compacted);
    assert_eq!(some.changes_after("1.1"), Err(compacted));
    assert_eq!(some.changes_after("1.2"), Ok(1));
    let cut = some.begin(Some("0.1")).unwrap_err().kind;
    assert!(matches!(cut, ErrorKind::Forked { .. }), "{cut:?}");
}

/// A copy that is replaced by one with less history ends the watch with an error that asks to resume.
#[test]
fn watch_of_replaced_copy_asks_for_resume() {
    // Invariant 4.
    assert_eq!(Copy::fed("0.0", None).changes_after("1.2"), Ok(1));
    assert_eq!(
        Copy::fed("1.3", None).changes_after("1.2"),
        Err(ErrorKind::TenantMoving)
    );
    assert_eq!(
        Copy::of(2, &[follow(), begin_attach(), attach()]).changes_after("1.2"),
        Err(ErrorKind::TenantMoving)
    );
    assert_eq!(Copy::of(2, &[]).changes_after("1.2"), Err(ErrorKind::TenantMoving));
}

/// A home that has handed the tenant over, or may not serve, does not tell that a revision does not exist.
#[test]
fn start_beyond_home_is_invalid_only_while_home_serves() {
    // Invariant 4.
    let spec = spec(Some("1.4"));
    let field = "after_revision".to_owned();
    let invalid = not_reached(Ok(()), &spec).unwrap_err().kind;
    assert_eq!(invalid, ErrorKind::Invalid { field });
    assert_eq!(
        not_reached(Err(ReadNotServed::NotOwner), &spec),
        Ok(()),
        "it is elsewhere"
    );
    let no_lease = Error::new(ErrorKind::NoLease, "made by a test");
    let refused = not_reached(Err(ReadNotServed::Refused(no_lease.clone())), &spec);
    assert_eq!(refused, Err(no_lease));
}

#[test]
fn start_of_unrecorded_epoch_is_not_reached() {
    // The tenant has moved to epoch 2, and neither this view nor this copy knows it.
    let later = Ok(StartCheck::NotReached { has_copy: true });
    assert_eq!(Copy::fed("0.0", None).begin(Some("2.4")), later);
    assert_eq!(Copy::of(1, &home(3)).begin(Some("2.4")), later);
    // Once the view knows the epoch, a change of it that the copy lacks is not reached, and earlier ones are there.
    let mut moved = tenant();
    moved.epoch = Epoch::new(2).unwrap();
    moved.lineage.record_move(moved.epoch);
    let copy = Copy::fed("0.0", None);
    assert_eq!(copy.begin_at(&moved, Some("2.4")), later);
    assert_eq!(
        copy.begin_at(&moved, Some("1.2")),
        Ok(StartCheck::Ready(revision("1.2")))
    );
    assert_eq!(copy.begin_at(&moved, None), Ok(StartCheck::Ready(revision("1.3"))));
}

#[test]
fn start_in_closed_run_is_compacted() {
    let mut promoted = tenant();
    for number in 1..=RUNS_MAX as u32 + 1 {
        promoted.epoch = Epoch::new(number + 1).unwrap();
        let kept = Sequence::new(u64::from(number) * 10).unwrap();
        promoted.lineage.record_promotion(promoted.epoch, kept);
    }
    let of = |after| {
        Copy::fed("0.0", None)
            .begin_at(&promoted, Some(after))
            .unwrap_err()
            .kind
    };
    let compacted = of("1.5");
    assert!(matches!(compacted, ErrorKind::Compacted { .. }), "{compacted:?}");
    let cut = of("5.1");
    assert!(matches!(cut, ErrorKind::Forked { .. }), "{cut:?}");
}
