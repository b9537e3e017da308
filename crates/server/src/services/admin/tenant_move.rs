//! `TenantService.MoveTenant`: begins a move, or says what it would do.

use std::{sync::Arc, time::Duration};

use futures::stream::{FuturesUnordered, StreamExt};
use stead_api::{
    convert,
    proto::{
        admin::v1::{
            GetRegionRequest, MovePlan, MoveTenantRequest, MoveTenantResponse, OperationMetadata, move_tenant_request,
            operation_metadata::Kind, region_service_client::RegionServiceClient,
            tenant_service_client::TenantServiceClient,
        },
        google::longrunning::{self, operation},
    },
    status,
};
use stead_state::directory::{
    AuditContext, Command, Directory, DirectoryOutcome, DirectoryView, GroupReport, MoveRequest, MoveTarget, Rejection,
    SourceAfterMove, Tenant, TenantMove,
};
use stead_types::{Error, ErrorKind, GroupId, NodeId};
use tokio::time::Instant;
use tonic::Request;

use super::{
    authorize, by, group,
    operation::{begun, message},
    parse_etag, place, target_check, tenant_message,
};
use crate::{
    admin_peers::{await_response, is_peer_request, peer_request},
    host::Host,
};

/// Longest wait for this node's view to show a move that it has just begun.
const VIEW_WAIT: Duration = Duration::from_secs(1);
/// Calls by which the round trip to a target is measured: the first one may have to connect.
const ROUND_TRIP_CALLS: usize = 2;
/// Part of the pause of a move that is no trip: a commit in each of the two groups.
const COMMITS: Duration = Duration::from_millis(20);

/// Begins a move, or plans it only.
pub(super) async fn begin(
    host: &Arc<Host>,
    request: Request<MoveTenantRequest>,
) -> Result<longrunning::Operation, Error> {
    let by = by(&request, &request.get_ref().reason);
    let may_ask_peers = !is_peer_request(&request);
    let read = read(request.get_ref())?;
    authorize::move_tenant(&request, host, &read.name, &read.to)?;
    let request = request.into_inner();
    let tenant = host.resolve(&read.name).await?;
    if request.validate_only {
        if let Some(planned) = plan_at_home(host, &tenant, &request, may_ask_peers).await {
            return Ok(planned);
        }
        return Ok(plan(host, &tenant, by, read).await);
    }
    host.directory_view.read(|view| view.settings().check_moves())?;
    let unreachable = unreachable(host, &tenant, &read.to).await;
    let command = Command::MoveTenant(by, MoveRequest { unreachable, ..read });
    let view = host.directory_view.read(DirectoryView::clone);
    // What the directory itself refuses, it says better.
    if let Ok(planned) = dry_run(view, &tenant, command.clone()) {
        target_check::check(host, &[target_with_bytes(host, &tenant, &planned.moving)]).await?;
    }
    let (outcome, version) = host.directory.propose(&command).await?;
    let DirectoryOutcome::Operation(id) = outcome else {
        let message = "the directory returned no operation: this is a bug, please report it";
        return Err(Error::new(ErrorKind::Internal, message));
    };
    host.directory_view.wait_for(version, VIEW_WAIT).await;
    let operation = begun(host, id, version).await?;
    Ok(host.directory_view.read(|view| message(view, &operation)))
}

/// Returns the target of a move, with the bytes that are copied there first, as far as this node knows them.
fn target_with_bytes(host: &Host, tenant: &Tenant, moving: &TenantMove) -> (GroupId, u64) {
    let bytes = moving.joined.then(|| live_bytes(host, tenant)).flatten();
    (moving.to, bytes.unwrap_or(0))
}

