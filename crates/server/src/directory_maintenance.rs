//! Maintenance by the directory's leader: it writes the initial cluster, adjusts tenants to regions that were added or
//! removed, and drives bulk moves and promotions. What is due follows from the directory, so that a new leader goes on
//! where the last one was.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use stead_state::directory::{
    AuditContext, Command, Directory, FEATURE_LEVEL_MAX, FEATURE_LEVEL_MIN, InitialCluster, TopologyCommand,
};
use stead_store::group_rows::IncompleteChange;
use stead_types::{NodeId, TenantNumber};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    directory::{DirectoryClient, LocalVoter, VoterError},
    metrics::Metrics,
    promotion_upkeep::PromotionUpkeep,
    supervisor::BoxError,
};

/// Pause before a failed proposal is retried.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Interval at which the feature level is looked at, as long as it can be raised.
const LEVEL_INTERVAL: Duration = Duration::from_millis(200);
/// Time for which every node must have supported a feature level before it is raised.
const LEVEL_DELAY: Duration = Duration::from_hours(24);
/// Interval at which the budgets of waves are looked at.
const WAVE_INTERVAL: Duration = Duration::from_millis(200);
/// Time, or half a ttl where that is longer, for which this node must lead before it takes a node that it has not heard of
/// for unreachable: every node renews its lease meanwhile.
const LEADS_MIN: Duration = Duration::from_secs(60);
const TASK_NAME: &str = "keeping the directory up to date";

/// Tells whether no tenant is older than [`LEVEL_DELAY`].
fn is_new(directory: &Directory, now_ms: u64) -> bool {
    let oldest_ms = now_ms.saturating_sub(LEVEL_DELAY.as_millis() as u64);
    let mut tenants = directory.view().tenants_from(TenantNumber::new(0));
    tenants.all(|tenant| tenant.created > oldest_ms)
}

/// Milliseconds since the Unix epoch.
type WallClock = Arc<dyn Fn() -> u64 + Send + Sync>;

fn is_below_newest_level(directory: &Directory) -> bool {
    directory.view().settings().feature_level < FEATURE_LEVEL_MAX
}

/// Returns the nodes that the leader has not heard of; none as long as that says nothing.
fn unreachable(directory: &Directory, heard_of: Option<&[NodeId]>) -> Vec<NodeId> {
    let nodes = directory.view().nodes().map(|node| node.number);
    match heard_of {
        Some(heard_of) => nodes.filter(|node| !heard_of.contains(node)).collect(),
        None => Vec::new(),
    }
}

/// The maintenance task, on each voter of the directory. Only the leader proposes.
pub(crate) struct DirectoryMaintenance {
    directory: Arc<DirectoryClient>,
    initial: InitialCluster,
    wall: WallClock,
    /// Time since which every node has supported the newest feature level, as long as this node has led.
    all_support_since: Mutex<Option<Instant>>,
    /// Time since which this node has led.
    leads_since: Mutex<Option<Instant>>,
    promotions: PromotionUpkeep,
}

