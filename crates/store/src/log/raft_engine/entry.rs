//! Log record as the protobuf 2 message that raft-engine requires, written by hand around raw bytes.
//!
//! Layout: index (u64, little endian), length (u32), bytes. raft-engine adds checksums of its own.

use std::any::Any;

use bytes::Bytes;
use protobuf::reflect::MessageDescriptor;
use protobuf::{Clear, CodedInputStream, CodedOutputStream, Message, ProtobufResult, UnknownFields};
use raft_engine::MessageExt;

use crate::log::LogRecord;

/// Bytes of the header before a record's bytes.
const HEADER_LEN: u32 = 12;

/// Marker type that tells raft-engine the record type.
pub(super) struct Entries;

/// Record as raft-engine stores it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Entry {
    index: u64,
    bytes: Bytes,
    unknown: UnknownFields,
}

impl MessageExt for Entries {
    type Entry = Entry;

    fn index(entry: &Entry) -> u64 {
        entry.index
    }
}

impl From<&LogRecord> for Entry {
    fn from(record: &LogRecord) -> Self {
        Self {
            index: record.index,
            bytes: record.bytes.clone(),
            unknown: UnknownFields::default(),
        }
    }
}

impl From<Entry> for LogRecord {
    fn from(entry: Entry) -> Self {
        Self {
            index: entry.index,
            bytes: entry.bytes,
        }
    }
}

impl Clear for Entry {
    fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Message for Entry {
    fn descriptor(&self) -> &'static MessageDescriptor {
        unreachable!("only asked for by reflection and for messages that lack a required field")
    }

    fn is_initialized(&self) -> bool {
        true
    }

    fn merge_from(&mut self, stream: &mut CodedInputStream) -> ProtobufResult<()> {
        self.index = stream.read_raw_little_endian64()?;
        let len = stream.read_raw_little_endian32()?;
        self.bytes = stream.read_raw_bytes(len)?.into();
        Ok(())
    }

    fn write_to_with_cached_sizes(&self, stream: &mut CodedOutputStream) -> ProtobufResult<()> {
        stream.write_raw_little_endian64(self.index)?;
        stream.write_raw_little_endian32(self.bytes.len() as u32)?;
        stream.write_raw_bytes(&self.bytes)
    }

    fn compute_size(&self) -> u32 {
        HEADER_LEN + self.bytes.len() as u32
    }

    fn get_cached_size(&self) -> u32 {
        self.compute_size()
    }

    fn get_unknown_fields(&self) -> &UnknownFields {
        &self.unknown
    }

    fn mut_unknown_fields(&mut self) -> &mut UnknownFields {
        &mut self.unknown
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn new() -> Self {
        Self::default()
    }

    fn default_instance() -> &'static Self {
        unreachable!("only asked for by generated code")
    }
}