/// Reads a request; which nodes do not answer is not known yet.
fn read(request: &MoveTenantRequest) -> Result<MoveRequest, Error> {
    use move_tenant_request::{Source, To};
    convert::directory::reason(&request.reason)?;
    let to = match &request.to {
        Some(To::Region(region)) => MoveTarget::Region(convert::id::region("region", region)?),
        Some(To::Group(group)) => MoveTarget::Group(GroupId::new(*group)),
        Some(To::OtherGroup(true)) => MoveTarget::OtherGroup,
        Some(To::OtherGroup(false)) => {
            let message = "other_group: true, or name the region or the group that is to be the home";
            return Err(Error::invalid("other_group", message));
        }
        None => {
            let message = "to: name the region, or the group, that is to be the home";
            return Err(Error::invalid("to", message));
        }
    };
    let source = Source::try_from(request.source).map_err(|_| {
        let message = format!("source: {} is not a value that this node knows", request.source);
        Error::invalid("source", message)
    })?;
    Ok(MoveRequest {
        name: convert::id::tenant("name", &request.name)?,
        etag: parse_etag(&request.etag)?,
        to,
        source: match source {
            Source::Unspecified => SourceAfterMove::Policy,
            Source::Follow => SourceAfterMove::Follow,
            Source::Leave => SourceAfterMove::Leave,
        },
        unreachable: Vec::new(),
    })
}

/// Returns the voters of the home and of possible targets that do not answer this node, of groups of which no majority
/// answers.
async fn unreachable(host: &Host, tenant: &Tenant, to: &MoveTarget) -> Vec<NodeId> {
    let groups: Vec<(GroupId, Vec<NodeId>)> = host.directory_view.read(|view| {
        let targets: Vec<GroupId> = match to {
            MoveTarget::Region(region) => view.groups_of(region).map(|group| group.number).collect(),
            MoveTarget::Group(group) => vec![*group],
            MoveTarget::OtherGroup => {
                let region = view.region_of(tenant.home).map(|region| &region.name);
                let groups = region.into_iter().flat_map(|region| view.groups_of(region));
                groups
                    .map(|group| group.number)
                    .filter(|group| *group != tenant.home)
                    .collect()
            }
        };
        let groups = std::iter::once(tenant.home).chain(targets);
        groups
            .filter_map(|group| Some((group, view.group(group)?.voters.to_vec())))
            .collect()
    });
    let silent = groups.iter().map(|(group, voters)| silent_voters(host, *group, voters));
    futures::future::join_all(silent).await.concat()
}

/// Returns the voters that do not answer; none as soon as a majority answers.
pub(super) async fn silent_voters(host: &Host, group: GroupId, voters: &[NodeId]) -> Vec<NodeId> {
    let ask = async |voter: NodeId| {
        let answers = voter == host.config.node.id || group::status_at(host, group.get(), voter.get()).await.is_some();
        (voter, answers)
    };
    let mut pending: FuturesUnordered<_> = voters.iter().map(|voter| ask(*voter)).collect();
    let mut silent = voters.to_vec();
    while let Some((voter, answers)) = pending.next().await {
        silent.retain(|other| !answers || *other != voter);
        if 2 * silent.len() < voters.len() {
            return Vec::new();
        }
    }
    silent
}

/// Asks the home's leader for the plan, if this node is not it: it knows the tenant's size and the way to the target.
async fn plan_at_home(
    host: &Host,
    tenant: &Tenant,
    request: &MoveTenantRequest,
    may_ask_peers: bool,
) -> Option<longrunning::Operation> {
    if !may_ask_peers {
        return None;
    }
    let leader = leader(host, tenant.home).await;
    let leader = leader.filter(|leader| *leader != host.config.node.id)?;
    let channel = host.admin_peers.channel(&host.admin_address(leader)?)?;
    let call = async {
        TenantServiceClient::new(channel)
            .move_tenant(peer_request(request.clone()))
            .await
    };
    await_response(call).await
}

/// Returns what the move of a tenant to a group would take, as its home's leader measures it, or this node if that does not
/// answer.
pub(super) async fn figures_at_home(host: &Arc<Host>, tenant: &Tenant, to: GroupId) -> Option<MovePlan> {
    let request = MoveTenantRequest {
        name: tenant.name.to_string(),
        to: Some(move_tenant_request::To::Group(to.get())),
        validate_only: true,
        ..MoveTenantRequest::default()
    };
    let planned = match plan_at_home(host, tenant, &request, true).await {
        Some(planned) => planned,
        None => plan(host, tenant, AuditContext::default(), read(&request).ok()?).await,
    };
    let metadata = convert::operation::unpack_metadata(planned.metadata.as_ref()?)?;
    metadata.plan
}

