//! `GroupService`: Raft groups, as their leaders see them.

use std::sync::Arc;

use futures::stream::{FuturesUnordered, StreamExt};
use stead_api::{
    convert,
    proto::admin::v1::{
        self as admin, GetGroupRequest, GetGroupResponse, ListGroupsRequest, ListGroupsResponse, MoveLeaderRequest,
        MoveLeaderResponse, group_service_client::GroupServiceClient, group_service_server,
    },
};
use stead_raft::ChangeError;
use stead_state::directory::{AuditContext, Command, DirectoryView, Group, LeaderMove};
use stead_types::{Error, ErrorKind, GroupId, NodeId};
use tonic::{Request, Response, Status};

use super::{PAGE_DEFAULT, PAGE_MAX, authorize, by, fork_reads::to_leader_for, to_status};
use crate::{
    admin_peers::{await_response, is_peer_request, peer_request},
    host::{self, Host},
    services::call_metadata::access,
    successor,
};

/// The service.
#[derive(Clone)]
pub(crate) struct GroupService(Arc<Host>);

impl GroupService {
    /// Returns the service.
    pub(crate) fn new(host: Arc<Host>) -> Self {
        Self(host)
    }
}

/// Converts a group into a message, without its status.
pub(super) fn message(view: &DirectoryView, group: &Group) -> admin::Group {
    admin::Group {
        number: group.number.get(),
        region: group.region.as_ref().map(ToString::to_string).unwrap_or_default(),
        incarnation: group.incarnation.0,
        voters: group.voters.iter().map(|voter| voter.get()).collect(),
        home_tenants: view.load(group.number).homes,
        status: None,
        next_voters: group
            .change
            .iter()
            .flat_map(|change| change.voters.iter().map(|voter| voter.get()))
            .collect(),
    }
}

/// Adds the status of the group: from this node if it leads the group, else from its leader, else from any voter that
/// responds. All voters are asked at once, so that one that cannot be reached delays none of the others.
pub(super) async fn with_status(host: &Host, mut group: admin::Group, may_ask_peers: bool) -> admin::Group {
    group.status = host::group_status(host, GroupId::new(group.number));
    let own = host.config.node.id.get();
    let leads = |status: &admin::GroupStatus, voter: u64| status.leader == Some(voter);
    if !may_ask_peers || group.status.as_ref().is_some_and(|status| leads(status, own)) {
        return group;
    }
    let others = group.voters.iter().copied().filter(|voter| *voter != own);
    let mut pending: FuturesUnordered<_> = others
        .map(|voter| async move { (voter, status_at(host, group.number, voter).await) })
        .collect();
    while let Some((voter, answer)) = pending.next().await {
        let Some(status) = answer else { continue };
        let is_leader = leads(&status, voter);
        if is_leader || group.status.as_ref().is_none_or(|known| known.term < status.term) {
            group.status = Some(status);
        }
        if is_leader {
            break;
        }
    }
    drop(pending);
    group
}

/// Asks one voter for the status of its group.
pub(crate) async fn status_at(host: &Host, number: u32, voter: u64) -> Option<admin::GroupStatus> {
    let address = host.admin_address(NodeId::new(voter))?;
    let mut client = GroupServiceClient::new(host.admin_peers.channel(&address)?);
    let answer = await_response(client.get_group(peer_request(GetGroupRequest { number }))).await?;
    answer.group?.status
}

impl GroupService {
    fn group_in_view(&self, number: u32) -> Result<admin::Group, Error> {
        let missing = || Error::new(ErrorKind::NotFound, format!("there is no group {number}"));
        let found = |view: &DirectoryView| view.group(GroupId::new(number)).map(|group| message(view, group));
        self.0.directory_view.read(found).ok_or_else(missing)
    }

