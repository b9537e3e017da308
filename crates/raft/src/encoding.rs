//! Encoding of log ids, votes, memberships and entries, for the log, snapshots and the wire.
//!
//! Written by hand, so that two versions of the Raft library, and two versions of Stead, can read each other. Each
//! record of the log starts with a format byte.
//!
//! # Invariants
//!
//! 1. The meaning of a format byte never changes; tests hold the bytes.

use std::collections::BTreeSet;
use std::io;

use bytes::Bytes;
use openraft::vote::{RaftLeaderId, RaftVote};
use stead_state::codec::{Malformed, Reader, Writer};

use crate::types::{Commands, Entry, LeaderId, LogId, Membership, Payload, StoredMembership, Vote};

const FORMAT: u8 = 1;

/// Most configurations of a joint membership: openraft makes two.
const CONFIGURATIONS_MAX: usize = 8;

const BLANK: u8 = 0;
const COMMANDS: u8 = 1;
const MEMBERSHIP: u8 = 2;

pub(crate) fn put_log_id(writer: &mut Writer, id: &LogId) {
    writer.u64(id.leader_id.term).u64(id.leader_id.node_id).u64(id.index);
}

pub(crate) fn get_log_id(reader: &mut Reader) -> Result<LogId, Malformed> {
    let (term, node) = (reader.u64()?, reader.u64()?);
    Ok(LogId {
        leader_id: LeaderId::new(term, node),
        index: reader.u64()?,
    })
}

pub(crate) fn put_vote(writer: &mut Writer, vote: &Vote) {
    writer
        .u64(vote.leader_id.term)
        .u64(vote.leader_id.node_id)
        .bool(vote.committed);
}

pub(crate) fn get_vote(reader: &mut Reader) -> Result<Vote, Malformed> {
    let (term, node) = (reader.u64()?, reader.u64()?);
    Ok(Vote::from_leader_id(LeaderId::new(term, node), reader.bool()?))
}

fn put_membership(writer: &mut Writer, membership: &Membership) {
    let configurations = membership.get_joint_config();
    writer.list(configurations.iter(), |writer, voters| {
        writer.list(voters.iter(), |writer, node| {
            writer.u64(*node);
        });
    });
    let nodes: Vec<u64> = membership.nodes().map(|(node, ())| *node).collect();
    writer.list(nodes.into_iter(), |writer, node| {
        writer.u64(node);
    });
}

fn get_membership(reader: &mut Reader) -> Result<Membership, Malformed> {
    let configurations = reader.list(|reader| Ok(BTreeSet::from_iter(reader.list(Reader::u64)?)))?;
    if configurations.len() > CONFIGURATIONS_MAX {
        return Err(reader.malformed());
    }
    let nodes = reader.list(Reader::u64)?;
    Ok(Membership::new_with_defaults(configurations, nodes))
}

/// Encodes the id of a log entry as an opaque record; empty if there is none.
pub(crate) fn log_id_record(id: Option<&LogId>) -> Bytes {
    let mut writer = Writer::default();
    if let Some(id) = id {
        writer.u8(FORMAT);
        put_log_id(&mut writer, id);
    }
    writer.finish()
}

/// Decodes [`log_id_record`].
pub(crate) fn read_log_id_record(record: Bytes) -> io::Result<Option<LogId>> {
    read_record(record, "log id", get_log_id)
}

/// Encodes a vote as an opaque record.
pub(crate) fn vote_record(vote: &Vote) -> Bytes {
    let mut writer = Writer::default();
    writer.u8(FORMAT);
    put_vote(&mut writer, vote);
    writer.finish()
}

/// Decodes [`vote_record`].
pub(crate) fn read_vote_record(record: Bytes) -> io::Result<Option<Vote>> {
    read_record(record, "vote", get_vote)
}

/// Encodes a membership and the id of its entry as an opaque record.
pub(crate) fn membership_record(membership: &StoredMembership) -> Bytes {
    let mut writer = Writer::default();
    writer.u8(FORMAT).option(membership.log_id().as_ref(), put_log_id);
    put_membership(&mut writer, membership.membership());
    writer.finish()
}

/// Decodes [`membership_record`]; the empty membership if the record is empty.
pub(crate) fn read_membership_record(record: Bytes) -> io::Result<StoredMembership> {
    let read = |reader: &mut Reader| {
        let id = reader.option(get_log_id)?;
        Ok(StoredMembership::new(id, get_membership(reader)?))
    };
    Ok(read_record(record, "membership", read)?.unwrap_or_default())
}

