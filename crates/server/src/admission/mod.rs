//! What a tenant may use of this node, decided before anything is queued or proposed.
//!
//! ```text
//! place ── admit ──┬── rates, operations in flight ──> Permit, which travels with the reply
//!                  ├── grow: keys, bytes that a write would add to what is stored
//!                  ├── windows: room for the outcome of a write with an idempotency key
//!                  └── refused: RATE_LIMITED with the time to wait, QUOTA_EXCEEDED when full
//! reply sent ──> Permit dropped: the bytes of the data answered are charged, the operation is in flight no more
//! ```
//!
//! Limits come from the directory's record of the tenant; what was used of them is known to this node alone, and
//! forgotten once it makes no difference.
//!
//! # Invariants
//!
//! 1. A refused operation changes nothing in the tenant's group, and is not in flight. What is refused for a rate or for
//!    others in flight costs nothing of any rate; what is refused because the tenant is full costs one operation and the
//!    bytes that came.
//! 2. What a tenant stores passes its limits at most by writes of this node that were answered while it was not known
//!    what had become of them: others in flight count as if they had happened. Where only they stand in the way, the
//!    refusal says to come back. Client ids and outcomes in flight are not counted: so many may come on top.
//! 3. No account outlives its use: one that is as good as new is dropped when accounts are swept.
//! 4. Of what goes to one other node a tenant has at most its share under way, whatever its limits.

mod bucket;
mod quota;
pub(crate) mod windows;

use std::{collections::HashMap, sync::Arc, time::Duration};

use bucket::Bucket;
use parking_lot::Mutex;
pub(crate) use quota::{Growth, Stored};
use stead_state::directory::Tenant;
use stead_types::{Error, ErrorKind, TenantLimit, TenantName, TenantNumber};
use tokio::time::Instant;

/// Accounts are kept in so many parts, each under its own lock.
const PARTS: usize = 16;
/// A part is swept when it has twice the accounts that were left by the last time, and at least these.
const SWEEP_ACCOUNTS_MIN: usize = 64;
/// When an operation that found others in its way is worth another attempt.
const BUSY_WAIT: Duration = Duration::from_millis(10);

/// What operations cost before they are served.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// Bytes that came: of writes.
    pub(crate) bytes: u64,
    /// The bytes of the answer are charged when it is sent: of what is answered with data.
    pub(crate) charges_answer: bool,
}

/// Why an operation was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// Which limit.
    pub(crate) limit: TenantLimit,
    /// What it is.
    max: u64,
    /// When to come back; `None`: that will not help.
    wait: Option<Duration>,
    scope: Scope,
}

/// Whose limit it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    /// The tenant's own.
    Tenant,
    /// A share of the way to another node, which nobody can raise for one tenant.
    Way,
    /// The group's, for all its tenants.
    Group,
}

/// What tenants use of this node.
#[derive(Debug)]
pub(crate) struct Admission {
    began: Instant,
    parts: [Mutex<Part>; PARTS],
}

#[derive(Debug)]
struct Part {
    accounts: HashMap<TenantNumber, Account>,
    sweep_at: usize,
}

#[derive(Debug, Default)]
struct Account {
    operations: Bucket,
    bytes: Bucket,
    in_flight: u64,
    /// Of those in flight, how many another node serves.
    forwarded: u64,
    watches: u64,
    /// What the writes in flight may add to what is stored.
    growing: Growth,
}

impl Account {
    fn check_in_flight(&self, tenant: &Tenant) -> Result<(), Refused> {
        let limit = TenantLimit::InFlight;
        match tenant.limit(limit) {
            Some(max) if self.in_flight >= max => Err(Refused::busy(limit, max)),
            Some(_) | None => Ok(()),
        }
    }

    fn is_new(&self, now_ns: u64) -> bool {
        self.in_flight == 0 && self.watches == 0 && self.operations.is_full(now_ns) && self.bytes.is_full(now_ns)
    }
}

impl Default for Part {
    fn default() -> Self {
        Self {
            accounts: HashMap::new(),
            sweep_at: SWEEP_ACCOUNTS_MIN,
        }
    }
}

impl Part {
    fn account(&mut self, tenant: TenantNumber, now_ns: u64) -> &mut Account {
        if self.accounts.len() >= self.sweep_at && !self.accounts.contains_key(&tenant) {
            self.accounts.retain(|_, account| !account.is_new(now_ns));
            self.sweep_at = (2 * self.accounts.len()).max(SWEEP_ACCOUNTS_MIN);
        }
        self.accounts.entry(tenant).or_default()
    }
}

