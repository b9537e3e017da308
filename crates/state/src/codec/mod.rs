//! Encoding of log entries, and the primitives that rows and commands are encoded with.
//!
//! An entry is a format byte, the version of Stead that wrote it, the logged time and a sequence of commands; a
//! command is a kind byte, a length and a body that only its own machine understands. Nothing here is derived: bytes
//! on a disk or a wire are written by hand and held by golden files.
//!
//! # Invariants
//!
//! 1. The bytes of an entry and of every command are fixed: those of shards by the golden file, those of entries and of the
//!    directory by tests beside them. A change of form is a new format byte or a new kind.
//! 2. Reading never panics and never takes memory that the bytes themselves do not account for.

mod entry;
mod reader;
mod writer;

pub use entry::{ENTRY_FORMAT, Entry, UnreadableEntry, WriterVersion, encode_entry, entry_time};
pub use reader::{Malformed, Reader};
pub use writer::Writer;

#[cfg(test)]
mod codec_test;