/// A move as it would be, according to this node's view.
pub(super) struct DryRun {
    pub(super) moving: TenantMove,
    pub(super) view: DirectoryView,
}

/// Evaluates a move, up to the record of its new home.
pub(super) fn dry_run(view: DirectoryView, tenant: &Tenant, command: Command) -> Result<DryRun, Rejection> {
    let (_, begun) = Directory::dry_run(view, command)?;
    let moving = begun
        .tenant(tenant.number)
        .and_then(|tenant| tenant.moving.as_deref().copied());
    let moving = moving.ok_or(Rejection::OperationOver)?;
    let incarnation = begun.group(moving.to).map(|group| group.incarnation);
    let report = GroupReport::Accepted {
        tenant: tenant.number,
        operation: moving.operation,
        epoch: moving.epoch,
    };
    let incarnation = incarnation.ok_or(Rejection::GroupUnknown(moving.to))?;
    let (_, view) = Directory::dry_run(begun, Command::Report(moving.to, incarnation, vec![report]))?;
    Ok(DryRun { moving, view })
}

/// Returns what a move would do, as an operation that is over and has no name.
async fn plan(host: &Arc<Host>, tenant: &Tenant, by: AuditContext, request: MoveRequest) -> longrunning::Operation {
    let unreachable = unreachable(host, tenant, &request.to).await;
    let named = match &request.to {
        MoveTarget::Region(_) | MoveTarget::OtherGroup => None,
        MoveTarget::Group(group) => Some(*group),
    };
    let command = Command::MoveTenant(by.clone(), MoveRequest { unreachable, ..request });
    let before = host.directory_view.read(DirectoryView::clone);
    let (plan, to, result) = match dry_run(before.clone(), tenant, command) {
        Ok(planned) => {
            let to = place(&before, planned.moving.to);
            let response = MoveTenantResponse {
                tenant: tenant.name.to_string(),
                home: Some(to.clone()),
                epoch: planned.moving.epoch.get(),
            };
            let response = convert::operation::pack_move_response(&response);
            let mut plan = figures(host, tenant, &planned).await;
            plan.blockers = target_check::blockers(host, &[target_with_bytes(host, tenant, &planned.moving)]).await;
            let result = match plan.blockers.is_empty() {
                true => operation::Result::Response(response),
                false => {
                    let error = Error::new(ErrorKind::Conflict, plan.blockers.join("; "));
                    operation::Result::Error(status::to_rpc_status(&error))
                }
            };
            (plan, Some(to), result)
        }
        Err(rejection) => {
            let plan = MovePlan {
                blockers: vec![rejection.to_string()],
                ..MovePlan::default()
            };
            let error = status::to_rpc_status(&rejection.into());
            (
                plan,
                named.map(|group| place(&before, group)),
                operation::Result::Error(error),
            )
        }
    };
    let metadata = OperationMetadata {
        kind: Kind::Move.into(),
        tenants: vec![tenant.name.to_string()],
        from: Some(place(&before, tenant.home)),
        to,
        who: by.who,
        reason: by.reason,
        plan: Some(plan),
        ..OperationMetadata::default()
    };
    longrunning::Operation {
        name: String::new(),
        metadata: Some(convert::operation::pack_metadata(&metadata)),
        done: true,
        result: Some(result),
    }
}

