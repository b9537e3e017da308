//! Batches, from what has been applied.

use std::collections::{BTreeMap, VecDeque};

use stead_api::proto::internal::v1::{FeedAttached, feed_refused::Reason};
use stead_state::{
    codec::Writer,
    rows::Unreadable,
    shard::{
        command::Records,
        digest::Digests,
        read::{Changes, Reading, Refused},
    },
};
use stead_store::shard::View;
use stead_types::{
    FeedOffset, Revision, Sequence, TenantNumber,
    planted::{self, Bug},
};

use super::{
    BATCH_BYTES_MAX, BATCH_ENTRIES_MAX, BATCH_TENANTS_MAX, PIECE_BYTES_MAX,
    batch::{Batch, count},
    sessions::{Attempt, Span},
    stream::Source,
};
use crate::{local::may_follow, wire::ToFollower};

/// Why nothing of a tenant was put on the stream.
enum Unsent {
    Refused(Reason),
    Unreadable(Unreadable),
}

impl From<Refused> for Unsent {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Compacted { .. } => Self::Refused(Reason::SeedNeeded),
            // A follower that is ahead of its home has a history that the home does not know.
            Refused::Forked { .. } | Refused::NotReached { .. } => Self::Refused(Reason::Forked),
            Refused::Unreadable(unreadable) => Self::Unreadable(unreadable),
        }
    }
}

/// Changes of one tenant and what they leave it at.
struct Part {
    records: Records,
    next: Revision,
    /// Digests and lineage, where the changes end with the tenant's last.
    end: Option<(Digests, bytes::Bytes)>,
}

/// What entries changed, as far as it is not sent yet.
#[derive(Debug)]
pub(super) struct UnderWay {
    spans: VecDeque<(TenantNumber, Span)>,
    /// The stream's place once all is sent.
    place: u64,
    /// The last entry.
    offset: FeedOffset,
}

impl UnderWay {
    /// Returns what is to be sent so that the follower has everything up to a place and an offset.
    pub(super) fn new(spans: Vec<(TenantNumber, Span)>, place: u64, offset: FeedOffset) -> Self {
        let spans = spans.into();
        Self { spans, place, offset }
    }
}

/// Entries that were gone through.
#[derive(Default)]
struct GoneThrough {
    /// What is to be sent of whom.
    spans: BTreeMap<TenantNumber, Span>,
    /// The last of them.
    last: Option<u64>,
    /// Whether there may be more behind it.
    more: bool,
}

impl Source {
    /// Makes the next batch of what has been applied, and the next batch for those who catch up, if there is room.
    /// Returns whether there was anything to do.
    pub(super) fn produce(&mut self) -> Result<bool, Unreadable> {
        if !self.may_send() {
            return Ok(false);
        }
        let went_on = self.go_on()?;
        let caught_up = self.has_room() && self.catch_up()?;
        Ok(caught_up || went_on)
    }

    /// Goes through the entries behind the stream's place. Returns whether there were any.
    fn go_on(&mut self) -> Result<bool, Unreadable> {
        self.applied.borrow_and_update();
        let local = self.local.clone();
        let before = self.place;
        let made = local.machine.read(|held| match self.go_through(&held)? {
            Some(under_way) => self.piece(&held, under_way).map(Some),
            None => Ok(None),
        })??;
        // Compressed and counted only once the group may apply again.
        match made {
            Some((batch, Some(offset))) if batch.is_empty() => self.skipped(offset),
            Some((batch, Some(offset))) => self.send(batch, offset),
            Some((batch, None)) => self.send(batch, self.skipped.unwrap_or(self.offset)),
            None => return Ok(before != self.place || self.has_ended()),
        }
        Ok(true)
    }

    /// Returns what some entries changed, or what is left of those before.
    fn go_through(&mut self, held: &View<'_>) -> Result<Option<UnderWay>, Unreadable> {
        if self.under_way.is_some() {
            return Ok(self.under_way.take());
        }
        let applied = held.applied();
        if applied <= self.place {
            return Ok(None);
        }
        if held.shard().feed_floor() > self.place {
            // The bounds on history have passed the stream. Opened anew it sends what is behind each tenant's own position.
            self.overtaken();
            return Ok(None);
        }
        let gone_through = self.spans(held)?;
        let Some(last) = gone_through.last else {
            self.place = applied;
            return Ok(None);
        };
        let place = if gone_through.more { last } else { applied };
        let offset = FeedOffset {
            index: last,
            ..self.offset
        };
        let spans = gone_through.spans.into_iter().collect();
        Ok(Some(UnderWay::new(spans, place, offset)))
    }

