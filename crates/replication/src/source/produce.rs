//! Production of batches from applied log entries.

use std::collections::BTreeMap;

use stead_api::proto::internal::v1::{FeedAttached, feed_refused::Reason};
use stead_state::{
    codec::Writer,
    rows::Unreadable,
    shard::{
        command::FeedRecords,
        digest::Digests,
        read::{ChangesPage, ReadError, TenantReader},
    },
};
use stead_store::shard::ReadView;
use stead_types::{
    DirectoryVersion, Durability, FeedOffset, Revision, Sequence, TenantNumber,
    planted::{self, Bug},
};

use super::{
    batch::{BatchBuilder, count},
    limits::{BATCH_BYTES_MAX, BATCH_ENTRIES_MAX, BATCH_TENANTS_MAX, PIECE_BYTES_MAX},
    pending_entries::PendingEntries,
    sessions::ChangeRange,
    stream::FeedSource,
};
use crate::{
    group_context::{admitting_policy, fed_epoch, policy_of},
    wire::MessageToFollower,
};

/// Reason why no changes of a tenant can be sent.
pub(super) enum PartError {
    Refused(Reason),
    Unreadable(Unreadable),
}

impl From<ReadError> for PartError {
    fn from(refused: ReadError) -> Self {
        match refused {
            ReadError::Compacted { .. } => Self::Refused(Reason::SeedNeeded),
            // A follower that is ahead of its home has a history that the home does not know.
            ReadError::Forked(_) | ReadError::NotReached { .. } => Self::Refused(Reason::Forked),
            ReadError::Unreadable(unreadable) => Self::Unreadable(unreadable),
        }
    }
}

/// Changes of one tenant, with the revision after them.
pub(super) struct TenantChanges {
    pub(super) records: FeedRecords,
    pub(super) next: Revision,
    /// Version of the tenant's record that admits the follower.
    pub(super) policy: DirectoryVersion,
    /// Digests and lineage, if the changes end with the tenant's last one.
    end: Option<(Digests, bytes::Bytes)>,
}

/// Result of a scan of feed entries.
#[derive(Default)]
struct ScannedEntries {
    /// Range of changes to send of each tenant.
    ranges: BTreeMap<TenantNumber, ChangeRange>,
    /// Index of the last entry.
    last: Option<u64>,
    /// Whether there may be more entries behind it.
    more: bool,
}

impl FeedSource {
    /// Hands over relinquished tenants, makes the next batch of applied entries, and the next batch for tenants that catch
    /// up, if there is room. Returns whether anything was made.
    pub(super) fn produce(&mut self) -> Result<bool, Unreadable> {
        // A handover waits for room only, not for the pace of batches.
        let handed_over = self.has_room() && self.send_relinquished()?;
        if !self.may_send() {
            return Ok(handed_over);
        }
        let sent = self.send_entries()?;
        let caught_up = self.has_room() && self.may_catch_up() && self.catch_up()?;
        Ok(caught_up || sent || handed_over)
    }

    /// Sends the changes of the next applied entries. Returns whether there were any entries.
    fn send_entries(&mut self) -> Result<bool, Unreadable> {
        self.applied.borrow_and_update();
        let context = self.context.clone();
        let before = self.scanned_index;
        let (made, handover) = context.machine.read(|held| {
            let made = match self.scan(&held)? {
                Some(pending) => Some(self.build_batch(&held, pending)?),
                None => None,
            };
            // As of the same entry: no ping is answered behind one that relinquished a tenant before its session knows.
            Ok::<_, Unreadable>((made, self.hand_over(&held)?))
        })??;
        // Compressed and counted only once the group may apply again.
        match made {
            Some((batch, Some(offset))) if batch.is_empty() => self.record_skipped(offset),
            Some((batch, Some(offset))) => self.send(batch, offset),
            Some((batch, None)) => self.send(batch, self.skipped.unwrap_or(self.offset)),
            None => {
                let is_any = self.send_handover(handover);
                return Ok(is_any || before != self.scanned_index || self.has_ended());
            }
        }
        self.send_handover(handover);
        Ok(true)
    }