impl DirectoryMaintenance {
    /// Returns the task.
    pub(crate) fn new(
        directory: Arc<DirectoryClient>,
        initial: InitialCluster,
        wall: WallClock,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            promotions: PromotionUpkeep::new(metrics),
            directory,
            initial,
            wall,
            all_support_since: Mutex::default(),
            leads_since: Mutex::default(),
        }
    }

    /// Runs until the token fires.
    pub(crate) async fn run(self, stop: CancellationToken) -> Result<(), BoxError> {
        let Some(local_voter) = self.directory.local_voter() else {
            return Ok(());
        };
        tokio::select! {
            ended = self.maintain(local_voter) => ended,
            () = stop.cancelled() => Ok(()),
        }
    }

    async fn maintain(&self, local_voter: &LocalVoter) -> Result<(), BoxError> {
        let mut leadership = local_voter.group.watch_leader();
        let mut versions = local_voter.machine.version();
        loop {
            leadership.borrow_and_update();
            versions.borrow_and_update();
            let needed_command = match local_voter.group.is_leader() {
                true => self.needed_command(local_voter)?,
                false => {
                    *self.leads_since.lock() = None;
                    self.promotions.clear();
                    None
                }
            };
            if let Some(command) = needed_command {
                self.propose(local_voter, &command).await?;
                continue;
            }
            let is_behind = local_voter.machine.read(is_below_newest_level)?;
            // Both may wait for nodes to fall silent.
            let has_wave = local_voter.machine.read(|directory| {
                directory.has_wave_in_flight() || directory.topology_changes_in_flight().next().is_some()
            })?;
            let promotion_due = self.promotions.next_due();
            tokio::select! {
                changed = leadership.changed() => changed?,
                changed = versions.changed() => changed?,
                () = sleep(LEVEL_INTERVAL), if is_behind => {}
                () = sleep(WAVE_INTERVAL), if has_wave => {}
                () = sleep_until(promotion_due.unwrap_or_else(Instant::now)), if promotion_due.is_some() => {}
            }
        }
    }

    /// Returns the next command that the directory needs, if any.
    fn needed_command(&self, local_voter: &LocalVoter) -> Result<Option<Command>, IncompleteChange> {
        let ttl = |directory: &Directory| Duration::from_millis(directory.view().settings().lease_ttl_ms);
        let ttl = local_voter.machine.read(ttl)?;
        let supporting = local_voter.supporting(FEATURE_LEVEL_MAX, ttl);
        let now = local_voter.group.logged_time();
        let leads_since = *self.leads_since.lock().get_or_insert_with(Instant::now);
        let heard_of =
            (leads_since.elapsed() >= LEADS_MIN.max(ttl / 2)).then(|| local_voter.supporting(FEATURE_LEVEL_MIN, ttl));
        let promotions: Vec<_> = local_voter.machine.read(|directory| {
            self.promotions.log_progress(directory);
            directory.promotions_in_flight().collect()
        })?;
        let unreachable_now = local_voter
            .machine
            .read(|directory| unreachable(directory, heard_of.as_deref()))?;
        // The needs were read before the wait is looked at: a fence that they name is applied here.
        if let Some(command) = self.promotions.command(local_voter, promotions, now, &unreachable_now) {
            return Ok(Some(command));
        }
        local_voter.machine.read(|directory| {
            if directory.cluster().is_none() {
                return Some(Command::Bootstrap(self.initial.clone()));
            }
            if directory.needs_member_refresh() {
                return Some(Command::RefreshMembers);
            }
            if let Some(operation) = directory.due_bulk_move(now) {
                let unreachable = unreachable(directory, heard_of.as_deref());
                return Some(Command::AdvanceBulkMove(operation, unreachable));
            }
            let unreachable = unreachable(directory, heard_of.as_deref());
            if let Some(operation) = directory.due_topology_change(&unreachable) {
                return Some(Command::Topology(TopologyCommand::Advance(operation, unreachable)));
            }
            self.is_level_due(directory, &supporting).then(|| {
                let by = AuditContext {
                    who: "stead".to_owned(),
                    reason: "every node supports it".to_owned(),
                };
                Command::RaiseFeatureLevel(by, FEATURE_LEVEL_MAX, supporting)
            })
        })
    }

    /// Tells whether the newest feature level is to be raised: every node supports it, and has done so for
    /// [`LEVEL_DELAY`], in which an operator may go back to the earlier version. A cluster whose tenants are all younger
    /// than that is new, and has no version to go back to.
    fn is_level_due(&self, directory: &Directory, supporting: &[NodeId]) -> bool {
        let mut since = self.all_support_since.lock();
        let all_support = directory.view().nodes().all(|node| supporting.contains(&node.number));
        if !is_below_newest_level(directory) || !all_support {
            *since = None;
            return false;
        }
        let since = *since.get_or_insert_with(Instant::now);
        is_new(directory, (self.wall)()) || since.elapsed() >= LEVEL_DELAY
    }

    async fn propose(&self, local_voter: &LocalVoter, command: &Command) -> Result<(), BoxError> {
        match local_voter.propose_command(command).await {
            Ok((Ok(_), version)) => {
                local_voter
                    .group
                    .health()
                    .succeeded(Some(local_voter.group.id()), TASK_NAME);
                info!(%version, "directory updated");
            }
            // The promotion may have ended meanwhile, by another command.
            Ok((Err(rejection), _)) if matches!(command, Command::AdvancePromotion { .. }) => {
                warn!(%rejection, "the directory does not advance a promotion");
                sleep(RETRY_PAUSE).await;
            }
            Ok((Err(rejection), _)) => return Err(rejection.into()),
            Err(VoterError::NotLeader) => sleep(RETRY_PAUSE).await,
            Err(VoterError::Failed(error)) => {
                local_voter
                    .group
                    .health()
                    .record_retry(Some(local_voter.group.id()), TASK_NAME, &error);
                sleep(RETRY_PAUSE).await;
            }
        }
        Ok(())
    }
}
