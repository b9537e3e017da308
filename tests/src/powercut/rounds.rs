//! Rounds of a power-cut campaign: load on three nodes, a fault, a power cut, and a verification of what is left.
//!
//! After each round every node must be back by itself, every acknowledged write must be there once, at its revision,
//! and all replicas must be equal. A cluster with a violation runs no further rounds: its later behaviour proves
//! nothing.

use std::{
    collections::BTreeMap,
    fmt, io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, ensure};
use bytes::Bytes;
use stead_api::{
    convert::id,
    proto::v1::{
        self, Consistency, KeyValue, ScanRequest, Via, consistency::Level, kv_service_client::KvServiceClient,
    },
};
use stead_client::{Client, Config, ErrorKind, NewTenant, Revision, Tenant, WatchFrom, WatchMessage};
use stead_testing::{
    Cluster, TemporaryFolder,
    cluster::{Plan, Ports, Region},
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{
    disk::{UnsyncedWrites, next_random},
    ledger::{LedgerViolation, ObservedChange, UniqueWrite, WriteLedger, WriteOutcome},
    mount::Mount,
};

const NODES: usize = 3;
const REGION: &str = "eu-west";
const TENANT: &str = "acme";
const WRITERS: usize = 24;
const KEYS_OF_WRITER: u64 = 20;
/// Pause between two writes of a writer: about 500 a second in all, as long as nodes answer.
const WRITE_INTERVAL: Duration = Duration::from_millis(40);
const VALUE_LEN_MAX: u64 = 400;
/// Acknowledged writes before a fault, and between faults.
const WRITES_PER_PHASE: u64 = 400;
/// Timeout of a write.
const WRITE_TIMEOUT: Duration = Duration::from_secs(4);
/// Longest wait for anything, on a machine that is busy with other things.
const WAIT_MAX: Duration = Duration::from_secs(90);
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Duration of a sync, so that a cut hits some in flight; and its duration on a slow disk.
const SYNC_DELAY: Duration = Duration::from_millis(2);
const SLOW_SYNC_DELAY: Duration = Duration::from_millis(40);
const PAGE_SIZE: i32 = 500;
/// Violations of a round that are printed one by one.
const VIOLATIONS_SHOWN_MAX: usize = 10;

/// Kind of a round: the faults in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RoundKind {
    /// Power is cut at this many nodes at once, while they write.
    Cut {
        /// Number of nodes.
        nodes: usize,
        /// Whether a part of the unsynced data survives.
        torn: bool,
        /// Whether syncs are slow meanwhile.
        slow: bool,
    },
    /// A sync fails on one node, which is started again as it is, then on another one; then power is cut at all.
    FailedSyncs,
}

impl RoundKind {
    /// Every kind.
    pub fn all() -> Vec<Self> {
        let cuts = (1..=NODES).flat_map(|nodes| {
            [(false, false), (true, false), (true, true)].map(|(torn, slow)| Self::Cut { nodes, torn, slow })
        });
        cuts.chain([Self::FailedSyncs]).collect()
    }
}

impl fmt::Display for RoundKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut { nodes, torn, slow } => {
                let (torn, slow) = (
                    if *torn { ", torn sectors" } else { "" },
                    if *slow { ", slow syncs" } else { "" },
                );
                write!(f, "cut of {nodes}{torn}{slow}")
            }
            Self::FailedSyncs => f.write_str("two failed syncs, restarts, cut of 3"),
        }
    }
}

/// Report of a round.
#[derive(Clone, Debug)]
pub struct RoundReport {
    /// Kind of the round.
    pub kind: RoundKind,
    /// Writes that were acknowledged in it.
    pub acknowledged: u64,
    /// Writes whose outcome is not known.
    pub unknown: u64,
    /// Bytes lost in the cuts.
    pub bytes_lost: u64,
    /// Time from the cut until every node was ready.
    pub back_after: Duration,
    /// Violations, as text.
    pub violations: Vec<String>,
}

/// Three nodes on fault-injection disks, and the ledger of their writes.
pub struct World {
    binary: PathBuf,
    cluster: Cluster,
    mounts: Vec<Mount>,
    folder: TemporaryFolder,
    ledger: WriteLedger,
    write_counter: Arc<AtomicU64>,
    seed: u64,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World")
            .field("binary", &self.binary)
            .finish_non_exhaustive()
    }
}

