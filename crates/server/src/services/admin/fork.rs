//! `ForkService`: forks, read and discarded at the leader of the group whose log has them.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use stead_api::{
    convert,
    proto::admin::v1::{
        DiscardForkRequest, DiscardForkResponse, ListForkEntriesRequest, ListForkEntriesResponse, ListForksRequest,
        ListForksResponse, ReplayForkRequest, ReplayForkResponse, fork_service_client::ForkServiceClient,
        fork_service_server,
    },
    status,
};
use stead_raft::{Proposal, ProposeError};
use stead_state::{
    directory::{AuditContext, Command, DirectoryView, ForkDiscard, Group, Tenant},
    rows::Unreadable,
    shard::{
        apply_result::{ApplyResult, GuardFailure},
        command::DiscardFork,
    },
};
use stead_store::shard::ReadView;
use stead_types::{Error, ErrorKind, GroupId, TenantNumber, limits::PAGE_LEN_MAX};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::{
    PAGE_DEFAULT, PAGE_MAX, authorize, by,
    fork_message::{self, ForkPosition, GroupPage},
    fork_reads::{check_fork, filling, no_fork, read_here, to_leader, to_leader_for},
    fork_replay,
    group_leader::{self, Leader, no_group},
    to_status,
};
use crate::{
    admin_peers::is_peer_request,
    auth::Access,
    host::{Host, HostedGroup},
    services::call_metadata::access,
};

/// Longest time for a discard in the group's log.
const DISCARD_MAX: Duration = Duration::from_secs(3);

/// The service.
#[derive(Clone)]
pub(crate) struct ForkService(Arc<Host>);

impl ForkService {
    /// Returns the service.
    pub(crate) fn new(host: Arc<Host>) -> Self {
        Self(host)
    }

