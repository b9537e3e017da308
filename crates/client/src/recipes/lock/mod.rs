//! Lock with a fencing token: holders are numbered, so that one that has lost the lock without noticing does no harm.

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
    EventKind, KeyRange, Op, OpResult, Tenant, WatchFrom, WatchMessage, WatchOptions, WriteOptions,
    response::malformed, tenant::is_final,
};

use super::whole_milliseconds;

/// Fraction of the time to live after which a lock is renewed.
const RENEW_AFTER: u32 = 3;
/// Fraction of the time to live that a holder does not rely on: logged time may go a tenth faster than its own, and
/// clocks differ by a hundredth.
const CLOCK_MARGIN: u32 = 10;
/// Wait between two attempts while no node answers.
const RETRY_WAIT: Duration = Duration::from_millis(50);

/// Lock with one holder at a time, and a time to live, so that it outlives no holder for long.
///
/// ```no_run
/// # async fn example(acme: stead_client::Tenant) -> Result<(), stead_client::Error> {
/// use std::time::Duration;
///
/// use stead_client::{Op, recipes::Lock};
///
/// let lock = Lock::new(&acme, "locks/invoices", Duration::from_secs(10))?;
/// let held = lock.acquire().await?;
/// // A holder that was frozen between acquiring and writing writes nothing: the write checks the condition.
/// let written = acme
///     .txn()
///     .when(held.key().clone(), held.held_condition())
///     .then(Op::put("invoices/last", "2026-11"))
///     .send()
///     .await?;
/// assert!(written.succeeded, "the lock was lost");
/// held.release().await?;
/// # Ok(()) }
/// ```
///
/// **Keys.** One, which exists while the lock is held and expires by itself. Its value is the id of the attempt that
/// holds it.
///
/// **Guaranteed.** The key is created by one attempt at a time. The revision that created it is the holder's *fencing
/// token*: each holder's is higher than those of all before it, for ever, through deaths of nodes, moves and
/// promotions, and it stays the same while the lock is renewed. A write of the same tenant with the condition
/// [`LockGuard::held_condition`] happens only while its holder holds the lock.
///
/// **Purpose of a fencing token.** No lock with a time to live can promise that its holder *knows* that it still holds
/// it: a process that is paused for a minute goes on as if nothing had happened. The protected resource must check.
/// Data of the same tenant checks with the condition above. Anything else (a disk, another database, an e-mail gateway)
/// is given the token, remembers the highest one it has seen and refuses every lower one; [`Revision::to_u64`] is that
/// number. [`LockGuard::fencing_condition`] does the same for a key of another lock's or service's data.
///
/// **Costs.** Acquiring a free lock: one round trip to the tenant's home and one write there. Renewing, by itself,
/// after a third of the time to live: the same again. Waiting for a held one: a watch from the nearest replica, nothing
/// else; all waiters try when it is free.
///
/// **Not guaranteed.** Waiters are not served in order. Time is the tenant's logged time, which may go a tenth faster
/// than this process's: a holder does not rely on that part of its time. It stands still while the home has no leader,
/// so a lock lasts at least as long as its holder can know. A lock whose holder died is free when its time to live is
/// over, not before.
///
/// **When an outcome is unknown.** [`Lock::acquire`] goes on: each attempt of one call carries the same id, so that it
/// recognizes a lock that an earlier attempt has acquired. [`Lock::try_acquire`] looks once, and otherwise returns an
/// unknown outcome: a lock that nobody holds may appear, and expires by itself. The same happens when the future is
/// dropped while its attempt is under way.
#[derive(Clone, Debug)]
pub struct Lock {
    tenant: Tenant,
    key: Bytes,
    ttl: Duration,
}

/// Result of one attempt to acquire a lock.
enum AcquireAttempt {
    /// Acquired with this revision; requested at this time or later.
    Acquired(Revision, Instant),
    /// Held by somebody else, as of this revision.
    HeldByOther(Revision),
}

