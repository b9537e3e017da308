//! Builder of batches.

use bytes::Bytes;
use stead_api::proto::internal::v1::{FeedBatch, FeedPart};
use stead_state::sent_ledger::SentPart;
use stead_types::{DirectoryVersion, FeedOffset, TenantNumber};

use super::limits::BATCH_BYTES_MAX;
use crate::{
    attach_attempt::AttachAttempt,
    payload::PayloadCompressor,
    traffic::{RegionPair, TrafficCounters},
    wire,
};

/// A batch that is being built: parts of tenants, one behind the other.
#[derive(Debug, Default)]
pub(crate) struct BatchBuilder {
    parts: Vec<FeedPart>,
    raw: Vec<u8>,
    sent: Vec<SentPart>,
}

impl BatchBuilder {
    /// Adds the records of a tenant for the follower's log, sent for an attach attempt, as the version of the tenant's
    /// record admits.
    pub(crate) fn add(
        &mut self,
        tenant: TenantNumber,
        attempt: AttachAttempt,
        policy: DirectoryVersion,
        records: &Bytes,
    ) {
        self.sent.push(SentPart {
            tenant,
            policy,
            bytes: records.len() as u64,
        });
        self.parts.push(FeedPart {
            tenant: tenant.get(),
            len: u32::try_from(records.len()).expect("records are bounded far below 4 GiB"),
            epoch: attempt.epoch.get(),
            attach: attempt.number.0,
        });
        self.raw.extend_from_slice(records);
    }

    /// Tells whether it has no parts.
    pub(crate) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Tells whether it has reached [`BATCH_BYTES_MAX`].
    pub(crate) fn is_full(&self) -> bool {
        self.raw.len() >= BATCH_BYTES_MAX
    }

    /// Returns the number of its parts.
    pub(crate) fn tenants(&self) -> usize {
        self.parts.len()
    }

    /// Returns its bytes before compression.
    pub(crate) fn len(&self) -> usize {
        self.raw.len()
    }

    /// Takes what it sends of each tenant.
    pub(crate) fn take_sent(&mut self) -> Vec<SentPart> {
        std::mem::take(&mut self.sent)
    }

    /// Returns the message of the batch.
    pub(crate) fn finish(self, offset: FeedOffset, number: u64, compressor: &mut PayloadCompressor) -> FeedBatch {
        let (payload, raw_len) = compressor.compress(self.raw);
        FeedBatch {
            offset: Some(wire::offset_to(offset)),
            number,
            parts: self.parts,
            payload,
            raw_len,
        }
    }
}

/// Counts the bytes that a batch sends to another region.
pub(crate) fn count(batch: &FeedBatch, region_pair: Option<&RegionPair>, counters: &TrafficCounters) {
    let Some(region_pair) = region_pair else { return };
    let part = |part: &FeedPart| (TenantNumber::new(part.tenant), part.len as usize);
    let parts: Vec<_> = batch.parts.iter().map(part).collect();
    counters.add(region_pair, &parts, batch.payload.len());
}
