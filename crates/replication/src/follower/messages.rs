//! Messages of the home on a stream: checked, and queued for the group's log.

use stead_api::proto::internal::v1::{FeedAttached, FeedBatch, FeedBaton, FeedRefused, feed_refused::Reason};
use stead_state::{
    codec::{Malformed, Reader},
    lineage::Lineage,
    shard::{Baton, digest::Digests, feed_validation::InvalidFeedData, record::AttachNumber},
};
use stead_store::group_rows::IncompleteChange;
use stead_types::{Epoch, Revision, TenantNumber};
use tokio::time::Instant;

use super::{
    feed_checker::{LastAttempt, check_attempt},
    queue::{AttachedTenant, Item},
    stream::{FollowerStream, StreamEnd},
};
use crate::{
    source::{BATCH_LEN_MAX, BATCH_PARTS_MAX},
    wire::{self, InvalidMessage, MessageToFollower, SubscribeResponse},
};

impl FollowerStream {
    /// Handles one message of the home.
    pub(super) fn handle_message(&mut self, response: SubscribeResponse) -> Result<(), StreamEnd> {
        match response.message {
            Some(MessageToFollower::Batch(batch)) => self.handle_batch(batch)?,
            Some(MessageToFollower::Attached(attached)) => self.handle_attached(attached)?,
            Some(MessageToFollower::Refused(refused)) => self.handle_refused(&refused)?,
            Some(MessageToFollower::Pong(pong)) => self.handle_pong(&pong)?,
            Some(MessageToFollower::Baton(baton)) => self.handle_baton(baton)?,
            Some(MessageToFollower::NotLeader(not_leader)) => {
                return Err(StreamEnd::NotLeader(wire::leader_from(not_leader)));
            }
            Some(MessageToFollower::Opened(_)) => return Err(InvalidMessage("the stream is already open").into()),
            // A newer home's message.
            None => {}
        }
        Ok(())
    }

    fn handle_batch(&mut self, batch: FeedBatch) -> Result<(), StreamEnd> {
        let offset = wire::offset_from(batch.offset)?;
        let unreadable = |_| InvalidMessage("payload");
        let mut raw = self
            .decompressor
            .decompress(batch.payload, batch.raw_len)
            .map_err(unreadable)?;
        // A longer one would not fit into a proposal of the group.
        if raw.len() > BATCH_LEN_MAX || batch.parts.len() > BATCH_PARTS_MAX {
            return Err(InvalidMessage("batch").into());
        }
        let attempts = self.last_attempts(batch.parts.iter().map(|part| part.tenant))?;
        let mut parts = Vec::with_capacity(batch.parts.len());
        for (part, last) in batch.parts.iter().zip(attempts) {
            let len = part.len as usize;
            if len > raw.len() {
                return Err(InvalidMessage("part").into());
            }
            match self.checker.part(last, part, raw.split_to(len)) {
                Ok(part) => parts.extend(part),
                // It is detached before the offset passes what it lacks.
                Err(why) => self.end_session(part.tenant, part.attach, last, &why),
            }
        }
        if !parts.is_empty() {
            self.records_at = Some(Instant::now());
        }
        let number = batch.number;
        self.queue.push(Item::Batch { number, offset, parts });
        Ok(())
    }

    /// Returns the last attempts to attach these tenants, as their records have them.
    fn last_attempts(&self, tenants: impl Iterator<Item = u64>) -> Result<Vec<Option<LastAttempt>>, IncompleteChange> {
        self.context.machine.read(|held| {
            let last = |tenant| LastAttempt::of(held.record(TenantNumber::new(tenant))?, self.home);
            tenants.map(last).collect()
        })
    }

