//! A lock whose holders are numbered, so that one who has lost it without noticing does no harm.

mod guard;

use std::time::Duration;

use bytes::Bytes;
pub use guard::LockGuard;
use stead_api::convert::key;
use stead_types::{
    Condition, Error, ErrorKind, Operand, Relation, Revision,
    planted::{self, Bug},
};
use tokio::time::{Instant, sleep};

use crate::{
    EventKind, KeyRange, Op, OpResult, Tenant, Told, Watch, WatchFrom, Write, answer::malformed, tenant::is_final,
};

use super::whole_milliseconds;

/// A lock is renewed when this part of its time has passed.
const RENEW_AFTER: u32 = 3;
/// This part of its time a holder gives away: logged time may go a tenth faster than its own, and clocks differ by a
/// hundredth.
const MARGIN: u32 = 10;
/// Between two attempts while nobody can be asked.
const AGAIN: Duration = Duration::from_millis(50);

/// A lock that one holder has at a time, with a time to live, so that it outlives no holder for long.
///
/// ```no_run
/// # async fn example(acme: stead_client::Tenant) -> Result<(), stead_client::Error> {
/// use std::time::Duration;
///
/// use stead_client::{Op, recipes::Lock};
///
/// let lock = Lock::new(&acme, "locks/invoices", Duration::from_secs(10))?;
/// let held = lock.acquire().await?;
/// // Whoever was frozen between acquiring and writing writes nothing: the condition is checked with the write.
/// let written = acme
///     .txn()
///     .when(held.key().clone(), held.still())
///     .then(Op::put("invoices/last", "2026-11"))
///     .send()
///     .await?;
/// assert!(written.succeeded, "the lock was lost");
/// held.release().await?;
/// # Ok(()) }
/// ```
///
/// **Keys.** One, which exists while the lock is held and expires by itself. Its value names the attempt that holds it.
///
/// **Guaranteed.** The key is made by one attempt at a time. The revision that made it is the holder's *fencing token*:
/// each holder's is higher than those of all before it, for ever, through deaths of nodes, moves and promotions, and it
/// stays the same while the lock is renewed. A write of the same tenant that carries the condition
/// [`LockGuard::still`] happens only while its holder holds the lock.
///
/// **What a fencing token is for.** No lock with a time to live can promise that its holder *knows* that it still holds
/// it: a process that is paused for a minute goes on as if nothing had happened. What the lock protects must check.
/// Data of the same tenant checks with the condition above. Anything else (a disk, another database, an e-mail gateway)
/// is given the token, remembers the highest one it has seen and refuses every lower one; [`Revision::to_u64`] is that
/// number. [`LockGuard::fence`] does the same for a key of another lock's or service's data.
///
/// **Costs.** Acquiring a free lock: one round trip to the tenant's home and one write there. Renewing, by itself, after a
/// third of the time to live: the same again. Waiting for a held one: a watch from the nearest replica, nothing else; all
/// who wait try when it is free.
///
/// **Not guaranteed.** Who waits is not served in turn. Time is the tenant's logged clock, which may go a tenth faster than
/// this process's: a holder gives that much of its time away. It stands still while the home has no leader, so a lock
/// lasts at least as long as its holder can know. A lock whose holder died is free when its time is over, not before.
///
/// **When an outcome is unknown.** [`Lock::acquire`] goes on: each attempt of one call carries the same name, so that it
/// recognizes a lock that an earlier attempt has got. [`Lock::try_acquire`] looks once, and else says that it does not
/// know: a lock that nobody holds may appear, and goes when its time is over. The same happens when the future is
/// dropped while its attempt is under way.
#[derive(Clone, Debug)]
pub struct Lock {
    tenant: Tenant,
    key: Bytes,
    ttl: Duration,
}

/// What an attempt came to.
enum Attempt {
    /// It is ours since this revision; it was asked for at this time or later.
    Ours(Revision, Instant),
    /// Somebody else has it, as of this revision.
    Taken(Revision),
}

impl Lock {
    /// Returns the lock of a key. A holder that dies keeps it for `ttl`, whole milliseconds; one that cannot reach the
    /// tenant's home for that long loses it.
    ///
    /// # Errors
    ///
    /// A key or a time that cannot be.
    pub fn new(tenant: &Tenant, key: impl Into<Bytes>, ttl: Duration) -> Result<Self, Error> {
        let key = key.into();
        key::key("key", &key)?;
        Ok(Self {
            tenant: tenant.clone(),
            key,
            ttl: whole_milliseconds("ttl", ttl)?,
        })
    }

    /// Takes the lock if nobody has it.
    ///
    /// # Errors
    ///
    /// As [`Tenant::put_with`]. With an unknown outcome a lock that nobody holds may appear for as long as its time.
    pub async fn try_acquire(&self) -> Result<Option<LockGuard>, Error> {
        let name = self.name();
        let begun = Instant::now();
        let (token, asked) = match self.attempt(&name, begun).await {
            Ok(Attempt::Ours(token, asked)) => (token, asked),
            Ok(Attempt::Taken(_)) => return Ok(None),
            Err(unknown) if matches!(unknown.kind, ErrorKind::OutcomeUnknown { .. }) => {
                // Whatever the look comes to, unless it finds the lock: the attempt may yet get it.
                let got = self.tenant.get(self.key.clone()).await.ok().and_then(|got| got.item);
                let ours = got.filter(|item| item.value == name).ok_or(unknown)?;
                (ours.created, begun)
            }
            Err(error) => return Err(error),
        };
        match self.guard(name, token, asked).await {
            Ok(guard) => Ok(guard),
            Err(error) => {
                let lock = self.clone();
                tokio::spawn(async move { lock.give_back(token).await });
                let message = format!("the lock was got, too late to know that it is still held: {error}");
                Err(Error::new(ErrorKind::OutcomeUnknown { key: None }, message))
            }
        }
    }

