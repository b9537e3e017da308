//! Values to messages and back.

use bytes::Bytes;
use stead_api::proto::internal::v1::{self as proto, subscribe_request, subscribe_response};
use stead_state::shard::record::{AttachNumber, ClientsLoaded};
use stead_types::{ClientId, DirectoryVersion, Epoch, FeedOffset, Incarnation, Revision, TenantNumber};

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

/// Length of a client id.
const CLIENT_LEN: usize = 16;

/// Writes which windows of a seed are there: a client id, up to which all are; or one and a revision, behind which that
/// client's begin to lack.
pub(crate) fn clients(loaded: ClientsLoaded) -> Bytes {
    match (loaded.part, loaded.whole) {
        (Some((client, revision)), _) => [&client.0.to_be_bytes()[..], &revision.to_u64().to_be_bytes()]
            .concat()
            .into(),
        (None, Some(whole)) => whole.0.to_be_bytes().to_vec().into(),
        (None, None) => Bytes::new(),
    }
}

/// Reads what [`clients`] wrote.
pub(crate) fn read_clients(bytes: &[u8]) -> Result<ClientsLoaded, Garbled> {
    let garbled = Garbled("client");
    let Some((client, revision)) = bytes.split_first_chunk::<CLIENT_LEN>() else {
        return if bytes.is_empty() {
            Ok(ClientsLoaded::default())
        } else {
            Err(garbled)
        };
    };
    let client = u128::from_be_bytes(*client);
    if revision.is_empty() {
        return Ok(ClientsLoaded {
            whole: Some(ClientId(client)),
            part: None,
        });
    }
    let revision = revision.try_into().map_err(|_| garbled)?;
    Ok(ClientsLoaded {
        whole: client.checked_sub(1).map(ClientId),
        part: Some((ClientId(client), Revision::from_u64(u64::from_be_bytes(revision)))),
    })
}

pub(crate) fn to_home(message: ToHome) -> SubscribeRequest {
    SubscribeRequest { message: Some(message) }
}

pub(crate) fn to_follower(message: ToFollower) -> SubscribeResponse {
    SubscribeResponse { message: Some(message) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loaded_windows_read_back_and_garbled_ones_are_refused() {
        let revision = Revision::from_u64(77);
        let whole = |whole| ClientsLoaded { whole, part: None };
        let part = |client: u128| ClientsLoaded {
            whole: client.checked_sub(1).map(ClientId),
            part: Some((ClientId(client), revision)),
        };
        for loaded in [
            whole(None),
            whole(Some(ClientId(0))),
            whole(Some(ClientId(u128::MAX))),
            part(0),
            part(9),
        ] {
            assert_eq!(read_clients(&clients(loaded)).unwrap(), loaded);
        }
        for len in [1, 15, 17, 23, 25] {
            assert!(read_clients(&vec![0; len]).is_err(), "{len}");
        }
    }
}