    /// Finds the leader of a group.
    async fn leader(&self, group: GroupId, may_ask_peers: bool) -> Result<Leader<'_>, Error> {
        group_leader::find(&self.0, group, may_ask_peers).await
    }

    async fn tenant(&self, name: &str) -> Result<Arc<Tenant>, Error> {
        self.0.resolve(&convert::id::tenant("tenant", name)?).await
    }

    /// Lists forks of all groups, or those of this node for another one. Whoever calls it has decided that they may be
    /// shown.
    pub(crate) async fn list(&self, request: ListForksRequest, is_from_peer: bool) -> Result<ListForksResponse, Error> {
        let size = convert::page::size(request.page_size, PAGE_DEFAULT, PAGE_MAX)? as usize;
        let from = ForkPosition::from_token(&request)?;
        let tenant = match request.tenant.as_str() {
            "" => None,
            name => Some(self.tenant(name).await?.number),
        };
        let groups = self.groups(&request)?;
        let (request, may_ask_peers) = (&request, !is_from_peer);
        let ask = groups.into_iter().filter(|group| group.get() >= from.group);
        let ask = ask.map(|group| async move {
            // Groups after the first of the page are read from their beginning.
            let from = if group.get() == from.group {
                from
            } else {
                ForkPosition::default()
            };
            let list = GroupList {
                group,
                tenant,
                from,
                size,
            };
            (group.get(), self.list_in(&request.tenant, list, may_ask_peers).await)
        });
        let answers: Vec<(u32, Result<GroupPage, Error>)> = join_all(ask).await;
        if is_from_peer && let Some((_, Err(error))) = answers.iter().find(|(_, answer)| answer.is_err()) {
            return Err(error.clone());
        }
        let answers = answers.into_iter().map(|(group, answer)| (group, answer.ok()));
        let (page, silent_groups) = fork_message::join(answers.collect(), size);
        Ok(ListForksResponse {
            forks: page.forks,
            next_page_token: page.next.map_or_else(String::new, |next| next.to_token(request)),
            silent_groups,
        })
    }

    /// Returns the groups that a list asks, in the order of their numbers.
    fn groups(&self, request: &ListForksRequest) -> Result<Vec<GroupId>, Error> {
        let is_of_region = |group: &Group| {
            group
                .region
                .as_ref()
                .is_some_and(|region| region.as_str() == request.region)
        };
        let is_asked = |group: &Group| {
            group.number != GroupId::DIRECTORY
                && (request.region.is_empty() || is_of_region(group))
                && request.group.is_none_or(|number| group.number.get() == number)
        };
        let mut groups: Vec<GroupId> = self.0.directory_view.read(|view| {
            let asked = view.groups().filter(|group| is_asked(group));
            asked.map(|group| group.number).collect()
        });
        groups.sort_unstable();
        match (groups.is_empty(), request.group) {
            (true, Some(group)) if request.region.is_empty() => Err(no_group(GroupId::new(group))),
            (true, _) if !request.region.is_empty() => {
                let message = format!("region {} has no such group: see `stead group list`", request.region);
                Err(Error::new(ErrorKind::NotFound, message))
            }
            _ => Ok(groups),
        }
    }

    /// Lists the forks of one group, at its leader.
    async fn list_in(&self, tenant: &str, list: GroupList, may_ask_peers: bool) -> Result<GroupPage, Error> {
        let mut client = match self.leader(list.group, may_ask_peers).await? {
            Leader::Here(hosted) => return self.list_here(hosted, list),
            Leader::At(_, channel) => ForkServiceClient::new(channel),
        };
        let mut request = ListForksRequest {
            page_size: i32::try_from(list.size).unwrap_or(i32::MAX),
            page_token: String::new(),
            tenant: tenant.to_owned(),
            group: Some(list.group.get()),
            region: String::new(),
        };
        request.page_token = list.from.to_token(&request);
        let answer = client.list_forks(to_leader(request.clone(), &Access::node())).await;
        let answer = answer.map_err(|status| status::from_status(&status))?.into_inner();
        request.page_token = answer.next_page_token;
        let is_last = request.page_token.is_empty();
        Ok(GroupPage {
            forks: answer.forks,
            next: if is_last {
                None
            } else {
                Some(ForkPosition::from_token(&request)?)
            },
        })
    }

    fn list_here(&self, hosted: &HostedGroup, list: GroupList) -> Result<GroupPage, Error> {
        let read = |view: ReadView<'_>| -> Result<GroupPage, Unreadable> {
            let mut page = GroupPage::default();
            let first = TenantNumber::new(list.from.tenant).max(list.tenant.unwrap_or(TenantNumber::new(0)));
            let tenants = view.shard().forked(first);
            for tenant in tenants.take_while(|tenant| list.tenant.is_none_or(|only| only == *tenant)) {
                let rewind = view.record(tenant).and_then(|record| record.rewind);
                let mut forks = view.forks(tenant)?;
                forks.sort_unstable_by_key(|fork| fork.number);
                for fork in forks {
                    let position = ForkPosition {
                        group: list.group.get(),
                        tenant: tenant.get(),
                        fork: fork.number,
                    };
                    if position < list.from {
                        continue;
                    }
                    if page.forks.len() >= list.size {
                        page.next = Some(position);
                        return Ok(page);
                    }
                    let is_filling = rewind.is_some_and(|rewind| rewind.fork == fork.number);
                    let message =
                        |view: &DirectoryView| fork_message::fork(view, list.group, tenant, &fork, is_filling);
                    page.forks.push(self.0.directory_view.read(message));
                }
            }
            Ok(page)
        };
        read_here(hosted, read)
    }

    async fn entries(&self, request: Request<ListForkEntriesRequest>) -> Result<ListForkEntriesResponse, Error> {
        let may_ask_peers = !is_peer_request(&request);
        let access = access(&request)?;
        let request = request.into_inner();
        let size = convert::page::size(request.page_size, PAGE_DEFAULT, PAGE_MAX)? as usize;
        let from = fork_message::place(&request)?;
        let tenant = self.tenant(&request.tenant).await?;
        let hosted = match self.leader(GroupId::new(request.group), may_ask_peers).await? {
            Leader::Here(hosted) => hosted,
            Leader::At(_, channel) => {
                let mut client = ForkServiceClient::new(channel);
                let answer = client.list_fork_entries(to_leader(request, &access)).await;
                return answer
                    .map(Response::into_inner)
                    .map_err(|status| status::from_status(&status));
            }
        };
        check_fork(hosted, &tenant, request.fork)?;
        let logged = hosted.raft.logged_time();
        let read = |view: ReadView<'_>| {
            let Some(reader) = view.fork(tenant.number, request.fork) else {
                return Ok(None);
            };
            let live = reader.live();
            let (record, state) = (live.record(), live.state());
            // A follower knows its tenant's time as of the last change only.
            let now = match record.owned() {
                Some(_) => state.time_at(logged),
                None => state.time,
            };
            let live_revision = record.has_data().then_some(state.revision);
            let page = reader.keys(from, now, size, PAGE_LEN_MAX)?;
            Ok(Some((page, live_revision)))
        };
        let (page, live_revision) = read_here(hosted, read)?.ok_or_else(|| no_fork(&tenant, hosted, request.fork))?;
        let keys = page.keys.into_iter();
        Ok(ListForkEntriesResponse {
            entries: keys
                .map(|key| fork_message::entry(key, live_revision.is_some()))
                .collect(),
            next_page_token: page
                .next
                .map_or_else(String::new, |next| fork_message::place_token(&request, next)),
            live_revision: live_revision.map(convert::id::from_revision),
        })
    }

    async fn discard(&self, request: Request<DiscardForkRequest>) -> Result<DiscardForkResponse, Error> {
        let may_ask_peers = !is_peer_request(&request);
        let by = by(&request, &request.get_ref().reason);
        let access = access(&request)?;
        let request = request.into_inner();
        convert::directory::reason(&request.reason)?;
        let tenant = self.tenant(&request.tenant).await?;
        match self.leader(GroupId::new(request.group), may_ask_peers).await? {
            Leader::Here(hosted) => self.discard_here(hosted, &tenant, request.fork, by).await,
            Leader::At(_, channel) => {
                let mut client = ForkServiceClient::new(channel);
                let answer = client.discard_fork(to_leader_for(request, &access, &by)).await;
                answer
                    .map(Response::into_inner)
                    .map_err(|status| status::from_status(&status))
            }
        }
    }

    /// Has a fork discarded by the log of a group that this node leads. It is in the audit log before: nothing is
    /// discarded that is not there, while what is there may have failed afterwards.
    async fn discard_here(
        &self,
        hosted: &HostedGroup,
        tenant: &Tenant,
        fork: u32,
        by: AuditContext,
    ) -> Result<DiscardForkResponse, Error> {
        check_fork(hosted, tenant, fork)?;
        let group = hosted.raft.id();
        let one = GroupList {
            group,
            tenant: Some(tenant.number),
            from: ForkPosition {
                group: group.get(),
                tenant: tenant.number.get(),
                fork,
            },
            size: 1,
        };
        let before = self.list_here(hosted, one)?.forks.into_iter().next();
        self.0.directory_view.read(|view| view.settings().check_forks())?;
        let discard = ForkDiscard {
            tenant: tenant.name.clone(),
            group,
            fork,
        };
        let command = Command::RecordForkDiscard(by, discard);
        self.0.directory.propose(&command).await?;
        let command = DiscardFork {
            tenant: tenant.number,
            fork,
        };
        let proposal = Proposal {
            command: command.encode(),
            work: 0,
            deadline: Instant::now() + DISCARD_MAX,
        };
        let results = hosted.propose(tenant.number, vec![proposal]).await;
        let result = results.map_err(not_known)?.into_iter().next().flatten();
        match result {
            Some(ApplyResult::Done) => Ok(DiscardForkResponse { fork: before }),
            Some(ApplyResult::GuardFailed(GuardFailure::Rewinding)) => Err(filling(tenant, fork)),
            Some(_) => Err(no_fork(tenant, hosted, fork)),
            None => {
                let message = format!(
                    "group {} was busy and fork {fork} is still there: try again",
                    group.get()
                );
                Err(Error::new(ErrorKind::DeadlineExceeded, message))
            }
        }
    }
}