    /// Takes the lock, and waits for as long as somebody else has it or nobody can be asked. Dropping the future ends the
    /// waiting.
    ///
    /// # Errors
    ///
    /// What asking again cannot change, such as a tenant that there is not.
    pub async fn acquire(&self) -> Result<LockGuard, Error> {
        let name = self.name();
        let begun = Instant::now();
        loop {
            let tried = match self.attempt(&name, begun).await {
                Ok(Attempt::Ours(token, asked)) => match self.guard(name.clone(), token, asked).await {
                    Ok(Some(guard)) => return Ok(guard),
                    // It ended before it was known to be ours.
                    Ok(None) => Ok(()),
                    Err(error) => Err(error),
                },
                Ok(Attempt::Taken(seen)) => self.freed(seen).await,
                Err(error) => Err(error),
            };
            match tried {
                Ok(()) => {}
                Err(error) if is_final(&error.kind) && !is_history(&error.kind) => return Err(error),
                Err(error) => {
                    tracing::debug!(%error, "a lock is asked for again");
                    sleep(self.tenant.client().inner().jitter(AGAIN)).await;
                }
            }
        }
    }

    /// A name that no other attempt has.
    fn name(&self) -> Bytes {
        format!("{:032x}", self.tenant.client().inner().draw()).into()
    }

    async fn attempt(&self, name: &Bytes, begun: Instant) -> Result<Attempt, Error> {
        let mut asked = Instant::now();
        let done = self
            .tenant
            .txn()
            .when(self.key.clone(), Condition::Absent)
            .then(Op::put_expiring(self.key.clone(), name.clone(), self.ttl))
            .otherwise(Op::get(self.key.clone()))
            .send()
            .await?;
        if planted::is(Bug::LockCountedFromAnswer) {
            asked = Instant::now();
        }
        if done.succeeded {
            return Ok(Attempt::Ours(done.header.revision, asked));
        }
        match done.results.into_iter().next() {
            // An earlier attempt of this call, of which nobody could say what became of it.
            Some(OpResult::Got(Some(item))) if item.value == *name => Ok(Attempt::Ours(item.created, begun)),
            Some(OpResult::Got(_)) => Ok(Attempt::Taken(done.header.revision)),
            Some(_) | None => Err(malformed("result")),
        }
    }

    /// Returns the guard of what was asked for at this time; `None` if it is over.
    async fn guard(&self, name: Bytes, token: Revision, mut asked: Instant) -> Result<Option<LockGuard>, Error> {
        // Found by a later attempt, or after many: what is left of its time is too little to begin with.
        if asked.elapsed() > self.ttl / RENEW_AFTER {
            asked = Instant::now();
            if !self.put_again(&name, token).await? {
                return Ok(None);
            }
        }
        Ok(Some(LockGuard::new(self.clone(), name, token, asked)))
    }

    /// Sets the time of a lock anew that was got with this revision; `false` if it is not held any more.
    async fn put_again(&self, name: &Bytes, token: Revision) -> Result<bool, Error> {
        let write = Write {
            precondition: Some(still(token)),
            timeout: Some(self.ttl),
            ..Write::default()
        };
        let (key, name) = (self.key.clone(), name.clone());
        known(self.tenant.put_expiring(key, name, self.ttl, &write).await)
    }

    /// Gives a lock back that was got with this revision; `false` if it is not held any more.
    async fn give_back(&self, token: Revision) -> Result<bool, Error> {
        let write = Write {
            precondition: Some(still(token)),
            ..Write::default()
        };
        known(self.tenant.delete_with(self.key.clone(), &write).await)
    }

    /// Until when the lock lasts at least that was asked for at this time.
    fn until(&self, asked: Instant) -> Instant {
        asked + (self.ttl - self.ttl / MARGIN)
    }

    /// Waits until the key has gone since this revision.
    async fn freed(&self, seen: Revision) -> Result<(), Error> {
        let watch = Watch {
            ranges: vec![KeyRange::key(self.key.clone())],
            from: WatchFrom::After(seen),
            exclude: vec![EventKind::Put],
            ..Watch::default()
        };
        let mut watcher = self.tenant.watch(watch).await?;
        loop {
            match watcher.next().await? {
                Told::Changes(_) => return Ok(()),
                Told::State { .. } | Told::Progress => {}
            }
        }
    }
}

/// The lock's key is the one that this revision made.
fn still(token: Revision) -> Condition {
    Condition::Compared(Relation::Equal, Operand::Created(token))
}

fn mark(token: Revision) -> Bytes {
    format!("{:020}", token.to_u64()).into()
}

/// Reads from a write on condition of the token whether the lock was held.
fn known<T>(written: Result<T, Error>) -> Result<bool, Error> {
    match written {
        Ok(_) => Ok(true),
        Err(error) if is_gone(&error.kind) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Tells whether a condition on the token says that the lock is not held any more.
fn is_gone(kind: &ErrorKind) -> bool {
    matches!(kind, ErrorKind::ConditionFailed { .. } | ErrorKind::Forked { .. })
}

/// Tells whether it is only the place where a watch was to begin that is gone.
fn is_history(kind: &ErrorKind) -> bool {
    matches!(kind, ErrorKind::Compacted { .. } | ErrorKind::Forked { .. })
}
