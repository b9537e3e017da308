//! Values to messages and back.

use stead_api::proto::internal::v1::{self as proto, subscribe_request, subscribe_response};
use stead_state::shard::record::AttachNumber;
use stead_types::{DirectoryVersion, Epoch, FeedOffset, Incarnation, Revision, TenantNumber};

pub(crate) use proto::{SubscribeRequest, SubscribeResponse};
pub(crate) use subscribe_request::Message as ToHome;
pub(crate) use subscribe_response::Message as ToFollower;

/// Longest message of the feed, in bytes: a batch may be one large write longer than it should be.
pub(crate) const MESSAGE_LEN_MAX: usize = 24 << 20;

/// A message that means nothing: a newer node or a bug.
#[derive(Debug, thiserror::Error)]
#[error("a message of the feed cannot be read: {0}")]
pub(crate) struct Garbled(pub(crate) &'static str);

/// How far a copy of a tenant is, and in which attempt to attach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) tenant: TenantNumber,
    pub(crate) epoch: Epoch,
    pub(crate) revision: Revision,
    pub(crate) attach: AttachNumber,
}

impl Position {
    pub(crate) fn to_message(self) -> proto::FeedPosition {
        proto::FeedPosition {
            tenant: self.tenant.get(),
            epoch: self.epoch.get(),
            revision: self.revision.to_u64(),
            attach: self.attach.0,
        }
    }

    pub(crate) fn from_message(position: &proto::FeedPosition) -> Result<Self, Garbled> {
        Ok(Self {
            tenant: TenantNumber::new(position.tenant),
            epoch: epoch(position.epoch)?,
            revision: Revision::from_u64(position.revision),
            attach: AttachNumber(position.attach),
        })
    }
}

/// Reads a list of positions.
pub(crate) fn positions(all: &[proto::FeedPosition]) -> Result<Vec<Position>, Garbled> {
    all.iter().map(Position::from_message).collect()
}

pub(crate) fn epoch(number: u32) -> Result<Epoch, Garbled> {
    Epoch::new(number).ok_or(Garbled("epoch"))
}

pub(crate) fn offset_to(offset: FeedOffset) -> proto::FeedOffset {
    proto::FeedOffset {
        incarnation: offset.incarnation.0,
        index: offset.index,
    }
}

pub(crate) fn offset_from(offset: Option<proto::FeedOffset>) -> Result<FeedOffset, Garbled> {
    let offset = offset.ok_or(Garbled("offset"))?;
    Ok(FeedOffset {
        incarnation: Incarnation(offset.incarnation),
        index: offset.index,
    })
}

pub(crate) fn version_from(incarnation: u32, index: u64) -> DirectoryVersion {
    let incarnation = Incarnation(incarnation);
    DirectoryVersion { incarnation, index }
}

pub(crate) fn to_home(message: ToHome) -> SubscribeRequest {
    SubscribeRequest { message: Some(message) }
}

pub(crate) fn to_follower(message: ToFollower) -> SubscribeResponse {
    SubscribeResponse { message: Some(message) }
}
