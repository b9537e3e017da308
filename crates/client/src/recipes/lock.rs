//! A lock whose holders are numbered, so that one who has lost it without noticing does no harm.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use stead_types::{Condition, Error, ErrorKind, Operand, Relation, Revision};
use tokio::{
    sync::{oneshot, watch},
    time::{Instant, sleep, sleep_until, timeout_at},
};

use crate::{
    EventKind, KeyRange, Op, OpResult, Tenant, Told, Watch, WatchFrom, Write, answer::malformed, tenant::is_final,
};

/// A lock is renewed when this part of its time has passed.
const RENEW_AFTER: u32 = 3;
/// This part of its time a holder gives away, for clocks that run differently.
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
/// let lock = Lock::new(&acme, "locks/invoices", Duration::from_secs(10));
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
/// **Not guaranteed.** Who waits is not served in turn. Time is the tenant's logged clock: a new leader whose wall clock is
/// ahead ends a lock that much sooner; the token says so, [`LockGuard::is_lost`] may not. A lock whose holder died is
/// free when its time is over, not before.
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

/// The lock is held by whoever has this. It renews the lock; dropped, it gives it back in the background.
#[derive(Debug)]
pub struct LockGuard {
    held: Arc<Held>,
    /// Dropped with the guard: what renews gives the lock back.
    _dropped: oneshot::Sender<()>,
}

#[derive(Debug)]
struct Held {
    lock: Lock,
    name: Bytes,
    token: Revision,
    standing: watch::Sender<Standing>,
}

/// What a holder knows.
#[derive(Clone, Copy, Debug)]
struct Standing {
    /// The lock does not end earlier, by this process's clock.
    until: Instant,
    /// It is not held any more, for certain or as far as one can know here.
    is_lost: bool,
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
    pub fn new(tenant: &Tenant, key: impl Into<Bytes>, ttl: Duration) -> Self {
        Self {
            tenant: tenant.clone(),
            key: key.into(),
            ttl,
        }
    }

