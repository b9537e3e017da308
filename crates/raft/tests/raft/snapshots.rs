//! Snapshots of both real machines over the real transport: whatever they hold, they arrive, and one that does not
//! costs its leader no more than it must.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use stead_raft::Timing;
use stead_state::directory::{By, Command, Directory, Initial, InitialNode, Region};
use stead_state::rows::Order;
use stead_state::shard::command::{Branches, Create, Effect, Operation, Step, Txn, Write};
use stead_state::shard::read::Scan;
use stead_state::shard::record::OnLeaseLoss;
use stead_store::background::Background;
use stead_store::directory::DirectoryMachine;
use stead_store::engine::memory::Disk;
use stead_store::machine::{Answer, Applied, CHUNK_LEN_MAX, Committed, Failed, Machine, Snapshot};
use stead_store::shard::ShardMachine;
use stead_types::limits::{CHANGE_LEN_MAX, KEY_LEN_MAX, VALUE_LEN_MAX};
use stead_types::{DirectoryVersion, Incarnation, TenantNumber};
use tokio::time::sleep;

use crate::cluster::{GROUP, Replicas, Subject};
use crate::toy::{self, Toy};

const TENANT: TenantNumber = TenantNumber::new(7);
/// Entries of a megabyte after which a replica without them is past the log's tail.
const PAST_THE_TAIL: usize = 130;

impl Subject for ShardMachine {
    type Rows = Disk;

    fn open(rows: &Disk) -> Arc<Self> {
        Arc::new(Self::open(rows.open(), Arc::new(Background::inline()), GROUP).unwrap())
    }

    fn lose_power(rows: &Disk) {
        rows.power_loss(0);
    }
}

impl Subject for DirectoryMachine {
    type Rows = Disk;

    fn open(rows: &Disk) -> Arc<Self> {
        Arc::new(Self::open(rows.open(), Arc::new(Background::inline())).unwrap())
    }

    fn lose_power(rows: &Disk) {
        rows.power_loss(0);
    }
}

/// Stops a follower, moves the log past its tail with `filler`, starts the follower again, and waits until it has what
/// the others have. It got a snapshot: its log begins where that was cut.
async fn falls_behind_and_returns<M: Subject>(
    cluster: &mut Replicas<M>,
    filler: impl Fn(usize) -> Bytes,
    equal: impl Fn(&M, &M) -> bool,
) {
    let leader = cluster.leader().await;
    let behind = cluster.others(leader)[0];
    let had = cluster.group(behind).numbers().applied;
    cluster.kill(behind, 0).await;
    for number in 0..PAST_THE_TAIL {
        cluster.propose(filler(number)).await;
    }
    let leader = cluster.leader().await;
    let purged = || (cluster.group(leader).numbers().purged > had).then_some(());
    cluster.eventually("a purge", purged).await;
    cluster.up(behind).await;
    let returned = || {
        let (this, other) = (cluster.node(behind), cluster.node(leader));
        let is_there = this.machine.applied().index == other.machine.applied().index;
        (is_there && equal(&this.machine, &other.machine)).then_some(())
    };
    cluster.eventually("the replica that was behind", returned).await;
    assert!(cluster.group(behind).numbers().purged > had, "it got a snapshot");
}

fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Bytes {
    Write::new(TENANT, None, Operation::new(key, Effect::put(value))).encode()
}

/// Lengths at, below and above those at which anything changes.
fn around(lens: &[usize]) -> Vec<usize> {
    lens.iter().flat_map(|len| [len - 1, *len, len + 1]).collect()
}