    fn handle_attached(&mut self, attached: FeedAttached) -> Result<(), StreamEnd> {
        let (tenant, attach) = (attached.tenant, attached.attach);
        let last = self.last_attempts(std::iter::once(attached.tenant))?.pop().flatten();
        let read = read_attached(attached).map_err(InvalidFeedData::Unreadable);
        let checked = read.and_then(|attached| {
            check_attempt(last, attached.epoch, attached.number)?;
            Ok(attached)
        });
        match checked {
            Ok(attached) => self.queue.push(Item::Attached(attached)),
            Err(why) => self.end_session(tenant, attach, last, &why),
        }
        Ok(())
    }

    fn handle_baton(&mut self, message: FeedBaton) -> Result<(), StreamEnd> {
        let (tenant, attach) = (TenantNumber::new(message.tenant), AttachNumber(message.attach));
        let last = self.last_attempts(std::iter::once(message.tenant))?.pop().flatten();
        if last.is_none_or(|last| last.number != attach) {
            // It was sent for an earlier attempt, or this group has taken the tenant over already.
            return Ok(());
        }
        let read = Baton::decode(message.baton).map_err(InvalidFeedData::Unreadable);
        let checked = read.and_then(|baton| {
            check_attempt(last, baton.from_epoch, attach)?;
            Ok(baton)
        });
        match checked {
            Ok(baton) => self.queue.push(Item::Baton(tenant, attach, baton)),
            Err(why) => self.end_session(message.tenant, message.attach, last, &why),
        }
        Ok(())
    }

    /// Ends a tenant's session because of invalid data from its home, and schedules another attempt. The session is the
    /// one in the record, whatever the home has named.
    fn end_session(&mut self, tenant: u64, attach: u64, last: Option<LastAttempt>, why: &InvalidFeedData) {
        let tenant = TenantNumber::new(tenant);
        let number = last.map_or(AttachNumber(attach), |last| last.number);
        self.context.report_invalid_data(self.home, tenant, why);
        self.checker.end(tenant, number);
        self.queue.push(Item::Detached(tenant, number));
        self.scheduler.retry_later(tenant, Instant::now());
    }

    fn handle_refused(&mut self, refused: &FeedRefused) -> Result<(), StreamEnd> {
        let (tenant, now) = (TenantNumber::new(refused.tenant), Instant::now());
        let (group, home, reason) = (self.context.id(), self.home, refused.reason());
        tracing::debug!(%group, %home, %tenant, ?reason, "the home refused to attach a tenant");
        let number = AttachNumber(refused.attach);
        let has_shadow = self.context.machine.read(|held| {
            // The refusal of an earlier attempt says nothing about this one.
            let record = held.record(tenant).filter(|record| record.home() == Some(self.home))?;
            (record.attach == number).then_some(record.shadow.is_some())
        })?;
        let Some(has_shadow) = has_shadow else { return Ok(()) };
        // Also if it is not attached: that may be in a pending proposal.
        self.queue.push(Item::Detached(tenant, number));
        match refused.reason() {
            Reason::SeedNeeded | Reason::CannotCatchUp if has_shadow => {
                // The home has dropped the changes after the seed, or will not keep them.
                self.needs_fresh_seed.insert(tenant);
                self.scheduler.schedule_fresh_seed(tenant, now);
            }
            Reason::SeedNeeded => self.scheduler.schedule_seed(tenant, now),
            Reason::NotOwner | Reason::NotAdmitted | Reason::Forked | Reason::CannotCatchUp | Reason::Unspecified => {
                self.scheduler.retry_later(tenant, now);
            }
        }
        Ok(())
    }
}

fn read_attached(attached: FeedAttached) -> Result<AttachedTenant, Malformed> {
    let mut lineage = Reader::new(attached.lineage, "lineage");
    let mut digests = Reader::new(attached.digests, "digests");
    let read = AttachedTenant {
        tenant: TenantNumber::new(attached.tenant),
        epoch: Epoch::new(attached.epoch).ok_or_else(|| lineage.malformed())?,
        number: AttachNumber(attached.attach),
        position: Revision::from_u64(attached.position),
        lineage: Lineage::decode(&mut lineage)?,
        digests: Digests::decode(&mut digests)?,
    };
    lineage.end()?;
    digests.end()?;
    Ok(read)
}
