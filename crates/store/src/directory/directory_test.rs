//! Tests of a directory replica: checkpoints, power loss, replay and install, and directory views that follow it.

use std::collections::BTreeMap;

use stead_state::{
    codec::encode_entry,
    directory::{
        AuditContext, DirectoryOutcome, DirectoryView, Followers, InitialCluster, InitialNode, NewTenant, Rejection,
    },
};
use stead_types::{Durability, Incarnation, TenantLimits, TenantName};

use super::*;
use crate::engine::memory::Disk;

fn opened(disk: &Disk) -> DirectoryMachine {
    DirectoryMachine::open(disk.open(), Arc::new(Background::inline())).unwrap()
}

fn bootstrap() -> Command {
    let node = |name: &str| InitialNode {
        name: name.into(),
        region: name.parse().unwrap(),
        addresses: Default::default(),
        witness: false,
    };
    Command::Bootstrap(InitialCluster {
        cluster: "test".into(),
        regions: vec![
            ("eu".parse().unwrap(), "EU".parse().unwrap()),
            ("us".parse().unwrap(), "US".parse().unwrap()),
        ],
        nodes: vec![node("eu"), node("us")],
        groups_per_region: 1,
    })
}

fn create(name: &str) -> Command {
    let tenant = NewTenant {
        on_lease_loss: stead_state::shard::record::LeaseLossPolicy::Stop,
        name: name.parse().unwrap(),
        home: "eu".parse().unwrap(),
        followers: Followers::AllAdmitted,
        residency: Vec::new(),
        durability: Durability::Region,
        labels: BTreeMap::new(),
        limits: TenantLimits::default(),
    };
    Command::CreateTenant(AuditContext::default(), tenant)
}

fn committed(index: u64, commands: &[Command]) -> CommittedEntry {
    let commands: Vec<Bytes> = commands.iter().map(Command::encode).collect();
    let payload = match commands.len() {
        0 => Payload::Blank,
        _ => Payload::Commands(encode_entry(index, &commands)),
    };
    CommittedEntry {
        index,
        log_id: Bytes::from(format!("id {index}")),
        payload,
    }
}

/// Returns a log: the bootstrap, a leader's blank entry, a membership, then one tenant an entry.
fn log() -> Vec<CommittedEntry> {
    let membership = CommittedEntry {
        payload: Payload::Membership(Bytes::from_static(b"members")),
        ..committed(3, &[])
    };
    let begin = vec![committed(1, &[bootstrap()]), committed(2, &[]), membership];
    begin
        .into_iter()
        .chain((4..10).map(|index| committed(index, &[create(&format!("t{index}"))])))
        .collect()
}

fn has(machine: &DirectoryMachine, name: &str) -> bool {
    let name: TenantName = name.parse().unwrap();
    machine
        .read(|directory| directory.view().tenant_named(&name).is_some())
        .unwrap()
}

/// Applies the missing changes to a view, as a node does.
fn follow(machine: &DirectoryMachine, view: &mut DirectoryView, max: usize) -> DirectoryChanges {
    let lacking = machine.changes_since(view.version(), max).unwrap();
    if lacking.is_snapshot {
        *view = DirectoryView::default();
    }
    for change in &lacking.changes {
        view.apply(DirectoryChange::decode(change.clone()).unwrap());
    }
    view.reach(lacking.version);
    lacking
}

#[test]
fn directory_apply_returns_one_result_per_command() {
    let machine = opened(&Disk::default());
    let entry = committed(1, &[bootstrap(), create("a"), create("a")]);
    let answers = machine.apply(vec![entry, committed(2, &[])]).unwrap();
    let answers = &answers[0];
    assert_eq!(answers[0], Ok(DirectoryOutcome::Done));
    assert!(matches!(answers[1], Ok(DirectoryOutcome::Tenant(_))));
    assert!(matches!(answers[2], Err(Rejection::TenantExists(_))));
    assert_eq!(machine.version().borrow().index, 2, "an entry without commands counts");
}