fn data(machine: &ShardMachine) -> Vec<(Bytes, Bytes)> {
    machine
        .read(|view| {
            let scan = Scan {
                start: Bytes::new(),
                end: None,
                order: Order::Ascending,
                keys_only: false,
                at: None,
                after: None,
                keys_max: usize::MAX,
                len_max: usize::MAX,
            };
            let page = view.reading(TENANT).unwrap().scan(&scan).unwrap();
            let entries = page.entries.into_iter();
            entries.map(|(key, version)| (key, version.value.bytes)).collect()
        })
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn data_of_every_length_reaches_a_replica_past_the_tail() {
    let mut cluster = Replicas::<ShardMachine>::start(3, Timing::Region).await;
    let create = Create {
        tenant: TENANT,
        version: DirectoryVersion {
            incarnation: Incarnation::FIRST,
            index: 1,
        },
        policy: OnLeaseLoss::Stop,
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
    let done = done.downcast::<stead_state::shard::Answer>().unwrap();
    assert!(matches!(*done, stead_state::shard::Answer::Txn(_)));
    let filler = |number| put(format!("filler {number}"), vec![b'f'; VALUE_LEN_MAX]);
    falls_behind_and_returns(&mut cluster, filler, |one, other| data(one) == data(other)).await;
}

#[tokio::test(start_paused = true)]
async fn directory_of_every_length_reaches_a_replica_past_the_tail() {
    let mut cluster = Replicas::<DirectoryMachine>::start(3, Timing::Region).await;
    let node = InitialNode {
        name: "eu".into(),
        region: "eu".parse().unwrap(),
        addresses: Default::default(),
        witness: false,
    };
    let bootstrap = Command::Bootstrap(Initial {
        cluster: "test".into(),
        regions: vec![("eu".parse().unwrap(), "EU".parse().unwrap())],
        nodes: vec![node],
        groups_per_region: 1,
    });
    cluster.propose(bootstrap.encode()).await;
    // No row of a directory is that long: what it keeps of a reason is checked where it is asked for.
    let region = |number: usize, len: usize| {
        let by = By {
            who: "test".into(),
            reason: "r".repeat(len),
        };
        let region = Region {
            name: format!("region-{number}").parse().unwrap(),
            jurisdiction: "EU".parse().unwrap(),
        };
        Command::CreateRegion(by, region).encode()
    };
    for (number, len) in around(&[1, CHUNK_LEN_MAX, VALUE_LEN_MAX]).into_iter().enumerate() {
        cluster.propose(region(number, len)).await;
    }
    let filler = |number: usize| region(100 + number, VALUE_LEN_MAX);
    let state = |machine: &DirectoryMachine| machine.read(Directory::clone);
    falls_behind_and_returns(&mut cluster, filler, |one, other| state(one) == state(other)).await;
}

/// The toy, with chunks that nobody takes, and how many snapshots were cut.
struct Refused {
    toy: Arc<Toy>,
    rows: Arc<Cuts>,
}

#[derive(Default)]
struct Cuts {
    toy: toy::Disk,
    count: AtomicU32,
    is_well: AtomicU32,
}

impl Subject for Refused {
    type Rows = Arc<Cuts>;

    fn open(rows: &Self::Rows) -> Arc<Self> {
        Arc::new(Self {
            toy: Toy::open(&rows.toy),
            rows: rows.clone(),
        })
    }

    fn lose_power(_: &Self::Rows) {}
}

impl Machine for Refused {
    fn applied(&self) -> Applied {
        self.toy.applied()
    }

    fn durable(&self) -> Applied {
        self.toy.durable()
    }

    fn apply(&self, entries: Vec<Committed>) -> Result<Vec<Vec<Answer>>, Failed> {
        self.toy.apply(entries)
    }

    fn checkpoint(&self) -> Result<(), Failed> {
        self.toy.checkpoint()
    }

    fn snapshot(&self) -> Result<Snapshot, Failed> {
        self.rows.count.fetch_add(1, Ordering::Relaxed);
        let snapshot = self.toy.snapshot()?;
        if self.rows.is_well.load(Ordering::Relaxed) > 0 {
            return Ok(snapshot);
        }
        let chunks = Box::new(std::iter::once(Ok(vec![0; CHUNK_LEN_MAX + 1].into())));
        Ok(Snapshot { chunks, ..snapshot })
    }

    fn install(&self, snapshot: Snapshot) -> Result<(), Failed> {
        self.toy.install(snapshot)
    }
}

fn cuts(cluster: &Replicas<Refused>) -> u32 {
    cluster
        .nodes
        .values()
        .map(|member| member.rows.count.load(Ordering::Relaxed))
        .sum()
}

/// Whether a replica is down, or refuses what it is sent: the leader cuts few snapshots, and sends one soon after it can.
#[tokio::test(start_paused = true)]
async fn snapshots_that_fail_are_cut_again_after_a_pause() {
    let mut cluster = Replicas::<Refused>::start(3, Timing::Region).await;
    cluster.propose(toy::put("a", "0")).await;
    let leader = cluster.leader().await;
    let behind = cluster.others(leader)[0];
    cluster.kill(behind, 0).await;
    let value = "x".repeat(200 << 10);
    for number in 0..600 {
        cluster.propose(toy::put("big", &value[number..])).await;
    }
    let purged = || (cluster.group(leader).numbers().purged > 10).then_some(());
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
        member.rows.is_well.store(1, Ordering::Relaxed);
    }
    sleep(Duration::from_secs(61)).await;
    let has = || (cluster.node(behind).machine.toy.get("big").as_deref() == Some(&value[599..])).then_some(());
    cluster.eventually("a snapshot that is taken", has).await;
}