/// Writes of one writer with their outcomes.
type WriterLog = Vec<(UniqueWrite, WriteOutcome)>;

struct WriteLoad {
    writers: JoinSet<WriterLog>,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
}

impl World {
    /// Starts a region of three nodes with these engines, each on a disk of its own.
    ///
    /// # Errors
    ///
    /// A disk cannot be mounted, or the nodes do not become ready.
    pub async fn start(binary: PathBuf, engines: [&str; NODES], seed: u64) -> anyhow::Result<Self> {
        let folder = TemporaryFolder::make()?;
        let plan = Plan {
            binary: binary.clone(),
            data: folder.path().join("cluster"),
            regions: vec![Region::new(REGION, NODES)],
            round_trips: Vec::new(),
            ports: Ports::Any,
            engines: engines.map(Into::into).into(),
            tls: false,
            groups_per_region: 1,
            asks_for_credentials: false,
        };
        let mounts = (1..=NODES).map(|node| Mount::new(&plan.data_of(&name(node))));
        let mounts = mounts
            .collect::<io::Result<Vec<Mount>>>()
            .context("a disk cannot be mounted")?;
        let mut cluster = Cluster::start(plan).await?;
        cluster.ready(WAIT_MAX).await?;
        mounts.iter().for_each(|mount| mount.disk.set_sync_delay(SYNC_DELAY));
        let world = Self {
            binary,
            cluster,
            mounts,
            folder,
            ledger: WriteLedger::default(),
            write_counter: Arc::default(),
            seed,
        };
        let new = NewTenant {
            name: TENANT.to_owned(),
            home_region: REGION.to_owned(),
            ..NewTenant::default()
        };
        world.client().await?.admin().create_tenant(new).await?;
        Ok(world)
    }

    /// Keeps configurations and logs of the nodes when this value is dropped.
    pub fn keep_folder(&mut self) {
        self.folder.keep();
    }

    async fn client(&self) -> anyhow::Result<Client> {
        let mut config = Config::new(self.cluster.endpoints(REGION));
        config.timeout = WRITE_TIMEOUT;
        config.connect_timeout = WAIT_MAX;
        Ok(Client::connect(config).await?)
    }

    async fn tenant(&self) -> anyhow::Result<Tenant> {
        Ok(self.client().await?.tenant(TENANT)?)
    }

    /// Runs one round and verifies what is left.
    ///
    /// # Errors
    ///
    /// A node is not back, or cannot be read: nothing more can be said of this cluster.
    pub async fn run_round(&mut self, kind: RoundKind) -> anyhow::Result<RoundReport> {
        let lost_before = self.bytes_lost();
        let mut load = self.start_load().await?;
        load.wait_for_writes(WRITES_PER_PHASE).await?;
        let cut = match kind {
            RoundKind::Cut { nodes, torn, slow } => {
                if slow {
                    self.mounts
                        .iter()
                        .for_each(|mount| mount.disk.set_sync_delay(SLOW_SYNC_DELAY));
                    load.wait_for_writes(WRITES_PER_PHASE / 4).await?;
                }
                let nodes = self.draw_nodes(nodes);
                self.cut_power(&nodes, torn).await?;
                self.mounts
                    .iter()
                    .for_each(|mount| mount.disk.set_sync_delay(SYNC_DELAY));
                nodes
            }
            RoundKind::FailedSyncs => self.fail_syncs(&mut load).await?,
        };
        let from = Instant::now();
        let names: Vec<String> = cut.into_iter().map(name).collect();
        for node in &names {
            if kind == RoundKind::FailedSyncs && *node == names[NODES - 1] {
                // The two whose sync failed elect a leader before the third, which may have more, is there.
                self.cluster.ready_of(&names[..NODES - 1], WAIT_MAX).await?;
            }
            self.cluster.start_node(node)?;
        }
        self.cluster
            .ready(WAIT_MAX)
            .await
            .context("a node is not back after a cut")?;
        let back_after = from.elapsed();
        load.wait_for_writes(WRITES_PER_PHASE / 8).await?;
        let (acknowledged, unknown) = self.stop_load(load).await?;
        let violations = self.verify().await?;
        Ok(RoundReport {
            kind,
            acknowledged,
            unknown,
            bytes_lost: self.bytes_lost() - lost_before,
            back_after,
            violations: describe(&violations),
        })
    }