/// List of the forks of one group.
#[derive(Clone, Copy)]
struct GroupList {
    group: GroupId,
    /// Only this tenant.
    tenant: Option<TenantNumber>,
    from: ForkPosition,
    size: usize,
}

/// Returns the error of a discard whose proposal failed.
fn not_known(error: ProposeError) -> Error {
    let kind = match error {
        ProposeError::NotLeader { .. } => ErrorKind::NoLeader,
        ProposeError::Overloaded | ProposeError::Stopped => ErrorKind::Unavailable,
        ProposeError::TimedOut | ProposeError::LeaderChanged | ProposeError::Unknown => {
            ErrorKind::OutcomeUnknown { key: None }
        }
    };
    Error::new(kind, format!("{error}: list the forks again"))
}

#[tonic::async_trait]
impl fork_service_server::ForkService for ForkService {
    async fn list_forks(&self, request: Request<ListForksRequest>) -> Result<Response<ListForksResponse>, Status> {
        authorize::inspect_tenant_or_all(&request, &request.get_ref().tenant).map_err(|error| to_status(&error))?;
        let is_from_peer = is_peer_request(&request);
        let listed = self.list(request.into_inner(), is_from_peer).await;
        listed.map(Response::new).map_err(|error| to_status(&error))
    }

    async fn list_fork_entries(
        &self,
        request: Request<ListForkEntriesRequest>,
    ) -> Result<Response<ListForkEntriesResponse>, Status> {
        authorize::read_all_keys(&request, &request.get_ref().tenant).map_err(|error| to_status(&error))?;
        let listed = self.entries(request).await;
        listed.map(Response::new).map_err(|error| to_status(&error))
    }

    async fn replay_fork(&self, request: Request<ReplayForkRequest>) -> Result<Response<ReplayForkResponse>, Status> {
        authorize::replay(&request, &request.get_ref().tenant).map_err(|error| to_status(&error))?;
        let replayed = fork_replay::replay(&self.0, request).await;
        replayed.map(Response::new).map_err(|error| to_status(&error))
    }

    async fn discard_fork(
        &self,
        request: Request<DiscardForkRequest>,
    ) -> Result<Response<DiscardForkResponse>, Status> {
        authorize::administer_tenant(&request, &request.get_ref().tenant).map_err(|error| to_status(&error))?;
        let discarded = self.discard(request).await;
        discarded.map(Response::new).map_err(|error| to_status(&error))
    }
}