#[test]
fn entry_with_unknown_command_is_rejected_whole() {
    let machine = opened(&Disk::default());
    machine.apply(vec![committed(1, &[bootstrap()])]).unwrap();
    let commands = [create("a").encode(), Bytes::from_static(b"\xc8?")];
    let entry = CommittedEntry {
        payload: Payload::Commands(encode_entry(2, &commands)),
        ..committed(2, &[])
    };
    let failed = machine.apply(vec![entry]).unwrap_err();
    let cause = failed.source.to_string();
    assert!(
        cause.starts_with("log entry 2 holds a command of kind 200 that stead"),
        "{cause}"
    );
    assert!(machine.read(|_| ()).is_err());
    assert_eq!(machine.applied(), machine.durable());
}

/// Invariant 2.
#[test]
fn entries_after_checkpoint_are_applied_again() {
    let disk = Disk::default();
    let machine = opened(&disk);
    machine.apply(log()[..6].to_vec()).unwrap();
    machine.checkpoint().unwrap();
    machine.apply(log()[6..].to_vec()).unwrap();
    assert_eq!((machine.durable().index, machine.applied().index), (6, 9));
    disk.power_loss(0);
    let again = opened(&disk);
    assert_eq!(again.applied(), again.durable());
    assert_eq!(again.applied().index, 6);
    assert_eq!(again.applied().membership, "members");
    assert!(has(&again, "t6") && !has(&again, "t7"));
    again.apply(log()[6..].to_vec()).unwrap();
    assert!(again.read(Directory::clone).unwrap() == machine.read(Directory::clone).unwrap());
}

/// Invariant 1.
#[test]
fn directory_view_follows_by_changes_and_snapshots() {
    let machine = opened(&Disk::default());
    let mut view = DirectoryView::default();
    for entries in log().chunks(2) {
        machine.apply(entries.to_vec()).unwrap();
        follow(&machine, &mut view, 100);
        machine.read(|directory| assert!(view == *directory.view())).unwrap();
    }
    assert!(!follow(&machine, &mut view, 100).is_snapshot, "it lacks nothing");

    let mut old = DirectoryView::default();
    assert!(follow(&machine, &mut old, 100).is_snapshot, "of no incarnation yet");
    let first = DirectoryVersion {
        incarnation: Incarnation::FIRST,
        index: 3,
    };
    let page = machine.changes_since(first, 2).unwrap();
    assert_eq!(
        (page.is_snapshot, page.changes.len(), page.version.index),
        (false, 2, 5)
    );
    let ahead = DirectoryVersion { index: 99, ..first };
    assert_eq!(machine.changes_since(ahead, 2).unwrap().version, ahead);
}

#[test]
fn directory_install_replaces_everything_and_is_durable() {
    let source = opened(&Disk::default());
    source.apply(log()).unwrap();
    let disk = Disk::default();
    let target = opened(&disk);
    let entry = committed(1, &[bootstrap(), create("gone")]);
    target.apply(vec![entry]).unwrap();
    target.checkpoint().unwrap();
    let mut view = DirectoryView::default();
    follow(&target, &mut view, 100);

    target.install(source.snapshot().unwrap()).unwrap();
    disk.power_loss(0);
    let target = opened(&disk);
    assert_eq!(target.durable(), source.applied());
    assert!(target.read(Directory::clone).unwrap() == source.read(Directory::clone).unwrap());
    assert!(!has(&target, "gone"));
    assert!(
        follow(&target, &mut view, 100).is_snapshot,
        "the history begins behind the snapshot"
    );
    target.read(|directory| assert!(view == *directory.view())).unwrap();
}

