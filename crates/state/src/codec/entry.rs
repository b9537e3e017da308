//! The frame of a log entry: format byte, logged time, commands.

use bytes::{Bytes, BytesMut};

use super::{Malformed, Reader};

/// The first byte of every entry.
pub const ENTRY_FORMAT: u8 = 1;

/// An entry that was parsed: the bodies share its buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Milliseconds since 1970 by the proposing leader's clock: the only time that apply knows.
    pub time: u64,
    /// Kind and body of each command, in their order.
    pub commands: Vec<(u8, Bytes)>,
}

/// Packs commands, each starting with its kind byte, into one entry.
///
/// # Panics
///
/// When a command is empty or longer than 4 GiB: a proposer's bug.
pub fn frame(time: u64, commands: &[Bytes]) -> Bytes {
    let len: usize = commands.iter().map(|command| command.len() + 4).sum();
    let mut entry = BytesMut::with_capacity(9 + len);
    entry.extend_from_slice(&[ENTRY_FORMAT]);
    entry.extend_from_slice(&time.to_be_bytes());
    for command in commands {
        let (kind, body) = command.split_first().expect("a command has at least its kind byte");
        let len = u32::try_from(body.len()).expect("requests are bounded far below 4 GiB");
        entry.extend_from_slice(&[*kind]);
        entry.extend_from_slice(&len.to_be_bytes());
        entry.extend_from_slice(body);
    }
    entry.freeze()
}

impl Entry {
    /// Reads what [`frame`] wrote.
    pub fn parse(bytes: Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes, "log entry");
        if reader.u8()? != ENTRY_FORMAT {
            return Err(reader.malformed());
        }
        let time = reader.u64()?;
        let mut commands = Vec::new();
        while !reader.is_empty() {
            let kind = reader.u8()?;
            let len = reader.u32()?;
            let body = reader.raw(usize::try_from(len).map_err(|_| reader.malformed())?)?;
            commands.push((kind, body));
        }
        Ok(Self { time, commands })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_bytes_of_an_entry_are_fixed() {
        let entry = frame(
            0x0102_0304_0506_0708,
            &[Bytes::from_static(b"\x07abc"), Bytes::from_static(b"\x09")],
        );
        assert_eq!(
            &entry[..],
            b"\x01\x01\x02\x03\x04\x05\x06\x07\x08\x07\0\0\0\x03abc\x09\0\0\0\0"
        );
    }

    #[test]
    fn another_format_is_refused() {
        let mut entry = frame(1, &[]).to_vec();
        entry[0] = 2;
        assert_eq!(Entry::parse(entry.into()), Err(Malformed { what: "log entry" }));
    }

    proptest! {
        #[test]
        fn an_entry_reads_back(time: u64, commands in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..40)), 0..8)) {
            let framed: Vec<Bytes> = commands.iter().map(|(kind, body)| [&[*kind], &body[..]].concat().into()).collect();
            let entry = Entry::parse(frame(time, &framed)).unwrap();
            prop_assert_eq!(entry.time, time);
            let read: Vec<(u8, Vec<u8>)> = entry.commands.into_iter().map(|(kind, body)| (kind, body.to_vec())).collect();
            prop_assert_eq!(read, commands);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            drop(Entry::parse(bytes.into()));
        }
    }
}
