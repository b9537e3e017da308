//! Admission control: rates, operations in flight, stored bytes and watches of each tenant, checked before anything is
//! queued or proposed.
//!
//! ```text
//! route ── admit ──┬── token buckets, operations in flight ──> Permit, held by the responder
//!                  ├── quota: keys and bytes that a write would add to the stored data
//!                  ├── windows: room for the idempotency record of a write
//!                  └── LimitExceeded: RATE_LIMITED with the time to wait, QUOTA_EXCEEDED when full
//! response sent ──> Permit dropped: the bytes of the response are charged, the operation is no longer in flight
//! ```
//!
//! Limits come from the directory's record of the tenant. Usage is known to this node alone, and forgotten once it
//! makes no difference.
//!
//! # Invariants
//!
//! 1. A refused operation changes nothing in the tenant's group, and is not in flight. A refusal for a rate or for
//!    others in flight costs nothing of any rate; a refusal because the tenant is full costs one operation and the
//!    bytes that came.
//! 2. A tenant's stored data passes its limits at most by writes of this node that were answered while their outcome
//!    was unknown: others in flight count as if they had happened. Where only they stand in the way, the refusal says
//!    to come back. Client ids and outcomes in flight are not counted: so many may come on top.
//! 3. No account outlives its use: one that is idle is dropped when accounts are swept.
//! 4. Of the operations forwarded to one other node a tenant has at most its share in flight, whatever its limits.

mod quota;
mod token_bucket;
pub(crate) mod windows;

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
pub(crate) use quota::{Growth, StoredUsage};
use stead_state::directory::Tenant;
use stead_types::{Error, ErrorKind, TenantLimit, TenantName, TenantNumber};
use token_bucket::TokenBucket;
use tokio::time::Instant;

/// Number of partitions of the accounts, each under its own lock.
const PARTITIONS: usize = 16;
/// Least accounts of a partition that is swept; otherwise it is swept when it has twice the accounts that the last
/// sweep left.
const SWEEP_ACCOUNTS_MIN: usize = 64;
/// Most bytes of a tenant's operations in flight to other nodes, beyond one operation.
const FORWARDED_LEN_MAX: u64 = 32 << 20;
/// Retry delay of an operation that was refused because of others in flight.
const BUSY_RETRY_DELAY: Duration = Duration::from_millis(10);

/// Cost of an operation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// Bytes of the request, for writes.
    pub(crate) bytes: u64,
    /// Whether the bytes of the response are charged when it is sent: for responses with data.
    pub(crate) charges_response: bool,
    /// Bytes of writes a second that the tenant is slowed to while it is seeded.
    pub(crate) seed_rate: Option<u64>,
}

/// A limit that an operation exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LimitExceeded {
    /// The limit.
    pub(crate) limit: TenantLimit,
    /// Its value.
    max: u64,
    /// Time until a retry can succeed; `None`: waiting does not help.
    wait: Option<Duration>,
    scope: Scope,
}

/// Scope of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    /// The tenant's own.
    Tenant,
    /// A share of the operations in flight to another node, which nobody can raise for one tenant.
    Forwarding,
    /// The bytes of these.
    ForwardedBytes,
    /// The group's, for all its tenants.
    Group,
    /// A rate to which the tenant's writers are slowed while it is seeded.
    Seed,
}

/// Usage of this node by its tenants.
#[derive(Debug)]
pub(crate) struct Admission {
    started: Instant,
    partitions: [Mutex<AccountPartition>; PARTITIONS],
}

#[derive(Debug)]
struct AccountPartition {
    accounts: HashMap<TenantNumber, TenantAccount>,
    sweep_at: usize,
}

#[derive(Debug, Default)]
struct TenantAccount {
    operations: TokenBucket,
    bytes: TokenBucket,
    /// Bytes of writes while the tenant is seeded.
    seed: TokenBucket,
    in_flight: u64,
    /// Number of operations in flight that another node serves.
    forwarded: u64,
    /// Bytes of these.
    forwarded_len: u64,
    watches: u64,
    /// Growth that the writes in flight may cause.
    reserved: Growth,
}

impl TenantAccount {
    fn check_in_flight(&self, tenant: &Tenant) -> Result<(), LimitExceeded> {
        let limit = TenantLimit::InFlight;
        match tenant.limit(limit) {
            Some(max) if self.in_flight >= max => Err(LimitExceeded::busy(limit, max)),
            Some(_) | None => Ok(()),
        }
    }

    fn is_idle(&self, now_ns: u64) -> bool {
        let buckets = [&self.operations, &self.bytes, &self.seed];
        self.in_flight == 0 && self.watches == 0 && buckets.iter().all(|bucket| bucket.is_full(now_ns))
    }
}

impl Default for AccountPartition {
    fn default() -> Self {
        Self {
            accounts: HashMap::new(),
            sweep_at: SWEEP_ACCOUNTS_MIN,
        }
    }
}

