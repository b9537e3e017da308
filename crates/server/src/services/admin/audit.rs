//! `AuditService`: the audit log, read from the directory by a node that votes in it.

use std::sync::Arc;

use stead_api::{
    convert,
    proto::admin::v1::{self, ListAuditRecordsRequest, ListAuditRecordsResponse, audit_service_server},
};
use stead_state::directory::AuditRecord;
use stead_types::{Error, ErrorKind};
use tonic::{Request, Response, Status};

use super::{PAGE_DEFAULT, PAGE_MAX, to_status};
use crate::host::{Host, storage_unavailable};

/// The service.
#[derive(Clone)]
pub(crate) struct AuditService(Arc<Host>);

impl AuditService {
    /// Returns the service.
    pub(crate) fn new(host: Arc<Host>) -> Self {
        Self(host)
    }

    fn list(&self, request: &ListAuditRecordsRequest) -> Result<ListAuditRecordsResponse, Error> {
        let elsewhere = || {
            let message = "this node does not vote in the directory, which keeps the audit: ask one that does";
            Error::new(ErrorKind::Unavailable, message)
        };
        let local_voter = self.0.directory.local_voter().ok_or_else(elsewhere)?;
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
    }
}

#[tonic::async_trait]
impl audit_service_server::AuditService for AuditService {
    async fn list_audit_records(
        &self,
        request: Request<ListAuditRecordsRequest>,
    ) -> Result<Response<ListAuditRecordsResponse>, Status> {
        self.list(request.get_ref())
            .map(Response::new)
            .map_err(|error| to_status(&error))
    }
}
