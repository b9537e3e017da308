//! Credit accounts: credits are reserved before work, settled after it, and reclaimed when a service died in between.
//!
//! # Invariants
//!
//! * **C1** Balance, what is reserved and what is spent add up to what was granted, at every revision.
//! * **C2** What becomes of one reservation happens once.
//! * **C3** A key of `due/` stands for each open reservation, made and removed with it.

mod account;
mod record;
mod reserve;
mod settle;

use std::{sync::Arc, time::Duration};

pub use account::Account;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use record::{Keys, ReservationRecord};
pub use settle::{Overdraft, SettleOutcome};
use stead_types::{Condition, Error, ErrorKind, Revision, TenantTime};

use super::clock::Clock;
use crate::{Header, Increment, Item, Op, OpResult, Page, ScanOptions, Tenant, response::malformed};

/// Retention of the outcome of a reservation and of a grant.
const OUTCOME_TTL: Duration = Duration::from_secs(24 * 3600);
/// Expired reservations that one refused caller reclaims; `reclaim` goes on with the next ones.
const RECLAIM_PAGE_SIZE: u32 = 64;
/// Most reservations that are reclaimed concurrently.
const RECLAIMS_IN_FLIGHT_MAX: usize = 16;

/// Credit account of one tenant.
///
/// ```no_run
/// # async fn example(acme: stead_client::Tenant) -> Result<(), stead_client::Error> {
/// use std::time::Duration;
///
/// use stead_client::recipes::{Credits, Overdraft, SettleOutcome};
///
/// let credits = Credits::new(&acme, "credits")?;
/// credits.grant("invoice-2026-11", 10_000).await?;
/// let minute = Duration::from_secs(60);
/// match credits.reserve("request-4711", 250, minute).await? {
///     Some(reservation) => {
///         // The work, which turns out to cost 180.
///         match credits.settle(&reservation, 180, Overdraft::Refused).await? {
///             SettleOutcome::Spent(spent) => println!("{spent} were spent, the rest is back"),
///             SettleOutcome::InsufficientBalance(balance) => println!("it cost more, and only {balance} are left"),
///             SettleOutcome::Gone => println!("it was settled or given back more than a day ago"),
///         }
///     }
///     None => println!("not enough credits"),
/// }
/// # Ok(()) }
/// ```
///
/// **Keys**, below the account's prefix, all of them text: `balance`, `spent` and `granted` are decimal numbers;
/// `reservation/ID` is `open ESTIMATE DEADLINE`, then `settled ACTUAL` or `returned ESTIMATE`; `due/DEADLINE/ID` (in
/// milliseconds of the tenant's logged time, 20 digits) is the estimate of an open one; `grant/ID` is a grant's amount.
///
/// **Guaranteed.** Every step is one transaction, so that at every revision `balance + reserved + spent == granted`,
/// exactly, whatever dies; [`Credits::account`] reads the four at one revision. The outcome of one id happens once,
/// however often and from wherever it is requested: a reservation is open, then settled or returned; a returned one may
/// be settled once. A reserved amount is never taken from a balance that does not have it. An open reservation is not
/// reclaimed before its deadline has passed in the tenant's *logged* time.
///
/// **Costs.** Reserving and settling: one round trip to the tenant's home and one write there, each. The first
/// reservation of a handle reads the tenant's time before: keep one handle and clone it. A refusal costs one read more,
/// which finds expired reservations, and one write for each one that it reclaims, 64 at most. All reservations of an
/// account change one key, its balance: their home executes them one after the other, many in one entry of its log.
///
/// **Not guaranteed.** An expired reservation is reclaimed when somebody is refused, or calls [`Credits::reclaim`], and
/// not by itself. Ids are remembered for a day after their end: one used again after that is a new reservation, and
/// settling one that was returned more than a day ago results in [`SettleOutcome::Gone`]. A refused caller gets no
/// retry delay, and large requests can starve behind small ones. A forced promotion that loses writes takes back the
/// newest steps, together.
///
/// **When an outcome is unknown** the error says so; repeat the call, with the same id, from any process: it returns
/// the outcome. Until then a reservation may be open that nobody uses: it is reclaimed like that of a service that
/// died.
#[derive(Clone, Debug)]
pub struct Credits {
    tenant: Tenant,
    keys: Keys,
    clock: Arc<Clock>,
}

