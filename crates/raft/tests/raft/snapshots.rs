//! Tests of snapshots of both real machines over the real transport: rows of every length arrive, and failed snapshots
//! are retried with backoff.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use stead_raft::Timing;
use stead_state::directory::{AuditContext, Command, Directory, InitialCluster, InitialNode, Region};
use stead_state::rows::Order;
use stead_state::shard::command::{Branches, Create, Effect, Operation, Step, Txn, Write};
use stead_state::shard::read::Scan;
use stead_state::shard::record::LeaseLossPolicy;
use stead_store::background::Background;
use stead_store::directory::DirectoryMachine;
use stead_store::engine::memory::Disk;
use stead_store::machine::{AppliedState, CHUNK_LEN_MAX, CommittedEntry, Machine, MachineError, Snapshot};
use stead_store::shard::ShardMachine;
use stead_types::limits::{CHANGE_LEN_MAX, KEY_LEN_MAX, VALUE_LEN_MAX};
use stead_types::{DirectoryVersion, Incarnation, TenantNumber};
use tokio::time::sleep;

use crate::cluster::{GROUP, TestCluster, TestMachine};
use crate::toy::{self, Toy};

const TENANT: TenantNumber = TenantNumber::new(7);
/// Entries of a megabyte after which a replica without them needs a snapshot.
const PAST_THE_TAIL: usize = 130;

impl TestMachine for ShardMachine {
    type Rows = Disk;

    fn open(rows: &Disk) -> Arc<Self> {
        Arc::new(Self::open(rows.open(), Arc::new(Background::inline()), GROUP).unwrap())
    }

    fn lose_power(rows: &Disk) {
        rows.power_loss(0);
    }
}

impl TestMachine for DirectoryMachine {
    type Rows = Disk;

    fn open(rows: &Disk) -> Arc<Self> {
        Arc::new(Self::open(rows.open(), Arc::new(Background::inline())).unwrap())
    }

    fn lose_power(rows: &Disk) {
        rows.power_loss(0);
    }
}

/// Stops a follower, moves the log past its tail with `filler`, starts the follower again, and waits until it equals
/// the others. It got a snapshot: its log begins after that.
async fn check_catch_up_by_snapshot<M: TestMachine>(
    cluster: &mut TestCluster<M>,
    filler: impl Fn(usize) -> Bytes,
    equal: impl Fn(&M, &M) -> bool,
) {
    let leader = cluster.leader().await;
    let behind = cluster.others(leader)[0];
    let had = cluster.group(behind).metrics().applied;
    cluster.kill(behind, 0).await;
    for number in 0..PAST_THE_TAIL {
        cluster.propose(filler(number)).await;
    }
    let leader = cluster.leader().await;
    let purged = || (cluster.group(leader).metrics().purged > had).then_some(());
    cluster.eventually("a purge", purged).await;
    cluster.up(behind).await;
    let returned = || {
        let (this, other) = (cluster.node(behind), cluster.node(leader));
        let is_there = this.machine.applied().index == other.machine.applied().index;
        (is_there && equal(&this.machine, &other.machine)).then_some(())
    };
    cluster.eventually("the replica that was behind", returned).await;
    assert!(cluster.group(behind).metrics().purged > had, "it got a snapshot");
}

fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Bytes {
    Write::new(TENANT, None, Operation::new(key, Effect::put(value))).encode()
}

/// Returns the lengths at, below and above each boundary.
fn around(lens: &[usize]) -> Vec<usize> {
    lens.iter().flat_map(|len| [len - 1, *len, len + 1]).collect()
}

