//! A batch being put together.

use bytes::Bytes;
use stead_api::proto::internal::v1::{FeedBatch, FeedPart};
use stead_types::{FeedOffset, TenantNumber};

use super::{BATCH_BYTES_MAX, sessions::Attempt};
use crate::{
    counters::{Border, Counters},
    payload::Packer,
    wire,
};

/// Parts of tenants, one behind the other.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    parts: Vec<FeedPart>,
    raw: Vec<u8>,
}

impl Batch {
    /// Adds records for the follower's log, sent for an attempt.
    pub(crate) fn add(&mut self, tenant: TenantNumber, attempt: Attempt, records: &Bytes) {
        self.parts.push(FeedPart {
            tenant: tenant.get(),
            len: u32::try_from(records.len()).expect("records are bounded far below 4 GiB"),
            epoch: attempt.epoch.get(),
            attach: attempt.number.0,
        });
        self.raw.extend_from_slice(records);
    }

    /// Tells whether there is nothing in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Tells whether it should take no more.
    pub(crate) fn is_full(&self) -> bool {
        self.raw.len() >= BATCH_BYTES_MAX
    }

    /// Returns how many parts it has.
    pub(crate) fn tenants(&self) -> usize {
        self.parts.len()
    }

    /// Returns how many bytes it has before compression.
    pub(crate) fn len(&self) -> usize {
        self.raw.len()
    }

    /// Returns the message.
    pub(crate) fn finish(self, offset: FeedOffset, number: u64, packer: &mut Packer) -> FeedBatch {
        let (payload, raw_len) = packer.pack(self.raw);
        FeedBatch {
            offset: Some(wire::offset_to(offset)),
            number,
            parts: self.parts,
            payload,
            raw_len,
        }
    }
}

/// Counts what a batch takes over a border.
pub(crate) fn count(batch: &FeedBatch, border: Option<&Border>, counters: &Counters) {
    let Some(border) = border else { return };
    let part = |part: &FeedPart| (TenantNumber::new(part.tenant), part.len as usize);
    let parts: Vec<_> = batch.parts.iter().map(part).collect();
    counters.add(border, &parts, batch.payload.len());
}
