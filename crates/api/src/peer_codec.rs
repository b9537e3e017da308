//! Codec of messages between nodes: a checksum (crc32c, big-endian), then the message.
//!
//! TCP's checksum is weak, TLS may be off, and data from another node may end in a log that every replica must read. A
//! message that does not match its checksum ends the call or stream with [`Code::DataLoss`]; the sender repeats it.
//!
//! # Invariants
//!
//! 1. No part of a message is decoded before its checksum was compared.

use std::{
    marker::PhantomData,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::{Buf, BufMut, Bytes};
use prost::Message;
use tonic::{
    Code, Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

const CHECKSUM_LEN: usize = 4;

/// Codec of the services between nodes. The generated code uses it.
#[derive(Clone, Copy, Debug)]
pub struct PeerCodec<T, U>(PhantomData<(T, U)>);

/// Encoder of messages with a checksum.
#[derive(Clone, Copy, Debug)]
pub struct PeerEncoder<T>(PhantomData<T>);

/// Decoder of messages with a checksum.
#[derive(Clone, Copy, Debug)]
pub struct PeerDecoder<U>(PhantomData<U>);

/// Counters of damaged and unreadable messages from other nodes. Clones share the counters.
#[derive(Clone, Debug, Default)]
pub struct PeerAlarms(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    damaged: AtomicU64,
    unreadable: AtomicU64,
}

impl PeerAlarms {
    /// Counts and logs a damaged message, if that is why a call or stream with another node ended.
    pub fn record_status(&self, status: &Status) {
        if status.code() == Code::DataLoss {
            self.0.damaged.fetch_add(1, Ordering::Relaxed);
            let reason = status.message();
            tracing::error!(reason, "message between nodes was damaged in transit; it is sent again");
        }
    }

    /// Counts an undamaged message whose content this build cannot read. The caller, which knows its context, logs it.
    pub fn record_unreadable(&self) {
        self.0.unreadable.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number of messages that did not match their checksum.
    pub fn damaged_count(&self) -> u64 {
        self.0.damaged.load(Ordering::Relaxed)
    }

    /// Returns the number of unreadable messages.
    pub fn unreadable_count(&self) -> u64 {
        self.0.unreadable.load(Ordering::Relaxed)
    }
}

impl<T, U> Default for PeerCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for PeerCodec<T, U>
where
    T: Message + 'static,
    U: Message + Default + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = PeerEncoder<T>;
    type Decoder = PeerDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        PeerEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        PeerDecoder(PhantomData)
    }
}

impl<T: Message> Encoder for PeerEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, message: T, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        let bytes = message.encode_to_vec();
        into.reserve(CHECKSUM_LEN + bytes.len());
        into.put_u32(crc32c::crc32c(&bytes));
        into.put_slice(&bytes);
        Ok(())
    }
}

impl<U: Message + Default> Decoder for PeerDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let bytes = from.copy_to_bytes(from.remaining());
        read(bytes).map(Some)
    }
}

fn read<U: Message + Default>(mut bytes: Bytes) -> Result<U, Status> {
    let len = bytes.len();
    let damaged = || {
        Status::data_loss(format!(
            "a message of {len} bytes between nodes does not match its checksum"
        ))
    };
    if len < CHECKSUM_LEN {
        return Err(damaged());
    }
    let checksum = bytes.get_u32();
    if crc32c::crc32c(&bytes) != checksum {
        return Err(damaged());
    }
    U::decode(bytes)
        .map_err(|error| Status::invalid_argument(format!("cannot decode a message between nodes: {error}")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proto::internal::v1::RaftEnvelope;

    fn encoded(message: &RaftEnvelope) -> Vec<u8> {
        let bytes = message.encode_to_vec();
        [&crc32c::crc32c(&bytes).to_be_bytes()[..], &bytes].concat()
    }

    fn envelope(body: Vec<u8>) -> RaftEnvelope {
        RaftEnvelope {
            version: 2,
            group: 1,
            body: body.into(),
            ..RaftEnvelope::default()
        }
    }

    proptest! {
        #[test]
        fn message_round_trips_and_flipped_bit_is_refused(
            body in prop::collection::vec(any::<u8>(), 0..200),
            flipped in any::<prop::sample::Index>(),
        ) {
            let message = envelope(body);
            let mut bytes = encoded(&message);
            prop_assert_eq!(read::<RaftEnvelope>(bytes.clone().into()).unwrap(), message);
            let bit = flipped.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            let refused = read::<RaftEnvelope>(bytes.into()).unwrap_err();
            let alarms = PeerAlarms::default();
            alarms.record_status(&refused);
            prop_assert_eq!(alarms.damaged_count(), 1, "{:?}", refused);
        }

        #[test]
        fn arbitrary_bytes_fail_the_checksum(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            // One in four billion would be taken for a message.
            prop_assert!(read::<RaftEnvelope>(bytes.into()).is_err());
        }
    }

    #[test]
    fn message_bytes_are_fixed() {
        let message = RaftEnvelope {
            group: 7,
            ..RaftEnvelope::default()
        };
        let bytes = encoded(&message);
        assert_eq!(bytes[4..], [0x10, 7]);
        assert_eq!(bytes[..4], crc32c::crc32c(&[0x10, 7]).to_be_bytes());
    }
}