/// Encodes an entry for the log and the wire.
pub(crate) fn entry_record(entry: &Entry) -> Bytes {
    let payload_len = match &entry.payload {
        Payload::Normal(commands) => commands.0.len(),
        Payload::Blank | Payload::Membership(_) => 0,
    };
    let mut writer = Writer::with_capacity(32 + payload_len);
    writer.u8(FORMAT);
    put_log_id(&mut writer, &entry.log_id);
    match &entry.payload {
        Payload::Blank => {
            writer.u8(BLANK);
        }
        Payload::Normal(commands) => {
            writer.u8(COMMANDS).raw(&commands.0);
        }
        Payload::Membership(membership) => {
            writer.u8(MEMBERSHIP);
            put_membership(&mut writer, membership);
        }
    }
    writer.finish()
}

/// Decodes [`entry_record`]. Commands share the record's buffer.
pub(crate) fn read_entry_record(record: Bytes) -> io::Result<Entry> {
    let read = |reader: &mut Reader| {
        let log_id = get_log_id(reader)?;
        let payload = match reader.u8()? {
            BLANK => Payload::Blank,
            COMMANDS => Payload::Normal(Commands(reader.rest())),
            MEMBERSHIP => Payload::Membership(get_membership(reader)?),
            3.. => return Err(reader.malformed()),
        };
        Ok(Entry { log_id, payload })
    };
    read_record(record, "log entry", read)?.ok_or_else(|| invalid(Malformed { what: "log entry" }))
}

fn read_record<T>(
    record: Bytes,
    what: &'static str,
    read: impl FnOnce(&mut Reader) -> Result<T, Malformed>,
) -> io::Result<Option<T>> {
    if record.is_empty() {
        return Ok(None);
    }
    let mut reader = Reader::new(record, what);
    let format = reader.u8().map_err(invalid)?;
    if format != FORMAT {
        return Err(invalid(reader.malformed()));
    }
    let value = read(&mut reader).map_err(invalid)?;
    reader.end().map_err(invalid)?;
    Ok(Some(value))
}

/// Converts a decoding error to the error that openraft expects of storage.
pub(crate) fn invalid(malformed: Malformed) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> LogId {
        LogId {
            leader_id: LeaderId::new(3, 2),
            index: 9,
        }
    }

    #[test]
    fn record_bytes_are_fixed() {
        let be = |numbers: &[u64]| numbers.iter().flat_map(|n| n.to_be_bytes()).collect::<Vec<u8>>();
        assert_eq!(log_id_record(Some(&id())), [&[1][..], &be(&[3, 2, 9])].concat());
        let vote = Vote::from_leader_id(LeaderId::new(3, 2), true);
        assert_eq!(vote_record(&vote), [&[1][..], &be(&[3, 2]), &[1]].concat());
        let entry = Entry {
            log_id: id(),
            payload: Payload::Normal(Commands(Bytes::from_static(b"put"))),
        };
        assert_eq!(entry_record(&entry), [&[1][..], &be(&[3, 2, 9]), b"\x01put"].concat());
        let membership = Membership::new_with_defaults(vec![BTreeSet::from([1])], [4]);
        let stored = StoredMembership::new(None, membership);
        assert_eq!(
            membership_record(&stored),
            [&[1, 0, 1, 1][..], &be(&[1]), &[2], &be(&[1, 4])].concat()
        );
    }

    #[test]
    fn records_round_trip() {
        assert_eq!(read_log_id_record(log_id_record(Some(&id()))).unwrap(), Some(id()));
        assert_eq!(read_log_id_record(log_id_record(None)).unwrap(), None);
        let voters = vec![BTreeSet::from([1, 2, 3]), BTreeSet::from([2, 3, 4])];
        let membership = Membership::new_with_defaults(voters, [7]);
        let stored = StoredMembership::new(Some(id()), membership.clone());
        assert_eq!(read_membership_record(membership_record(&stored)).unwrap(), stored);
        assert_eq!(
            read_membership_record(Bytes::new()).unwrap(),
            StoredMembership::default()
        );
        for payload in [Payload::Blank, Payload::Membership(membership)] {
            let entry = Entry { log_id: id(), payload };
            assert_eq!(read_entry_record(entry_record(&entry)).unwrap(), entry);
        }
    }

    #[test]
    fn unknown_format_and_torn_record_are_rejected() {
        let mut record = log_id_record(Some(&id())).to_vec();
        assert!(read_log_id_record(record[..20].to_vec().into()).is_err());
        record[0] = 2;
        assert!(read_log_id_record(record.into()).is_err());
        assert!(read_entry_record(Bytes::new()).is_err());
    }
}
