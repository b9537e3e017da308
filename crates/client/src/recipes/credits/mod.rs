//! Credits that are reserved before work, settled after it, and given back when a service died in between.
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
use record::{Keys, Record};
pub use settle::{Overdraft, Settled};
use stead_types::{Condition, Error, ErrorKind, Revision, TenantTime};

use super::clock::Clock;
use crate::{Header, Increment, Item, Op, OpResult, Page, Scan, Tenant, answer::malformed};

/// How long it is remembered what became of a reservation, and that a grant was made.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);
/// Expired reservations that one refused caller gives back; `reclaim` goes on with the next ones.
const PAGE: u32 = 64;
/// Reservations that are given back at the same time.
const AT_ONCE: usize = 16;

/// An account of credits of one tenant.
///
/// ```no_run
/// # async fn example(acme: stead_client::Tenant) -> Result<(), stead_client::Error> {
/// use std::time::Duration;
///
/// use stead_client::recipes::{Credits, Overdraft, Settled};
///
/// let credits = Credits::new(&acme, "credits")?;
/// credits.grant("invoice-2026-11", 10_000).await?;
/// let minute = Duration::from_secs(60);
/// match credits.reserve("request-4711", 250, minute).await? {
///     Some(reservation) => {
///         // The work, which turns out to cost 180.
///         match credits.settle(&reservation, 180, Overdraft::Refused).await? {
///             Settled::Spent(spent) => println!("{spent} were spent, the rest is back"),
///             Settled::Short(balance) => println!("it cost more, and only {balance} are left"),
///             Settled::Gone => println!("it was settled or given back more than a day ago"),
///         }
///     }
///     None => println!("not enough credits"),
/// }
/// # Ok(()) }
/// ```
///
/// **Keys**, below the account's prefix, all of them text: `balance`, `spent` and `granted` are decimal numbers;
/// `reservation/ID` is `open ESTIMATE DEADLINE`, then `settled ACTUAL` or `returned ESTIMATE`; `due/DEADLINE/ID` (in
/// milliseconds of the tenant's clock, 20 digits) is the estimate of an open one; `grant/ID` is a grant's amount.
///
/// **Guaranteed.** Every step is one transaction, so that at every revision
/// `balance + reserved + spent == granted`, exactly, whatever dies; [`Credits::account`] reads the four at one revision.
/// What becomes of one id happens once, however often and from wherever it is asked: a reservation is open, then settled
/// or returned; a returned one may be settled once. A reserved amount is never taken from a balance that does not
/// have it. An open reservation is not given back before its deadline has passed in the tenant's *logged* time.
///
/// **Costs.** Reserving and settling: one round trip to the tenant's home and one write there, each. The first reservation
/// of a handle asks for the tenant's time before: keep one handle and clone it. A refusal costs one read more, which
/// finds what is due, and one write for each expired reservation that it gives back, 64 at most. All reservations of
/// an account change one key, its balance: their home does them one after the other, many in one entry of its log.
///
/// **Not guaranteed.** An expired reservation is given back when somebody is refused, or calls [`Credits::reclaim`], and
/// not by itself. Ids are remembered for a day after their end: one used again after that is a new reservation, and to
/// settle one that was returned more than a day ago is answered with [`Settled::Gone`]. Who is refused is not told when
/// to come again, and large requests can starve behind small ones. A forced promotion that loses writes takes back the
/// newest steps, together.
///
/// **When an outcome is unknown** the error says so; ask again, with the same id, from any process: the answer is what
/// became of it. Until then a reservation may be open that nobody uses: it is given back like that of a service that
/// died.
#[derive(Clone, Debug)]
pub struct Credits {
    tenant: Tenant,
    keys: Keys,
    clock: Arc<Clock>,
}

/// Credits that are set aside until they are settled, or their time is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    id: String,
    estimate: u64,
    deadline: TenantTime,
    revision: Revision,
}

impl Reservation {
    /// Returns its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns how much is set aside.
    pub fn estimate(&self) -> u64 {
        self.estimate
    }

    /// Returns when it may be given back, by the tenant's clock.
    pub fn deadline(&self) -> TenantTime {
        self.deadline
    }
}

impl Credits {
    /// Returns the account whose keys begin with this and a `/`.
    ///
    /// # Errors
    ///
    /// No name, or one so long that it leaves no room for ids.
    pub fn new(tenant: &Tenant, account: &str) -> Result<Self, Error> {
        Ok(Self {
            tenant: tenant.clone(),
            keys: Keys::new(account)?,
            clock: Arc::default(),
        })
    }

