//! A snapshot of the directory: its rows, in chunks.

use bytes::Bytes;
use stead_state::{directory::Directory, rows::directory as rows};

use crate::{
    chunks::{decode, encode},
    group_rows::failed,
    machine::{Chunks, Failed},
};

/// Packs the rows of a directory. They are copied out at once: the directory is in memory, and bounded.
pub(super) fn pack(directory: &Directory) -> Chunks {
    let all: Vec<(Bytes, Bytes)> = rows::all(directory).collect();
    Box::new(encode(all.into_iter().map(Ok)))
}

/// Reads the directory that [`pack`] packed.
pub(super) fn unpack(chunks: Chunks) -> Result<Directory, Failed> {
    let mut directory = Directory::default();
    for row in decode(chunks) {
        rows::read(&mut directory, &row?).map_err(failed("reading a snapshot of the directory"))?;
    }
    Ok(directory)
}