/// One operation that was admitted, until it is answered.
#[derive(Debug)]
pub(crate) struct Permit {
    admission: Arc<Admission>,
    tenant: TenantNumber,
    /// The tenant's bytes a second, if its answer is charged.
    answer_rate: Option<u64>,
    is_forwarded: bool,
    growth: Growth,
}

/// One open watch; it is closed by dropping this.
#[derive(Debug)]
pub(crate) struct WatchPermit {
    admission: Arc<Admission>,
    tenant: TenantNumber,
}

impl Admission {
    /// Returns an admission that has admitted nothing yet.
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            parts: std::array::from_fn(|_| Mutex::default()),
        }
    }

    fn part(&self, tenant: TenantNumber) -> &Mutex<Part> {
        &self.parts[(tenant.get() % PARTS as u64) as usize]
    }

    fn since_began_ns(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.began);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Admits an operation, as far as rates and what is in flight are concerned.
    pub(crate) fn admit(self: &Arc<Self>, now: Instant, tenant: &Tenant, cost: Cost) -> Result<Permit, Refused> {
        let now_ns = self.since_began_ns(now);
        let mut part = self.part(tenant.number).lock();
        let account = part.account(tenant.number, now_ns);
        account.check_in_flight(tenant)?;
        let mut flows = [
            (&mut account.bytes, TenantLimit::BytesPerSecond, cost.bytes),
            (&mut account.operations, TenantLimit::OperationsPerSecond, 1),
        ];
        for (bucket, limit, cost) in &mut flows {
            let max = tenant.limit(*limit).unwrap_or(u64::MAX);
            bucket.check(now_ns, max, *cost).map_err(|wait| Refused {
                wait: Some(wait),
                ..Refused::full(*limit, max)
            })?;
        }
        for (bucket, limit, cost) in flows {
            bucket.charge(now_ns, tenant.limit(limit).unwrap_or(u64::MAX), cost);
        }
        account.in_flight += 1;
        let answer_rate = tenant.limit(TenantLimit::BytesPerSecond);
        Ok(Permit {
            admission: self.clone(),
            tenant: tenant.number,
            answer_rate: answer_rate.filter(|_| cost.charges_answer),
            is_forwarded: false,
            growth: Growth::default(),
        })
    }

    /// Admits an operation that another node serves, which admits it by its rates: on the way there a tenant has no more
    /// under way than its share, so that the others find room.
    pub(crate) fn admit_forwarded(
        self: &Arc<Self>,
        now: Instant,
        tenant: &Tenant,
        share: u64,
    ) -> Result<Permit, Refused> {
        let now_ns = self.since_began_ns(now);
        let mut part = self.part(tenant.number).lock();
        let account = part.account(tenant.number, now_ns);
        account.check_in_flight(tenant)?;
        if account.forwarded >= share {
            return Err(Refused {
                scope: Scope::Way,
                ..Refused::busy(TenantLimit::InFlight, share)
            });
        }
        account.in_flight += 1;
        account.forwarded += 1;
        Ok(Permit {
            admission: self.clone(),
            tenant: tenant.number,
            answer_rate: None,
            is_forwarded: true,
            growth: Growth::default(),
        })
    }

    /// Admits one more watch.
    pub(crate) fn admit_watch(self: &Arc<Self>, now: Instant, tenant: &Tenant) -> Result<WatchPermit, Refused> {
        let now_ns = self.since_began_ns(now);
        let mut part = self.part(tenant.number).lock();
        let account = part.account(tenant.number, now_ns);
        let limit = TenantLimit::Watches;
        if let Some(max) = tenant.limit(limit)
            && account.watches >= max
        {
            return Err(Refused::full(limit, max));
        }
        account.watches += 1;
        Ok(WatchPermit {
            admission: self.clone(),
            tenant: tenant.number,
        })
    }
}

impl Permit {
    /// Admits what a write adds to what is stored; those in flight count as if they had happened.
    pub(crate) fn grow(&mut self, tenant: &Tenant, stored: Stored, growth: Growth) -> Result<(), Refused> {
        let mut part = self.admission.part(self.tenant).lock();
        let Some(account) = part.accounts.get_mut(&self.tenant) else {
            return Ok(());
        };
        quota::check(tenant, stored, account.growing, growth)?;
        account.growing = account.growing.plus(growth);
        self.growth = self.growth.plus(growth);
        Ok(())
    }