    /// Takes the lock if nobody has it.
    ///
    /// # Errors
    ///
    /// As [`Tenant::put_with`]. With an unknown outcome a lock that nobody holds may appear for as long as its time.
    pub async fn try_acquire(&self) -> Result<Option<LockGuard>, Error> {
        let name = self.name();
        let begun = Instant::now();
        match self.attempt(&name, begun).await {
            Ok(Attempt::Ours(token, asked)) => self.guard(name, token, asked).await,
            Ok(Attempt::Taken(_)) => Ok(None),
            Err(unknown) if matches!(unknown.kind, ErrorKind::OutcomeUnknown { .. }) => {
                let item = self.tenant.get(self.key.clone()).await?.item;
                match item.filter(|item| item.value == name) {
                    Some(item) => self.guard(name, item.created, begun).await,
                    None => Err(unknown),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Takes the lock, and waits for as long as somebody else has it or nobody can be asked. Dropping the future ends the
    /// waiting.
    ///
    /// # Errors
    ///
    /// What asking again cannot change: no such tenant, a key or a time that cannot be.
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
        let asked = Instant::now();
        let done = self
            .tenant
            .txn()
            .when(self.key.clone(), Condition::Absent)
            .then(Op::put_expiring(self.key.clone(), name.clone(), self.ttl))
            .otherwise(Op::get(self.key.clone()))
            .send()
            .await?;
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
    async fn guard(&self, name: Bytes, token: Revision, asked: Instant) -> Result<Option<LockGuard>, Error> {
        let (standing, _) = watch::channel(Standing {
            until: self.until(asked),
            is_lost: false,
        });
        let held = Arc::new(Held {
            lock: self.clone(),
            name,
            token,
            standing,
        });
        // Found by a later attempt, or after many: what is left of its time is too little to begin with.
        if asked.elapsed() > self.ttl / RENEW_AFTER && !held.renew().await? {
            return Ok(None);
        }
        let (dropped, told) = oneshot::channel();
        tokio::spawn(keep(held.clone(), told));
        Ok(Some(LockGuard {
            held,
            _dropped: dropped,
        }))
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

impl LockGuard {
    /// Returns the fencing token: the revision that made the lock's key. Higher than that of every holder before.
    pub fn token(&self) -> Revision {
        self.held.token
    }

    /// Returns the lock's key.
    pub fn key(&self) -> &Bytes {
        &self.held.lock.key
    }

    /// Returns the condition on the lock's key that holds as long as this guard's holder has the lock: for a
    /// transaction, or a precondition.
    pub fn still(&self) -> Condition {
        still(self.held.token)
    }

    /// Returns the condition on a key in which holders leave their tokens, as [`LockGuard::mark`] writes them, that holds if
    /// no later holder has left its own: for what outlives the lock's key. The key must exist; begin it with
    /// `Revision::ZERO`, written the same way.
    pub fn fence(&self) -> Condition {
        let after = self.held.token.to_u64().saturating_add(1);
        Condition::Compared(Relation::Less, Operand::Value(mark(Revision::from_u64(after))))
    }

    /// Returns the token as bytes in its order: 20 decimal digits.
    pub fn mark(&self) -> Bytes {
        mark(self.held.token)
    }

    /// Tells whether the lock is lost: for certain, or because it could not be renewed in time. `false` is no promise,
    /// see [`Lock`].
    pub fn is_lost(&self) -> bool {
        let standing = *self.held.standing.borrow();
        standing.is_lost || standing.until <= Instant::now()
    }

    /// Waits until the lock is lost.
    pub async fn lost(&self) {
        let mut standing = self.held.standing.subscribe();
        loop {
            let Standing { until, is_lost } = *standing.borrow_and_update();
            if is_lost || until <= Instant::now() {
                return;
            }
            // What is due is either a renewal or the end.
            let _renewed = timeout_at(until, standing.changed()).await;
        }
    }

    /// Renews the lock now, before work that takes long: it lives for its whole time again.
    ///
    /// # Errors
    ///
    /// `Conflict` if it is lost; else as [`Tenant::put_with`], and it is not known whether it was renewed.
    pub async fn renew(&self) -> Result<(), Error> {
        if self.held.renew().await? {
            return Ok(());
        }
        let key = String::from_utf8_lossy(&self.held.lock.key).into_owned();
        let message = format!("the lock {key} is no longer held: somebody else may have it");
        Err(Error::new(ErrorKind::Conflict, message))
    }

    /// Gives the lock back; `false` if it was lost before.
    ///
    /// # Errors
    ///
    /// As [`Tenant::delete_with`]: the lock goes when its time is over.
    pub async fn release(self) -> Result<bool, Error> {
        self.held.release().await
    }
}

impl Held {
    /// Sets the lock's time anew; `false` if it is lost.
    async fn renew(&self) -> Result<bool, Error> {
        let asked = Instant::now();
        let lock = &self.lock;
        let write = Write {
            precondition: Some(still(self.token)),
            timeout: Some(lock.ttl),
            ..Write::default()
        };
        let (key, name) = (lock.key.clone(), self.name.clone());
        match lock.tenant.put_expiring(key, name, lock.ttl, &write).await {
            Ok(_) => {
                let until = lock.until(asked);
                self.standing.send_modify(|standing| standing.until = until);
                Ok(true)
            }
            Err(error) if is_gone(&error.kind) => {
                self.lose();
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn lose(&self) {
        self.standing.send_modify(|standing| standing.is_lost = true);
    }

    async fn release(&self) -> Result<bool, Error> {
        self.lose();
        let write = Write {
            precondition: Some(still(self.token)),
            ..Write::default()
        };
        match self.lock.tenant.delete_with(self.lock.key.clone(), &write).await {
            Ok(_) => Ok(true),
            Err(error) if is_gone(&error.kind) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Renews a lock until its guard is dropped or it is lost, and gives it back.
async fn keep(held: Arc<Held>, mut dropped: oneshot::Receiver<()>) {
    let mut wait = held.lock.ttl / RENEW_AFTER;
    loop {
        let Standing { until, is_lost } = *held.standing.borrow();
        if is_lost {
            return;
        }
        let renewal = async {
            sleep(wait).await;
            held.renew().await
        };
        tokio::select! {
            _ = &mut dropped => break,
            () = sleep_until(until) => {
                // A renewal from elsewhere has moved the end.
                if held.standing.borrow().until <= Instant::now() {
                    break;
                }
            }
            renewed = renewal => wait = match renewed {
                Ok(_) => held.lock.ttl / RENEW_AFTER,
                Err(error) => {
                    tracing::debug!(%error, "a lock could not be renewed");
                    AGAIN.min(held.lock.ttl / RENEW_AFTER)
                }
            },
        }
    }
    if held.standing.borrow().is_lost {
        return;
    }
    if let Err(error) = held.release().await {
        tracing::debug!(%error, "a lock was not given back: it goes when its time is over");
    }
}

/// The lock's key is the one that this revision made.
fn still(token: Revision) -> Condition {
    Condition::Compared(Relation::Equal, Operand::Created(token))
}

fn mark(token: Revision) -> Bytes {
    format!("{:020}", token.to_u64()).into()
}

/// Tells whether a condition on the token says that the lock is not held any more.
fn is_gone(kind: &ErrorKind) -> bool {
    matches!(kind, ErrorKind::ConditionFailed { .. } | ErrorKind::Forked { .. })
}

/// Tells whether it is only the place where a watch was to begin that is gone.
fn is_history(kind: &ErrorKind) -> bool {
    matches!(kind, ErrorKind::Compacted { .. } | ErrorKind::Forked { .. })
}