/// Returns the plan of a move that can begin, with the figures that this node can measure.
async fn figures(host: &Host, tenant: &Tenant, planned: &DryRun) -> MovePlan {
    let to = planned.moving.to;
    let target_has_copy = !planned.moving.joined;
    let crosses_regions = planned.view.region_of(to) != planned.view.region_of(tenant.home);
    let leader = leader(host, to).await;
    let other = leader.filter(|leader| *leader != host.config.node.id);
    let (round_trip, lag) = futures::future::join(async { round_trip(host, to, other?).await }, async {
        lag(host, tenant.home, to, leader.filter(|_| target_has_copy)?).await
    })
    .await;
    let replicas = planned.view.tenant(tenant.number);
    MovePlan {
        blockers: Vec::new(),
        replicas: replicas
            .map(|after| tenant_message::replicas(&planned.view, after))
            .unwrap_or_default(),
        target_has_copy,
        cross_region_bytes: if target_has_copy || !crosses_regions {
            Some(0)
        } else {
            live_bytes(host, tenant)
        },
        lag,
        round_trip: round_trip.map(convert::read::duration),
        pause: round_trip.map(|round_trip| convert::read::duration(round_trip / 2 + COMMITS)),
    }
}

async fn leader(host: &Host, group: GroupId) -> Option<NodeId> {
    let message = host
        .directory_view
        .read(|view| view.group(group).map(|known| group::message(view, known)))?;
    let status = group::with_status(host, message, true).await.status?;
    status.leader.map(NodeId::new)
}

/// Measures the round trip to a node.
async fn round_trip(host: &Host, group: GroupId, node: NodeId) -> Option<Duration> {
    let mut shortest = None;
    for _ in 0..ROUND_TRIP_CALLS {
        let from = Instant::now();
        group::status_at(host, group.get(), node.get()).await?;
        let took = from.elapsed();
        shortest = Some(shortest.map_or(took, |shortest: Duration| shortest.min(took)));
    }
    shortest
}

/// Asks the target's leader how old its copies of the home's tenants are.
async fn lag(host: &Host, home: GroupId, to: GroupId, leader: NodeId) -> Option<prost_types::Duration> {
    let region = host
        .directory_view
        .read(|view| view.region_of(to).map(|region| region.name.clone()))?;
    let lags = if leader == host.config.node.id {
        crate::host::follower_lags(host, &region)
    } else {
        let channel = host.admin_peers.channel(&host.admin_address(leader)?)?;
        let request = peer_request(GetRegionRequest {
            name: region.to_string(),
        });
        await_response(RegionServiceClient::new(channel).get_region(request))
            .await?
            .lags
    };
    let of_pair = lags
        .into_iter()
        .find(|lag| lag.home_group == home.get() && lag.follower_group == to.get());
    of_pair?.staleness
}

/// Returns the bytes of a tenant's keys and values, if this node has a copy.
fn live_bytes(host: &Host, tenant: &Tenant) -> Option<u64> {
    let len = |hosted: &crate::host::HostedGroup| {
        let len = hosted.read_if_readable(tenant.number, |reading| reading.map(|reading| reading.state().len));
        len.ok().flatten()
    };
    let home = host.groups.get(&tenant.home).and_then(len);
    home.or_else(|| host.groups.values().find_map(len))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> MoveTenantRequest {
        MoveTenantRequest {
            name: "acme".into(),
            to: Some(move_tenant_request::To::Region("us-east".into())),
            ..MoveTenantRequest::default()
        }
    }

    #[test]
    fn move_request_names_target_and_source() {
        let read_request = read(&request()).unwrap();
        assert_eq!(read_request.to, MoveTarget::Region("us-east".parse().unwrap()));
        assert_eq!(read_request.source, SourceAfterMove::Policy);
        let wrong = |change: fn(&mut MoveTenantRequest)| {
            let mut request = request();
            change(&mut request);
            read(&request).unwrap_err().kind
        };
        let invalid = |field: &str| ErrorKind::Invalid { field: field.into() };
        assert_eq!(wrong(|request| request.to = None), invalid("to"));
        assert_eq!(wrong(|request| request.source = 9), invalid("source"));
        assert_eq!(wrong(|request| request.name = "ACME".into()), invalid("name"));
        assert_eq!(wrong(|request| request.etag = "x".into()), invalid("etag"));
        assert_eq!(
            wrong(|request| request.to = Some(move_tenant_request::To::Region("X".into()))),
            invalid("region")
        );
    }
}