/// Credits that are set aside until they are settled, or the deadline passes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    id: String,
    estimate: u64,
    deadline: TenantTime,
    revision: Revision,
}

impl Reservation {
    /// Returns the id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the amount that is set aside.
    pub fn estimate(&self) -> u64 {
        self.estimate
    }

    /// Returns the deadline, in the tenant's logged time, after which it may be reclaimed.
    pub fn deadline(&self) -> TenantTime {
        self.deadline
    }
}

impl Credits {
    /// Returns the account with this name, which is the prefix of its keys, before a `/`.
    ///
    /// # Errors
    ///
    /// An empty name, or one so long that it leaves no room for ids.
    pub fn new(tenant: &Tenant, account: &str) -> Result<Self, Error> {
        Ok(Self {
            tenant: tenant.clone(),
            keys: Keys::new(account)?,
            clock: Arc::default(),
        })
    }

    /// Adds to the balance, once for each id: a repeated grant within a day is not added again.
    ///
    /// # Errors
    ///
    /// As [`crate::Txn::send`]; `Conflict` if another amount was granted under this id.
    pub async fn grant(&self, id: &str, amount: u64) -> Result<(), Error> {
        let key = self.keys.grant(id)?;
        let delta = signed("amount", amount)?;
        let done = self
            .tenant
            .txn()
            .when(key.clone(), Condition::Absent)
            .then(Op::put_expiring(key.clone(), amount.to_string(), OUTCOME_TTL))
            .then(Op::increment(self.keys.balance(), Increment::by(delta)))
            .then(Op::increment(self.keys.granted(), Increment::by(delta)))
            .otherwise(Op::get(key))
            .send()
            .await?;
        self.observe(&done.header, done.succeeded && !done.repeated);
        if done.succeeded {
            return Ok(());
        }
        let held = read_result(done.results)?.map(|item| item.value);
        if held.as_deref() == Some(amount.to_string().as_bytes()) {
            return Ok(());
        }
        let message = format!("id: {id} was granted with another amount: use each id once");
        Err(Error::new(ErrorKind::Conflict, message))
    }

    /// Returns the open reservation of an id, to settle what another process has reserved.
    ///
    /// # Errors
    ///
    /// As [`Tenant::get`].
    pub async fn find(&self, id: &str) -> Result<Option<Reservation>, Error> {
        let item = self.tenant.get(self.keys.reservation(id)?).await?.item;
        let Some(item) = item else { return Ok(None) };
        Ok(match ReservationRecord::read(&item)? {
            ReservationRecord::Open { estimate, deadline } => Some(Reservation {
                id: id.to_owned(),
                estimate,
                deadline,
                revision: item.modified,
            }),
            ReservationRecord::Settled { .. } | ReservationRecord::Returned { .. } => None,
        })
    }

    /// Reclaims every expired reservation, and returns their number.
    ///
    /// # Errors
    ///
    /// As [`crate::Txn::send`]: some may have been reclaimed. Repeating the call goes on.
    pub async fn reclaim(&self) -> Result<u64, Error> {
        let mut count = 0;
        let mut first = None;
        let now = self.current_time().await?;
        loop {
            let due = self.due().await?;
            if first.is_some() && due.items.first() == first.as_ref() {
                return Err(record::unexpected_value(&due.items[0]));
            }
            first = due.items.first().cloned();
            let reclaimed = self.reclaim_expired(due.items, now).await?;
            count += reclaimed.reclaimed;
            if reclaimed.expired < RECLAIM_PAGE_SIZE as usize {
                return Ok(count);
            }
        }
    }

