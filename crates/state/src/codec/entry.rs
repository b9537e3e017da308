//! Frame of a log entry: format byte, version of Stead that wrote it, logged time, commands.

use std::fmt;

use bytes::Bytes;

use super::{Malformed, Reader, Writer};

/// First byte of every entry.
pub const ENTRY_FORMAT: u8 = 2;

/// Version of Stead that wrote an entry: named in the error when a command in it is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriterVersion {
    /// Major, minor, patch.
    parts: [u16; 3],
}

/// A parsed log entry; command bodies share its buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Version of Stead that proposed it.
    pub writer: WriterVersion,
    /// The group's logged time, in milliseconds since 1970: the only clock of apply.
    pub time: u64,
    /// Kind and body of each command, in order.
    pub commands: Vec<(u8, Bytes)>,
}

/// A committed log entry that this program cannot read. The node must stop: another replica may read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnreadableEntry {
    /// The frame has an unknown format byte.
    #[error(
        "log entry has format {found}, stead {} reads format {ENTRY_FORMAT}: run this node with the version of stead \
         that the other nodes of its group run",
        WriterVersion::THIS
    )]
    Format {
        /// The format byte.
        found: u8,
    },
    /// The frame is truncated.
    #[error(transparent)]
    Frame(#[from] Malformed),
    /// A command has an unknown kind or a malformed body.
    #[error(
        "log entry {index} holds a command of kind {kind} that stead {} cannot read; stead {writer} wrote it: run this \
         node with that version or a newer one",
        WriterVersion::THIS
    )]
    Command {
        /// Log index of the entry.
        index: u64,
        /// The command's kind byte.
        kind: u8,
        /// Version of Stead that wrote it.
        writer: WriterVersion,
        /// Error in the command's body.
        #[source]
        source: Malformed,
    },
}

impl WriterVersion {
    /// Version of this program.
    pub const THIS: Self = Self {
        parts: [
            number(env!("CARGO_PKG_VERSION_MAJOR")),
            number(env!("CARGO_PKG_VERSION_MINOR")),
            number(env!("CARGO_PKG_VERSION_PATCH")),
        ],
    };
}

impl fmt::Display for WriterVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.parts;
        write!(f, "{major}.{minor}.{patch}")
    }
}

/// Parses one part of this program's version at compile time.
const fn number(digits: &str) -> u16 {
    let (digits, mut number, mut at) = (digits.as_bytes(), 0, 0);
    while at < digits.len() {
        number = number * 10 + (digits[at] - b'0') as u16;
        at += 1;
    }
    number
}

/// Encodes commands, each starting with its kind byte, into one entry.
///
/// # Panics
///
/// When a command is empty or longer than 4 GiB: a proposer's bug.
pub fn encode_entry(time: u64, commands: &[Bytes]) -> Bytes {
    encode_entry_as(WriterVersion::THIS, time, commands)
}

fn encode_entry_as(writer: WriterVersion, time: u64, commands: &[Bytes]) -> Bytes {
    let len: usize = commands.iter().map(|command| command.len() + 4).sum();
    let mut entry = Writer::with_capacity(18 + len);
    entry.u8(ENTRY_FORMAT);
    for part in writer.parts {
        entry.varint(u64::from(part));
    }
    entry.u64(time);
    for command in commands {
        let (kind, body) = command.split_first().expect("a command has at least its kind byte");
        let len = u32::try_from(body.len()).expect("requests are bounded far below 4 GiB");
        entry.u8(*kind).u32(len).raw(body);
    }
    entry.finish()
}

/// Returns the logged time of an entry without decoding its commands; `None` if the bytes are no entry.
pub fn entry_time(entry: &Bytes) -> Option<u64> {
    let mut reader = Reader::new(entry.clone(), "log entry");
    read_header(&mut reader).ok().map(|(_, time)| time)
}

/// Reads the header before the commands.
fn read_header(reader: &mut Reader) -> Result<(WriterVersion, u64), UnreadableEntry> {
    let found = reader.u8()?;
    if found != ENTRY_FORMAT {
        return Err(UnreadableEntry::Format { found });
    }
    let mut parts = [0; 3];
    for part in &mut parts {
        *part = u16::try_from(reader.varint()?).map_err(|_| reader.malformed())?;
    }
    Ok((WriterVersion { parts }, reader.u64()?))
}

