//! Clusters of a step's own, while the nodes of the other steps are down, and changes of their nodes and regions.

use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};

use anyhow::bail;
use stead_client::{Admin, ErrorKind, OperationFilter, OperationOutcome, TopologyRequest};
use stead_testing::{
    Cluster,
    cluster::{Plan, Region},
    load::{Load, LoadReport, percentile},
};
use tokio::time::{Instant, sleep};

use super::verdict::Verdict;
use crate::verbs::dev::{
    plan::{self, REGIONS, Regions},
    up::SHUTDOWN_TIMEOUT,
    world::{WAIT_TIMEOUT, World, until},
};

/// Round trip between regions whose distance the demo does not have.
const FAR: Duration = Duration::from_millis(80);

/// Pause before a change is asked for again, where the feature level is too low yet, and where the outcome is not known.
const LEVEL_PAUSE: Duration = Duration::from_millis(200);
const UNKNOWN_PAUSE: Duration = Duration::from_secs(2);

/// Returns a region of the demo, or a witness's, that begins with so many of its nodes.
pub(super) fn region(name: &str, nodes: usize, initial: usize) -> Region {
    let region = Region::new(name, nodes);
    let known = REGIONS.iter().find(|(known, _)| *known == name);
    Region {
        initial,
        jurisdiction: known.map_or(region.jurisdiction.clone(), |(_, law)| (*law).to_owned()),
        witness: known.is_none(),
        ..region
    }
}

/// Returns regions with the demo's distances.
fn distant(regions: Vec<Region>) -> Regions {
    Regions::with_distances(regions, FAR)
}

/// Runs a step on a cluster of its own, of which it is handed a world and the folder.
pub(super) async fn run(
    world: &World,
    folder: &Path,
    groups_per_region: usize,
    regions: Vec<Region>,
    step: impl AsyncFnOnce(&mut World, &Path) -> anyhow::Result<Verdict>,
) -> anyhow::Result<Verdict> {
    alone(world, async |plan| {
        on(&plan, folder, groups_per_region, distant(regions), step).await
    })
    .await
}

/// Runs something while the nodes of the environment are down, whose plan it is handed.
pub(super) async fn alone<T>(world: &World, run: impl AsyncFnOnce(Plan) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let plan = {
        let mut cluster = world.cluster.lock().await;
        cluster.kill_all().await;
        cluster.plan().clone()
    };
    let ran = run(plan).await;
    world.cluster.lock().await.start_all()?;
    ran
}

/// Runs a step on a cluster of its own, of the same kind as that of a plan, whose nodes are down.
pub(super) async fn on<T>(
    plan: &Plan,
    folder: &Path,
    groups_per_region: usize,
    regions: Regions,
    step: impl AsyncFnOnce(&mut World, &Path) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    Cluster::clear(folder)?;
    let plan = Plan {
        groups_per_region,
        ..plan::like(plan, folder.to_owned(), regions)
    };
    let mut own = World::new(Cluster::start(plan).await?, Instant::now())?;
    let ran = async {
        own.ready().await?;
        own.set_lease_ttl().await?;
        step(&mut own, folder).await
    };
    let ran = ran.await;
    if let Some(cluster) = Arc::into_inner(own.cluster) {
        cluster.into_inner().shut_down(SHUTDOWN_TIMEOUT).await;
    }
    ran
}

/// Begins a change of nodes or regions; returns the name of its operation.
pub(super) async fn begin(admin: &Admin, request: TopologyRequest) -> anyhow::Result<String> {
    let deadline = Instant::now() + WAIT_TIMEOUT;
    let before = topology_changes(admin).await?;
    let (mut is_unknown, mut pause) = (false, LEVEL_PAUSE);
    loop {
        let error = match admin.change_topology(request.clone(), "checked").await {
            Ok(begun) => return Ok(begun.name),
            Err(error) => error,
        };
        // The leader of the directory may have changed meanwhile: then a call may have had its effect, also later.
        is_unknown |= matches!(error.kind, ErrorKind::OutcomeUnknown { .. });
        if is_unknown {
            pause = UNKNOWN_PAUSE;
            sleep(pause).await;
            let now = topology_changes(admin).await?;
            if let Some(begun) = now.difference(&before).next() {
                return Ok(begun.clone());
            }
        }
        // A cluster that has just begun raises its feature level once all nodes have reported theirs.
        let is_early = error.message.contains("feature level");
        if Instant::now() > deadline || !(is_unknown || is_early) {
            return Err(error.into());
        }
        sleep(pause).await;
    }
}

