//! Operators' call that lists the audit log.

use std::time::SystemTime;

use stead_api::proto::admin::v1::{self, audit_service_client::AuditServiceClient as Service};
use stead_types::Error;

use super::Admin;
use crate::response::malformed;

/// Largest page of records.
const PAGE_MAX: u16 = 1_000;

/// Record of one change of the directory that was requested and applied, or of calls.
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
    /// Reason that the caller gave, which may be empty; of refused calls, the role that was missing.
    pub reason: String,
    /// Whether it is of calls, refused or in an emergency, and not of a change.
    pub of_calls: bool,
}

impl Admin {
    /// Lists the newest records, at most `limit`, which is 1 to 1000: those of one subject, or all if it is empty.
    ///
    /// # Errors
    ///
    /// An error response, such as `UNAVAILABLE` where no voter of the directory answers.
    pub async fn audit(&self, subject: &str, limit: u16) -> Result<Vec<AuditRecord>, Error> {
        let page = self.audit_page(subject, limit, String::new()).await?;
        page.records.into_iter().map(record).collect()
    }

    /// Lists all records that are kept, the newest first.
    ///
    /// # Errors
    ///
    /// As [`Admin::audit`].
    pub async fn audit_all(&self) -> Result<Vec<AuditRecord>, Error> {
        let (mut records, mut token) = (Vec::new(), String::new());
        loop {
            let page = self.audit_page("", PAGE_MAX, token).await?;
            records.extend(page.records.into_iter().map(record).collect::<Result<Vec<_>, _>>()?);
            token = page.next_page_token;
            if token.is_empty() {
                return Ok(records);
            }
        }
    }

    async fn audit_page(
        &self,
        subject: &str,
        limit: u16,
        page_token: String,
    ) -> Result<v1::ListAuditRecordsResponse, Error> {
        let request = v1::ListAuditRecordsRequest {
            page_size: limit.into(),
            page_token,
            subject: subject.to_owned(),
        };
        let call = async |channel, request| Service::new(channel).list_audit_records(request).await;
        let state = self.0.state();
        state.unary(request, state.deadline(None), true, call).await
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
        of_calls: record.of_calls,
    })
}
