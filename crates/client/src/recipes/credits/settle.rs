//! The end of a reservation.

use stead_types::{Condition, Error, ErrorKind, Revision};

use super::{Credits, REMEMBERED, Record, Reservation, got, signed};
use crate::{Increment, Item, Op, Txn, TxnDone, retry};

/// Whether work that has cost more than was set aside may be paid from a balance that does not have the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overdraft {
    /// No: nothing happens and the reservation stays as it is, so that the caller decides.
    Refused,
    /// Yes: the balance goes below zero, and nothing can be reserved before more is granted.
    Allowed,
}

/// What settling came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "it may not be settled"]
pub enum Settled {
    /// So much was spent for it, now or earlier: another amount than this call's means that somebody else settled it.
    Spent(u64),
    /// The balance has only so much, too little for what was not set aside: nothing happened.
    Short(i64),
    /// Nothing is known of it: it was returned, or settled, more than a day ago. Nothing happened.
    Gone,
}

impl Credits {
    /// Spends what the work has really cost, and gives the rest of the estimate back or takes what is missing; once,
    /// however often it is asked.
    ///
    /// If the reservation was given back because its time was over, the whole cost is taken from the balance now; that
    /// may be refused where the balance does not have it, as [`Overdraft`] says.
    ///
    /// # Errors
    ///
    /// As [`Txn::send`]: after an unknown outcome ask again.
    pub async fn settle(&self, reservation: &Reservation, actual: u64, overdraft: Overdraft) -> Result<Settled, Error> {
        signed("actual", actual)?;
        let key = self.keys.reservation(&reservation.id)?;
        let open = Record::Open {
            estimate: reservation.estimate,
            deadline: reservation.deadline,
        };
        let mut known = (open, reservation.revision);
        let mut lost = 0;
        loop {
            let (record, revision) = known;
            if let Record::Settled { actual } = record {
                return Ok(Settled::Spent(actual));
            }
            let item = match self.end(reservation, known, actual, overdraft).send().await {
                Ok(done) => match self.ended(done, actual)? {
                    Ended::As(settled) => return Ok(settled),
                    Ended::Otherwise(item) => item,
                },
                // A promotion has cut the reservation as this process knew it.
                Err(error) if matches!(error.kind, ErrorKind::Forked { .. }) => {
                    self.tenant.get(key.clone()).await?.item
                }
                Err(error) => return Err(error),
            };
            let Some(item) = item else { return Ok(Settled::Gone) };
            known = (Record::read(&item)?, item.modified);
            lost += 1;
            if known.1 == revision || lost > CHANGES_MAX {
                let message = format!("the reservation {} changes all the time: try again", reservation.id);
                return Err(Error::new(ErrorKind::Conflict, message));
            }
            tokio::time::sleep(retry::after_conflict(lost)).await;
        }
    }

    /// Gives everything back that was set aside: the work was not done.
    ///
    /// # Errors
    ///
    /// As [`Credits::settle`].
    pub async fn release(&self, reservation: &Reservation) -> Result<Settled, Error> {
        self.settle(reservation, 0, Overdraft::Refused).await
    }

    /// The transaction that ends a reservation if it is as it is known (C2).
    fn end(
        &self,
        reservation: &Reservation,
        (record, revision): (Record, Revision),
        actual: u64,
        overdraft: Overdraft,
    ) -> Txn {
        let key = self.keys.known_reservation(&reservation.id);
        let (set_aside, due) = match record {
            Record::Open { estimate, deadline } => (estimate, Some(self.keys.due(deadline, &reservation.id))),
            Record::Settled { .. } | Record::Returned { .. } => (0, None),
        };
        // Both are below 2^63, so that their difference is a number.
        let back = set_aside.cast_signed() - actual.cast_signed();
        let floor = match overdraft {
            Overdraft::Refused => Some(0),
            Overdraft::Allowed => None,
        };
        let (give, spend) = (Increment::by(back), Increment::by(actual.cast_signed()));
        let settled = Record::Settled { actual }.text();
        let mut txn = self.tenant.txn().when(key.clone(), Condition::modified(revision));
        txn = txn.then(Op::increment(self.keys.balance(), Increment { floor, ..give }));
        txn = txn.then(Op::put_expiring(key.clone(), settled, REMEMBERED));
        if actual > 0 {
            txn = txn.then(Op::increment(self.keys.spent(), spend));
        }
        if let Some(due) = due {
            txn = txn.then(Op::delete(due));
        }
        txn.otherwise(Op::get(key))
    }

    fn ended(&self, done: TxnDone, actual: u64) -> Result<Ended, Error> {
        self.saw(
            &done.header,
            done.succeeded && !done.repeated && done.not_admitted.is_none(),
        );
        if let Some(short) = done.not_admitted {
            return Ok(Ended::As(Settled::Short(short.value)));
        }
        if done.succeeded {
            return Ok(Ended::As(Settled::Spent(actual)));
        }
        Ok(Ended::Otherwise(got(done.results)?))
    }
}

/// How often a reservation can change under one call: from open to returned to settled, and once for a promotion.
const CHANGES_MAX: u32 = 4;

enum Ended {
    As(Settled),
    /// It is not as it was known: this is how it is.
    Otherwise(Option<Item>),
}