fn data(machine: &ShardMachine) -> Vec<(Bytes, Bytes)> {
    machine
        .read(|view| {
            let mut scan = Scan {
                start: Bytes::new(),
                end: None,
                order: Order::Ascending,
                keys_only: false,
                at: None,
                after: None,
                keys_max: usize::MAX,
                len_max: usize::MAX,
            };
            let mut data = Vec::new();
            loop {
                let page = view.reading(TENANT).unwrap().scan(&scan).unwrap();
                let entries = page.entries.into_iter();
                data.extend(entries.map(|(key, version)| (key, version.value.bytes)));
                scan.after = page.next;
                if scan.after.is_none() {
                    return data;
                }
            }
        })
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn shard_snapshot_carries_data_of_every_length() {
    let mut cluster = TestCluster::<ShardMachine>::start(3, Timing::Region).await;
    let create = Create {
        tenant: TENANT,
        version: DirectoryVersion {
            incarnation: Incarnation::FIRST,
            index: 1,
        },
        policy: LeaseLossPolicy::Stop,
    };
    cluster.propose(create.encode()).await;
    // A row begins with its key; those that fill a chunk are those of all lengths around it.
    for len in around(&[1, KEY_LEN_MAX]) {
        cluster.propose(put(vec![b'k'; len], "v")).await;
    }
    for len in around(&[1, CHUNK_LEN_MAX - 256, CHUNK_LEN_MAX, 2 * CHUNK_LEN_MAX, VALUE_LEN_MAX]) {
        cluster.propose(put(format!("value of {len}"), vec![b'v'; len])).await;
    }
    // The largest change of many keys.
    let write = |number: usize| {
        Step::Write(Operation::new(
            format!("txn {number}"),
            Effect::put(vec![b't'; VALUE_LEN_MAX - 16]),
        ))
    };
    let branches = Branches {
        compares: Vec::new(),
        then: (0..CHANGE_LEN_MAX / VALUE_LEN_MAX).map(write).collect(),
        otherwise: Vec::new(),
    };
    let done = cluster.propose(Txn::new(TENANT, None, branches).encode()).await;
    assert!(matches!(done, stead_state::shard::ApplyResult::Txn(_)));
    let filler = |number| put(format!("filler {number}"), vec![b'f'; VALUE_LEN_MAX]);
    check_catch_up_by_snapshot(&mut cluster, filler, |one, other| data(one) == data(other)).await;
}

#[tokio::test(start_paused = true)]
async fn directory_snapshot_carries_rows_of_every_length() {
    let mut cluster = TestCluster::<DirectoryMachine>::start(3, Timing::Region).await;
    let node = InitialNode {
        name: "eu".into(),
        region: "eu".parse().unwrap(),
        addresses: Default::default(),
        witness: false,
    };
    let bootstrap = Command::Bootstrap(InitialCluster {
        cluster: "test".into(),
        regions: vec![("eu".parse().unwrap(), "EU".parse().unwrap())],
        nodes: vec![node],
        groups_per_region: 1,
    });
    cluster.propose(bootstrap.encode()).await.unwrap();
    // No real row of a directory is that long: the length of a reason is checked at the edge.
    let region = |number: usize, len: usize| {
        let by = AuditContext {
            who: "test".into(),
            reason: "r".repeat(len),
        };
        let region = Region::new(format!("region-{number}").parse().unwrap(), "EU".parse().unwrap());
        Command::CreateRegion(by, region).encode()
    };
    for (number, len) in around(&[1, CHUNK_LEN_MAX, VALUE_LEN_MAX]).into_iter().enumerate() {
        cluster.propose(region(number, len)).await.unwrap();
    }
    let filler = |number: usize| region(100 + number, VALUE_LEN_MAX);
    let state = |machine: &DirectoryMachine| machine.read(Directory::clone);
    check_catch_up_by_snapshot(&mut cluster, filler, |one, other| state(one) == state(other)).await;
}

/// Toy machine whose snapshots are rejected, with a count of them.
struct RejectedSnapshots {
    toy: Arc<Toy>,
    rows: Arc<SnapshotCounter>,
}

/// Rows of the toy, with the count of its snapshots.
#[derive(Default)]
struct SnapshotCounter {
    toy: toy::Disk,
    count: AtomicU32,
    is_valid: AtomicU32,
}

impl TestMachine for RejectedSnapshots {
    type Rows = Arc<SnapshotCounter>;

    fn open(rows: &Self::Rows) -> Arc<Self> {
        Arc::new(Self {
            toy: Toy::open(&rows.toy),
            rows: rows.clone(),
        })
    }

    fn lose_power(_: &Self::Rows) {}
}

impl Machine for RejectedSnapshots {
    type CommandResult = String;

    fn applied(&self) -> AppliedState {
        self.toy.applied()
    }

    fn durable(&self) -> AppliedState {
        self.toy.durable()
    }

    fn apply(&self, entries: Vec<CommittedEntry>) -> Result<Vec<Vec<String>>, MachineError> {
        self.toy.apply(entries)
    }

    fn checkpoint(&self) -> Result<(), MachineError> {
        self.toy.checkpoint()
    }

    fn snapshot(&self) -> Result<Snapshot, MachineError> {
        self.rows.count.fetch_add(1, Ordering::Relaxed);
        let snapshot = self.toy.snapshot()?;
        if self.rows.is_valid.load(Ordering::Relaxed) > 0 {
            return Ok(snapshot);
        }
        let chunks = Box::new(std::iter::once(Ok(vec![0; CHUNK_LEN_MAX + 1].into())));
        Ok(Snapshot { chunks, ..snapshot })
    }

    fn install(&self, snapshot: Snapshot) -> Result<(), MachineError> {
        self.toy.install(snapshot)
    }
}

fn cuts(cluster: &TestCluster<RejectedSnapshots>) -> u32 {
    cluster
        .nodes
        .values()
        .map(|member| member.rows.count.load(Ordering::Relaxed))
        .sum()
}

/// Whether a replica is down or rejects snapshots: the leader takes few of them, and sends one soon after it can.
#[tokio::test(start_paused = true)]
async fn failed_snapshots_are_retried_with_backoff() {
    let mut cluster = TestCluster::<RejectedSnapshots>::start(3, Timing::Region).await;
    cluster.propose(toy::put("a", "0")).await;
    let leader = cluster.leader().await;
    let behind = cluster.others(leader)[0];
    cluster.kill(behind, 0).await;
    let value = "x".repeat(200 << 10);
    for number in 0..600 {
        cluster.propose(toy::put("big", &value[number..])).await;
    }
    let purged = || (cluster.group(leader).metrics().purged > 10).then_some(());
    cluster.eventually("a purge", purged).await;
    let long = Duration::from_secs(600);
    let before = cuts(&cluster);
    sleep(long).await;
    assert!(
        cuts(&cluster) - before < 20,
        "{} cuts for a replica that is down",
        cuts(&cluster) - before
    );
    cluster.up(behind).await;
    let before = cuts(&cluster);
    let refused = || (cuts(&cluster) > before).then_some(());
    cluster.eventually("a cut for a replica that is back", refused).await;
    sleep(long).await;
    assert!(
        cuts(&cluster) - before < 20,
        "{} cuts that were refused",
        cuts(&cluster) - before
    );
    for member in cluster.nodes.values() {
        member.rows.is_valid.store(1, Ordering::Relaxed);
    }
    sleep(Duration::from_secs(61)).await;
    let has = || (cluster.node(behind).machine.toy.get("big").as_deref() == Some(&value[599..])).then_some(());
    cluster.eventually("a snapshot that is taken", has).await;
}
