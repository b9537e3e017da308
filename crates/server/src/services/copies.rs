//! `stead.internal.v1.CopyService`: what a group would report of tenants if it froze them now.
//!
//! It is what a dry run of a promotion decides over: the entry is applied to a copy of each record, by the transition
//! that the log will use, and nothing is proposed.

use std::sync::Arc;

use stead_api::{
    proto::internal::v1::{ReadCopiesRequest, ReadCopiesResponse, copy_service_server},
    status,
};
use stead_state::{
    directory::{Command, DirectoryView, GroupReport, Tenant},
    shard::{
        command::Freeze,
        ownership::{EntryStamp, FreezeReport, RevisionAt, freeze, freeze_report},
        record::{OperationId, Role, TenantRecord},
    },
};
use stead_types::{Error, GroupId, TenantNumber};
use tonic::{Request, Response, Status};

use crate::host::{Host, HostedGroup};

/// Most tenants of one request.
pub(crate) const TENANTS_MAX: usize = 10_000;

/// The service.
#[derive(Clone)]
pub(crate) struct CopyService(Arc<Host>);

impl CopyService {
    /// Returns the service.
    pub(crate) fn new(host: Arc<Host>) -> Self {
        Self(host)
    }
}

/// Returns what a group would report of tenants; `None` if this node does not lead it, or does not reach its majority.
pub(crate) fn read(host: &Host, group: GroupId, tenants: &[TenantNumber]) -> Option<Vec<GroupReport>> {
    let hosted = host.groups.get(&group);
    let hosted = hosted.filter(|hosted| hosted.raft.is_leader() && hosted.raft.is_connected())?;
    let wall = (host.wall)();
    let reports = host.directory_view.read(|view| {
        let reports = tenants.iter().filter_map(|number| report(view, hosted, *number, wall));
        reports.collect()
    });
    Some(reports)
}

/// Reads the answer of another node.
pub(crate) fn read_answer(answer: ReadCopiesResponse) -> Option<Vec<GroupReport>> {
    let kind = answer.reports.first().filter(|_| answer.is_leader)?;
    match Command::decode(*kind, answer.reports.slice(1..)) {
        Ok(Command::Report(_, _, reports)) => Some(reports),
        Ok(_) | Err(_) => None,
    }
}

fn report(view: &DirectoryView, hosted: &HostedGroup, number: TenantNumber, wall: u64) -> Option<GroupReport> {
    let tenant = view.tenant(number)?;
    let stamp = EntryStamp {
        index: 0,
        time: hosted.raft.logged_time(),
    };
    let read = hosted.read_tenant(number, |reading| match reading {
        Some(reading) => {
            let held = |sequence| reading.revision_of(sequence).ok();
            let record = reading.record();
            let owns = matches!(record.role, Role::Owner);
            Some((would_report(tenant, record.clone(), stamp, &held)?, owns))
        }
        None => Some((would_report(tenant, TenantRecord::unknown(), stamp, &|_| None)?, false)),
    });
    let (report, owns) = read.ok()??;
    let age = match owns {
        true => Some(0),
        false => {
            let age = hosted.freshness.peek_staleness(number);
            age.and_then(|age| u64::try_from(age.as_millis()).ok())
        }
    };
    Some(GroupReport::Frozen {
        tenant: number,
        report,
        fresh_as_of: age.map(|age| wall.saturating_sub(age)),
        reported: None,
    })
}

/// Returns what a group with this record would report if it froze the tenant now.
fn would_report(
    tenant: &Tenant,
    mut record: TenantRecord,
    stamp: EntryStamp,
    held: RevisionAt<'_>,
) -> Option<FreezeReport> {
    let entry = Freeze {
        tenant: tenant.number,
        version: record.view_version,
        operation: OperationId(0),
        epoch: record.promised.next()?,
        lineage: tenant.lineage.clone(),
    };
    freeze(&mut record, &entry, stamp, held).ok()?;
    freeze_report(&record)
}

#[tonic::async_trait]
impl copy_service_server::CopyService for CopyService {
    async fn read_copies(&self, request: Request<ReadCopiesRequest>) -> Result<Response<ReadCopiesResponse>, Status> {
        let request = request.into_inner();
        let count = request.tenants.len();
        if count > TENANTS_MAX {
            let message = format!("tenants: {count}; ask for at most {TENANTS_MAX} at a time");
            return Err(status::to_status(&Error::invalid("tenants", message)));
        }
        let group = GroupId::new(request.group);
        let tenants: Vec<TenantNumber> = request.tenants.into_iter().map(TenantNumber::new).collect();
        let incarnation = self
            .0
            .directory_view
            .read(|view| view.group(group).map(|known| known.incarnation));
        let reports = incarnation.zip(read(&self.0, group, &tenants));
        let response = match reports {
            Some((incarnation, reports)) => ReadCopiesResponse {
                is_leader: true,
                reports: Command::Report(group, incarnation, reports).encode(),
            },
            None => ReadCopiesResponse::default(),
        };
        Ok(Response::new(response))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_of_node_that_does_not_lead_has_no_copies() {
        assert_eq!(read_answer(ReadCopiesResponse::default()), None);
        let reports = Command::Report(GroupId::new(1), stead_types::Incarnation::FIRST, Vec::new()).encode();
        let answer = |is_leader| ReadCopiesResponse {
            is_leader,
            reports: reports.clone(),
        };
        assert_eq!(read_answer(answer(true)), Some(Vec::new()));
        assert_eq!(read_answer(answer(false)), None, "it may be an old leader");
    }
}
