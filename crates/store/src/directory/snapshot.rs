//! Snapshot of the directory: its rows, in chunks.

use bytes::Bytes;
use stead_state::{directory::Directory, rows::directory as rows};

use crate::{
    chunks::{decode, encode},
    group_rows::failed,
    machine::{Chunks, MachineError},
};

/// Encodes the rows of a directory. They are copied at once: the directory is in memory, and bounded.
pub(super) fn pack(directory: &Directory) -> Chunks {
    let all: Vec<(Bytes, Bytes)> = rows::all(directory).collect();
    Box::new(encode(all.into_iter().map(Ok)))
}

/// Decodes the directory that [`pack`] encoded.
pub(super) fn unpack(chunks: Chunks) -> Result<Directory, MachineError> {
    let mut directory = Directory::default();
    for row in decode(chunks) {
        rows::read(&mut directory, &row?).map_err(failed("reading a snapshot of the directory"))?;
    }
    Ok(directory)
}
