//! Batons that were sent on one stream.

use std::{collections::BTreeMap, time::Duration};

use stead_types::TenantNumber;
use tokio::time::Instant;

use crate::attach_attempt::AttachAttempt;

/// Interval at which a baton is sent again, as long as the target is not known to own the tenant.
const REPEAT_INTERVAL: Duration = Duration::from_secs(1);

/// Batons that were sent on one stream, by tenant.
#[derive(Debug, Default)]
pub(super) struct SentBatons(BTreeMap<TenantNumber, (AttachAttempt, Instant)>);

impl SentBatons {
    /// Records that a baton was sent in an attempt.
    pub(super) fn add(&mut self, tenant: TenantNumber, attempt: AttachAttempt, at: Instant) {
        self.0.insert(tenant, (attempt, at));
    }

    /// Forgets the batons for which `is_current` is false.
    pub(super) fn retain(&mut self, is_current: impl Fn(TenantNumber, AttachAttempt) -> bool) {
        self.0.retain(|tenant, (attempt, _)| is_current(*tenant, *attempt));
    }

    /// Tells whether a baton is to be sent in an attempt, for the first time or again.
    pub(super) fn is_due(&self, tenant: TenantNumber, attempt: AttachAttempt, now: Instant) -> bool {
        let sent = self.0.get(&tenant).filter(|(of, _)| *of == attempt);
        sent.is_none_or(|(_, at)| now.duration_since(*at) >= REPEAT_INTERVAL)
    }

    /// Returns the time of the next repetition.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.0.values().map(|(_, at)| *at + REPEAT_INTERVAL).min()
    }
}
