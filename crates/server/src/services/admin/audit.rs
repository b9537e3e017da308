//! `AuditService`: the audit log and residency evidence, which nodes that vote in the directory keep; the others ask them.

use std::sync::Arc;

use stead_api::{
    convert,
    proto::admin::v1::{
        self, ListAuditRecordsRequest, ListAuditRecordsResponse, ListResidencyRecordsRequest,
        ListResidencyRecordsResponse, audit_service_client::AuditServiceClient, audit_service_server,
    },
    status,
};
use stead_state::directory::AuditRecord;
use stead_types::{Error, ErrorKind, GroupId};
use tokio::time::timeout;
use tonic::{Request, Response, Status, transport::Channel};

use super::{PAGE_DEFAULT, PAGE_MAX, authorize, residency, to_status};
use crate::{
    admin_peers::{RESPONSE_WAIT_MAX, is_peer_request, name_caller, peer_request},
    directory::LocalVoter,
    host::{Host, storage_unavailable},
    services::call_metadata::access,
};

/// The service.
#[derive(Clone)]
pub(crate) struct AuditService(Arc<Host>);

impl AuditService {
    /// Returns the service.
    pub(crate) fn new(host: Arc<Host>) -> Self {
        Self(host)
    }

    /// Asks the directory's voters, one after the other; each decides again what the caller may see.
    async fn ask_voters<T: Clone, U>(
        &self,
        request: &Request<T>,
        ask: impl AsyncFn(AuditServiceClient<Channel>, Request<T>) -> Result<Response<U>, Status>,
    ) -> Result<U, Error> {
        let access = access(request)?;
        for address in self.0.admin_addresses(GroupId::DIRECTORY) {
            let Some(channel) = self.0.admin_peers.channel(&address) else {
                continue;
            };
            let mut asking = peer_request(request.get_ref().clone());
            name_caller(&mut asking, &access);
            let asked = ask(AuditServiceClient::new(channel), asking);
            match timeout(RESPONSE_WAIT_MAX, asked).await {
                Ok(Ok(answer)) => return Ok(answer.into_inner()),
                Ok(Err(status)) => {
                    let error = status::from_status(&status);
                    if !error.is_transient() {
                        return Err(error);
                    }
                }
                Err(_late) => {}
            }
        }
        let message = "no voter of the directory, which keeps the audit log and residency evidence, answers: try again";
        Err(Error::new(ErrorKind::Unavailable, message))
    }

    /// Lists records that a voter of the directory keeps.
    fn list(local_voter: &LocalVoter, request: &ListAuditRecordsRequest) -> Result<ListAuditRecordsResponse, Error> {
        let size = convert::page::size(request.page_size, PAGE_DEFAULT, PAGE_MAX)? as usize;
        let below = convert::page::position(request.subject.as_bytes(), &request.page_token)?;
        let invalid = || Error::invalid("page_token", "page_token: not a token of this store");
        let below = match below {
            Some(bytes) => u64::from_be_bytes(bytes.try_into().map_err(|_| invalid())?),
            None => u64::MAX,
        };
        let records = local_voter.machine.read(|directory| {
            let records = directory.audit().newest_first().filter(|record| record.number < below);
            let records = records.filter(|record| request.subject.is_empty() || record.subject == request.subject);
            records.take(size + 1).cloned().collect::<Vec<AuditRecord>>()
        });
        let mut records = records.map_err(|incomplete| storage_unavailable(&incomplete))?;
        let more = records.len() > size;
        records.truncate(size);
        let last = records.last().filter(|_| more);
        let next = last.map(|last| convert::page::token(request.subject.as_bytes(), &last.number.to_be_bytes()));
        let records = records.into_iter().map(to_message).collect();
        Ok(ListAuditRecordsResponse {
            records,
            next_page_token: next.unwrap_or_default(),
        })
    }
}

fn to_message(record: AuditRecord) -> v1::AuditRecord {
    let seconds = i64::try_from(record.time / 1000).unwrap_or(i64::MAX);
    let nanos = i32::try_from((record.time % 1000) * 1_000_000).unwrap_or(0);
    v1::AuditRecord {
        version: Some(convert::id::from_directory_version(record.version)),
        time: Some(prost_types::Timestamp { seconds, nanos }),
        who: record.who,
        reason: record.reason,
        action: record.action,
        subject: record.subject,
        of_calls: record.is_of_calls,
    }
}

#[tonic::async_trait]
impl audit_service_server::AuditService for AuditService {
    async fn list_audit_records(
        &self,
        request: Request<ListAuditRecordsRequest>,
    ) -> Result<Response<ListAuditRecordsResponse>, Status> {
        let listed = match self.0.directory.local_voter() {
            Some(local_voter) => Self::list(local_voter, request.get_ref()),
            None if is_peer_request(&request) => {
                let message = "this node does not vote in the directory, which keeps the audit log";
                Err(Error::new(ErrorKind::Unavailable, message))
            }
            None => {
                let ask =
                    async |mut voter: AuditServiceClient<Channel>, request| voter.list_audit_records(request).await;
                self.ask_voters(&request, ask).await
            }
        };
        listed.map(Response::new).map_err(|error| to_status(&error))
    }

    async fn list_residency_records(
        &self,
        request: Request<ListResidencyRecordsRequest>,
    ) -> Result<Response<ListResidencyRecordsResponse>, Status> {
        let tenant = &request.get_ref().tenant;
        authorize::inspect_tenant_or_all(&request, tenant).map_err(|error| to_status(&error))?;
        let listed = match self.0.directory.local_voter() {
            Some(local_voter) => residency::list(local_voter, request.get_ref()),
            None if is_peer_request(&request) => {
                let message = "this node does not vote in the directory, which keeps residency evidence";
                Err(Error::new(ErrorKind::Unavailable, message))
            }
            None => {
                let ask =
                    async |mut voter: AuditServiceClient<Channel>, request| voter.list_residency_records(request).await;
                self.ask_voters(&request, ask).await
            }
        };
        listed.map(Response::new).map_err(|error| to_status(&error))
    }
}
