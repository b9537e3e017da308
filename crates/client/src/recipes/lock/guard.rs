//! The holder's side of a lock.
//!
//! # Invariants
//!
//! * **G1** Only [`keep`] gives a lock back, so that it is given back also where whoever asked for that has gone.
//! * **G2** A lock that was said to be lost is never said to be held again.

use std::sync::Arc;

use bytes::Bytes;
use stead_types::{Condition, Error, ErrorKind, Operand, Relation, Revision};
use tokio::{
    sync::{oneshot, watch},
    time::{Instant, sleep, sleep_until, timeout_at},
};

use super::{AGAIN, Lock, RENEW_AFTER, mark, still};

/// The lock is held by whoever has this. It renews the lock; dropped, it gives it back in the background.
#[derive(Debug)]
#[must_use = "the lock is given back when its guard is dropped"]
pub struct LockGuard {
    held: Arc<Held>,
    /// Used or dropped: what renews gives the lock back, and answers if it was asked to.
    release: oneshot::Sender<Answer>,
}

type Answer = oneshot::Sender<Result<bool, Error>>;

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
    /// It is certainly not held any more.
    is_gone: bool,
}

impl Standing {
    fn is_lost(self, now: Instant) -> bool {
        self.is_gone || self.until <= now
    }

    /// Takes over a renewal; `false` if it comes too late: its holder may have been told already (G2).
    fn renew(&mut self, until: Instant, now: Instant) -> bool {
        let is_held = !self.is_lost(now);
        if is_held {
            self.until = self.until.max(until);
        }
        is_held
    }
}

impl LockGuard {
    /// Returns the guard of a lock that was asked for at this time or later.
    pub(super) fn new(lock: Lock, name: Bytes, token: Revision, asked: Instant) -> Self {
        let (standing, _) = watch::channel(Standing {
            until: lock.until(asked),
            is_gone: false,
        });
        let held = Arc::new(Held {
            lock,
            name,
            token,
            standing,
        });
        let (release, released) = oneshot::channel();
        tokio::spawn(keep(held.clone(), released));
        Self { held, release }
    }

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

    /// Tells whether the lock is lost: for certain, or because it could not be renewed in time; then it stays lost.
    /// `false` is no promise, see [`Lock`].
    pub fn is_lost(&self) -> bool {
        self.held.is_lost()
    }

    /// Waits until the lock is lost.
    pub async fn lost(&self) {
        let mut standing = self.held.standing.subscribe();
        loop {
            let known = *standing.borrow_and_update();
            if known.is_lost(Instant::now()) {
                return;
            }
            // What is due is either a renewal or the end.
            let _renewed = timeout_at(known.until, standing.changed()).await;
        }
    }

    /// Renews the lock now, before work that takes long: it lives for its whole time again.
    ///
    /// # Errors
    ///
    /// `Conflict` if it is lost; else as [`crate::Tenant::put_with`], and it is not known whether it was renewed.
    pub async fn renew(&self) -> Result<(), Error> {
        if self.held.renew().await? {
            return Ok(());
        }
        let key = String::from_utf8_lossy(self.key()).into_owned();
        let message = format!("the lock {key} is no longer held: somebody else may have it");
        Err(Error::new(ErrorKind::Conflict, message))
    }

    /// Gives the lock back; `false` if it was lost before. Dropping the future does not keep the lock.
    ///
    /// # Errors
    ///
    /// As [`crate::Tenant::delete_with`]: the lock goes when its time is over.
    pub async fn release(self) -> Result<bool, Error> {
        let (answer, answered) = oneshot::channel();
        // G1: who renews has ended only if the lock was lost.
        if self.release.send(answer).is_err() {
            return Ok(false);
        }
        answered.await.unwrap_or(Ok(false))
    }
}

impl Held {
    fn is_lost(&self) -> bool {
        self.standing.borrow().is_lost(Instant::now())
    }

    /// Sets the lock's time anew; `false` if it is lost.
    async fn renew(&self) -> Result<bool, Error> {
        if self.is_lost() {
            return Ok(false);
        }
        let asked = Instant::now();
        if !self.lock.put_again(&self.name, self.token).await? {
            self.lose();
            return Ok(false);
        }
        let until = self.lock.until(asked);
        let renew = |standing: &mut Standing| standing.renew(until, Instant::now());
        Ok(self.standing.send_if_modified(renew))
    }

    fn lose(&self) {
        self.standing.send_modify(|standing| standing.is_gone = true);
    }

    /// Renews the lock until it is lost or to be given back; then returns who wants to know.
    async fn renew_until(&self, released: &mut oneshot::Receiver<Answer>) -> Option<Answer> {
        let mut wait = self.lock.ttl / RENEW_AFTER;
        while !self.is_lost() {
            let until = self.standing.borrow().until;
            let renewal = async {
                sleep(wait).await;
                self.renew().await
            };
            tokio::select! {
                asked = &mut *released => return asked.ok(),
                // A renewal from elsewhere may have moved the end.
                () = sleep_until(until) => {}
                renewed = renewal => wait = match renewed {
                    Ok(_) => self.lock.ttl / RENEW_AFTER,
                    Err(error) => {
                        tracing::debug!(%error, "a lock could not be renewed");
                        AGAIN.min(self.lock.ttl / RENEW_AFTER)
                    }
                },
            }
        }
        None
    }
}

/// Renews a lock until its guard is dropped or it is lost, and gives it back (G1).
async fn keep(held: Arc<Held>, mut released: oneshot::Receiver<Answer>) {
    let asked = held.renew_until(&mut released).await;
    if held.standing.borrow().is_gone {
        return;
    }
    held.lose();
    let given = held.lock.give_back(held.token).await;
    if let Err(error) = &given {
        tracing::debug!(%error, "a lock was not given back: it goes when its time is over");
    }
    if let Some(asked) = asked {
        // Whoever asked may have gone.
        let _ = asked.send(given);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn g2_a_renewal_that_comes_too_late_renews_nothing() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut standing = Standing {
            until: at(9),
            is_gone: false,
        };
        assert!(standing.renew(at(12), at(8)));
        assert!(standing.renew(at(11), at(8)), "of two the later one counts");
        assert!(!standing.is_lost(at(11)) && standing.is_lost(at(12)));
        assert!(!standing.renew(at(20), at(12)));
        assert!(standing.is_lost(at(13)));
    }
}
