//! Record of one tenant of a bulk move.

use stead_types::{GroupId, RegionName, TenantName};

use super::{RehearsalItem, text};
use crate::{
    codec::{Malformed, Reader, Writer},
    seed_pace::SeedFailure,
    shard::record::OperationId,
};

/// Added to the byte of a state where the record of a rehearsal follows it.
const REHEARSED: u8 = 16;

/// Record of one tenant of a bulk move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BulkMoveItem {
    /// Name of the tenant when it was selected.
    pub name: TenantName,
    /// How far it is.
    pub state: ItemState,
    /// Why the seed of its target was given up, if it was.
    pub seed_failure: Option<SeedFailure>,
    /// Its record in a rehearsal.
    pub rehearsal: Option<Box<RehearsalItem>>,
}

/// State of one tenant of a bulk move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ItemState {
    /// It is to be moved to a region.
    Waiting(RegionName),
    /// It moves.
    Moving(ItemMove),
    /// It was moved.
    Moved(ItemMove),
    /// It was not moved.
    Failed {
        /// Why, for people.
        reason: String,
    },
}

/// Move of one tenant of a bulk move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ItemMove {
    /// Number of the move among the tenant's operations.
    pub operation: OperationId,
    /// The home before.
    pub from: GroupId,
    /// The home afterwards.
    pub to: GroupId,
    /// Whether the target became a member by this move only.
    pub joined: bool,
    /// Logged time of the beginning, once it was moved of the end.
    pub time: u64,
}

impl BulkMoveItem {
    /// Returns a record of which nothing else is known.
    pub fn new(name: TenantName, state: ItemState) -> Self {
        Self {
            name,
            state,
            seed_failure: None,
            rehearsal: None,
        }
    }

    /// Writes the record, for its row and for the nodes that ask a voter.
    pub fn encode(&self) -> bytes::Bytes {
        let mut w = Writer::with_capacity(48);
        text::write(&mut w, self.name.as_str());
        let with_rehearsal = if self.rehearsal.is_some() { REHEARSED } else { 0 };
        match &self.state {
            ItemState::Waiting(to) => text::write(w.u8(with_rehearsal), to.as_str()),
            ItemState::Moving(of) => of.encode(w.u8(1 + with_rehearsal)),
            ItemState::Moved(of) => of.encode(w.u8(2 + with_rehearsal)),
            ItemState::Failed { reason } => text::write(w.u8(3 + with_rehearsal), reason),
        }
        if let Some(rehearsal) = &self.rehearsal {
            rehearsal.encode(&mut w);
        }
        // Without one the record ends before it.
        if let Some(failure) = &self.seed_failure {
            failure.encode(&mut w);
        }
        w.finish()
    }

    /// Reads what [`BulkMoveItem::encode`] wrote.
    pub fn decode(bytes: bytes::Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes, "tenant of a bulk move");
        let r = &mut reader;
        let (name, tag) = (text::parse(r)?, r.u8()?);
        let item = Self {
            name,
            state: match tag % REHEARSED {
                0 => ItemState::Waiting(text::parse(r)?),
                1 => ItemState::Moving(ItemMove::decode(r)?),
                2 => ItemState::Moved(ItemMove::decode(r)?),
                3 => ItemState::Failed { reason: text::read(r)? },
                4.. => return Err(r.malformed()),
            },
            rehearsal: match tag / REHEARSED {
                0 => None,
                1 => Some(Box::new(RehearsalItem::decode(r)?)),
                2.. => return Err(r.malformed()),
            },
            seed_failure: match r.is_empty() {
                true => None,
                false => Some(SeedFailure::decode(r)?),
            },
        };
        reader.end()?;
        Ok(item)
    }
}

impl ItemMove {
    pub(super) fn encode(self, w: &mut Writer) {
        w.varint(self.operation.0).varint(u64::from(self.from.get()));
        w.varint(u64::from(self.to.get())).bool(self.joined).varint(self.time);
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            operation: OperationId(r.varint()?),
            from: text::group(r)?,
            to: text::group(r)?,
            joined: r.bool()?,
            time: r.varint()?,
        })
    }
}
