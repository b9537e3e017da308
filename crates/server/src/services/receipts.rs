//! `stead.v1.ReceiptService`: what became of acknowledged revisions, by the lineage in this node's view. What was cut is
//! looked up where replays are remembered, at the home, and in the forks that groups have.

use std::{sync::Arc, time::Duration};

use stead_api::{
    convert,
    proto::{
        admin::v1::{Fork, ListForksRequest},
        v1::{
            CheckReceiptsRequest, CheckReceiptsResponse, Receipt, ReceiptFork, ReceiptStatus,
            receipt_service_client::ReceiptServiceClient, receipt_service_server,
        },
    },
    status,
};
use stead_state::{
    authorization::Need,
    directory::{ReceiptState, Tenant, receipt_state},
};
use stead_types::{Error, Revision, TenantNumber};
use tonic::{Request, Response, Status};

use super::{
    admin::{
        fork::ForkService,
        group_leader::{self, Leader},
    },
    call_metadata::access,
    routes::version,
};
use crate::{
    admin_peers::{is_peer_request, peer_request},
    host::{Host, HostedGroup},
};

/// Most revisions of one request.
const REVISIONS_MAX: usize = 1_000;
/// Most forks of a tenant that are looked at.
const FORKS_MAX: i32 = 1_000;
/// Longest time for asking the home, and for asking groups for their forks.
const ASK_MAX: Duration = Duration::from_secs(2);

/// The service.
#[derive(Clone)]
pub(crate) struct ReceiptService(Arc<Host>);

/// Revision, what the lineage says of it, and the revision under which it was written again.
type Checked = (Revision, ReceiptState, Option<Revision>);

impl ReceiptService {
    /// Returns the service.
    pub(crate) fn new(host: Arc<Host>) -> Self {
        Self(host)
    }

    async fn check(&self, request: Request<CheckReceiptsRequest>) -> Result<CheckReceiptsResponse, Error> {
        let is_from_peer = is_peer_request(&request);
        let request = request.into_inner();
        let revisions = read_revisions(&request)?;
        let tenant = self.0.resolve(&convert::id::tenant("tenant", &request.tenant)?).await?;
        let mut checked: Vec<Checked> = revisions
            .into_iter()
            .map(|revision| (revision, receipt_state(&tenant, revision), None))
            .collect();
        let has_cut = checked.iter().any(|(_, state, _)| *state == ReceiptState::Cut);
        let mut replays_unknown = false;
        if has_cut {
            replays_unknown = !self.find_replays(&tenant, &mut checked, &request, !is_from_peer).await;
        }
        let (forks, silent_groups) = match has_cut && !is_from_peer {
            true => self.forks(&request.tenant).await,
            false => (Vec::new(), Vec::new()),
        };
        let receipts = checked.into_iter().map(|checked| receipt(checked, &forks));
        Ok(CheckReceiptsResponse {
            tenant_number: tenant.number.get(),
            receipts: receipts.collect(),
            version: self.0.directory_view.read(version),
            replays_unknown,
            silent_groups,
        })
    }

    /// Looks up what was written again; tells whether the home has said it.
    async fn find_replays(
        &self,
        tenant: &Tenant,
        checked: &mut [Checked],
        request: &CheckReceiptsRequest,
        may_ask_peers: bool,
    ) -> bool {
        let at_home = match group_leader::find(&self.0, tenant.home, may_ask_peers).await {
            Ok(Leader::Here(hosted)) => hosted.owns(tenant.number) && read_replays(hosted, tenant.number, checked),
            Ok(Leader::At(_, channel)) => {
                let mut client = ReceiptServiceClient::new(channel);
                let mut request = peer_request(request.clone());
                request.set_timeout(ASK_MAX);
                match client.check_receipts(request).await {
                    Ok(answer) => take_replays(checked, &answer.into_inner()),
                    Err(_) => false,
                }
            }
            Err(_) => false,
        };
        if !at_home {
            // A copy knows those that it has received.
            for hosted in self.0.groups.values() {
                read_replays(hosted, tenant.number, checked);
            }
        }
        at_home
    }

    /// Returns the forks of a tenant, and the groups that do not answer.
    async fn forks(&self, tenant: &str) -> (Vec<Fork>, Vec<u32>) {
        let request = ListForksRequest {
            page_size: FORKS_MAX,
            tenant: tenant.to_owned(),
            ..ListForksRequest::default()
        };
        let service = ForkService::new(self.0.clone());
        let listed = tokio::time::timeout(ASK_MAX, service.list(request, false)).await;
        match listed {
            Ok(Ok(list)) => (list.forks, list.silent_groups),
            Ok(Err(_)) | Err(_) => {
                let groups = self.0.directory_view.read(|view| {
                    let groups = view.groups().filter(|group| group.region.is_some());
                    groups.map(|group| group.number.get()).collect()
                });
                (Vec::new(), groups)
            }
        }
    }
}

fn read_revisions(request: &CheckReceiptsRequest) -> Result<Vec<Revision>, Error> {
    let count = request.revisions.len();
    if count > REVISIONS_MAX {
        let message = format!("revisions: {count}; at most {REVISIONS_MAX} a request: ask in parts");
        return Err(Error::invalid("revisions", message));
    }
    let revisions = request.revisions.iter().enumerate();
    revisions
        .map(|(at, revision)| convert::id::revision(&format!("revisions[{at}]"), *revision))
        .collect()
}

