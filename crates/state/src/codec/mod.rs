//! Log entries as bytes, and the few primitives that rows and commands are written with.
//!
//! An entry is a format byte, the version of Stead that wrote it, the logged time and a sequence of commands; a command is a kind byte, a length and a
//! body that only the machine it is meant for understands. Nothing here is derived: what stands on a disk or a wire is
//! written out by hand and held by golden files.
//!
//! # Invariants
//!
//! 1. The bytes of an entry and of every command are fixed by the golden file; a change of form is a new format byte or
//!    a new kind.
//! 2. Reading never panics and never takes memory that the bytes themselves do not account for.

mod entry;
mod reader;
mod writer;

pub use entry::{ENTRY_FORMAT, Entry, UnreadableEntry, WriterVersion, frame, time_of};
pub use reader::{Malformed, Reader};
pub use writer::Writer;

#[cfg(test)]
mod codec_test;
