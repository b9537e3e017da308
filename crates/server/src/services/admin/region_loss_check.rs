//! Watch over silent regions by the directory's leader: it alerts, and promotes the tenants whose policy says so.
//! `stead_state::directory::decide_region_loss` decides; nothing is remembered, so that another leader begins to observe anew.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};

use stead_api::proto::admin::v1::{GetGroupRequest, group_service_client::GroupServiceClient};
use stead_state::directory::{
    AuditContext, Command, DirectoryView, PromotionRequest, PromotionSelection, RegionLossDecision, RegionObservation,
    decide_region_loss, shortest_policy_ms, silence_min_ms,
};
use stead_types::{GroupId, NodeId, RegionName, TenantName};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::readiness::{loss, regions_with_tenants};
use crate::{admin_peers::own_request, directory::LocalVoter, host::Host};

/// Interval at which the regions are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// Shortest time between two log lines about a region.
const LOG_INTERVAL: Duration = Duration::from_secs(60);
/// Longest time for a node of another region to say whether it reaches a group: it asks its voters meanwhile.
const VOTE_WAIT: Duration = Duration::from_secs(5);
/// Most tenants that a log line names.
const NAMES_MAX: usize = 10;

/// Task that watches over the regions while this node leads the directory.
pub(crate) async fn run(host: Arc<Host>, stop: CancellationToken) -> Result<(), Infallible> {
    let Some(voter) = host.directory.local_voter() else {
        return Ok(());
    };
    let mut logged = BTreeMap::new();
    while stop.run_until_cancelled(sleep(LOOK_INTERVAL)).await.is_some() {
        if voter.group.is_leader() {
            let _ = stop.run_until_cancelled(look(&host, voter, &mut logged)).await;
        } else {
            logged.clear();
            host.metrics.readiness.clear_silence();
        }
    }
    Ok(())
}

/// Looks at every region that is home to tenants.
async fn look(host: &Arc<Host>, voter: &LocalVoter, logged: &mut BTreeMap<RegionName, Instant>) {
    let view = host.directory_view.read(DirectoryView::clone);
    for region in regions_with_tenants(&view) {
        let Some(silent_ms) = silent_ms(voter, &view, &region) else {
            return;
        };
        host.metrics.readiness.set_silence(&region, silent_ms);
        if silent_ms < silence_min_ms(&view) {
            logged.remove(&region);
            host.metrics
                .readiness
                .set_decision(&region, &RegionLossDecision::default());
            continue;
        }
        let is_due = logged.get(&region).is_none_or(|at| at.elapsed() >= LOG_INTERVAL);
        if is_due {
            logged.insert(region.clone(), Instant::now());
            let command = format!("stead region promote {region} --dry-run");
            let seconds = silent_ms / 1_000;
            warn!(%region, seconds, command, "no node of the region renews its lease");
        }
        let is_asked = view.settings().has_region_loss();
        let shortest = shortest_policy_ms(&view, &region).filter(|_| is_asked);
        if shortest.is_some_and(|shortest| shortest <= silent_ms) {
            act(host, voter, &view, &region, is_due).await;
        }
    }
}

/// Returns for how long no voter of a region's groups has renewed its lease, as far as this leader has seen; `None` if it does
/// not lead.
fn silent_ms(voter: &LocalVoter, view: &DirectoryView, region: &RegionName) -> Option<u64> {
    let groups: Vec<GroupId> = view.groups_of(region).map(|group| group.number).collect();
    let last = voter.since_renewals(&groups)?.into_iter().min()?;
    Some(u64::try_from(last.as_millis()).unwrap_or(u64::MAX))
}

