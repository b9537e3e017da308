//! Operators' call that lists the audit log.

use std::time::SystemTime;

use stead_api::proto::admin::v1::{self, audit_service_client::AuditServiceClient as Service};
use stead_types::Error;

use super::Admin;
use crate::response::malformed;

/// Record of one change of the directory that was requested and applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRecord {
    /// When it was applied, by the directory's logged time.
    pub time: SystemTime,
    /// Identity of the caller, as it was given.
    pub who: String,
    /// Action that was requested, such as `create tenant`.
    pub action: String,
    /// Subject of the change, such as the tenant's name.
    pub subject: String,
    /// Reason that the caller gave; may be empty.
    pub reason: String,
}

impl Admin {
    /// Lists the newest records, at most `limit`, which is 1 to 1000: those of one subject, or all if it is empty.
    ///
    /// # Errors
    ///
    /// An error response, such as `UNAVAILABLE` where no voter of the directory answers.
    pub async fn audit(&self, subject: &str, limit: u16) -> Result<Vec<AuditRecord>, Error> {
        let request = v1::ListAuditRecordsRequest {
            page_size: limit.into(),
            page_token: String::new(),
            subject: subject.to_owned(),
        };
        let call = async |channel, request| Service::new(channel).list_audit_records(request).await;
        let state = self.0.state();
        let answer = state.unary(request, state.deadline(None), true, call).await?;
        answer.records.into_iter().map(record).collect()
    }
}

fn record(record: v1::AuditRecord) -> Result<AuditRecord, Error> {
    let time = record.time.and_then(|time| SystemTime::try_from(time).ok());
    Ok(AuditRecord {
        time: time.ok_or_else(|| malformed("time"))?,
        who: record.who,
        action: record.action,
        subject: record.subject,
        reason: record.reason,
    })
}
