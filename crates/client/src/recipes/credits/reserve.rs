//! Reservation of credits.

use std::time::Duration;

use stead_types::{Condition, Error, ErrorKind, TenantTime};
use tokio::time::Instant;

use super::{Credits, Reservation, ReservationRecord, read_result, signed};
use crate::{
    Increment, Item, Op,
    recipes::{clock::after, whole_milliseconds},
    response::malformed,
};

/// Most extensions of the deadline in one call, each of which adds more time.
const EXTENSIONS_MAX: u32 = 5;

impl Credits {
    /// Reserves credits for `ttl`, whole milliseconds; `None`: the balance is too low, also after expired reservations
    /// were reclaimed. A repeated call with the same id returns the existing reservation, whose deadline is extended if
    /// less than half of the time is left.
    ///
    /// # Errors
    ///
    /// As [`crate::Txn::send`]; `Conflict` if the id's reservation has ended, or has another estimate.
    pub async fn reserve(&self, id: &str, estimate: u64, ttl: Duration) -> Result<Option<Reservation>, Error> {
        let ttl = whole_milliseconds("ttl", ttl)?;
        let reserved = self.try_reserve(id, estimate, ttl).await?;
        if reserved.is_some() || self.reclaim_due().await? == 0 {
            return Ok(reserved);
        }
        self.try_reserve(id, estimate, ttl).await
    }

    async fn try_reserve(&self, id: &str, estimate: u64, ttl: Duration) -> Result<Option<Reservation>, Error> {
        let key = self.keys.reservation(id)?;
        let delta = -signed("estimate", estimate)?;
        let now = match self.clock.recent() {
            Some(now) => now,
            None => self.current_time().await?,
        };
        let deadline = after(now, ttl);
        let record = ReservationRecord::Open { estimate, deadline };
        let withdrawal = Increment {
            floor: Some(0),
            ..Increment::by(delta)
        };
        let done = self
            .tenant
            .txn()
            .when(key.clone(), Condition::Absent)
            .then(Op::increment(self.keys.balance(), withdrawal))
            .then(Op::put(key.clone(), record.text()))
            .then(Op::put(self.keys.due(deadline, id), estimate.to_string()))
            .otherwise(Op::get(key))
            .send()
            .await?;
        let is_first = done.succeeded && !done.repeated && done.not_admitted.is_none();
        self.observe(&done.header, is_first);
        if done.not_admitted.is_some() {
            return Ok(None);
        }
        let created = Reservation {
            id: id.to_owned(),
            estimate,
            deadline,
            revision: done.header.revision,
        };
        let (held, now) = if is_first {
            (created, done.header.tenant_time)
        } else if done.succeeded {
            (created, self.current_time().await?)
        } else {
            (
                open_reservation(id, estimate, read_result(done.results)?)?,
                self.current_time().await?,
            )
        };
        self.ensure_time_left(held, now, ttl).await.map(Some)
    }

    /// Extends the deadline until at least half of the time is left when the caller learns of it: the clock by which
    /// the deadline was chosen may be behind, and an existing reservation may be of any age.
    async fn ensure_time_left(
        &self,
        mut held: Reservation,
        mut now: TenantTime,
        ttl: Duration,
    ) -> Result<Reservation, Error> {
        let enough = (ttl / 2).max(Duration::from_millis(1));
        let mut round_trip = Duration::ZERO;
        for _ in 0..EXTENSIONS_MAX {
            if after(now, enough) <= held.deadline {
                return Ok(held);
            }
            let started = Instant::now();
            // A later deadline, by the time that the response is expected to take.
            let deadline = after(now, ttl + round_trip).max(TenantTime(held.deadline.0 + 1));
            (held, now) = self.extend(held, deadline).await?;
            round_trip = started.elapsed();
        }
        let message = format!(
            "ttl: {ttl:?} passes before the reservation {} is confirmed: use a longer one",
            held.id
        );
        Err(Error::invalid("ttl", message))
    }

    /// Moves the deadline, unless the reservation has ended meanwhile (C2); returns the reservation and the current
    /// time.
    async fn extend(&self, held: Reservation, deadline: TenantTime) -> Result<(Reservation, TenantTime), Error> {
        let key = self.keys.known_reservation(&held.id);
        let estimate = held.estimate;
        let done = self
            .tenant
            .txn()
            .when(key.clone(), Condition::modified_at(held.revision))
            .then(Op::put(
                key.clone(),
                ReservationRecord::Open { estimate, deadline }.text(),
            ))
            .then(Op::delete(self.keys.due(held.deadline, &held.id)))
            // C3: in the same change, so that their revisions are the same.
            .then(Op::put(self.keys.due(deadline, &held.id), estimate.to_string()))
            .otherwise(Op::get(key))
            .send()
            .await?;
        let is_first = done.succeeded && !done.repeated;
        self.observe(&done.header, is_first);
        let extended = if done.succeeded {
            Reservation {
                deadline,
                revision: done.header.revision,
                ..held
            }
        } else {
            open_reservation(&held.id, estimate, read_result(done.results)?)?
        };
        let now = if is_first {
            done.header.tenant_time
        } else {
            self.current_time().await?
        };
        Ok((extended, now))
    }
}

/// Returns the reservation that a key holds, if it is open with this estimate.
fn open_reservation(id: &str, estimate: u64, item: Option<Item>) -> Result<Reservation, Error> {
    let item = item.ok_or_else(|| malformed("reservation"))?;
    let why = match ReservationRecord::read(&item)? {
        ReservationRecord::Open {
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
        ReservationRecord::Open { estimate: held, .. } => format!("is open with the estimate {held}"),
        ReservationRecord::Settled { actual } => format!("was settled with {actual}"),
        ReservationRecord::Returned { .. } => "was returned after its deadline".to_owned(),
    };
    let message = format!("id: the reservation {id} {why}: use each id once");
    Err(Error::new(ErrorKind::Conflict, message))
}