    /// Charges the data of an answer.
    pub(crate) fn answered(&self, now: Instant, len: u64) {
        if let Some(rate) = self.answer_rate {
            let now_ns = self.admission.since_began_ns(now);
            let mut part = self.admission.part(self.tenant).lock();
            part.account(self.tenant, now_ns).bytes.charge(now_ns, rate, len);
        }
    }

    /// Tells whether the bytes of the answer are charged.
    pub(crate) fn charges_answer(&self) -> bool {
        self.answer_rate.is_some()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut part = self.admission.part(self.tenant).lock();
        if let Some(account) = part.accounts.get_mut(&self.tenant) {
            account.in_flight -= 1;
            account.forwarded -= u64::from(self.is_forwarded);
            account.growing = account.growing.minus(self.growth);
        }
    }
}

impl Drop for WatchPermit {
    fn drop(&mut self) {
        let mut part = self.admission.part(self.tenant).lock();
        if let Some(account) = part.accounts.get_mut(&self.tenant) {
            account.watches -= 1;
        }
    }
}

impl Refused {
    /// Returns a refusal that names a limit which waiting does not lift.
    pub(crate) fn full(limit: TenantLimit, max: u64) -> Self {
        Self {
            limit,
            max,
            wait: None,
            scope: Scope::Tenant,
        }
    }

    /// Returns a refusal for as long as others, not yet answered, stand in the way.
    pub(crate) fn busy(limit: TenantLimit, max: u64) -> Self {
        Self {
            wait: Some(BUSY_WAIT),
            ..Self::full(limit, max)
        }
    }

    /// Returns a refusal for so long.
    fn for_a_while(limit: TenantLimit, max: u64, wait: Duration) -> Self {
        Self {
            wait: Some(wait),
            ..Self::full(limit, max)
        }
    }

    /// Returns the name of the limit, as errors and metrics have it.
    pub(crate) fn name(&self) -> &'static str {
        match self.scope {
            Scope::Tenant | Scope::Way => self.limit.name(),
            Scope::Group => "group.outcomes",
        }
    }

    /// Says it to the caller.
    pub(crate) fn error(&self, tenant: &TenantName) -> Error {
        let Self {
            limit,
            max,
            wait,
            scope,
        } = self;
        let what = match limit {
            TenantLimit::OperationsPerSecond => "operations a second at this node",
            TenantLimit::BytesPerSecond => "bytes a second at this node",
            TenantLimit::StoredBytes => "bytes of keys and values",
            TenantLimit::Keys => "keys",
            TenantLimit::Watches => "open watches at this node",
            TenantLimit::Clients => "client ids whose outcomes are remembered",
            TenantLimit::Outcomes => "outcomes of writes with an idempotency_key that are remembered",
            TenantLimit::InFlight => "operations in flight at this node",
            TenantLimit::HistoryAge => "milliseconds of history",
            TenantLimit::HistoryCount => "revisions of history",
        };
        let raise = format!("an operator can raise it: stead tenant update {tenant} --limit");
        let name = limit.name().replace('_', "-");
        let limit = self.name().to_owned();
        match wait {
            Some(wait) => {
                // In whole milliseconds, as every way of telling it has them.
                let millis = wait.as_nanos().div_ceil(1_000_000).max(1);
                let wait = Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX));
                let message = match scope {
                    Scope::Way => format!(
                        "{limit}: tenant {tenant} has at most {max} operations on their way from this node to its home; \
                         wait {millis} ms, or connect to the home"
                    ),
                    Scope::Group => format!(
                        "{limit}: the home of tenant {tenant} has at most {max} {what}, and the tenant has its share of \
                         them; wait {millis} ms"
                    ),
                    Scope::Tenant => format!(
                        "{limit}: tenant {tenant} has at most {max} {what}; wait {millis} ms, or {raise} {name}=..."
                    ),
                };
                Error::new(ErrorKind::RateLimited { limit, wait }, message)
            }
            None => {
                let message =
                    format!("{limit}: tenant {tenant} has at most {max} {what}, and is full; {raise} {name}=...");
                Error::new(ErrorKind::QuotaExceeded { limit }, message)
            }
        }
    }
}

#[cfg(test)]
#[path = "admission_test.rs"]
mod admission_test;