#[test]
fn directory_snapshot_of_many_tenants_is_chunked() {
    let source = opened(&Disk::default());
    let creates: Vec<Command> = (0..20_000).map(|number| create(&format!("tenant-{number}"))).collect();
    source
        .apply(vec![committed(1, &[bootstrap()]), committed(2, &creates)])
        .unwrap();
    let snapshot = source.snapshot().unwrap();
    let chunks: Vec<Bytes> = snapshot.chunks.map(Result::unwrap).collect();
    assert!(chunks.len() > 1 && chunks.iter().all(|chunk| chunk.len() <= crate::machine::CHUNK_LEN_MAX));
    let copy = Snapshot {
        applied: snapshot.applied,
        chunks: Box::new(chunks.into_iter().map(Ok)),
    };
    let target = opened(&Disk::default());
    target.install(copy).unwrap();
    assert!(target.read(Directory::clone).unwrap() == source.read(Directory::clone).unwrap());
}

#[test]
fn truncated_directory_snapshot_changes_nothing() {
    let target = opened(&Disk::default());
    target.apply(log()).unwrap();
    let before = target.read(Directory::clone).unwrap();
    let mut chunks: Vec<_> = target.snapshot().unwrap().chunks.collect();
    chunks.pop();
    let cut: Vec<_> = target.snapshot().unwrap().chunks.take(chunks.len()).collect();
    let cut = Snapshot {
        applied: AppliedState::default(),
        chunks: Box::new(cut.into_iter()),
    };
    assert!(target.install(cut).is_err(), "without its end");
    chunks.push(Err(failed("receiving")(stead_state::codec::Malformed {
        what: "chunk",
    })));
    let broken = Snapshot {
        applied: AppliedState::default(),
        chunks: Box::new(chunks.into_iter()),
    };
    assert!(target.install(broken).is_err());
    assert!(target.read(Directory::clone).unwrap() == before);
}

#[test]
fn new_incarnation_replaces_replica_durably_and_resets_views() {
    let disk = Disk::default();
    let machine = opened(&disk);
    let nodes = [1, 2].map(stead_types::NodeId::new).to_vec();
    let raise = Command::RaiseFeatureLevel(
        AuditContext::default(),
        stead_state::directory::FEATURE_LEVEL_MAX,
        nodes,
    );
    let (mut known, unapplied) = (log(), committed(10, &[raise]));
    known.extend([unapplied, committed(11, &[create("last")])]);
    let tail = known.split_off(6);
    machine.apply(known).unwrap();
    let mut view = DirectoryView::default();
    follow(&machine, &mut view, 100);

    let ahead = machine.after(tail).unwrap();
    assert!(!has(&machine, "last"), "the replica stays as it is");
    assert_eq!((ahead.directory.view().version().index, ahead.time), (11, 11));
    let gap = machine.after(vec![committed(9, &[])]).unwrap_err();
    assert!(gap.source.to_string().contains("out of order"), "{gap:?}");
    let request = stead_state::directory::RecoveryRequest {
        founder: ahead.directory.voters()[0],
        lease_ttl_ms: 0,
        by: AuditContext::default(),
    };
    let recovered = ahead.directory.recover(ahead.time, &request).unwrap();
    let begins = DirectoryAt {
        directory: recovered.directory,
        time: ahead.time,
    };
    machine.begin_incarnation(begins.clone()).unwrap();
    disk.power_loss(0);
    let machine = opened(&disk);
    assert!(machine.read(|directory| *directory == begins.directory).unwrap());
    let applied = AppliedState {
        time: 11,
        ..AppliedState::default()
    };
    assert_eq!((machine.applied(), machine.durable()), (applied.clone(), applied));
    assert!(has(&machine, "last"));
    machine.apply(vec![committed(1, &[create("newest")])]).unwrap();
    assert!(
        follow(&machine, &mut view, 100).is_snapshot,
        "a view of another incarnation is loaded anew"
    );
    assert!(view == *machine.read(|directory| directory.view().clone()).as_ref().unwrap());
}
