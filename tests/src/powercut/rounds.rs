//! Rounds: load on three nodes, a fault, a cut, and a look at what is left.
//!
//! After each round every node must be back by itself, every acknowledged write must be there once, at its revision, and
//! all replicas must be equal. A cluster that has lost something is not played on with: what it does later says nothing.

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
use stead_client::{Client, Config, ErrorKind, NewTenant, Revision, Tenant, Told, WatchFrom};
use stead_testing::{
    Cluster, TemporaryFolder,
    cluster::{Plan, Ports, Region},
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{
    disk::{Unsynced, next_random},
    ledger::{Found, Ledger, Outcome, Violation, Write},
    mount::Mount,
};

const NODES: usize = 3;
const REGION: &str = "eu-west";
const TENANT: &str = "acme";
const WRITERS: usize = 24;
const KEYS_OF_WRITER: u64 = 20;
/// Between two writes of a writer: about 500 a second in all, as long as nodes answer.
const PAUSE: Duration = Duration::from_millis(40);
const VALUE_LEN_MAX: u64 = 400;
/// Acknowledged writes before a fault, and between faults.
const WRITES: u64 = 400;
/// How long a writer waits for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(4);
/// How long anything may take that is waited for, on a machine that is busy with other things.
const LONG: Duration = Duration::from_secs(90);
const ASK_EVERY: Duration = Duration::from_millis(20);
/// How long a sync takes, so that a cut finds some under way; and how long on a slow disk.
const SYNC: Duration = Duration::from_millis(2);
const SLOW_SYNC: Duration = Duration::from_millis(40);
const PAGE_SIZE: i32 = 500;
/// Violations of a round that are told one by one.
const SHOWN_MAX: usize = 10;

/// What is done in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Power is cut at this many nodes at once, while they write.
    Cut {
        /// How many.
        nodes: usize,
        /// Whether a part of what was not synced survives.
        torn: bool,
        /// Whether syncs are slow meanwhile.
        slow: bool,
    },
    /// A sync fails on one node, which is started again as it is, then on another one; then power is cut at all.
    FailedSyncs,
}

impl Kind {
    /// Every kind.
    pub fn all() -> Vec<Self> {
        let cuts = (1..=NODES).flat_map(|nodes| {
            [(false, false), (true, false), (true, true)].map(|(torn, slow)| Self::Cut { nodes, torn, slow })
        });
        cuts.chain([Self::FailedSyncs]).collect()
    }
}

impl fmt::Display for Kind {
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

/// What a round came to.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was done.
    pub kind: Kind,
    /// Writes that were acknowledged in it.
    pub acknowledged: u64,
    /// Writes whose outcome is not known.
    pub unknown: u64,
    /// Bytes that the cuts took.
    pub bytes_lost: u64,
    /// From the cut until every node was ready.
    pub back_after: Duration,
    /// What must not be.
    pub violations: Vec<String>,
}

/// Three nodes on disks that can be cut, and what they have acknowledged.
pub struct World {
    binary: PathBuf,
    cluster: Cluster,
    mounts: Vec<Mount>,
    folder: TemporaryFolder,
    ledger: Ledger,
    written: Arc<AtomicU64>,
    seed: u64,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World")
            .field("binary", &self.binary)
            .finish_non_exhaustive()
    }
}

/// What a writer has to say at its end.
type Notes = Vec<(Write, Outcome)>;

