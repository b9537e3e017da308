//! Encoding of names and small values of the directory.

use std::str::FromStr;

use stead_types::{Durability, GroupId, NodeId};

use crate::{
    codec::{Malformed, Reader, Writer},
    shard::record::LeaseLossPolicy,
};

pub(super) fn write(writer: &mut Writer, text: &str) {
    writer.bytes(text.as_bytes());
}

pub(super) fn read(reader: &mut Reader) -> Result<String, Malformed> {
    let bytes = reader.bytes()?;
    String::from_utf8(bytes.into()).map_err(|_| reader.malformed())
}

/// Reads a name that is valid for its type.
pub(super) fn parse<T: FromStr>(reader: &mut Reader) -> Result<T, Malformed> {
    let bytes = reader.bytes()?;
    let text = std::str::from_utf8(&bytes).map_err(|_| reader.malformed())?;
    text.parse().map_err(|_| reader.malformed())
}

pub(super) fn write_all<T: AsRef<str>>(writer: &mut Writer, texts: impl ExactSizeIterator<Item = T>) {
    writer.list(texts, |w, text| write(w, text.as_ref()));
}

pub(super) fn group(reader: &mut Reader) -> Result<GroupId, Malformed> {
    reader.varint_u32().map(GroupId::new)
}

pub(super) fn node(reader: &mut Reader) -> Result<NodeId, Malformed> {
    reader.varint().map(NodeId::new)
}

pub(super) fn write_durability(writer: &mut Writer, durability: Durability) {
    writer.u8(match durability {
        Durability::Region => 0,
        Durability::Remote => 1,
    });
}

pub(super) fn write_lease_loss_policy(writer: &mut Writer, policy: LeaseLossPolicy) {
    writer.u8(match policy {
        LeaseLossPolicy::Stop => 0,
        LeaseLossPolicy::Continue => 1,
    });
}

pub(super) fn lease_loss_policy(reader: &mut Reader) -> Result<LeaseLossPolicy, Malformed> {
    match reader.u8()? {
        0 => Ok(LeaseLossPolicy::Stop),
        1 => Ok(LeaseLossPolicy::Continue),
        2.. => Err(reader.malformed()),
    }
}

pub(super) fn durability(reader: &mut Reader) -> Result<Durability, Malformed> {
    match reader.u8()? {
        0 => Ok(Durability::Region),
        1 => Ok(Durability::Remote),
        2.. => Err(reader.malformed()),
    }
}
