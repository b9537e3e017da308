//! Limits of the idempotency windows at a home, for a new record. Pure.
//!
//! An outcome younger than a minute is never forgotten, so that a new one is refused before it is proposed while all
//! are young. One tenant's share of the group's memory is bounded by what it leaves free, as its proposals are.

use std::time::Duration;

use stead_state::{
    directory::Tenant,
    shard::{
        command::WindowLimits,
        idempotency_window::{IDEMPOTENCY_MS_MIN, is_evictable},
    },
};
use stead_types::{TenantLimit, TenantTime};

use super::{BUSY_RETRY_DELAY, LimitExceeded, Scope};

/// Most outcomes that a group remembers of all its tenants: 512 MiB of memory. Writes in flight may come on top.
pub(super) const GROUP_OUTCOMES_MAX: usize = 8 << 20;
/// Outcomes up to which a tenant is not refused because of others: a minute of 1,092 writes a second.
const GROUP_OUTCOMES_MIN: usize = 64 << 10;

/// Usage of the idempotency windows where a write with an idempotency key is to be proposed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IdempotencyUsage {
    /// Client ids of the tenant.
    pub(crate) clients: usize,
    /// Whether the write's client is among them.
    pub(crate) is_known_client: bool,
    /// Outcomes of the tenant.
    pub(crate) outcomes: usize,
    /// Tenant time of the oldest outcome.
    pub(crate) oldest: Option<TenantTime>,
    /// Tenant time of the newest outcome of the client that has been idle for longest.
    pub(crate) idlest_client: Option<TenantTime>,
    /// Outcomes of all tenants of the group.
    pub(crate) group_outcomes: usize,
    /// Current tenant time.
    pub(crate) now: TenantTime,
}

/// Checks that there is room for a new outcome, or that an old one can be evicted.
pub(crate) fn check(tenant: &Tenant, usage: &IdempotencyUsage) -> Result<(), LimitExceeded> {
    let clients = TenantLimit::Clients;
    if let Some(max) = tenant.limit(clients).filter(|_| !usage.is_known_client)
        && usage.clients as u64 >= max
        && let Some(wait) = retry_delay(usage.idlest_client, usage.now)
    {
        return Err(LimitExceeded::for_a_while(clients, max, wait));
    }
    let outcomes = TenantLimit::Outcomes;
    let Some(wait) = retry_delay(usage.oldest, usage.now) else {
        return Ok(());
    };
    if let Some(max) = tenant.limit(outcomes).filter(|max| usage.outcomes as u64 >= *max) {
        return Err(LimitExceeded::for_a_while(outcomes, max, wait));
    }
    let free = GROUP_OUTCOMES_MAX.saturating_sub(usage.group_outcomes);
    if usage.outcomes >= free.max(GROUP_OUTCOMES_MIN) {
        return Err(LimitExceeded {
            scope: Scope::Group,
            ..LimitExceeded::for_a_while(outcomes, GROUP_OUTCOMES_MAX as u64, wait)
        });
    }
    Ok(())
}

/// Returns the limits with which a write of a tenant is proposed: the tenant's own, where the number of outcomes is
/// also bounded by the room in the group, which remembers `group_outcomes` of all its tenants. Outcomes older than a
/// minute are evicted above that number.
pub(crate) fn limits(tenant: &Tenant, group_outcomes: usize) -> WindowLimits {
    let own = WindowLimits::of(|limit| tenant.limit(limit));
    let share = GROUP_OUTCOMES_MAX
        .saturating_sub(group_outcomes)
        .max(GROUP_OUTCOMES_MIN);
    WindowLimits {
        outcomes: own.outcomes.min(u32::try_from(share).unwrap_or(u32::MAX)),
        ..own
    }
}

/// Returns the time until an outcome may be forgotten; `None` if it may be now, or if there is none.
fn retry_delay(time: Option<TenantTime>, now: TenantTime) -> Option<Duration> {
    let time = time.filter(|time| !is_evictable(*time, now))?;
    let goes_at = time.0.saturating_add(IDEMPOTENCY_MS_MIN + 1);
    Some(Duration::from_millis(goes_at.saturating_sub(now.0)).max(BUSY_RETRY_DELAY))
}