impl AccountPartition {
    fn account(&mut self, tenant: TenantNumber, now_ns: u64) -> &mut TenantAccount {
        if self.accounts.len() >= self.sweep_at && !self.accounts.contains_key(&tenant) {
            self.accounts.retain(|_, account| !account.is_idle(now_ns));
            self.sweep_at = (2 * self.accounts.len()).max(SWEEP_ACCOUNTS_MIN);
        }
        self.accounts.entry(tenant).or_default()
    }
}

/// Permit of an admitted operation, held until it is answered.
#[derive(Debug)]
pub(crate) struct Permit {
    admission: Arc<Admission>,
    tenant: TenantNumber,
    /// The tenant's bytes per second, if its response is charged.
    response_rate: Option<u64>,
    /// Bytes of the operation, if another node serves it.
    forwarded_len: Option<u64>,
    growth: Growth,
}

/// Permit of an open watch; dropping it closes the watch.
#[derive(Debug)]
pub(crate) struct WatchPermit {
    admission: Arc<Admission>,
    tenant: TenantNumber,
    /// The tenant's bytes per second.
    rate: Option<u64>,
}

impl Admission {
    /// Returns an admission without any usage.
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
            partitions: std::array::from_fn(|_| Mutex::default()),
        }
    }

    fn partition(&self, tenant: TenantNumber) -> &Mutex<AccountPartition> {
        &self.partitions[(tenant.get() % PARTITIONS as u64) as usize]
    }

    fn elapsed_ns(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.started);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Admits an operation by its rates and the operations in flight.
    pub(crate) fn admit(self: &Arc<Self>, now: Instant, tenant: &Tenant, cost: Cost) -> Result<Permit, LimitExceeded> {
        let now_ns = self.elapsed_ns(now);
        let mut partition = self.partition(tenant.number).lock();
        let account = partition.account(tenant.number, now_ns);
        account.check_in_flight(tenant)?;
        let mut charges = [
            (&mut account.bytes, TenantLimit::BytesPerSecond, cost.bytes),
            (&mut account.operations, TenantLimit::OperationsPerSecond, 1),
        ];
        for (bucket, limit, cost) in &mut charges {
            let max = tenant.limit(*limit).unwrap_or(u64::MAX);
            bucket.check(now_ns, max, *cost).map_err(|wait| LimitExceeded {
                wait: Some(wait),
                ..LimitExceeded::full(*limit, max)
            })?;
        }
        if let Some(max) = cost.seed_rate {
            let checked = account.seed.check(now_ns, max, cost.bytes);
            checked.map_err(|wait| LimitExceeded::seeding(max, wait))?;
            account.seed.charge(now_ns, max, cost.bytes);
        }
        for (bucket, limit, cost) in charges {
            bucket.charge(now_ns, tenant.limit(limit).unwrap_or(u64::MAX), cost);
        }
        account.in_flight += 1;
        let response_rate = tenant.limit(TenantLimit::BytesPerSecond);
        Ok(Permit {
            admission: self.clone(),
            tenant: tenant.number,
            response_rate: response_rate.filter(|_| cost.charges_response),
            forwarded_len: None,
            growth: Growth::default(),
        })
    }

    /// Admits an operation that another node serves, which checks its rates. A tenant has at most its share in flight
    /// on the way there, so that there is room for the others.
    pub(crate) fn admit_forwarded(
        self: &Arc<Self>,
        now: Instant,
        tenant: &Tenant,
        share: u64,
        len: u64,
    ) -> Result<Permit, LimitExceeded> {
        let now_ns = self.elapsed_ns(now);
        let mut partition = self.partition(tenant.number).lock();
        let account = partition.account(tenant.number, now_ns);
        account.check_in_flight(tenant)?;
        if account.forwarded > 0 && account.forwarded_len + len > FORWARDED_LEN_MAX {
            return Err(LimitExceeded {
                scope: Scope::ForwardedBytes,
                ..LimitExceeded::busy(TenantLimit::InFlight, FORWARDED_LEN_MAX)
            });
        }
        if account.forwarded >= share {
            return Err(LimitExceeded {
                scope: Scope::Forwarding,
                ..LimitExceeded::busy(TenantLimit::InFlight, share)
            });
        }
        account.in_flight += 1;
        account.forwarded += 1;
        account.forwarded_len += len;
        Ok(Permit {
            admission: self.clone(),
            tenant: tenant.number,
            response_rate: None,
            forwarded_len: Some(len),
            growth: Growth::default(),
        })
    }

    /// Admits one more watch.
    pub(crate) fn admit_watch(self: &Arc<Self>, now: Instant, tenant: &Tenant) -> Result<WatchPermit, LimitExceeded> {
        let now_ns = self.elapsed_ns(now);
        let mut partition = self.partition(tenant.number).lock();
        let account = partition.account(tenant.number, now_ns);
        let limit = TenantLimit::Watches;
        if let Some(max) = tenant.limit(limit)
            && account.watches >= max
        {
            return Err(LimitExceeded::full(limit, max));
        }
        account.watches += 1;
        Ok(WatchPermit {
            admission: self.clone(),
            tenant: tenant.number,
            rate: tenant.limit(TenantLimit::BytesPerSecond),
        })
    }
}