    fn bytes_lost(&self) -> u64 {
        self.mounts.iter().map(|mount| mount.disk.counts().bytes_lost).sum()
    }

    /// Chooses nodes at random, in a random order.
    fn draw_nodes(&mut self, count: usize) -> Vec<usize> {
        let mut nodes: Vec<usize> = (1..=NODES).collect();
        for at in (1..nodes.len()).rev() {
            nodes.swap(at, next_random(&mut self.seed) as usize % (at + 1));
        }
        nodes.truncate(count);
        nodes
    }

    /// Cuts power at nodes at the same moment, kills their processes, and restores power.
    async fn cut_power(&mut self, nodes: &[usize], torn: bool) -> anyhow::Result<()> {
        for node in nodes {
            let unsynced = match torn {
                true => UnsyncedWrites::Torn {
                    seed: next_random(&mut self.seed),
                },
                false => UnsyncedWrites::Lost,
            };
            self.mounts[node - 1].disk.cut(unsynced);
        }
        for node in nodes {
            // A node that noticed has ended by itself.
            drop(self.cluster.kill_node(&name(*node)).await);
        }
        nodes.iter().for_each(|node| self.mounts[node - 1].disk.restore());
        Ok(())
    }

    /// Returns the nodes in the order in which they are to be started: those whose sync failed first.
    async fn fail_syncs(&mut self, load: &mut WriteLoad) -> anyhow::Result<Vec<usize>> {
        let order = self.draw_nodes(NODES);
        for node in &order[..NODES - 1] {
            self.mounts[node - 1].disk.fail_syncs(1);
            let node = name(*node);
            let ends = async {
                while self.cluster.process(&node).is_some() {
                    sleep(POLL_INTERVAL).await;
                }
            };
            timeout(WAIT_MAX, ends)
                .await
                .with_context(|| format!("{node} goes on after a failed sync"))?;
            self.cluster.start_node(&node)?;
            self.cluster.ready_of(&[node], WAIT_MAX).await?;
            load.wait_for_writes(WRITES_PER_PHASE).await?;
        }
        self.cut_power(&order, false).await?;
        Ok(order)
    }

    async fn start_load(&self) -> anyhow::Result<WriteLoad> {
        let mut load = WriteLoad {
            writers: JoinSet::new(),
            stop: Arc::default(),
            acknowledged: Arc::default(),
        };
        let tenant = self.tenant().await?;
        for writer in 0..WRITERS {
            let (tenant, write_counter) = (tenant.clone(), self.write_counter.clone());
            let (stop, acknowledged) = (load.stop.clone(), load.acknowledged.clone());
            load.writers.spawn(async move {
                let mut log = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let number = write_counter.fetch_add(1, Ordering::Relaxed);
                    let (write, outcome) = put(&tenant, writer, number).await;
                    if matches!(outcome, WriteOutcome::Acknowledged(_)) {
                        acknowledged.fetch_add(1, Ordering::Relaxed);
                    }
                    log.push((write, outcome));
                    sleep(WRITE_INTERVAL).await;
                }
                log
            });
        }
        Ok(load)
    }

    /// Ends the load and records its outcomes in the ledger. Returns the number of acknowledged writes, and of unknown
    /// ones.
    async fn stop_load(&mut self, mut load: WriteLoad) -> anyhow::Result<(u64, u64)> {
        load.stop.store(true, Ordering::Relaxed);
        let mut unknown = 0;
        while let Some(log) = load.writers.join_next().await {
            for (write, outcome) in log? {
                unknown += u64::from(outcome == WriteOutcome::Unknown);
                self.ledger.record(write, outcome);
            }
        }
        Ok((load.acknowledged.load(Ordering::Relaxed), unknown))
    }

    /// Verifies all acknowledged writes at every node.
    async fn verify(&mut self) -> anyhow::Result<Vec<LedgerViolation>> {
        let tenant = self.tenant().await?;
        let target = tenant.get("none").await?.header.revision;
        let mut violations = self.verify_changes(&tenant, target).await?;
        for node in self.cluster.nodes().to_vec() {
            let state = state_of(&node.client, target)
                .await
                .with_context(|| format!("{} cannot be read", node.name))?;
            violations.extend(self.ledger.check_state(&state));
        }
        Ok(violations)
    }

    /// Checks the ledger against every change up to a revision.
    async fn verify_changes(&mut self, tenant: &Tenant, target: Revision) -> anyhow::Result<Vec<LedgerViolation>> {
        let mut found = Vec::new();
        let after = self.ledger.last().unwrap_or(Revision::ZERO);
        if after < target {
            let watch = stead_client::WatchOptions {
                from: WatchFrom::After(after),
                ..stead_client::WatchOptions::default()
            };
            let mut watcher = tenant.watch(watch).await?;
            while found
                .last()
                .is_none_or(|found: &ObservedChange| found.revision < target)
            {
                match timeout(WAIT_MAX, watcher.next())
                    .await
                    .context("a watch delivers nothing")??
                {
                    WatchMessage::Changes(events) => found.extend(events.into_iter().map(|event| ObservedChange {
                        revision: event.item.modified,
                        write: UniqueWrite {
                            key: event.item.key,
                            value: event.item.value,
                        },
                    })),
                    WatchMessage::Progress | WatchMessage::State { .. } | WatchMessage::Forked { .. } => {}
                }
            }
        }
        Ok(self.ledger.check_changes(found))
    }
}