/// Returns the names of all changes of nodes and regions.
async fn topology_changes(admin: &Admin) -> anyhow::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    until("operations are listed", async || {
        let all = admin.operations(&OperationFilter::default()).await?;
        let changes = all.into_iter().filter(|operation| operation.topology.is_some());
        names = changes.map(|operation| operation.name).collect();
        Ok(true)
    })
    .await?;
    Ok(names)
}

/// Waits until a change is done, and says what it waits for if it is not in time.
pub(super) async fn done(admin: &Admin, operation: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + WAIT_TIMEOUT * 2;
    let mut last = None;
    loop {
        // A node that starts again with other groups does not answer for a moment.
        if let Ok(found) = admin.operation(operation).await {
            match found.outcome {
                Some(OperationOutcome::TopologyChanged(_)) => return Ok(()),
                Some(other) => bail!("{operation}: {other:?}"),
                None => last = found.topology,
            }
        }
        if Instant::now() > deadline {
            bail!("{operation} is not over: {last:?}");
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until the processes of nodes that were removed have ended by themselves, and removes their data.
pub(super) async fn gone(world: &World, nodes: &[String]) -> anyhow::Result<()> {
    for node in nodes {
        until(&format!("{node} ends by itself"), async || {
            Ok(world.cluster.lock().await.process(node).is_none())
        })
        .await?;
        world.cluster.lock().await.remove_node(node).await?;
    }
    Ok(())
}

/// TenantLoads of writes to several tenants, with the latencies since they were last looked at.
pub(super) struct TenantLoads {
    loads: Vec<Load>,
    seen: Vec<usize>,
}

impl TenantLoads {
    /// Starts to write to tenants at their home, so many writes a second together.
    pub(super) async fn start(
        world: &mut World,
        tenants: &[String],
        home: &str,
        per_second: u32,
    ) -> anyhow::Result<Self> {
        let each = per_second / u32::try_from(tenants.len().max(1))?;
        let mut loads = Vec::new();
        for name in tenants {
            let tenant = world.tenant(name, home, home).await?;
            until("the tenant takes writes", async || {
                tenant.put("first", "v").await?;
                Ok(true)
            })
            .await?;
            loads.push(Load::start(tenant, format!("load/{}", world.run), each));
        }
        let seen = vec![0; loads.len()];
        Ok(Self { loads, seen })
    }

    /// Returns the number of acknowledged writes.
    pub(super) async fn acknowledged(&self) -> usize {
        let mut all = 0;
        for load in &self.loads {
            all += load.acknowledged().await;
        }
        all
    }

    /// Returns the longest time without an acknowledgement to a tenant since the last call.
    pub(super) async fn take_gap(&self) -> Duration {
        let mut longest = Duration::ZERO;
        for load in &self.loads {
            longest = longest.max(load.take_gap().await);
        }
        longest
    }

    /// Returns the p99 of the writes that were acknowledged since the last call.
    pub(super) async fn take_p99(&mut self) -> Duration {
        let mut taken = Vec::new();
        for (load, seen) in self.loads.iter().zip(&mut self.seen) {
            let new = load.acknowledged_since(*seen).await;
            *seen += new.len();
            taken.extend(new.iter().map(|write| write.acknowledged - write.sent));
        }
        percentile(&mut taken, 0.99)
    }

    /// Stops, reads all writes back, and adds what is wrong to a verdict.
    pub(super) async fn finish(self, verdict: Verdict) -> anyhow::Result<Verdict> {
        let mut all = LoadReport::default();
        for load in self.loads {
            let report = load.finish().await?;
            all.lost += report.lost;
            all.twice += report.twice;
            all.acknowledged.extend(report.acknowledged);
            all.errors.extend(report.errors);
        }
        Ok(verdict
            .none("lost", all.lost)
            .none("twice", all.twice)
            .none("errors", all.errors.len())
            .note(format!("{} writes {}", all.acknowledged.len(), all.errors_shown())))
    }
}