impl Permit {
    /// Reserves the growth by a write; writes in flight count as if they had happened.
    pub(crate) fn reserve_growth(
        &mut self,
        tenant: &Tenant,
        stored: StoredUsage,
        growth: Growth,
    ) -> Result<(), LimitExceeded> {
        let mut partition = self.admission.partition(self.tenant).lock();
        let Some(account) = partition.accounts.get_mut(&self.tenant) else {
            return Ok(());
        };
        quota::check(tenant, stored, account.reserved, growth)?;
        account.reserved = account.reserved.plus(growth);
        self.growth = self.growth.plus(growth);
        Ok(())
    }

    /// Charges the data of a response.
    pub(crate) fn charge_response(&self, now: Instant, len: u64) {
        if let Some(rate) = self.response_rate {
            let now_ns = self.admission.elapsed_ns(now);
            let mut partition = self.admission.partition(self.tenant).lock();
            partition.account(self.tenant, now_ns).bytes.charge(now_ns, rate, len);
        }
    }

    /// Returns the tenant.
    pub(crate) fn tenant(&self) -> TenantNumber {
        self.tenant
    }

    /// Tells whether the bytes of the response are charged.
    pub(crate) fn charges_response(&self) -> bool {
        self.response_rate.is_some()
    }
}

impl WatchPermit {
    /// Charges bytes that were read for the watch, and returns the time until the tenant's rate allows more.
    pub(crate) fn charge(&self, now: Instant, len: u64) -> Option<Duration> {
        let rate = self.rate?;
        let now_ns = self.admission.elapsed_ns(now);
        let mut partition = self.admission.partition(self.tenant).lock();
        let bytes = &mut partition.account(self.tenant, now_ns).bytes;
        bytes.charge(now_ns, rate, len);
        bytes.check(now_ns, rate, 0).err()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut partition = self.admission.partition(self.tenant).lock();
        if let Some(account) = partition.accounts.get_mut(&self.tenant) {
            account.in_flight -= 1;
            account.forwarded -= u64::from(self.forwarded_len.is_some());
            account.forwarded_len -= self.forwarded_len.unwrap_or_default();
            account.reserved = account.reserved.minus(self.growth);
        }
    }
}

impl Drop for WatchPermit {
    fn drop(&mut self) {
        let mut partition = self.admission.partition(self.tenant).lock();
        if let Some(account) = partition.accounts.get_mut(&self.tenant) {
            account.watches -= 1;
        }
    }
}

impl LimitExceeded {
    /// Returns a limit that waiting does not lift.
    pub(crate) fn full(limit: TenantLimit, max: u64) -> Self {
        Self {
            limit,
            max,
            wait: None,
            scope: Scope::Tenant,
        }
    }

    /// Returns a limit that is reached only because of operations in flight.
    pub(crate) fn busy(limit: TenantLimit, max: u64) -> Self {
        Self {
            wait: Some(BUSY_RETRY_DELAY),
            ..Self::full(limit, max)
        }
    }

    /// Returns a limit that lifts after this time.
    fn for_a_while(limit: TenantLimit, max: u64, wait: Duration) -> Self {
        Self {
            wait: Some(wait),
            ..Self::full(limit, max)
        }
    }

    /// Returns the rate to which writers of a tenant that is seeded are slowed.
    fn seeding(max: u64, wait: Duration) -> Self {
        Self {
            wait: Some(wait),
            scope: Scope::Seed,
            ..Self::full(TenantLimit::BytesPerSecond, max)
        }
    }

    /// Returns the name of the limit, as in errors and metrics.
    pub(crate) fn name(&self) -> &'static str {
        match self.scope {
            Scope::Tenant | Scope::Forwarding => self.limit.name(),
            Scope::ForwardedBytes => "tenant.forwarded",
            Scope::Group => "group.outcomes",
            Scope::Seed => "seed.history",
        }
    }

    /// Converts it into the error for the caller.
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
                // In whole milliseconds, the unit in which every protocol field has it.
                let millis = wait.as_nanos().div_ceil(1_000_000).max(1);
                let wait = Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX));
                let message = match scope {
                    Scope::Forwarding => format!(
                        "{limit}: tenant {tenant} has at most {max} operations in flight from this node to its home; \
                         wait {millis} ms, or connect to the home"
                    ),
                    Scope::ForwardedBytes => format!(
                        "{limit}: tenant {tenant} has at most {max} bytes of operations in flight from this node to its \
                         home; wait {millis} ms, or connect to the home"
                    ),
                    Scope::Group => format!(
                        "{limit}: the home of tenant {tenant} has at most {max} {what}, and the tenant has its share of \
                         them; wait {millis} ms"
                    ),
                    Scope::Seed => format!(
                        "{limit}: tenant {tenant} is being copied to another region, and its writers are slowed to {max} \
                         bytes a second until the copy has caught up; wait {millis} ms, or an operator can raise \
                         storage.seed_history_bytes_max"
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