    async fn list(&self, request: &ListGroupsRequest) -> Result<ListGroupsResponse, Error> {
        self.0.check_view_loaded()?;
        let size = convert::page::size(request.page_size, PAGE_DEFAULT, PAGE_MAX)? as usize;
        let from = convert::page::position(request.region.as_bytes(), &request.page_token)?;
        let invalid = || Error::invalid("page_token", "page_token: not a token of this store");
        let from = match from {
            Some(bytes) => u32::from_be_bytes(bytes.try_into().map_err(|_| invalid())?),
            None => 0,
        };
        let mut groups: Vec<admin::Group> = self.0.directory_view.read(|view| {
            let groups = view
                .groups()
                .filter(|group| group.number.get() >= from)
                .map(|group| message(view, group));
            let groups = groups.filter(|group| request.region.is_empty() || group.region == request.region);
            groups.take(size + 1).collect()
        });
        let next = groups.get(size).map(|next| next.number.to_be_bytes());
        groups.truncate(size);
        let groups = futures::future::join_all(groups.into_iter().map(|group| with_status(&self.0, group, true))).await;
        let next_page_token = next.map(|next| convert::page::token(request.region.as_bytes(), &next));
        Ok(ListGroupsResponse {
            groups,
            next_page_token: next_page_token.unwrap_or_default(),
        })
    }

    /// Has the audit log record who moves the leadership of a group, before that is done.
    async fn record_leader_move(&self, by: AuditContext, leader_move: LeaderMove) -> Result<(), Error> {
        // Older voters cannot read the command.
        if !self.0.directory_view.read(|view| view.settings().has_roles()) {
            return Ok(());
        }
        let command = Command::RecordLeaderMove(by, leader_move);
        self.0.directory.propose(&command).await.map(drop)
    }

    async fn move_leader(&self, request: Request<MoveLeaderRequest>) -> Result<MoveLeaderResponse, Error> {
        let may_ask_peers = !is_peer_request(&request);
        let (access, by) = (access(&request)?, by(&request, &request.get_ref().reason));
        convert::directory::reason(&by.reason)?;
        let request = request.into_inner();
        let known = self.group_in_view(request.group)?;
        let raft = self.0.raft_group(GroupId::new(request.group));
        let leads = raft.as_ref().is_some_and(stead_raft::Group::is_leader);
        if let Some(raft) = raft.filter(|_| leads) {
            let to = successor::choose(&self.0, &raft, request.to.map(NodeId::new)).await?;
            self.record_leader_move(by, LeaderMove { group: raft.id(), to }).await?;
            raft.transfer_leader(to).await.map_err(change_error)?;
            return Ok(MoveLeaderResponse {
                group: Some(with_status(&self.0, known, false).await),
            });
        }
        let status = with_status(&self.0, known, may_ask_peers).await.status;
        let leader = status.and_then(|status| status.leader).filter(|_| may_ask_peers);
        let leaderless = || {
            Error::new(
                ErrorKind::NoLeader,
                format!("group {} has no leader now", request.group),
            )
        };
        let leader = leader
            .and_then(|leader| self.0.admin_address(NodeId::new(leader)))
            .ok_or_else(leaderless)?;
        let channel = self.0.admin_peers.channel(&leader).ok_or_else(leaderless)?;
        let request = to_leader_for(request, &access, &by);
        let response = GroupServiceClient::new(channel).move_leader(request).await;
        response
            .map(Response::into_inner)
            .map_err(|status| stead_api::status::from_status(&status))
    }
}

fn change_error(error: ChangeError) -> Error {
    let kind = match &error {
        ChangeError::NotLeader { .. } => ErrorKind::NoLeader,
        ChangeError::TimedOut => ErrorKind::OutcomeUnknown { key: None },
        ChangeError::Refused(_) => ErrorKind::Conflict,
        ChangeError::Stopped => ErrorKind::Unavailable,
    };
    Error::new(kind, error.to_string())
}

#[tonic::async_trait]
impl group_service_server::GroupService for GroupService {
    async fn list_groups(&self, request: Request<ListGroupsRequest>) -> Result<Response<ListGroupsResponse>, Status> {
        self.list(request.get_ref())
            .await
            .map(Response::new)
            .map_err(|error| to_status(&error))
    }

    async fn get_group(&self, request: Request<GetGroupRequest>) -> Result<Response<GetGroupResponse>, Status> {
        let group = self
            .group_in_view(request.get_ref().number)
            .map_err(|error| to_status(&error))?;
        let group = with_status(&self.0, group, !is_peer_request(&request)).await;
        Ok(Response::new(GetGroupResponse { group: Some(group) }))
    }

    async fn move_leader(&self, request: Request<MoveLeaderRequest>) -> Result<Response<MoveLeaderResponse>, Status> {
        authorize::operate_group(&request, &self.0, request.get_ref().group).map_err(|error| to_status(&error))?;
        self.move_leader(request)
            .await
            .map(Response::new)
            .map_err(|error| to_status(&error))
    }
}