struct Load {
    writers: JoinSet<Notes>,
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
        };
        let mounts = (1..=NODES).map(|node| Mount::new(&plan.data_of(&name(node))));
        let mounts = mounts
            .collect::<io::Result<Vec<Mount>>>()
            .context("a disk cannot be mounted")?;
        let mut cluster = Cluster::start(plan).await?;
        cluster.ready(LONG).await?;
        mounts.iter().for_each(|mount| mount.disk.slow_syncs(SYNC));
        let world = Self {
            binary,
            cluster,
            mounts,
            folder,
            ledger: Ledger::default(),
            written: Arc::default(),
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

    /// Lets configurations and logs of the nodes stay when this value goes.
    pub fn keep(&mut self) {
        self.folder.keep();
    }

    async fn client(&self) -> anyhow::Result<Client> {
        let mut config = Config::new(self.cluster.endpoints(REGION));
        config.timeout = ANSWER_WITHIN;
        config.connect_timeout = LONG;
        Ok(Client::connect(config).await?)
    }

    async fn tenant(&self) -> anyhow::Result<Tenant> {
        Ok(self.client().await?.tenant(TENANT)?)
    }

    /// Plays one round and looks at what is left.
    ///
    /// # Errors
    ///
    /// A node is not back, or cannot be asked: nothing more can be said of this cluster.
    pub async fn play(&mut self, kind: Kind) -> anyhow::Result<Report> {
        let lost_before = self.bytes_lost();
        let mut load = self.load().await?;
        load.reach(WRITES).await?;
        let cut = match kind {
            Kind::Cut { nodes, torn, slow } => {
                if slow {
                    self.mounts.iter().for_each(|mount| mount.disk.slow_syncs(SLOW_SYNC));
                    load.reach(WRITES / 4).await?;
                }
                let nodes = self.some(nodes);
                self.cut(&nodes, torn).await?;
                self.mounts.iter().for_each(|mount| mount.disk.slow_syncs(SYNC));
                nodes
            }
            Kind::FailedSyncs => self.fail_syncs(&mut load).await?,
        };
        let from = Instant::now();
        let names: Vec<String> = cut.into_iter().map(name).collect();
        for node in &names {
            if kind == Kind::FailedSyncs && *node == names[NODES - 1] {
                // The two whose sync failed lead on before the third, who may have more, is there.
                self.cluster.ready_of(&names[..NODES - 1], LONG).await?;
            }
            self.cluster.start_node(node)?;
        }
        self.cluster
            .ready(LONG)
            .await
            .context("a node is not back after a cut")?;
        let back_after = from.elapsed();
        load.reach(WRITES / 8).await?;
        let (acknowledged, unknown) = self.settle(load).await?;
        let violations = self.look().await?;
        Ok(Report {
            kind,
            acknowledged,
            unknown,
            bytes_lost: self.bytes_lost() - lost_before,
            back_after,
            violations: told(&violations),
        })
    }

    fn bytes_lost(&self) -> u64 {
        self.mounts.iter().map(|mount| mount.disk.counts().bytes_lost).sum()
    }

    /// Chooses nodes at random, in a random order.
    fn some(&mut self, count: usize) -> Vec<usize> {
        let mut nodes: Vec<usize> = (1..=NODES).collect();
        for at in (1..nodes.len()).rev() {
            nodes.swap(at, next_random(&mut self.seed) as usize % (at + 1));
        }
        nodes.truncate(count);
        nodes
    }

    /// Cuts power at nodes in one moment, lets their processes die, and gives power back.
    async fn cut(&mut self, nodes: &[usize], torn: bool) -> anyhow::Result<()> {
        for node in nodes {
            let unsynced = match torn {
                true => Unsynced::Torn {
                    seed: next_random(&mut self.seed),
                },
                false => Unsynced::Lost,
            };
            self.mounts[node - 1].disk.cut(unsynced);
        }
        for node in nodes {
            // One that noticed has ended by itself.
            drop(self.cluster.kill_node(&name(*node)).await);
        }
        nodes.iter().for_each(|node| self.mounts[node - 1].disk.restore());
        Ok(())
    }

    /// Returns the nodes in the order in which they are to be started: those whose sync failed first.
    async fn fail_syncs(&mut self, load: &mut Load) -> anyhow::Result<Vec<usize>> {
        let order = self.some(NODES);
        for node in &order[..NODES - 1] {
            self.mounts[node - 1].disk.fail_syncs(1);
            let node = name(*node);
            let ends = async {
                while self.cluster.process(&node).is_some() {
                    sleep(ASK_EVERY).await;
                }
            };
            timeout(LONG, ends)
                .await
                .with_context(|| format!("{node} goes on after a failed sync"))?;
            self.cluster.start_node(&node)?;
            self.cluster.ready_of(&[node], LONG).await?;
            load.reach(WRITES).await?;
        }
        self.cut(&order, false).await?;
        Ok(order)
    }

    async fn load(&self) -> anyhow::Result<Load> {
        let mut load = Load {
            writers: JoinSet::new(),
            stop: Arc::default(),
            acknowledged: Arc::default(),
        };
        let tenant = self.tenant().await?;
        for writer in 0..WRITERS {
            let (tenant, written) = (tenant.clone(), self.written.clone());
            let (stop, acknowledged) = (load.stop.clone(), load.acknowledged.clone());
            load.writers.spawn(async move {
                let mut notes = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let number = written.fetch_add(1, Ordering::Relaxed);
                    let (write, outcome) = put(&tenant, writer, number).await;
                    if matches!(outcome, Outcome::Acknowledged(_)) {
                        acknowledged.fetch_add(1, Ordering::Relaxed);
                    }
                    notes.push((write, outcome));
                    sleep(PAUSE).await;
                }
                notes
            });
        }
        Ok(load)
    }

    /// Ends the load and notes what its writers know. Returns how many writes were acknowledged, and how many are open.
    async fn settle(&mut self, mut load: Load) -> anyhow::Result<(u64, u64)> {
        load.stop.store(true, Ordering::Relaxed);
        let mut unknown = 0;
        while let Some(notes) = load.writers.join_next().await {
            for (write, outcome) in notes? {
                unknown += u64::from(outcome == Outcome::Unknown);
                self.ledger.note(write, outcome);
            }
        }
        Ok((load.acknowledged.load(Ordering::Relaxed), unknown))
    }

    /// Looks for everything that was acknowledged, at every node.
    async fn look(&mut self) -> anyhow::Result<Vec<Violation>> {
        let tenant = self.tenant().await?;
        let target = tenant.get("none").await?.header.revision;
        let mut violations = self.changes(&tenant, target).await?;
        for node in self.cluster.nodes().to_vec() {
            let state = state_of(&node.client, target)
                .await
                .with_context(|| format!("{} cannot be read", node.name))?;
            violations.extend(self.ledger.compare(&state));
        }
        Ok(violations)
    }

    /// Settles the ledger by every change up to a revision.
    async fn changes(&mut self, tenant: &Tenant, target: Revision) -> anyhow::Result<Vec<Violation>> {
        let mut found = Vec::new();
        let after = self.ledger.last().unwrap_or(Revision::ZERO);
        if after < target {
            let watch = stead_client::Watch {
                from: WatchFrom::After(after),
                ..stead_client::Watch::default()
            };
            let mut watcher = tenant.watch(watch).await?;
            while found.last().is_none_or(|found: &Found| found.revision < target) {
                match timeout(LONG, watcher.next()).await.context("a watch tells nothing")?? {
                    Told::Changes(events) => found.extend(events.into_iter().map(|event| Found {
                        revision: event.item.modified,
                        write: Write {
                            key: event.item.key,
                            value: event.item.value,
                        },
                    })),
                    Told::Progress | Told::State { .. } => {}
                }
            }
        }
        Ok(self.ledger.settle(found))
    }
}