/// Decides about the tenants of a silent region, and begins the promotion of those whose policy says so.
async fn act(host: &Arc<Host>, voter: &LocalVoter, view: &DirectoryView, region: &RegionName, logs: bool) {
    let (votes, found) = futures::future::join(votes(host, view, region), loss(host, view, region)).await;
    let Some((facts, forecast)) = found else { return };
    // What was seen is read once everything else is known: a renewal meanwhile counts.
    let Some(silent_ms) = silent_ms(voter, view, region) else {
        return;
    };
    let seen = RegionObservation {
        silent_ms,
        others: votes.others,
        unreached_by: votes.unreached_by,
    };
    let decision = decide_region_loss(view, region, seen, &facts, &forecast);
    host.metrics.readiness.set_decision(region, &decision);
    if logs {
        log(region, seen, &decision);
    }
    if decision.promote.is_empty() {
        return;
    }
    let request = PromotionRequest {
        selection: PromotionSelection::Tenants(decision.promote),
        to: None,
        allow_loss: false,
        replace: false,
        durability: None,
        graceful_ms: 0,
        is_down: false,
        unreachable: votes.lost,
    };
    let RegionObservation {
        others, unreached_by, ..
    } = seen;
    let by = AuditContext {
        who: "policy on_region_loss".to_owned(),
        reason: format!(
            "no node of {region} has renewed its lease for {} s, and {unreached_by} of {others} nodes of other regions cannot \
             reach it",
            silent_ms / 1_000
        ),
    };
    match voter.propose_command(&Command::BeginPromotion(by, request)).await {
        Ok((Ok(_), _)) => warn!(%region, "promotion by policy has begun"),
        Ok((Err(rejection), _)) => warn!(%region, %rejection, "promotion by policy is refused"),
        Err(_) => info!(%region, "promotion by policy did not begin: this node may lead no more"),
    }
}

fn log(region: &RegionName, seen: RegionObservation, decision: &RegionLossDecision) {
    let names = |tenants: &[TenantName]| {
        let names: Vec<&str> = tenants.iter().take(NAMES_MAX).map(TenantName::as_str).collect();
        names.join(", ")
    };
    let RegionObservation {
        others, unreached_by, ..
    } = seen;
    if !decision.observed.is_empty() {
        let (tenants, named) = (decision.observed.len(), names(&decision.observed));
        warn!(%region, tenants, named, unreached_by, others, "on_region_loss OBSERVE: these would be promoted now");
    }
    if let Some((tenant, reason)) = decision.withheld.first() {
        let tenants = decision.withheld.len();
        warn!(%region, tenants, %tenant, reason, "on_region_loss: tenants are not promoted");
    }
}

/// Answers of other regions' nodes about a region.
struct Votes {
    others: u64,
    unreached_by: u64,
    /// Nodes of the region.
    lost: Vec<NodeId>,
}

/// Asks every node of other regions whether it reaches any voter of a region's groups.
async fn votes(host: &Arc<Host>, view: &DirectoryView, region: &RegionName) -> Votes {
    let groups: Vec<u32> = view.groups_of(region).map(|group| group.number.get()).collect();
    let (lost, others): (Vec<_>, Vec<_>) = view
        .nodes()
        .filter(|node| !node.witness)
        .map(|node| (node.number, node.region == *region))
        .partition(|(_, is_of_region)| *is_of_region);
    let asked = others.iter().map(async |(node, _)| {
        let says = futures::future::join_all(groups.iter().map(|group| is_unreached_by(host, *node, *group)));
        says.await.into_iter().all(|unreached| unreached == Some(true))
    });
    let says = futures::future::join_all(asked).await;
    Votes {
        others: others.len() as u64,
        unreached_by: says.into_iter().filter(|unreached| *unreached).count() as u64,
        lost: lost.into_iter().map(|(node, _)| node).collect(),
    }
}

/// Asks a node whether it reaches no voter of a group; `None`: it does not answer.
async fn is_unreached_by(host: &Arc<Host>, node: NodeId, group: u32) -> Option<bool> {
    let address = host.admin_address(node)?;
    let mut client = GroupServiceClient::new(host.admin_peers.channel(&address)?);
    let mut request = own_request(GetGroupRequest { number: group });
    request.set_timeout(VOTE_WAIT);
    let answer = timeout(VOTE_WAIT, client.get_group(request)).await.ok()?.ok()?;
    Some(answer.into_inner().group?.status.is_none())
}
