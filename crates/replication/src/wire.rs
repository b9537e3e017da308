//! Conversions between values and feed messages.

use bytes::Bytes;
use stead_api::proto::internal::v1::{self as proto, subscribe_request, subscribe_response};
use stead_raft::ReadIndexError;
use stead_state::shard::record::{AttachNumber, ClientsLoaded};
use stead_types::{ClientId, DirectoryVersion, Epoch, FeedOffset, Incarnation, NodeId, Revision, TenantNumber};

pub(crate) use proto::{SubscribeRequest, SubscribeResponse};
pub(crate) use subscribe_request::Message as MessageToHome;
pub(crate) use subscribe_response::Message as MessageToFollower;

/// Longest feed message in bytes: a batch may exceed its bound by one large write.
pub(crate) const MESSAGE_LEN_MAX: usize = 24 << 20;

/// Error of a feed message with a field that is missing or invalid: from a newer node, or a bug.
#[derive(Debug, thiserror::Error)]
#[error("feed message is invalid: {0}")]
pub(crate) struct InvalidMessage(pub(crate) &'static str);

/// Position of a copy of a tenant: its revision, and the attempt to attach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TenantPosition {
    pub(crate) tenant: TenantNumber,
    pub(crate) epoch: Epoch,
    pub(crate) revision: Revision,
    pub(crate) attach: AttachNumber,
    /// Revision after which a copy that is being seeded needs the history.
    pub(crate) seed: Option<Revision>,
}

impl TenantPosition {
    pub(crate) fn to_message(self) -> proto::FeedPosition {
        proto::FeedPosition {
            tenant: self.tenant.get(),
            epoch: self.epoch.get(),
            revision: self.revision.to_u64(),
            attach: self.attach.0,
            seed: self.seed.map_or(0, Revision::to_u64),
        }
    }

    pub(crate) fn from_message(position: &proto::FeedPosition) -> Result<Self, InvalidMessage> {
        Ok(Self {
            tenant: TenantNumber::new(position.tenant),
            epoch: epoch(position.epoch)?,
            revision: Revision::from_u64(position.revision),
            attach: AttachNumber(position.attach),
            seed: (position.seed != 0).then_some(Revision::from_u64(position.seed)),
        })
    }
}

/// Converts a list of positions.
pub(crate) fn positions(all: &[proto::FeedPosition]) -> Result<Vec<TenantPosition>, InvalidMessage> {
    all.iter().map(TenantPosition::from_message).collect()
}

pub(crate) fn epoch(number: u32) -> Result<Epoch, InvalidMessage> {
    Epoch::new(number).ok_or(InvalidMessage("epoch"))
}

pub(crate) fn offset_to(offset: FeedOffset) -> proto::FeedOffset {
    proto::FeedOffset {
        incarnation: offset.incarnation.0,
        index: offset.index,
    }
}

pub(crate) fn offset_from(offset: Option<proto::FeedOffset>) -> Result<FeedOffset, InvalidMessage> {
    let offset = offset.ok_or(InvalidMessage("offset"))?;
    Ok(FeedOffset {
        incarnation: Incarnation(offset.incarnation),
        index: offset.index,
    })
}

pub(crate) fn version_from(incarnation: u32, index: u64) -> DirectoryVersion {
    let incarnation = Incarnation(incarnation);
    DirectoryVersion { incarnation, index }
}

/// Returns the message of a group's node whose read index failed: it names the leader, if the node knows it.
pub(crate) fn not_leader(error: ReadIndexError) -> proto::FeedNotLeader {
    let leader = match error {
        ReadIndexError::NotLeader { leader } => leader,
        ReadIndexError::NoQuorum | ReadIndexError::Overloaded | ReadIndexError::Stopped => None,
    };
    proto::FeedNotLeader {
        leader: leader.map_or(0, NodeId::get),
    }
}

/// Returns the leader that a message of [`not_leader`] names.
pub(crate) fn leader_from(message: proto::FeedNotLeader) -> Option<NodeId> {
    (message.leader != 0).then_some(NodeId::new(message.leader))
}

/// Length of a client id in bytes.
const CLIENT_LEN: usize = 16;

/// Encodes which idempotency windows of a seed are loaded: a client id up to which all are; or a client id and a
/// revision after which that client's records are still missing.
pub(crate) fn clients(loaded: ClientsLoaded) -> Bytes {
    match (loaded.part, loaded.whole) {
        (Some((client, revision)), _) => [&client.0.to_be_bytes()[..], &revision.to_u64().to_be_bytes()]
            .concat()
            .into(),
        (None, Some(whole)) => whole.0.to_be_bytes().to_vec().into(),
        (None, None) => Bytes::new(),
    }
}

/// Decodes what [`clients`] has encoded.
pub(crate) fn read_clients(bytes: &[u8]) -> Result<ClientsLoaded, InvalidMessage> {
    let invalid = InvalidMessage("client");
    let Some((client, revision)) = bytes.split_first_chunk::<CLIENT_LEN>() else {
        return if bytes.is_empty() {
            Ok(ClientsLoaded::default())
        } else {
            Err(invalid)
        };
    };
    let client = u128::from_be_bytes(*client);
    if revision.is_empty() {
        return Ok(ClientsLoaded {
            whole: Some(ClientId(client)),
            part: None,
        });
    }
    let revision = revision.try_into().map_err(|_| invalid)?;
    Ok(ClientsLoaded {
        whole: client.checked_sub(1).map(ClientId),
        part: Some((ClientId(client), Revision::from_u64(u64::from_be_bytes(revision)))),
    })
}

pub(crate) fn to_home(message: MessageToHome) -> SubscribeRequest {
    SubscribeRequest { message: Some(message) }
}

pub(crate) fn to_follower(message: MessageToFollower) -> SubscribeResponse {
    SubscribeResponse { message: Some(message) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loaded_clients_round_trip_and_wrong_lengths_are_refused() {
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