    /// Reclaims the first expired reservations for a refused caller, and returns how many it found.
    async fn reclaim_due(&self) -> Result<usize, Error> {
        let due = self.due().await?;
        let Some(first) = due.items.first() else { return Ok(0) };
        let first = self.keys.deadline(first)?;
        // Logged time stands still while nothing changes, and only it counts.
        let mut now = due.header.tenant_time;
        if now < first && self.clock.now() >= first {
            now = self.current_time().await?;
        }
        Ok(self.reclaim_expired(due.items, now).await?.expired)
    }

    /// Returns the first open reservations, in the order of their deadlines.
    async fn due(&self) -> Result<Page, Error> {
        let scan = ScanOptions {
            prefix: self.keys.dues(),
            page_size: RECLAIM_PAGE_SIZE,
            ..ScanOptions::default()
        };
        let page = self.tenant.scan(&scan).await?;
        self.observe(&page.header, false);
        Ok(page)
    }

    /// Reclaims the reservations whose deadline is not after this time.
    async fn reclaim_expired(&self, items: Vec<Item>, now: TenantTime) -> Result<ReclaimCount, Error> {
        let mut expired = Vec::new();
        for item in items {
            if self.keys.deadline(&item)? <= now {
                expired.push(item);
            }
        }
        let found = expired.len();
        let given = stream::iter(expired).map(|item| self.reclaim_one(item));
        let given: Vec<bool> = given.buffer_unordered(RECLAIMS_IN_FLIGHT_MAX).try_collect().await?;
        let reclaimed = given.into_iter().filter(|given| *given).count() as u64;
        Ok(ReclaimCount {
            expired: found,
            reclaimed,
        })
    }

    /// Reclaims one reservation, unless it has been settled or reclaimed meanwhile (C2).
    async fn reclaim_one(&self, due: Item) -> Result<bool, Error> {
        let id = self.keys.id(&due)?;
        let estimate = record::number(&due)?;
        let key = self.keys.known_reservation(&id);
        let returned = ReservationRecord::Returned { estimate };
        let done = self
            .tenant
            .txn()
            // C3: both were written by one transaction.
            .when(key.clone(), Condition::modified_at(due.modified))
            .then(Op::put_expiring(key, returned.text(), OUTCOME_TTL))
            .then(Op::delete(due.key))
            .then(Op::increment(
                self.keys.balance(),
                Increment::by(signed("estimate", estimate)?),
            ))
            .send()
            .await?;
        self.observe(&done.header, done.succeeded && !done.repeated);
        Ok(done.succeeded)
    }

    /// Returns the tenant's current time, as it is logged with a change that changes nothing.
    async fn current_time(&self) -> Result<TenantTime, Error> {
        let answer = self.tenant.increment(self.keys.balance(), 0).await?;
        self.observe(&answer.header, !answer.repeated);
        Ok(answer.header.tenant_time)
    }

    fn observe(&self, header: &Header, changed: bool) {
        self.clock.observe(header.tenant_time, changed);
    }
}

/// Counts of one round of reclaiming.
struct ReclaimCount {
    /// Expired reservations that were found.
    expired: usize,
    /// Of these, the ones that this round reclaimed: another call has settled or reclaimed the others meanwhile.
    reclaimed: u64,
}

fn signed(field: &str, amount: u64) -> Result<i64, Error> {
    let too_much = |_| Error::invalid(field, format!("{field}: at most {}, not {amount}", i64::MAX));
    i64::try_from(amount).map_err(too_much)
}

/// Returns the key that the transaction's `otherwise` list has read.
fn read_result(results: Vec<OpResult>) -> Result<Option<Item>, Error> {
    match results.into_iter().next() {
        Some(OpResult::Get(item)) => Ok(item),
        Some(_) | None => Err(malformed("result")),
    }
}

/// Returns a value as text, which all values of an account are.
fn text(value: &Bytes) -> Option<&str> {
    std::str::from_utf8(value).ok()
}
