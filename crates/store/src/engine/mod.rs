//! Rows on disk behind one small trait: an ordered keyspace of bytes that becomes durable at checkpoints.
//!
//! The Raft log is what makes a write durable; an engine only has to come back as it was after some batch at or after
//! its last checkpoint, and to say so truly. Tables in memory stand before it (`crate::table`), so it is written to in
//! few large batches.
//!
//! # Invariants
//!
//! 1. A batch is there as a whole or not at all, also after power was lost.
//! 2. When [`Engine::checkpoint`] has returned, every batch written before it is durable.
//! 3. After power was lost, batches survive in the order in which they were written: none is missing before one that is
//!    there.
//! 4. After a failed read, write or sync every later write is refused, until the engine is opened again: [`watched`]
//!    sees to that for all engines, and stops the node.

use std::error::Error;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use stead_state::rows::{Order, Row, Unreadable, change, expiry};

use crate::health::caught;

#[cfg(test)]
mod conformance;
pub mod fjall;
pub mod memory;
pub mod sled;
mod watched;

pub use watched::{on_trial, watched};

/// Longest key that every engine takes: fjall counts them in 16 bits.
const KEY_LEN_MAX: usize = u16::MAX as usize;
/// Longest value of one key's row that every engine is tested with.
const VALUE_LEN_MAX: usize = 4 << 20;

const _: () = assert!(
    expiry::KEY_ROW_LEN_MAX <= KEY_LEN_MAX && change::ROW_LEN_MAX <= VALUE_LEN_MAX,
    "a row of a legal key and value would not fit an engine"
);

/// Bytes of an engine's block cache.
pub const CACHE_LEN: u64 = 32 << 20;

/// One row to write, or to remove where the value is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The row's key.
    pub key: Bytes,
    /// Its new value.
    pub value: Option<Bytes>,
}

/// Rows on disk.
pub trait Engine: Send + Sync {
    /// Tells which engine this is.
    fn kind(&self) -> Kind;

    /// Returns the value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Unreadable>;

    /// Returns the rows of a range of keys, end exclusive, lazily. A batch that is written meanwhile may be seen in
    /// part.
    fn range<'a>(&'a self, range: Range<&[u8]>, order: Order) -> Box<dyn Iterator<Item = Row> + 'a>;

    /// Writes a batch, whose keys ascend strictly. Seen by reads at once, durable with the next checkpoint.
    fn write(&self, batch: &mut dyn Iterator<Item = Change>) -> io::Result<()>;

    /// Makes durable what was written.
    fn checkpoint(&self) -> io::Result<()>;

    /// Fails once threads of the engine's own have ended, which its other calls may not tell.
    fn check_workers(&self) -> io::Result<()> {
        Ok(())
    }

    /// Says that what a node reads at its start was read: what cannot be read from now on stops the node.
    fn opened(&self) {}

    /// Returns about how many bytes of disk it uses.
    fn disk_len(&self) -> u64;
}

/// The engines; fixed when a data directory is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A log-structured merge tree; the default.
    Fjall,
    /// A B+ tree over a log.
    Sled,
    /// Memory, for simulations.
    Memory,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fjall => "fjall",
            Self::Sled => "sled",
            Self::Memory => "memory",
        })
    }
}

/// A name that is no engine's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no storage engine \"{0}\"; there are fjall, sled and memory")]
pub struct UnknownKind(String);

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(name: &str) -> Result<Self, UnknownKind> {
        match name {
            "fjall" => Ok(Self::Fjall),
            "sled" => Ok(Self::Sled),
            "memory" => Ok(Self::Memory),
            other => Err(UnknownKind(other.to_owned())),
        }
    }
}

/// Opens an engine in a directory. A panic of the library is an error.
pub fn open(kind: Kind, dir: &Path) -> io::Result<Arc<dyn Engine>> {
    let opened = caught(|| match kind {
        Kind::Fjall => fjall::open(dir),
        Kind::Sled => sled::open(dir),
        Kind::Memory => Ok(memory::Disk::default().open()),
    });
    opened.unwrap_or_else(|panicked| Err(io::Error::other(format!("{kind} could not read its files: {panicked}"))))
}

/// Tells whether an engine was not opened because of what stands in its files: the system had nothing against reading them.
pub fn is_damage(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        cause = match error.downcast_ref::<io::Error>() {
            None => error.source(),
            Some(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Unsupported) => {
                return false;
            }
            Some(error) => match (error.raw_os_error(), error.get_ref()) {
                // A file that others name is missing.
                (Some(code), _) => return code == libc::ENOENT,
                (None, Some(inner)) => Some(inner),
                (None, None) => None,
            },
        };
    }
    true
}

/// Tells whether a range holds no key; ranges of trees panic on some of those.
fn is_empty(range: &Range<&[u8]>) -> bool {
    range.end <= range.start
}

fn unreadable(error: impl std::error::Error + Send + Sync + 'static) -> Unreadable {
    Unreadable(Box::new(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_told_from_what_the_system_refuses() {
        let of_system = |code| io::Error::from_raw_os_error(code);
        for refused in [libc::EIO, libc::ENOSPC, libc::EACCES, libc::EMFILE] {
            assert!(!is_damage(&of_system(refused)));
            assert!(!is_damage(&io::Error::other(of_system(refused))));
        }
        assert!(!is_damage(&io::Error::from(io::ErrorKind::WouldBlock)));
        assert!(is_damage(&of_system(libc::ENOENT)));
        assert!(is_damage(&io::Error::other("checksum mismatch")));
    }

    #[test]
    fn garbled_files_are_damage_of_every_engine() {
        for kind in [Kind::Fjall, Kind::Sled] {
            let dir = tempfile::tempdir().unwrap();
            let engine = open(kind, dir.path()).unwrap();
            conformance::write(&*engine, vec![conformance::put("a", "1")]);
            engine.checkpoint().unwrap();
            drop(engine);
            crate::dir::renew::renew(dir.path(), |path| {
                let garbled = vec![0x5a; std::fs::metadata(path).unwrap().len() as usize];
                std::fs::write(path, garbled).unwrap();
                true
            })
            .unwrap();
            let error = open(kind, dir.path()).err().expect("nothing of it can be read");
            assert!(is_damage(&error), "{kind}: {error:?}");
        }
    }
}
