//! A snapshot of the directory: its rows, in chunks.

use bytes::Bytes;
use stead_state::{codec::Malformed, directory::Directory, rows::directory as rows};

use crate::{
    chunks::{Decoder, Encoder},
    group_rows::failed,
    machine::{Chunks, Failed},
};

/// Packs the rows of a directory. They are copied out at once: the directory is in memory, and bounded.
pub(super) fn pack(directory: &Directory) -> Chunks {
    let all: Vec<(Bytes, Bytes)> = rows::all(directory).collect();
    let mut rest = all.into_iter();
    let mut encoder = Some(Encoder::default());
    Box::new(std::iter::from_fn(move || {
        let open = encoder.as_mut()?;
        let full = rest.find_map(|(key, value)| open.put(&key, &value));
        full.or_else(|| encoder.take().map(Encoder::finish)).map(Ok)
    }))
}

/// Reads the directory that [`pack`] packed.
pub(super) fn unpack(chunks: Chunks) -> Result<Directory, Failed> {
    let mut directory = Directory::default();
    let mut decoder = Decoder::default();
    for chunk in chunks {
        let chunk = chunk?;
        let taken = decoder
            .rows(chunk)
            .and_then(|all| all.iter().try_for_each(|row| rows::read(&mut directory, row)));
        taken.map_err(failed("reading a snapshot of the directory"))?;
    }
    if decoder.ended() {
        return Ok(directory);
    }
    let cut = Malformed {
        what: "directory snapshot: its end",
    };
    Err(failed("reading a snapshot of the directory")(cut))
}
