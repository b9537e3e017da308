//! Task that changes the voters of the groups that this node leads, as the directory wants it: `stead_state::membership`
//! decides, one step at a time.
//!
//! What a node has of a group is asked of the node itself: Raft's own account says that a learner has caught up although
//! its host does not exist.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::future::join_all;
use parking_lot::Mutex;
use stead_raft::{ChangeError, Group, GroupMetrics};
use stead_state::{
    directory::{Command, ConfirmVoters, TopologyCommand, VoterChange},
    membership::{ObservedGroup, Step, next},
};
use stead_types::{GroupId, NodeId};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    host::Host,
    services::admin::group::status_at,
    supervisor::{BoxError, Supervisor},
};

/// Interval at which the groups that this node leads are looked at.
const INTERVAL: Duration = Duration::from_millis(300);
/// Longest time for a node's answer.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// Longest time for one step: a change of voters needs a majority of both, which may be gone meanwhile.
const STEP_MAX: Duration = Duration::from_secs(10);

/// Waits of the changes of voters of the groups that this node leads.
#[derive(Default)]
pub(crate) struct VoterChangeWaits(Mutex<BTreeMap<GroupId, String>>);

impl VoterChangeWaits {
    /// Returns what the change of a group waits for, if it waits.
    pub(crate) fn of(&self, group: GroupId) -> Option<String> {
        self.0.lock().get(&group).cloned()
    }

    fn set(&self, group: GroupId, waits: Option<String>) {
        let mut all = self.0.lock();
        match waits {
            Some(waits) => drop(all.insert(group, waits)),
            None => drop(all.remove(&group)),
        }
    }
}

/// Spawns the task.
pub(crate) fn spawn(host: &Arc<Host>, supervisor: &mut Supervisor) {
    let host = host.clone();
    supervisor.spawn("changes of voters", |stop| run(host, stop));
}

async fn run(host: Arc<Host>, stop: CancellationToken) -> Result<(), BoxError> {
    while stop.run_until_cancelled(sleep(INTERVAL)).await.is_some() {
        let groups: Vec<Group> = host.raft_groups().collect();
        let steps = join_all(groups.iter().map(|group| look(&host, group)));
        stop.run_until_cancelled(steps).await;
    }
    Ok(())
}

/// Takes the next step of a group's change, if this node leads it and there is one.
async fn look(host: &Host, group: &Group) {
    let number = group.id();
    let known = host.directory_view.read(|view| {
        view.group(number)
            .and_then(|known| Some((known.voters.clone(), known.change.clone()?)))
    });
    let Some((before, change)) = known.filter(|_| group.is_leader() && group.is_connected()) else {
        return host.voter_changes.set(number, None);
    };
    let observed = observe(host, group, before, &change).await;
    let step = next(&observed);
    let waits = match &step {
        Step::Wait(waiting) => Some(waiting.to_string()),
        Step::AddLearner(node) => Some(format!("{node} begins to follow")),
        Step::RemoveLearners(_) | Step::Transfer(_) | Step::Change(_) | Step::Confirm(_) => None,
    };
    host.voter_changes.set(number, waits);
    match timeout(STEP_MAX, take(host, group, step.clone())).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            let error = chain(&error);
            warn!(group = %number, ?step, error, "step of a change of voters failed: it is tried again");
        }
        Err(_) => warn!(group = %number, ?step, "step of a change of voters takes long: it is tried again"),
    }
}

/// Returns an error with its causes.
fn chain(error: &StepError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}

/// Error of a step.
#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error(transparent)]
    Raft(#[from] ChangeError),
    #[error(transparent)]
    Directory(#[from] stead_types::Error),
}

async fn observe(host: &Host, group: &Group, before: Vec<NodeId>, change: &VoterChange) -> ObservedGroup {
    let own = host.config.node.id;
    let GroupMetrics {
        voters,
        learners,
        is_joint,
        is_membership_committed,
        committed,
        ..
    } = group.metrics();
    let target: BTreeSet<NodeId> = change.voters.iter().copied().collect();
    let asked: BTreeSet<NodeId> = target.union(&voters).copied().filter(|node| *node != own).collect();
    let number = group.id();
    let answers = join_all(
        asked
            .into_iter()
            .map(async |node| Some((node, applied_at(host, number, node).await?))),
    );
    ObservedGroup {
        own,
        before: before.into_iter().collect(),
        target,
        withdrawn: change.withdrawn,
        voters,
        is_joint,
        is_committed: is_membership_committed,
        learners,
        committed,
        applied: answers.await.into_iter().flatten().collect(),
    }
}

/// Returns the index that a node has applied, if it answers in time and takes this node for the leader.
async fn applied_at(host: &Host, group: GroupId, node: NodeId) -> Option<u64> {
    let asked = timeout(ANSWER_MAX, status_at(host, group.get(), node.get())).await;
    let status = asked.ok().flatten()?;
    (status.leader == Some(host.config.node.id.get())).then_some(status.applied_index)
}

async fn take(host: &Host, group: &Group, step: Step) -> Result<(), StepError> {
    let number = group.id();
    match step {
        Step::Wait(_) => {}
        Step::AddLearner(node) => {
            group.add_learner(node).await?;
            info!(group = %number, %node, "learner added");
        }
        Step::RemoveLearners(nodes) => group.remove_learners(nodes).await?,
        Step::Transfer(to) => {
            group.transfer_leader(to).await?;
            info!(group = %number, %to, "leadership transferred: this node leaves the group");
        }
        Step::Change(voters) => {
            let names: Vec<String> = voters.iter().map(ToString::to_string).collect();
            group.change_voters(voters).await?;
            info!(group = %number, voters = names.join(", "), "voters changed");
        }
        Step::Confirm(voters) => {
            let confirmed = ConfirmVoters {
                group: number,
                incarnation: group.incarnation(),
                voters: voters.into_iter().collect(),
            };
            let command = Command::Topology(TopologyCommand::ConfirmVoters(confirmed));
            let (_, version) = host.directory.propose(&command).await?;
            // The next look is at a view that has it.
            host.directory_view.wait_for(version, ANSWER_MAX).await;
        }
    }
    Ok(())
}