    /// Adds to the balance, once for each id: asked again within a day it is not added again.
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
            .then(Op::put_expiring(key.clone(), amount.to_string(), REMEMBERED))
            .then(Op::increment(self.keys.balance(), Increment::by(delta)))
            .then(Op::increment(self.keys.granted(), Increment::by(delta)))
            .otherwise(Op::get(key))
            .send()
            .await?;
        self.saw(&done.header, done.succeeded && !done.repeated);
        if done.succeeded {
            return Ok(());
        }
        let held = got(done.results)?.map(|item| item.value);
        if held.as_deref() == Some(amount.to_string().as_bytes()) {
            return Ok(());
        }
        let message = format!("id: {id} was granted with another amount: use each id once");
        Err(Error::new(ErrorKind::Conflict, message))
    }

    /// Returns the reservation of an id, if it is open: to settle what another process has reserved.
    ///
    /// # Errors
    ///
    /// As [`Tenant::get`].
    pub async fn find(&self, id: &str) -> Result<Option<Reservation>, Error> {
        let item = self.tenant.get(self.keys.reservation(id)?).await?.item;
        let Some(item) = item else { return Ok(None) };
        Ok(match Record::read(&item)? {
            Record::Open { estimate, deadline } => Some(Reservation {
                id: id.to_owned(),
                estimate,
                deadline,
                revision: item.modified,
            }),
            Record::Settled { .. } | Record::Returned { .. } => None,
        })
    }

    /// Gives back every reservation whose time is over, and returns how many there were.
    ///
    /// # Errors
    ///
    /// As [`crate::Txn::send`]: some may have been given back. Asking again goes on.
    pub async fn reclaim(&self) -> Result<u64, Error> {
        let mut count = 0;
        let mut first = None;
        let now = self.tick().await?;
        loop {
            let due = self.due().await?;
            if first.is_some() && due.items.first() == first.as_ref() {
                return Err(record::foreign(&due.items[0]));
            }
            first = due.items.first().cloned();
            let given = self.give_back(due.items, now).await?;
            count += given.by_us;
            if given.found < PAGE as usize {
                return Ok(count);
            }
        }
    }

    /// Gives back what a refused caller finds, and returns how many expired reservations it found.
    async fn give_back_due(&self) -> Result<usize, Error> {
        let due = self.due().await?;
        let Some(first) = due.items.first() else { return Ok(0) };
        let first = self.keys.deadline(first)?;
        // The logged time stands still while nothing changes, and only it counts.
        let mut now = due.header.tenant_time;
        if now < first && self.clock.now() >= first {
            now = self.tick().await?;
        }
        Ok(self.give_back(due.items, now).await?.found)
    }

    /// Returns the first open reservations, in the order of their deadlines.
    async fn due(&self) -> Result<Page, Error> {
        let scan = Scan {
            prefix: self.keys.dues(),
            page_size: PAGE,
            ..Scan::default()
        };
        let page = self.tenant.scan(&scan).await?;
        self.saw(&page.header, false);
        Ok(page)
    }

    /// Gives back those whose deadline is not after this time.
    async fn give_back(&self, items: Vec<Item>, now: TenantTime) -> Result<Given, Error> {
        let mut expired = Vec::new();
        for item in items {
            if self.keys.deadline(&item)? <= now {
                expired.push(item);
            }
        }
        let found = expired.len();
        let given = stream::iter(expired).map(|item| self.give_back_one(item));
        let given: Vec<bool> = given.buffer_unordered(AT_ONCE).try_collect().await?;
        let by_us = given.into_iter().filter(|given| *given).count() as u64;
        Ok(Given { found, by_us })
    }

    /// Gives one back, unless something else has become of it (C2).
    async fn give_back_one(&self, due: Item) -> Result<bool, Error> {
        let id = self.keys.id(&due)?;
        let estimate = record::number(&due)?;
        let key = self.keys.known_reservation(&id);
        let returned = Record::Returned { estimate };
        let done = self
            .tenant
            .txn()
            // C3: both were written by one transaction.
            .when(key.clone(), Condition::modified(due.modified))
            .then(Op::put_expiring(key, returned.text(), REMEMBERED))
            .then(Op::delete(due.key))
            .then(Op::increment(
                self.keys.balance(),
                Increment::by(signed("estimate", estimate)?),
            ))
            .send()
            .await?;
        self.saw(&done.header, done.succeeded && !done.repeated);
        Ok(done.succeeded)
    }

    /// Returns the tenant's time now, as it is logged with a change that changes nothing.
    async fn tick(&self) -> Result<TenantTime, Error> {
        let answer = self.tenant.increment(self.keys.balance(), 0).await?;
        self.saw(&answer.header, !answer.repeated);
        Ok(answer.header.tenant_time)
    }

    fn saw(&self, header: &Header, changed: bool) {
        self.clock.saw(header.tenant_time, changed);
    }
}

/// What giving back came to.
struct Given {
    /// Expired ones.
    found: usize,
    /// Those that nobody else had given back or settled meanwhile.
    by_us: u64,
}

fn signed(field: &str, amount: u64) -> Result<i64, Error> {
    let too_much = |_| Error::invalid(field, format!("{field}: at most {}, not {amount}", i64::MAX));
    i64::try_from(amount).map_err(too_much)
}

/// Reads the one key that the conditions' other side asked for.
fn got(results: Vec<OpResult>) -> Result<Option<Item>, Error> {
    match results.into_iter().next() {
        Some(OpResult::Got(item)) => Ok(item),
        Some(_) | None => Err(malformed("result")),
    }
}

/// A key's value, where the account's form of it is text.
fn text(value: &Bytes) -> Option<&str> {
    std::str::from_utf8(value).ok()
}
