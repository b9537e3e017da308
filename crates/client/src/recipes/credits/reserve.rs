//! The beginning of a reservation.

use std::time::Duration;

use stead_types::{Condition, Error, ErrorKind, TenantTime};
use tokio::time::Instant;

use super::{Credits, Record, Reservation, got, signed};
use crate::{
    Increment, Item, Op,
    answer::malformed,
    recipes::{clock::after, whole_milliseconds},
};

/// How often one call may find that too little is left of a reservation's time; each time it is given more.
const EXTENSIONS_MAX: u32 = 5;

impl Credits {
    /// Sets credits aside for `ttl`, whole milliseconds; `None`: the balance does not have so much, also after expired
    /// reservations were given back. Asked again with the same id it answers with the reservation there is, which is
    /// given its time anew if less than half of that is left.
    ///
    /// # Errors
    ///
    /// As [`crate::Txn::send`]; `Conflict` if the id's reservation has ended, or has another estimate.
    pub async fn reserve(&self, id: &str, estimate: u64, ttl: Duration) -> Result<Option<Reservation>, Error> {
        let ttl = whole_milliseconds("ttl", ttl)?;
        let reserved = self.try_reserve(id, estimate, ttl).await?;
        if reserved.is_some() || self.give_back_due().await? == 0 {
            return Ok(reserved);
        }
        self.try_reserve(id, estimate, ttl).await
    }

    async fn try_reserve(&self, id: &str, estimate: u64, ttl: Duration) -> Result<Option<Reservation>, Error> {
        let key = self.keys.reservation(id)?;
        let delta = -signed("estimate", estimate)?;
        let now = match self.clock.recent() {
            Some(now) => now,
            None => self.tick().await?,
        };
        let deadline = after(now, ttl);
        let record = Record::Open { estimate, deadline };
        let take = Increment {
            floor: Some(0),
            ..Increment::by(delta)
        };
        let done = self
            .tenant
            .txn()
            .when(key.clone(), Condition::Absent)
            .then(Op::increment(self.keys.balance(), take))
            .then(Op::put(key.clone(), record.text()))
            .then(Op::put(self.keys.due(deadline, id), estimate.to_string()))
            .otherwise(Op::get(key))
            .send()
            .await?;
        let is_first = done.succeeded && !done.repeated && done.not_admitted.is_none();
        self.saw(&done.header, is_first);
        if done.not_admitted.is_some() {
            return Ok(None);
        }
        let made = Reservation {
            id: id.to_owned(),
            estimate,
            deadline,
            revision: done.header.revision,
        };
        let (held, now) = if is_first {
            (made, done.header.tenant_time)
        } else if done.succeeded {
            (made, self.tick().await?)
        } else {
            (open(id, estimate, got(done.results)?)?, self.tick().await?)
        };
        self.extended(held, now, ttl).await.map(Some)
    }

    /// Gives a reservation its time anew as long as too little of it is left by the time at which it is known: the clock
    /// by which its deadline was chosen may be behind, and a found one may be as old as it likes.
    async fn extended(&self, mut held: Reservation, mut now: TenantTime, ttl: Duration) -> Result<Reservation, Error> {
        let enough = (ttl / 2).max(Duration::from_millis(1));
        let mut way = Duration::ZERO;
        for _ in 0..EXTENSIONS_MAX {
            if after(now, enough) <= held.deadline {
                return Ok(held);
            }
            let asked = Instant::now();
            // Another deadline, later than now by the time that is asked for when the answer is here.
            let deadline = after(now, ttl + way).max(TenantTime(held.deadline.0 + 1));
            (held, now) = self.extend(held, deadline).await?;
            way = asked.elapsed();
        }
        let message = format!(
            "ttl: {ttl:?} are over before it is known that {} is reserved: ask for more",
            held.id
        );
        Err(Error::invalid("ttl", message))
    }

    /// Moves the deadline, unless something else has become of the reservation (C2); returns how it is, and when.
    async fn extend(&self, held: Reservation, deadline: TenantTime) -> Result<(Reservation, TenantTime), Error> {
        let key = self.keys.known_reservation(&held.id);
        let estimate = held.estimate;
        let done = self
            .tenant
            .txn()
            .when(key.clone(), Condition::modified(held.revision))
            .then(Op::put(key.clone(), Record::Open { estimate, deadline }.text()))
            .then(Op::delete(self.keys.due(held.deadline, &held.id)))
            // C3: in the same change, so that their revisions are the same.
            .then(Op::put(self.keys.due(deadline, &held.id), estimate.to_string()))
            .otherwise(Op::get(key))
            .send()
            .await?;
        let is_first = done.succeeded && !done.repeated;
        self.saw(&done.header, is_first);
        let extended = if done.succeeded {
            Reservation {
                deadline,
                revision: done.header.revision,
                ..held
            }
        } else {
            open(&held.id, estimate, got(done.results)?)?
        };
        let now = if is_first {
            done.header.tenant_time
        } else {
            self.tick().await?
        };
        Ok((extended, now))
    }
}

/// Returns the reservation that a key holds, if it is open with this estimate.
fn open(id: &str, estimate: u64, item: Option<Item>) -> Result<Reservation, Error> {
    let item = item.ok_or_else(|| malformed("reservation"))?;
    let why = match Record::read(&item)? {
        Record::Open {
            estimate: held,
            deadline,
        } if held == estimate => {
            return Ok(Reservation {
                id: id.to_owned(),
                estimate,
                deadline,
                revision: item.modified,
            });
        }
        Record::Open { estimate: held, .. } => format!("is open with the estimate {held}"),
        Record::Settled { actual } => format!("was settled with {actual}"),
        Record::Returned { .. } => "was given back when its time was over".to_owned(),
    };
    let message = format!("id: the reservation {id} {why}: use each id once");
    Err(Error::new(ErrorKind::Conflict, message))
}