impl Lock {
    /// Returns the lock of a key. A holder that dies keeps it for `ttl`, whole milliseconds; one that cannot reach the
    /// tenant's home for that long loses it.
    ///
    /// # Errors
    ///
    /// An invalid key or time to live.
    pub fn new(tenant: &Tenant, key: impl Into<Bytes>, ttl: Duration) -> Result<Self, Error> {
        let key = key.into();
        key::key("key", &key)?;
        Ok(Self {
            tenant: tenant.clone(),
            key,
            ttl: whole_milliseconds("ttl", ttl)?,
        })
    }

    /// Acquires the lock if nobody holds it.
    ///
    /// # Errors
    ///
    /// As [`Tenant::put_with`]. With an unknown outcome a lock that nobody holds may appear for its time to live.
    pub async fn try_acquire(&self) -> Result<Option<LockGuard>, Error> {
        let attempt_id = self.attempt_id();
        let started = Instant::now();
        let (token, asked) = match self.attempt(&attempt_id, started).await {
            Ok(AcquireAttempt::Acquired(token, asked)) => (token, asked),
            Ok(AcquireAttempt::HeldByOther(_)) => return Ok(None),
            Err(unknown) if matches!(unknown.kind, ErrorKind::OutcomeUnknown { .. }) => {
                // Unless the read finds the lock the outcome stays unknown: the attempt may yet acquire it.
                let got = self.tenant.get(self.key.clone()).await.ok().and_then(|got| got.item);
                let ours = got.filter(|item| item.value == attempt_id).ok_or(unknown)?;
                (ours.created, started)
            }
            Err(error) => return Err(error),
        };
        match self.guard(attempt_id, token, asked).await {
            Ok(guard) => Ok(guard),
            Err(error) => {
                let lock = self.clone();
                tokio::spawn(async move { lock.release_key(token).await });
                let message = format!("the lock was acquired too late to know that it is still held: {error}");
                Err(Error::new(ErrorKind::OutcomeUnknown { key: None }, message))
            }
        }
    }

    /// Acquires the lock, and waits for as long as somebody else holds it or no node answers. Dropping the future ends
    /// the waiting.
    ///
    /// # Errors
    ///
    /// An error that repeating cannot change, such as a tenant that does not exist.
    pub async fn acquire(&self) -> Result<LockGuard, Error> {
        let attempt_id = self.attempt_id();
        let started = Instant::now();
        loop {
            let tried = match self.attempt(&attempt_id, started).await {
                Ok(AcquireAttempt::Acquired(token, asked)) => {
                    match self.guard(attempt_id.clone(), token, asked).await {
                        Ok(Some(guard)) => return Ok(guard),
                        // It expired before it was known to be acquired.
                        Ok(None) => Ok(()),
                        Err(error) => Err(error),
                    }
                }
                Ok(AcquireAttempt::HeldByOther(seen)) => self.wait_until_free(seen).await,
                Err(error) => Err(error),
            };
            match tried {
                Ok(()) => {}
                Err(error) if is_final(&error.kind) && !is_resume_point_lost(&error.kind) => return Err(error),
                Err(error) => {
                    tracing::debug!(%error, "lock acquisition failed, retrying");
                    sleep(self.tenant.client().state().jitter(RETRY_WAIT)).await;
                }
            }
        }
    }

    /// Returns an id that no other attempt has.
    fn attempt_id(&self) -> Bytes {
        format!("{:032x}", self.tenant.client().state().random_id()).into()
    }