    /// Puts the next piece together; returns it with the offset of the last entry, if nothing of it is left.
    fn piece(&mut self, held: &View<'_>, mut under_way: UnderWay) -> Result<(Batch, Option<FeedOffset>), Unreadable> {
        let mut batch = Batch::default();
        while let Some((tenant, span)) = under_way.spans.pop_front() {
            if !self.sessions.is_live(tenant, span.attempt) {
                continue;
            }
            let up_to = (span.through, PIECE_BYTES_MAX - batch.len());
            match self.part(held, (tenant, span.attempt, span.after), up_to) {
                Ok(part) => {
                    let after = part.next;
                    batch.add(tenant, span.attempt, &part.records.encode());
                    if after.sequence() < span.through {
                        under_way.spans.push_front((tenant, Span { after, ..span }));
                    }
                }
                Err(Unsent::Refused(reason)) => self.refuse(tenant, reason),
                Err(Unsent::Unreadable(unreadable)) => return Err(unreadable),
            }
            let is_full = batch.len() >= PIECE_BYTES_MAX || batch.tenants() >= BATCH_TENANTS_MAX;
            if is_full && !under_way.spans.is_empty() {
                self.under_way = Some(under_way);
                return Ok((batch, None));
            }
        }
        self.place = under_way.place;
        Ok((batch, Some(under_way.offset)))
    }

    /// Takes some entries in.
    fn spans(&mut self, held: &View<'_>) -> Result<GoneThrough, Unreadable> {
        let entries = held.feed(self.place, BATCH_ENTRIES_MAX)?;
        let mut through = GoneThrough {
            more: entries.len() == BATCH_ENTRIES_MAX,
            ..GoneThrough::default()
        };
        let mut bytes = 0;
        for (index, entry) in entries {
            through.last = Some(index);
            for touched in entry.touched {
                let Some(span) = self.sessions.touched(&touched) else {
                    continue;
                };
                let known = through.spans.entry(touched.tenant);
                known.and_modify(|before| before.through = span.through).or_insert(span);
            }
            bytes += entry.len;
            if bytes >= BATCH_BYTES_MAX as u64 || through.spans.len() >= BATCH_TENANTS_MAX {
                through.more = true;
                break;
            }
        }
        Ok(through)
    }

    /// Lets tenants that are behind have their turns until the batch is full. Returns whether any had one.
    fn catch_up(&mut self) -> Result<bool, Unreadable> {
        let local = self.local.clone();
        let mut attached = Vec::new();
        let mut any = false;
        let batch = local.machine.read(|held| {
            let mut batch = Batch::default();
            while !batch.is_full()
                && let Some((tenant, attempt, after)) = self.sessions.turn()
            {
                any = true;
                let up_to = (Sequence::MAX, BATCH_BYTES_MAX - batch.len());
                let part = match self.part(&held, (tenant, attempt, after), up_to) {
                    Ok(part) => part,
                    Err(Unsent::Refused(reason)) => {
                        self.refuse(tenant, reason);
                        continue;
                    }
                    Err(Unsent::Unreadable(unreadable)) => return Err(unreadable),
                };
                self.sessions.sent(tenant, part.next, part.end.is_none());
                if !part.records.changes.is_empty() {
                    batch.add(tenant, attempt, &part.records.encode());
                }
                if let Some((digests, lineage)) = part.end {
                    let mut written = Writer::with_capacity(32);
                    digests.encode(&mut written);
                    attached.push(ToFollower::Attached(FeedAttached {
                        tenant: tenant.get(),
                        epoch: attempt.epoch.get(),
                        attach: attempt.number.0,
                        position: part.next.to_u64(),
                        lineage,
                        digests: written.finish(),
                    }));
                }
            }
            Ok::<_, Unreadable>(batch)
        })??;
        if !batch.is_empty() {
            self.send(batch, self.skipped.unwrap_or(self.offset));
        }
        self.out.extend(attached);
        Ok(any)
    }

    /// Returns what there is of a tenant behind a revision, up to a sequence and of about so many bytes.
    fn part(
        &self,
        held: &View<'_>,
        (tenant, attempt, after): (TenantNumber, Attempt, Revision),
        (through, len_max): (Sequence, usize),
    ) -> Result<Part, Unsent> {
        let home = self.local.id();
        let may_follow = self
            .local
            .views
            .read(|view| may_follow(view, tenant, home, self.follower));
        if !may_follow && !planted::is(Bug::FeedToAnybody) {
            return Err(Unsent::Refused(Reason::NotAdmitted));
        }
        let owned = |reading: &Reading<'_>| reading.record().owned() == Some(attempt.epoch);
        let reading = held.reading(tenant).filter(owned);
        let reading = reading.ok_or(Unsent::Refused(Reason::NotOwner))?;
        let Changes { changes, next, more: _ } = reading.changes(after, through, len_max)?;
        let state = reading.state();
        let end = (next == state.revision).then(|| {
            let mut lineage = Writer::default();
            reading.record().lineage.encode(&mut lineage);
            (state.digests, lineage.finish())
        });
        let records = Records {
            changes,
            digests: end.as_ref().map(|(digests, _)| *digests),
            floor: state.floor,
        };
        Ok(Part { records, next, end })
    }

    /// Sends a batch with nothing in it, so that the follower's offset keeps up.
    pub(super) fn keep_up(&mut self, offset: FeedOffset) {
        self.send(Batch::default(), offset);
    }

    fn send(&mut self, batch: Batch, offset: FeedOffset) {
        let number = self.sends(batch.len());
        let message = batch.finish(offset, number, &mut self.packer);
        count(&message, self.border.as_ref(), &self.local.counters);
        self.sent(offset);
        self.out.push_back(ToFollower::Batch(message));
    }
}