impl Entry {
    /// Reads what [`encode_entry`] wrote.
    pub fn parse(bytes: Bytes) -> Result<Self, UnreadableEntry> {
        let mut reader = Reader::new(bytes, "log entry");
        let (writer, time) = read_header(&mut reader)?;
        let mut commands = Vec::new();
        while !reader.is_empty() {
            let kind = reader.u8()?;
            let len = reader.u32()?;
            let body = reader.raw(usize::try_from(len).map_err(|_| reader.malformed())?)?;
            commands.push((kind, body));
        }
        Ok(Self { writer, time, commands })
    }

    /// Decodes all commands, so that an entry with one unreadable command has no effect at all. `index` is the log
    /// index of the entry.
    pub fn decode<T>(
        self,
        index: u64,
        decode: impl Fn(u8, Bytes) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, UnreadableEntry> {
        let writer = self.writer;
        let command = |(kind, body)| {
            decode(kind, body).map_err(|source| UnreadableEntry::Command {
                index,
                kind,
                writer,
                source,
            })
        };
        self.commands.into_iter().map(command).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn entry_encoding_is_fixed() {
        let entry = encode_entry_as(
            WriterVersion { parts: [1, 2, 300] },
            0x0102_0304_0506_0708,
            &[Bytes::from_static(b"\x07abc"), Bytes::from_static(b"\x09")],
        );
        assert_eq!(
            &entry[..],
            b"\x02\x01\x02\xac\x02\x01\x02\x03\x04\x05\x06\x07\x08\x07\0\0\0\x03abc\x09\0\0\0\0"
        );
    }

    #[test]
    fn entry_of_unknown_format_is_rejected() {
        let mut entry = encode_entry(1, &[]).to_vec();
        entry[0] = 3;
        let refused = Entry::parse(entry.into()).unwrap_err();
        assert_eq!(refused, UnreadableEntry::Format { found: 3 });
        assert!(refused.to_string().starts_with("log entry has format 3, stead "));
    }

    #[test]
    fn unreadable_command_error_names_kind_and_writer() {
        let writer = WriterVersion { parts: [7, 8, 9] };
        let commands = [Bytes::from_static(b"\x01"), Bytes::from_static(b"\xc8?")];
        let entry = Entry::parse(encode_entry_as(writer, 1, &commands)).unwrap();
        let known = |kind, _| {
            if kind == 1 {
                Ok(())
            } else {
                Err(Malformed { what: "test" })
            }
        };
        assert_eq!(
            entry.decode(12, known).unwrap_err().to_string(),
            format!(
                "log entry 12 holds a command of kind 200 that stead {} cannot read; stead 7.8.9 wrote it: run this \
                 node with that version or a newer one",
                env!("CARGO_PKG_VERSION")
            )
        );
    }

    proptest! {
        #[test]
        fn entry_round_trips(
            parts: [u16; 3],
            time: u64,
            commands in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..40)), 0..8),
        ) {
            let writer = WriterVersion { parts };
            let framed: Vec<Bytes> = commands.iter().map(|(kind, body)| [&[*kind], &body[..]].concat().into()).collect();
            let entry = Entry::parse(encode_entry_as(writer, time, &framed)).unwrap();
            prop_assert_eq!((entry.writer, entry.time), (writer, time));
            prop_assert_eq!(entry_time(&encode_entry_as(writer, time, &framed)), Some(time));
            let read: Vec<(u8, Vec<u8>)> = entry.commands.into_iter().map(|(kind, body)| (kind, body.to_vec())).collect();
            prop_assert_eq!(read, commands);
        }

        #[test]
        fn entry_parser_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let bytes = Bytes::from(bytes);
            let time = entry_time(&bytes);
            let parsed = Entry::parse(bytes);
            prop_assert!(parsed.is_err() || parsed.ok().map(|entry| entry.time) == time);
        }
    }
}