    async fn attempt(&self, attempt_id: &Bytes, started: Instant) -> Result<AcquireAttempt, Error> {
        let mut asked = Instant::now();
        let done = self
            .tenant
            .txn()
            .when(self.key.clone(), Condition::Absent)
            .then(Op::put_expiring(self.key.clone(), attempt_id.clone(), self.ttl))
            .otherwise(Op::get(self.key.clone()))
            .send()
            .await?;
        if planted::is(Bug::LockCountedFromAnswer) {
            asked = Instant::now();
        }
        if done.succeeded {
            return Ok(AcquireAttempt::Acquired(done.header.revision, asked));
        }
        match done.results.into_iter().next() {
            // An earlier attempt of this call, whose outcome was unknown.
            Some(OpResult::Get(Some(item))) if item.value == *attempt_id => {
                Ok(AcquireAttempt::Acquired(item.created, started))
            }
            Some(OpResult::Get(_)) => Ok(AcquireAttempt::HeldByOther(done.header.revision)),
            Some(_) | None => Err(malformed("result")),
        }
    }

    /// Returns the guard of an acquired lock; `None` if it has expired.
    async fn guard(&self, attempt_id: Bytes, token: Revision, mut asked: Instant) -> Result<Option<LockGuard>, Error> {
        // Found by a later attempt, or after many: the rest of its time to live is too short to begin with.
        if asked.elapsed() > self.ttl / RENEW_AFTER {
            asked = Instant::now();
            if !self.extend_ttl(&attempt_id, token).await? {
                return Ok(None);
            }
        }
        Ok(Some(LockGuard::new(self.clone(), attempt_id, token, asked)))
    }

    /// Extends the time to live of the lock with this token; `false` if it is not held any more.
    async fn extend_ttl(&self, attempt_id: &Bytes, token: Revision) -> Result<bool, Error> {
        let write = WriteOptions {
            precondition: Some(held_condition(token)),
            timeout: Some(self.ttl),
            ..WriteOptions::default()
        };
        let (key, attempt_id) = (self.key.clone(), attempt_id.clone());
        was_held(self.tenant.put_expiring(key, attempt_id, self.ttl, &write).await)
    }

    /// Deletes the key of the lock with this token; `false` if it is not held any more.
    async fn release_key(&self, token: Revision) -> Result<bool, Error> {
        let write = WriteOptions {
            precondition: Some(held_condition(token)),
            ..WriteOptions::default()
        };
        was_held(self.tenant.delete_with(self.key.clone(), &write).await)
    }

    /// Returns the time until which a lock lasts at least that was requested at this time.
    fn until(&self, asked: Instant) -> Instant {
        asked + (self.ttl - self.ttl / CLOCK_MARGIN)
    }

    /// Waits until the key is deleted or expires after this revision.
    async fn wait_until_free(&self, seen: Revision) -> Result<(), Error> {
        let watch = WatchOptions {
            ranges: vec![KeyRange::key(self.key.clone())],
            from: WatchFrom::After(seen),
            exclude: vec![EventKind::Put],
            ..WatchOptions::default()
        };
        let mut watcher = self.tenant.watch(watch).await?;
        loop {
            match watcher.next().await? {
                // What was cut may have been the lock.
                WatchMessage::Changes(_) | WatchMessage::Forked { .. } => return Ok(()),
                WatchMessage::State { .. } | WatchMessage::Progress => {}
            }
        }
    }
}

/// Returns the condition that the lock's key is the one that this revision created.
fn held_condition(token: Revision) -> Condition {
    Condition::Compared(Relation::Equal, Operand::Created(token))
}

fn token_bytes(token: Revision) -> Bytes {
    format!("{:020}", token.to_u64()).into()
}

/// Tells from a write with the held condition whether the lock was held.
fn was_held<T>(written: Result<T, Error>) -> Result<bool, Error> {
    match written {
        Ok(_) => Ok(true),
        Err(error) if is_lost_error(&error.kind) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Tells whether an error of a write with the held condition says that the lock is not held any more.
fn is_lost_error(kind: &ErrorKind) -> bool {
    matches!(kind, ErrorKind::ConditionFailed { .. } | ErrorKind::Forked { .. })
}

/// Tells whether an error says only that the watch's start position is no longer retained.
fn is_resume_point_lost(kind: &ErrorKind) -> bool {
    matches!(kind, ErrorKind::Compacted { .. } | ErrorKind::Forked { .. })
}
