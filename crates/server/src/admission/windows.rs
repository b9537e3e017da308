//! What a home remembers of writes with idempotency keys, and whether a new one finds room. Pure.
//!
//! An outcome younger than a minute is never forgotten, so that where all are young a new one is refused before it is
//! proposed. How much of the group's memory one tenant takes is bounded as its proposals are: by what it leaves free.

use std::time::Duration;

use stead_state::{
    directory::Tenant,
    shard::{
        command::WindowLimits,
        window::{REMEMBERED_MS_MIN, may_go},
    },
};
use stead_types::{TenantLimit, TenantTime};

use super::{BUSY_WAIT, Refused, Scope};

/// Most outcomes that a group remembers of all its tenants: 512 MiB of memory. Writes in flight may come on top.
pub(super) const GROUP_OUTCOMES_MAX: usize = 8 << 20;
/// A tenant with fewer outcomes than these is not refused for what others have: a minute of 1,092 writes a second.
const GROUP_OUTCOMES_MIN: usize = 64 << 10;

/// What is remembered where a write with an idempotency key is to be proposed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Remembered {
    /// Client ids of the tenant.
    pub(crate) clients: usize,
    /// The write's own client is among them.
    pub(crate) is_kept: bool,
    /// Outcomes of the tenant.
    pub(crate) outcomes: usize,
    /// Tenant time of the oldest of them.
    pub(crate) oldest: Option<TenantTime>,
    /// Tenant time of the newest outcome of the client that has been silent for longest.
    pub(crate) quietest: Option<TenantTime>,
    /// Outcomes of all tenants of the group.
    pub(crate) of_group: usize,
    /// The tenant's time.
    pub(crate) now: TenantTime,
}

/// Checks that a new outcome finds room: there is some, or something old goes.
pub(crate) fn check(tenant: &Tenant, held: &Remembered) -> Result<(), Refused> {
    let clients = TenantLimit::Clients;
    if let Some(max) = tenant.limit(clients).filter(|_| !held.is_kept)
        && held.clients as u64 >= max
        && let Some(wait) = wait(held.quietest, held.now)
    {
        return Err(Refused::for_a_while(clients, max, wait));
    }
    let outcomes = TenantLimit::Outcomes;
    let Some(wait) = wait(held.oldest, held.now) else {
        return Ok(());
    };
    if let Some(max) = tenant.limit(outcomes).filter(|max| held.outcomes as u64 >= *max) {
        return Err(Refused::for_a_while(outcomes, max, wait));
    }
    let free = GROUP_OUTCOMES_MAX.saturating_sub(held.of_group);
    if held.outcomes >= free.max(GROUP_OUTCOMES_MIN) {
        return Err(Refused {
            scope: Scope::Group,
            ..Refused::for_a_while(outcomes, GROUP_OUTCOMES_MAX as u64, wait)
        });
    }
    Ok(())
}

/// Returns what a write of a tenant is proposed with: the tenant's limits, of outcomes no more than what the group, which
/// remembers `of_group` of all tenants, has room for. What is older than a minute goes above that.
pub(crate) fn limits(tenant: &Tenant, of_group: usize) -> WindowLimits {
    let own = WindowLimits::of(|limit| tenant.limit(limit));
    let share = GROUP_OUTCOMES_MAX.saturating_sub(of_group).max(GROUP_OUTCOMES_MIN);
    WindowLimits {
        outcomes: own.outcomes.min(u32::try_from(share).unwrap_or(u32::MAX)),
        ..own
    }
}

/// Returns how long it takes until an outcome may be forgotten; `None` if it may be now, or if there is none.
fn wait(time: Option<TenantTime>, now: TenantTime) -> Option<Duration> {
    let time = time.filter(|time| !may_go(*time, now))?;
    let goes_at = time.0.saturating_add(REMEMBERED_MS_MIN + 1);
    Some(Duration::from_millis(goes_at.saturating_sub(now.0)).max(BUSY_WAIT))
}