    /// Returns the changes of the next entries, or the pending rest of those before.
    fn scan(&mut self, held: &ReadView<'_>) -> Result<Option<PendingEntries>, Unreadable> {
        if self.pending.is_some() {
            return Ok(self.pending.take());
        }
        let applied = held.applied();
        if applied <= self.scanned_index {
            return Ok(None);
        }
        if held.has_dropped_feed_after(self.scanned_index) {
            // Retention has passed the stream. Once reopened, it sends everything after each tenant's own position.
            self.end_behind_retention();
            return Ok(None);
        }
        let scanned = self.scan_feed(held)?;
        let Some(last) = scanned.last else {
            self.scanned_index = applied;
            return Ok(None);
        };
        let scanned_index = if scanned.more { last } else { applied };
        let offset = FeedOffset {
            index: last,
            ..self.offset
        };
        let ranges = scanned.ranges.into_iter().collect();
        Ok(Some(PendingEntries::new(ranges, scanned_index, offset)))
    }

    /// Builds the next piece of pending changes; returns it with the offset of the last entry, if nothing is left.
    fn build_batch(
        &mut self,
        held: &ReadView<'_>,
        mut pending: PendingEntries,
    ) -> Result<(BatchBuilder, Option<FeedOffset>), Unreadable> {
        let mut batch = BatchBuilder::default();
        while let Some((tenant, range)) = pending.ranges.pop_front() {
            if !self.sessions.is_live(tenant, range.attempt) {
                continue;
            }
            match self.read_changes(held, tenant, range, PIECE_BYTES_MAX - batch.len()) {
                Ok(part) => {
                    let after = part.next;
                    batch.add(tenant, range.attempt, part.policy, &part.records.encode());
                    if after.sequence() < range.through {
                        pending.ranges.push_front((tenant, ChangeRange { after, ..range }));
                    }
                }
                Err(PartError::Refused(reason)) => self.refuse(tenant, reason),
                Err(PartError::Unreadable(unreadable)) => return Err(unreadable),
            }
            let is_full = batch.len() >= PIECE_BYTES_MAX || batch.tenants() >= BATCH_TENANTS_MAX;
            if is_full && !pending.ranges.is_empty() {
                self.pending = Some(pending);
                return Ok((batch, None));
            }
        }
        self.scanned_index = pending.scanned_index;
        Ok((batch, Some(pending.offset)))
    }

    /// Scans the next feed entries for changes of the stream's tenants.
    fn scan_feed(&mut self, held: &ReadView<'_>) -> Result<ScannedEntries, Unreadable> {
        let entries = held.feed(self.scanned_index, BATCH_ENTRIES_MAX)?;
        let mut scanned = ScannedEntries {
            more: entries.len() == BATCH_ENTRIES_MAX,
            ..ScannedEntries::default()
        };
        let mut bytes = 0;
        for (index, entry) in entries {
            scanned.last = Some(index);
            for touched in entry.touched {
                let Some(range) = self.sessions.record_change(&touched) else {
                    continue;
                };
                let known = scanned.ranges.entry(touched.tenant);
                known
                    .and_modify(|before| before.through = range.through)
                    .or_insert(range);
            }
            bytes += entry.len;
            if bytes >= BATCH_BYTES_MAX as u64 || scanned.ranges.len() >= BATCH_TENANTS_MAX {
                scanned.more = true;
                break;
            }
        }
        Ok(scanned)
    }

