//! Settlement of a reservation.

use stead_types::{Condition, Error, ErrorKind, Revision};

use super::{Credits, OUTCOME_TTL, Reservation, ReservationRecord, read_result, signed};
use crate::{Increment, Item, Op, Txn, TxnResponse, retry};

/// Policy for work that has cost more than was set aside, where the balance does not have the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overdraft {
    /// Nothing happens and the reservation stays as it is, so that the caller decides.
    Refused,
    /// The balance goes below zero, and nothing can be reserved before more is granted.
    Allowed,
}

/// Outcome of settling a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "it may not be settled"]
pub enum SettleOutcome {
    /// This amount was spent, now or earlier: another amount than this call's means that somebody else settled it.
    Spent(u64),
    /// The balance has only this much, too little for the part that was not set aside: nothing happened.
    InsufficientBalance(i64),
    /// The reservation is not known any more: it was returned, or settled, more than a day ago. Nothing happened.
    Gone,
}

impl Credits {
    /// Settles a reservation: spends the actual cost, and returns the rest of the estimate to the balance or takes the
    /// missing part from it; once, however often it is called.
    ///
    /// If the reservation was reclaimed because its deadline had passed, the whole cost is taken from the balance now;
    /// that may be refused where the balance does not have it, as [`Overdraft`] says.
    ///
    /// # Errors
    ///
    /// As [`Txn::send`]: after an unknown outcome repeat the call.
    pub async fn settle(
        &self,
        reservation: &Reservation,
        actual: u64,
        overdraft: Overdraft,
    ) -> Result<SettleOutcome, Error> {
        signed("actual", actual)?;
        let key = self.keys.reservation(&reservation.id)?;
        let open = ReservationRecord::Open {
            estimate: reservation.estimate,
            deadline: reservation.deadline,
        };
        let mut known = KnownRecord {
            record: open,
            revision: reservation.revision,
        };
        let mut conflicts = 0;
        loop {
            let revision = known.revision;
            if let ReservationRecord::Settled { actual } = known.record {
                return Ok(SettleOutcome::Spent(actual));
            }
            let item = match self.settle_txn(reservation, known, actual, overdraft).send().await {
                Ok(done) => match self.attempt_result(done, actual)? {
                    SettleAttempt::Done(settled) => return Ok(settled),
                    SettleAttempt::Conflict(item) => item,
                },
                // A promotion has cut the reservation as this process knew it.
                Err(error) if matches!(error.kind, ErrorKind::Forked { .. }) => {
                    self.tenant.get(key.clone()).await?.item
                }
                Err(error) => return Err(error),
            };
            let Some(item) = item else {
                return Ok(SettleOutcome::Gone);
            };
            known = KnownRecord {
                record: ReservationRecord::read(&item)?,
                revision: item.modified,
            };
            conflicts += 1;
            if known.revision == revision || conflicts > CONFLICTS_MAX {
                let message = format!(
                    "the reservation {} keeps changing during this call: try again",
                    reservation.id
                );
                return Err(Error::new(ErrorKind::Conflict, message));
            }
            tokio::time::sleep(retry::after_conflict(conflicts)).await;
        }
    }

    /// Returns the whole estimate to the balance: the work was not done.
    ///
    /// # Errors
    ///
    /// As [`Credits::settle`].
    pub async fn release(&self, reservation: &Reservation) -> Result<SettleOutcome, Error> {
        self.settle(reservation, 0, Overdraft::Refused).await
    }

    /// Returns the transaction that settles a reservation if it is as it is known (C2).
    fn settle_txn(&self, reservation: &Reservation, known: KnownRecord, actual: u64, overdraft: Overdraft) -> Txn {
        let key = self.keys.known_reservation(&reservation.id);
        let (set_aside, due) = match known.record {
            ReservationRecord::Open { estimate, deadline } => {
                (estimate, Some(self.keys.due(deadline, &reservation.id)))
            }
            ReservationRecord::Settled { .. } | ReservationRecord::Returned { .. } => (0, None),
        };
        // Both are below 2^63, so that their difference fits.
        let refund = set_aside.cast_signed() - actual.cast_signed();
        let floor = match overdraft {
            Overdraft::Refused => Some(0),
            Overdraft::Allowed => None,
        };
        let (balance_change, spent_change) = (Increment::by(refund), Increment::by(actual.cast_signed()));
        let settled = ReservationRecord::Settled { actual }.text();
        let mut txn = self
            .tenant
            .txn()
            .when(key.clone(), Condition::modified_at(known.revision));
        txn = txn.then(Op::increment(
            self.keys.balance(),
            Increment {
                floor,
                ..balance_change
            },
        ));
        txn = txn.then(Op::put_expiring(key.clone(), settled, OUTCOME_TTL));
        if actual > 0 {
            txn = txn.then(Op::increment(self.keys.spent(), spent_change));
        }
        if let Some(due) = due {
            txn = txn.then(Op::delete(due));
        }
        txn.otherwise(Op::get(key))
    }

    fn attempt_result(&self, done: TxnResponse, actual: u64) -> Result<SettleAttempt, Error> {
        self.observe(
            &done.header,
            done.succeeded && !done.repeated && done.not_admitted.is_none(),
        );
        if let Some(short) = done.not_admitted {
            return Ok(SettleAttempt::Done(SettleOutcome::InsufficientBalance(short.value)));
        }
        if done.succeeded {
            return Ok(SettleAttempt::Done(SettleOutcome::Spent(actual)));
        }
        Ok(SettleAttempt::Conflict(read_result(done.results)?))
    }
}

/// Most changes of a reservation under one call: from open to returned to settled, and once for a promotion.
const CONFLICTS_MAX: u32 = 4;

/// A reservation's record as this process knows it, with the revision of its last change.
#[derive(Clone, Copy)]
struct KnownRecord {
    record: ReservationRecord,
    revision: Revision,
}

/// Result of one attempt to settle a reservation.
enum SettleAttempt {
    Done(SettleOutcome),
    /// The reservation has changed: its current key.
    Conflict(Option<Item>),
}
