//! Guard of a held lock, which renews and releases it.
//!
//! # Invariants
//!
//! * **G1** Only [`renew_and_release`] gives a lock back, so that it is given back also where whoever asked for that
//!   has gone.
//! * **G2** A lock that was said to be lost is never said to be held again.

use std::sync::Arc;

use bytes::Bytes;
use stead_types::{Condition, Error, ErrorKind, Operand, Relation, Revision};
use tokio::{
    sync::{oneshot, watch},
    time::{Instant, sleep, sleep_until, timeout_at},
};

use super::{Lock, RENEW_AFTER, RETRY_WAIT, held_condition, token_bytes};

/// Guard of a held lock. It renews the lock; dropped, it releases it in the background.
#[derive(Debug)]
#[must_use = "the lock is given back when its guard is dropped"]
pub struct LockGuard {
    held: Arc<HeldLock>,
    /// Request to the renewal task to release the lock, sent or dropped; it replies if a request was sent.
    release: oneshot::Sender<ReleaseReply>,
}

type ReleaseReply = oneshot::Sender<Result<bool, Error>>;

#[derive(Debug)]
struct HeldLock {
    lock: Lock,
    attempt_id: Bytes,
    token: Revision,
    validity: watch::Sender<LockValidity>,
}

/// Time until which a holder may rely on the lock.
#[derive(Clone, Copy, Debug)]
struct LockValidity {
    /// Earliest end of the lock, by this process's clock.
    until: Instant,
    /// Whether the lock is certainly not held any more.
    is_gone: bool,
}

impl LockValidity {
    fn is_lost(self, now: Instant) -> bool {
        self.is_gone || self.until <= now
    }

    /// Extends the validity; `false` if the renewal comes too late: the holder may have been told already that the lock
    /// is lost (G2).
    fn renew(&mut self, until: Instant, now: Instant) -> bool {
        let is_held = !self.is_lost(now);
        if is_held {
            self.until = self.until.max(until);
        }
        is_held
    }
}

impl LockGuard {
    /// Returns the guard of a lock whose acquisition was requested at this time or later.
    pub(super) fn new(lock: Lock, attempt_id: Bytes, token: Revision, asked: Instant) -> Self {
        let (validity, _) = watch::channel(LockValidity {
            until: lock.until(asked),
            is_gone: false,
        });
        let held = Arc::new(HeldLock {
            lock,
            attempt_id,
            token,
            validity,
        });
        let (release, released) = oneshot::channel();
        tokio::spawn(renew_and_release(held.clone(), released));
        Self { held, release }
    }

    /// Returns the fencing token: the revision that created the lock's key. Higher than that of every holder before.
    pub fn token(&self) -> Revision {
        self.held.token
    }

    /// Returns the lock's key.
    pub fn key(&self) -> &Bytes {
        &self.held.lock.key
    }

    /// Returns the condition on the lock's key that holds as long as this guard's holder has the lock: for a
    /// transaction, or a precondition.
    pub fn held_condition(&self) -> Condition {
        held_condition(self.held.token)
    }

    /// Returns the fencing condition on a key in which holders leave their tokens, as [`LockGuard::token_bytes`]
    /// returns them; it holds if no later holder has left its own: for data that outlives the lock's key. The key must
    /// exist; begin it with `Revision::ZERO`, written the same way.
    pub fn fencing_condition(&self) -> Condition {
        let after = self.held.token.to_u64().saturating_add(1);
        Condition::Compared(Relation::Less, Operand::Value(token_bytes(Revision::from_u64(after))))
    }

    /// Returns the fencing token as bytes that sort like it: 20 decimal digits.
    pub fn token_bytes(&self) -> Bytes {
        token_bytes(self.held.token)
    }

    /// Tells whether the lock is lost: for certain, or because it could not be renewed in time; then it stays lost.
    /// `false` is no promise, see [`Lock`].
    pub fn is_lost(&self) -> bool {
        self.held.is_lost()
    }

    /// Waits until the lock is lost.
    pub async fn lost(&self) {
        let mut validity = self.held.validity.subscribe();
        loop {
            let known = *validity.borrow_and_update();
            if known.is_lost(Instant::now()) {
                return;
            }
            // The next event is either a renewal or the end.
            let _renewed = timeout_at(known.until, validity.changed()).await;
        }
    }

    /// Renews the lock now, before work that takes long: it has its whole time to live again.
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

    /// Releases the lock; `false` if it was lost before. Dropping the future does not keep the lock.
    ///
    /// # Errors
    ///
    /// As [`crate::Tenant::delete_with`]: the lock expires by itself then.
    pub async fn release(self) -> Result<bool, Error> {
        let (answer, answered) = oneshot::channel();
        // G1: the renewal task has ended only if the lock was lost.
        if self.release.send(answer).is_err() {
            return Ok(false);
        }
        answered.await.unwrap_or(Ok(false))
    }
}

impl HeldLock {
    fn is_lost(&self) -> bool {
        self.validity.borrow().is_lost(Instant::now())
    }

    /// Extends the lock's time to live; `false` if it is lost.
    async fn renew(&self) -> Result<bool, Error> {
        if self.is_lost() {
            return Ok(false);
        }
        let asked = Instant::now();
        if !self.lock.extend_ttl(&self.attempt_id, self.token).await? {
            self.lose();
            return Ok(false);
        }
        let until = self.lock.until(asked);
        let renew = |validity: &mut LockValidity| validity.renew(until, Instant::now());
        Ok(self.validity.send_if_modified(renew))
    }

    fn lose(&self) {
        self.validity.send_modify(|validity| validity.is_gone = true);
    }

    /// Renews the lock until it is lost or to be released; then returns the reply channel of the release.
    async fn renew_until(&self, released: &mut oneshot::Receiver<ReleaseReply>) -> Option<ReleaseReply> {
        let mut wait = self.lock.ttl / RENEW_AFTER;
        while !self.is_lost() {
            let until = self.validity.borrow().until;
            let renewal = async {
                sleep(wait).await;
                self.renew().await
            };
            tokio::select! {
                asked = &mut *released => return asked.ok(),
                // A renewal by another call may have moved the end.
                () = sleep_until(until) => {}
                renewed = renewal => wait = match renewed {
                    Ok(_) => self.lock.ttl / RENEW_AFTER,
                    Err(error) => {
                        tracing::debug!(%error, "lock renewal failed");
                        RETRY_WAIT.min(self.lock.ttl / RENEW_AFTER)
                    }
                },
            }
        }
        None
    }
}

/// Renews a lock until its guard is dropped or it is lost, and releases it (G1).
async fn renew_and_release(held: Arc<HeldLock>, mut released: oneshot::Receiver<ReleaseReply>) {
    let asked = held.renew_until(&mut released).await;
    if held.validity.borrow().is_gone {
        return;
    }
    held.lose();
    let given = held.lock.release_key(held.token).await;
    if let Err(error) = &given {
        tracing::debug!(%error, "lock release failed: the lock expires by itself");
    }
    if let Some(asked) = asked {
        // The requester may have gone.
        let _ = asked.send(given);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn g2_late_renewal_is_rejected() {
        let started = Instant::now();
        let at = |seconds| started + Duration::from_secs(seconds);
        let mut validity = LockValidity {
            until: at(9),
            is_gone: false,
        };
        assert!(validity.renew(at(12), at(8)));
        assert!(validity.renew(at(11), at(8)), "of two the later one counts");
        assert!(!validity.is_lost(at(11)) && validity.is_lost(at(12)));
        assert!(!validity.renew(at(20), at(12)));
        assert!(validity.is_lost(at(13)));
    }
}