/// Describes the first violations, and counts the others.
fn describe(violations: &[LedgerViolation]) -> Vec<String> {
    let mut text: Vec<String> = violations
        .iter()
        .take(VIOLATIONS_SHOWN_MAX)
        .map(|one| format!("{one:?}"))
        .collect();
    if VIOLATIONS_SHOWN_MAX < violations.len() {
        text.push(format!("and {} more", violations.len() - VIOLATIONS_SHOWN_MAX));
    }
    text
}

impl WriteLoad {
    /// Waits until so many more writes were acknowledged.
    async fn wait_for_writes(&self, more: u64) -> anyhow::Result<()> {
        let goal = self.acknowledged.load(Ordering::Relaxed) + more;
        let reached = async {
            while self.acknowledged.load(Ordering::Relaxed) < goal {
                sleep(POLL_INTERVAL).await;
            }
        };
        timeout(WAIT_MAX, reached).await.context("the nodes take no writes")
    }
}

fn name(node: usize) -> String {
    format!("{REGION}-{node}")
}

async fn put(tenant: &Tenant, writer: usize, number: u64) -> (UniqueWrite, WriteOutcome) {
    let len = (number * 7 % VALUE_LEN_MAX) as usize;
    let write = UniqueWrite {
        key: format!("w{writer}-{}", number % KEYS_OF_WRITER).into(),
        value: format!("{number}-{}", "x".repeat(len)).into(),
    };
    let outcome = match tenant.put(write.key.clone(), write.value.clone()).await {
        Ok(response) => WriteOutcome::Acknowledged(response.header.revision),
        Err(error) if matches!(error.kind, ErrorKind::OutcomeUnknown { .. }) => WriteOutcome::Unknown,
        Err(_) => WriteOutcome::Refused,
    };
    (write, outcome)
}

/// Reads all keys as one node holds them at a revision.
async fn state_of(endpoint: &str, target: Revision) -> anyhow::Result<BTreeMap<Bytes, (Bytes, Revision)>> {
    let mut kv = KvServiceClient::connect(format!("http://{endpoint}")).await?;
    let deadline = Instant::now() + WAIT_MAX;
    let mut request = ScanRequest {
        tenant: TENANT.into(),
        page_size: PAGE_SIZE,
        consistency: Some(Consistency {
            level: Some(Level::Local(v1::consistency::Local {})),
        }),
        revision: Some(id::from_revision(target)),
        ..ScanRequest::default()
    };
    let mut state = BTreeMap::new();
    loop {
        ensure!(Instant::now() < deadline, "it does not reach {target}");
        let page = kv.scan(request.clone()).await?.into_inner();
        // A forwarded request was not answered by this node's own replica.
        let is_own = page.header.as_ref().is_some_and(|header| header.via() == Via::Direct);
        if !is_own {
            sleep(POLL_INTERVAL).await;
            continue;
        }
        for KeyValue {
            key,
            value,
            mod_revision,
            ..
        } in page.items
        {
            let revision = mod_revision.context("a key without a revision")?;
            state.insert(key, (value, id::revision("mod_revision", revision)?));
        }
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return Ok(state);
        }
    }
}
