//! Storage engine trait: an ordered keyspace of bytes that becomes durable at checkpoints.
//!
//! The Raft log makes a write durable; an engine only has to recover to its state after some batch at or after its last
//! checkpoint. Memtables are in front of it (`crate::table`), so it is written to in few large batches.
//!
//! # Invariants
//!
//! 1. A batch is written as a whole or not at all, also across a power loss.
//! 2. When [`Engine::checkpoint`] has returned, every batch written before it is durable.
//! 3. After a power loss, batches survive in the order in which they were written: none is missing before one that
//!    survives.
//! 4. After a failed read, write or sync every later write is refused, until the engine is opened again: [`guarded`]
//!    sees to that for all engines, and stops the node. Reads that fail while a node starts are left to the caller.

use std::error::Error;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use stead_state::rows::{Order, Row, Unreadable, change, expiry};

use crate::health::catch_panic;

mod cached;
#[cfg(test)]
mod conformance;
pub mod fjall;
mod guarded;
pub mod memory;
pub mod sled;

pub use cached::cached;
pub use guarded::{guarded, guarded_once_opened};

/// Longest key that every engine accepts: fjall stores the length in 16 bits.
const KEY_LEN_MAX: usize = u16::MAX as usize;
/// Longest value of one key's row that every engine is tested with.
const VALUE_LEN_MAX: usize = 4 << 20;

const _: () = assert!(
    expiry::KEY_ROW_LEN_MAX <= KEY_LEN_MAX && change::ROW_LEN_MAX <= VALUE_LEN_MAX,
    "a row of a legal key and value would not fit an engine"
);

/// Bytes of an engine's block cache.
pub const CACHE_LEN: u64 = 32 << 20;

/// Change of one row: written, or removed where the value is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowChange {
    /// The row's key.
    pub key: Bytes,
    /// Its new value.
    pub value: Option<Bytes>,
}

/// Storage engine of a node's rows.
pub trait Engine: Send + Sync {
    /// Returns the kind of the engine.
    fn kind(&self) -> Kind;

    /// Returns the value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Unreadable>;

    /// Returns the rows of a range of keys, end exclusive, lazily. A batch that is written meanwhile may be visible in
    /// part.
    fn range<'a>(&'a self, range: Range<&[u8]>, order: Order) -> Box<dyn Iterator<Item = Row> + 'a>;

    /// Writes a batch, whose keys ascend strictly. Visible to reads at once, durable with the next checkpoint.
    fn write(&self, batch: &mut dyn Iterator<Item = RowChange>) -> io::Result<()>;

    /// Makes all written batches durable.
    fn checkpoint(&self) -> io::Result<()>;

    /// Fails if a thread of the engine has ended, which its other calls may not report.
    fn check_workers(&self) -> io::Result<()> {
        Ok(())
    }

    /// Frees the disk space of removed rows in the background, if that is due. Called every few seconds. Fails if the engine
    /// could not read or write its files meanwhile.
    fn reclaim(&self) -> io::Result<()> {
        Ok(())
    }

    /// Ends the start of the node: from now on a failed read stops the node.
    fn mark_opened(&self) {}

    /// Returns the approximate bytes of disk that it uses.
    fn disk_len(&self) -> u64;

    /// Returns the bytes of its disk that are free; `None` where it has no disk, or the system does not tell.
    fn disk_free(&self) -> Option<u64> {
        None
    }
}

/// Kind of engine; fixed when a data directory is created.
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

/// Error for an unknown engine name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown storage engine \"{0}\": use fjall, sled or memory")]
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

/// Opens an engine in a directory. A panic of the library becomes an error.
pub fn open(kind: Kind, dir: &Path) -> io::Result<Arc<dyn Engine>> {
    let opened = catch_panic(|| match kind {
        Kind::Fjall => fjall::open(dir),
        Kind::Sled => sled::open(dir),
        Kind::Memory => Ok(memory::Disk::default().open()),
    });
    opened.unwrap_or_else(|panicked| Err(io::Error::other(format!("{kind} cannot read its files: {panicked}"))))
}

/// Tells whether an error of an engine means that its files are damaged, rather than that the system failed to read
/// them.
pub fn is_damage(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        cause = match error.downcast_ref::<io::Error>() {
            None => error.source(),
            Some(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Unsupported) => {
                return false;
            }
            Some(error) => match (error.raw_os_error(), error.get_ref()) {
                // A file that others refer to is missing.
                (Some(code), _) => return code == libc::ENOENT,
                (None, Some(inner)) => Some(inner),
                (None, None) => return is_damage_kind(error.kind()),
            },
        };
    }
    true
}

/// Tells whether an engine's error that says nothing but its kind means damage.
fn is_damage_kind(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput, NotFound, Other, UnexpectedEof};
    matches!(kind, InvalidData | InvalidInput | NotFound | Other | UnexpectedEof)
}

/// Tells whether a range is empty; ranges of trees panic on some of those.
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
    fn damage_is_distinguished_from_system_errors() {
        let of_system = |code| io::Error::from_raw_os_error(code);
        for refused in [libc::EIO, libc::ENOSPC, libc::EACCES, libc::EMFILE] {
            assert!(!is_damage(&of_system(refused)));
            assert!(!is_damage(&io::Error::other(of_system(refused))));
        }
        for refused in [
            io::ErrorKind::WouldBlock,
            io::ErrorKind::StorageFull,
            io::ErrorKind::QuotaExceeded,
        ] {
            assert!(!is_damage(&io::Error::from(refused)), "{refused}");
        }
        assert!(is_damage(&io::Error::from(io::ErrorKind::UnexpectedEof)));
        assert!(is_damage(&of_system(libc::ENOENT)));
        assert!(is_damage(&io::Error::other("checksum mismatch")));
    }

    #[test]
    fn corrupt_files_are_damage_for_every_engine() {
        for kind in [Kind::Fjall, Kind::Sled] {
            let dir = tempfile::tempdir().unwrap();
            let engine = open(kind, dir.path()).unwrap();
            conformance::write(&*engine, vec![conformance::put("a", "1")]);
            engine.checkpoint().unwrap();
            drop(engine);
            crate::data_dir::rewrite::rewrite(dir.path(), |path| {
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