    /// Sends changes of the tenants that catch up, round robin, until the batch is full. Returns whether there were
    /// any.
    fn catch_up(&mut self) -> Result<bool, Unreadable> {
        let context = self.context.clone();
        let mut attached = Vec::new();
        let mut any = false;
        let batch = context.machine.read(|held| {
            let mut batch = BatchBuilder::default();
            while !batch.is_full()
                && let Some((tenant, attempt, after)) = self.sessions.next_behind()
            {
                any = true;
                let is_seeding = context.seeds.is_seeding(tenant, self.follower);
                if !is_seeding && context.seeds.is_refused(tenant, self.follower) {
                    self.refuse(tenant, Reason::CannotCatchUp);
                    continue;
                }
                let range = ChangeRange {
                    attempt,
                    after,
                    through: Sequence::MAX,
                };
                let part = match self.read_changes(&held, tenant, range, BATCH_BYTES_MAX - batch.len()) {
                    Ok(part) => part,
                    Err(PartError::Refused(reason)) => {
                        self.refuse(tenant, reason);
                        continue;
                    }
                    Err(PartError::Unreadable(unreadable)) => return Err(unreadable),
                };
                self.sessions.record_sent(tenant, part.next, part.end.is_none());
                if !part.records.changes.is_empty() {
                    let before = batch.len();
                    batch.add(tenant, attempt, part.policy, &part.records.encode());
                    if is_seeding {
                        context.seeds.record_sent(tenant, self.follower, part.next);
                        self.pace_catch_up(batch.len() - before);
                    }
                }
                if let Some((digests, lineage)) = part.end {
                    let mut encoded = Writer::with_capacity(32);
                    digests.encode(&mut encoded);
                    attached.push(MessageToFollower::Attached(FeedAttached {
                        tenant: tenant.get(),
                        epoch: attempt.epoch.get(),
                        attach: attempt.number.0,
                        position: part.next.to_u64(),
                        lineage,
                        digests: encoded.finish(),
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

    /// Reads the changes of a tenant in a range, of about `len_max` bytes at most.
    pub(super) fn read_changes(
        &self,
        held: &ReadView<'_>,
        tenant: TenantNumber,
        range: ChangeRange,
        len_max: usize,
    ) -> Result<TenantChanges, PartError> {
        let home = self.context.id();
        let (admitting, policy, is_remote) = self.context.directory_view.read(|view| {
            let durability = view.tenant(tenant).map(|tenant| tenant.durability);
            let is_remote = durability == Some(Durability::Remote);
            let admitting = admitting_policy(view, tenant, home, self.follower);
            (admitting, policy_of(view, tenant), is_remote)
        });
        if admitting.is_none() && !planted::is(Bug::FeedToAnybody) {
            return Err(PartError::Refused(Reason::NotAdmitted));
        }
        let is_fed =
            |reading: &TenantReader<'_>| fed_epoch(reading.record(), self.follower) == Some(range.attempt.epoch);
        let reading = held.reading(tenant).filter(is_fed);
        let reading = reading.ok_or(PartError::Refused(Reason::NotOwner))?;
        // It would show what no promotion asks it for once it has left.
        if is_remote && reading.record().uncounted.contains(&self.follower) {
            return Err(PartError::Refused(Reason::NotAdmitted));
        }
        let ChangesPage { changes, next, more: _ } = reading.changes(range.after, range.through, len_max)?;
        let state = reading.state();
        let end = (next == state.revision).then(|| {
            let mut lineage = Writer::default();
            reading.record().lineage.encode(&mut lineage);
            (state.digests, lineage.finish())
        });
        let records = FeedRecords {
            changes,
            digests: end.as_ref().map(|(digests, _)| *digests),
            retention_floor: state.retention_floor,
        };
        Ok(TenantChanges {
            records,
            next,
            policy,
            end,
        })
    }

    /// Sends an empty batch, so that the follower's offset keeps up.
    pub(super) fn send_empty(&mut self, offset: FeedOffset) {
        self.send(BatchBuilder::default(), offset);
    }

    pub(super) fn send(&mut self, mut batch: BatchBuilder, offset: FeedOffset) {
        self.unrecorded.append(&mut batch.take_sent());
        let number = self.record_batch(batch.len());
        let message = batch.finish(offset, number, &mut self.compressor);
        count(&message, self.region_pair.as_ref(), &self.context.counters);
        self.record_offset(offset);
        self.out.push_back(MessageToFollower::Batch(message));
    }
}
