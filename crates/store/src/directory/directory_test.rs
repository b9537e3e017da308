//! A replica that is checkpointed, killed, replayed and replaced, and views that follow it.

use std::collections::BTreeMap;

use stead_state::{
    codec::frame,
    directory::{By, Followers, Initial, InitialNode, NewTenant, Outcome, Rejection, View},
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
    Command::Bootstrap(Initial {
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
        name: name.parse().unwrap(),
        home: "eu".parse().unwrap(),
        followers: Followers::AllAdmitted,
        residency: Vec::new(),
        durability: Durability::Region,
        labels: BTreeMap::new(),
        limits: TenantLimits::default(),
    };
    Command::CreateTenant(By::default(), tenant)
}

fn committed(index: u64, commands: &[Command]) -> Committed {
    let commands: Vec<Bytes> = commands.iter().map(Command::encode).collect();
    let payload = match commands.len() {
        0 => Payload::Blank,
        _ => Payload::Commands(frame(index, &commands)),
    };
    Committed {
        index,
        log_id: Bytes::from(format!("id {index}")),
        payload,
    }
}

/// The log: the cluster begins, a leader's blank entry, a membership, then a tenant an entry.
fn log() -> Vec<Committed> {
    let membership = Committed {
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

/// Takes in what a view lacks, as a node does.
fn follow(machine: &DirectoryMachine, view: &mut View, max: usize) -> Changes {
    let lacking = machine.changes_since(view.version(), max).unwrap();
    if lacking.is_snapshot {
        *view = View::default();
    }
    for change in &lacking.changes {
        view.apply(Change::decode(change.clone()).unwrap());
    }
    view.reach(lacking.version);
    lacking
}

#[test]
fn commands_are_answered_each() {
    let machine = opened(&Disk::default());
    let entry = committed(1, &[bootstrap(), create("a"), create("a")]);
    let answers = machine.apply(vec![entry, committed(2, &[])]).unwrap();
    let answers: Vec<DirectoryAnswer> = answers[0]
        .iter()
        .map(|answer| answer.downcast_ref::<DirectoryAnswer>().unwrap().clone())
        .collect();
    assert_eq!(answers[0], Ok(Outcome::Done));
    assert!(matches!(answers[1], Ok(Outcome::Tenant(_))));
    assert!(matches!(answers[2], Err(Rejection::TenantExists(_))));
    assert_eq!(machine.version().borrow().index, 2, "an entry without commands counts");
}

#[test]
fn entry_with_an_unknown_command_is_refused_whole_and_by_name() {
    let machine = opened(&Disk::default());
    machine.apply(vec![committed(1, &[bootstrap()])]).unwrap();
    let commands = [create("a").encode(), Bytes::from_static(b"\xc8?")];
    let entry = Committed {
        payload: Payload::Commands(frame(2, &commands)),
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
fn what_was_not_checkpointed_is_applied_again() {
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
fn a_view_follows_by_changes_and_by_snapshots() {
    let machine = opened(&Disk::default());
    let mut view = View::default();
    for entries in log().chunks(2) {
        machine.apply(entries.to_vec()).unwrap();
        follow(&machine, &mut view, 100);
        machine.read(|directory| assert!(view == *directory.view())).unwrap();
    }
    assert!(!follow(&machine, &mut view, 100).is_snapshot, "it lacks nothing");

    let mut old = View::default();
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
fn a_snapshot_replaces_everything_and_is_durable() {
    let source = opened(&Disk::default());
    source.apply(log()).unwrap();
    let disk = Disk::default();
    let target = opened(&disk);
    let entry = committed(1, &[bootstrap(), create("gone")]);
    target.apply(vec![entry]).unwrap();
    target.checkpoint().unwrap();
    let mut view = View::default();
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
fn a_snapshot_of_many_tenants_comes_in_chunks() {
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
fn a_snapshot_that_breaks_off_changes_nothing() {
    let target = opened(&Disk::default());
    target.apply(log()).unwrap();
    let before = target.read(Directory::clone).unwrap();
    let mut chunks: Vec<_> = target.snapshot().unwrap().chunks.collect();
    chunks.pop();
    let cut: Vec<_> = target.snapshot().unwrap().chunks.take(chunks.len()).collect();
    let cut = Snapshot {
        applied: Applied::default(),
        chunks: Box::new(cut.into_iter()),
    };
    assert!(target.install(cut).is_err(), "without its end");
    chunks.push(Err(failed("receiving")(stead_state::codec::Malformed {
        what: "chunk",
    })));
    let broken = Snapshot {
        applied: Applied::default(),
        chunks: Box::new(chunks.into_iter()),
    };
    assert!(target.install(broken).is_err());
    assert!(target.read(Directory::clone).unwrap() == before);
}