/// The first violations in words, and how many there are beside them.
fn told(violations: &[Violation]) -> Vec<String> {
    let mut told: Vec<String> = violations
        .iter()
        .take(SHOWN_MAX)
        .map(|one| format!("{one:?}"))
        .collect();
    if SHOWN_MAX < violations.len() {
        told.push(format!("and {} more", violations.len() - SHOWN_MAX));
    }
    told
}

impl Load {
    /// Waits until so many more writes were acknowledged.
    async fn reach(&self, more: u64) -> anyhow::Result<()> {
        let goal = self.acknowledged.load(Ordering::Relaxed) + more;
        let reached = async {
            while self.acknowledged.load(Ordering::Relaxed) < goal {
                sleep(ASK_EVERY).await;
            }
        };
        timeout(LONG, reached).await.context("the nodes take no writes")
    }
}

fn name(node: usize) -> String {
    format!("{REGION}-{node}")
}

async fn put(tenant: &Tenant, writer: usize, number: u64) -> (Write, Outcome) {
    let len = (number * 7 % VALUE_LEN_MAX) as usize;
    let write = Write {
        key: format!("w{writer}-{}", number % KEYS_OF_WRITER).into(),
        value: format!("{number}-{}", "x".repeat(len)).into(),
    };
    let outcome = match tenant.put(write.key.clone(), write.value.clone()).await {
        Ok(written) => Outcome::Acknowledged(written.header.revision),
        Err(error) if matches!(error.kind, ErrorKind::OutcomeUnknown { .. }) => Outcome::Unknown,
        Err(_) => Outcome::Refused,
    };
    (write, outcome)
}

/// Reads all keys as one node holds them at a revision.
async fn state_of(endpoint: &str, target: Revision) -> anyhow::Result<BTreeMap<Bytes, (Bytes, Revision)>> {
    let mut kv = KvServiceClient::connect(format!("http://{endpoint}")).await?;
    let deadline = Instant::now() + LONG;
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
        // What is handed on was not answered by this node's own replica.
        let is_own = page.header.as_ref().is_some_and(|header| header.via() == Via::Direct);
        if !is_own {
            sleep(ASK_EVERY).await;
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