/// Looks up replays in a group's copy; tells whether there is one to read.
fn read_replays(hosted: &HostedGroup, tenant: TenantNumber, checked: &mut [Checked]) -> bool {
    let read = hosted.machine.read(|view| {
        let Some(clients) = view.shard().clients(tenant) else {
            return false;
        };
        for (revision, state, replayed) in checked {
            if *state == ReceiptState::Cut {
                *replayed = replayed.or(clients.replay_of(*revision).map(|replay| replay.revision));
            }
        }
        true
    });
    read.unwrap_or(false)
}

/// Takes over what the home has said; tells whether it has.
fn take_replays(checked: &mut [Checked], answer: &CheckReceiptsResponse) -> bool {
    if answer.receipts.len() != checked.len() {
        return false;
    }
    for ((_, state, replayed), receipt) in checked.iter_mut().zip(&answer.receipts) {
        let found = receipt.replayed_revision;
        let found = found.and_then(|found| convert::id::revision("replayed_revision", found).ok());
        if *state == ReceiptState::Cut {
            *replayed = found;
        }
    }
    !answer.replays_unknown
}

fn receipt((revision, state, replayed): Checked, forks: &[Fork]) -> Receipt {
    let status = match (state, replayed) {
        (ReceiptState::Survived, _) => ReceiptStatus::Survived,
        (ReceiptState::Cut, Some(_)) => ReceiptStatus::Replayed,
        (ReceiptState::Cut, None) => ReceiptStatus::Cut,
        (ReceiptState::Undecided, _) => ReceiptStatus::Undecided,
        (ReceiptState::TooOld, _) => ReceiptStatus::TooOld,
    };
    let holds = |fork: &&Fork| state == ReceiptState::Cut && holds(fork, revision);
    Receipt {
        revision: Some(convert::id::from_revision(revision)),
        status: status.into(),
        replayed_revision: replayed.map(convert::id::from_revision),
        forks: forks.iter().filter(holds).map(fork_name).collect(),
    }
}

/// Tells whether a fork has a revision: one that was cut is between the first and the last of its changes.
fn holds(fork: &Fork, revision: Revision) -> bool {
    let read = |revision| convert::id::revision("revision", revision).ok();
    let last = fork.last_revision.and_then(read);
    let first = fork.first_revision.and_then(read);
    revision.sequence().get() > fork.fork_point
        && first.is_none_or(|first| first <= revision)
        && last.is_some_and(|last| revision <= last)
}

fn fork_name(fork: &Fork) -> ReceiptFork {
    ReceiptFork {
        group: fork.group,
        region: fork.region.clone(),
        fork: fork.number,
    }
}

#[tonic::async_trait]
impl receipt_service_server::ReceiptService for ReceiptService {
    async fn check_receipts(
        &self,
        request: Request<CheckReceiptsRequest>,
    ) -> Result<Response<CheckReceiptsResponse>, Status> {
        let name =
            convert::id::tenant("tenant", &request.get_ref().tenant).map_err(|error| status::to_status(&error))?;
        let access = access(&request).map_err(|error| status::to_status(&error))?;
        access
            .check(&Need::Member(&name))
            .map_err(|error| status::to_status(&error))?;
        let checked = self.check(request).await;
        checked.map(Response::new).map_err(|error| status::to_status(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Revision {
        text.parse().unwrap()
    }

    #[test]
    fn receipt_names_forks_that_hold_what_was_cut() {
        let fork = |group, first: Option<&str>, last: &str| Fork {
            group,
            number: 5,
            fork_point: 10,
            first_revision: first.map(|first| convert::id::from_revision(at(first))),
            last_revision: Some(convert::id::from_revision(at(last))),
            ..Fork::default()
        };
        let forks = [
            fork(1, Some("1.11"), "1.20"),
            fork(2, None, "1.14"),
            fork(3, Some("2.11"), "2.20"),
        ];
        let of = |revision, state, replayed| receipt((at(revision), state, replayed), &forks);
        let groups = |receipt: &Receipt| receipt.forks.iter().map(|fork| fork.group).collect::<Vec<_>>();
        let cut = of("1.14", ReceiptState::Cut, None);
        assert_eq!((cut.status(), groups(&cut)), (ReceiptStatus::Cut, vec![1, 2]));
        let replayed = of("1.15", ReceiptState::Cut, Some(at("3.30")));
        assert_eq!(
            (replayed.status(), groups(&replayed)),
            (ReceiptStatus::Replayed, vec![1])
        );
        assert_eq!(replayed.replayed_revision, Some(convert::id::from_revision(at("3.30"))));
        let gone = of("1.21", ReceiptState::Cut, None);
        assert_eq!((gone.status(), groups(&gone)), (ReceiptStatus::Cut, Vec::new()));
        let kept = of("1.10", ReceiptState::Survived, None);
        assert_eq!((kept.status(), groups(&kept)), (ReceiptStatus::Survived, Vec::new()));
    }

    #[test]
    fn answer_of_home_counts_only_for_what_was_cut() {
        let mut checked = [
            (at("1.9"), ReceiptState::Survived, None),
            (at("1.12"), ReceiptState::Cut, None),
        ];
        let replayed = |revision: &str| Receipt {
            replayed_revision: Some(convert::id::from_revision(at(revision))),
            ..Receipt::default()
        };
        let mut answer = CheckReceiptsResponse {
            receipts: vec![replayed("2.12"), replayed("2.13")],
            ..CheckReceiptsResponse::default()
        };
        assert!(take_replays(&mut checked, &answer));
        assert_eq!(checked.map(|(_, _, replayed)| replayed), [None, Some(at("2.13"))]);
        answer.replays_unknown = true;
        assert!(
            !take_replays(&mut checked, &answer),
            "it has not reached its home either"
        );
        answer.receipts.pop();
        assert!(!take_replays(&mut checked, &answer));
    }
}
