//! Operators' call that lists residency evidence.

use std::time::SystemTime;

use stead_api::proto::{
    admin::v1::{self, audit_service_client::AuditServiceClient as Service, residency_record},
    v1::DirectoryVersion,
};
use stead_types::Error;

use super::Admin;
use crate::response::malformed;

/// Record of data of a tenant that was sent to a region, or of its erasure there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResidencyRecord {
    /// Name of the tenant.
    pub tenant: String,
    /// Its number; a later tenant of the same name has another one.
    pub tenant_number: u64,
    /// Name of the region.
    pub region: String,
    /// Jurisdiction of the region; empty if the region was removed.
    pub jurisdiction: String,
    /// Data that was sent, or an erasure.
    pub event: ResidencyEvent,
}

/// Event of a [`ResidencyRecord`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResidencyEvent {
    /// Data was sent to the region.
    Sent {
        /// First version of the tenant's record under which it was sent, as an etag.
        policy_first: String,
        /// Last such version.
        policy_last: String,
        /// Time of the first byte.
        first: SystemTime,
        /// Time of the last byte.
        last: SystemTime,
        /// Bytes before compression: no less than were sent.
        bytes: u64,
    },
    /// A group of the region has erased the tenant.
    Erased {
        /// The group.
        group: u32,
        /// Time of its report.
        time: SystemTime,
    },
}

impl Admin {
    /// Lists residency evidence: of all tenants of a name, erased ones included, or of all if it is empty.
    ///
    /// # Errors
    ///
    /// An error response, such as `UNAVAILABLE` where no voter of the directory answers.
    pub async fn residency(&self, tenant: &str) -> Result<Vec<ResidencyRecord>, Error> {
        let (mut records, mut token) = (Vec::new(), String::new());
        loop {
            let request = v1::ListResidencyRecordsRequest {
                page_size: 0,
                page_token: token,
                tenant: tenant.to_owned(),
            };
            let call = async |channel, request| Service::new(channel).list_residency_records(request).await;
            let state = self.0.state();
            let page = state.unary(request, state.deadline(None), true, call).await?;
            records.extend(page.records.into_iter().map(record).collect::<Result<Vec<_>, _>>()?);
            token = page.next_page_token;
            if token.is_empty() {
                return Ok(records);
            }
        }
    }
}

fn record(record: v1::ResidencyRecord) -> Result<ResidencyRecord, Error> {
    let event = match record.event.ok_or_else(|| malformed("event"))? {
        residency_record::Event::Sent(sent) => ResidencyEvent::Sent {
            policy_first: version(sent.policy_first)?,
            policy_last: version(sent.policy_last)?,
            first: time(sent.first_time)?,
            last: time(sent.last_time)?,
            bytes: sent.bytes,
        },
        residency_record::Event::Erased(erased) => ResidencyEvent::Erased {
            group: erased.group,
            time: time(erased.time)?,
        },
    };
    Ok(ResidencyRecord {
        tenant: record.tenant,
        tenant_number: record.tenant_number,
        region: record.region,
        jurisdiction: record.jurisdiction,
        event,
    })
}

fn version(version: Option<DirectoryVersion>) -> Result<String, Error> {
    let version = version.ok_or_else(|| malformed("version"))?;
    Ok(format!("{}/{}", version.incarnation, version.index))
}

fn time<T>(time: Option<T>) -> Result<SystemTime, Error>
where
    SystemTime: TryFrom<T>,
{
    let time = time.and_then(|time| SystemTime::try_from(time).ok());
    time.ok_or_else(|| malformed("time"))
}
