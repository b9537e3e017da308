//! Redo log of one large batch, in a file beside sled.
//!
//! sled blocks all reads while it applies a batch: one of 50,000 rows takes a second. So a large batch is first written
//! to this file and synced, then its rows are written one by one and synced, then the file is removed. Opening the
//! database replays the file if it exists: the rows are absolute, so that the replay is idempotent.
//!
//! Layout: frames of length (u32), checksum of the body (crc32c, u32), body; a body is rows, each a key behind its
//! length and a value that may be missing. An empty frame ends the file. All numbers are big-endian.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use stead_state::codec::{Malformed, Reader, Writer};

use crate::engine::RowChange;

/// Rows of a frame.
const PART_ROWS: usize = 256;

/// Redo log file.
pub(super) struct Redo {
    path: PathBuf,
    draft: PathBuf,
}

impl Redo {
    pub(super) fn new(dir: &Path) -> Self {
        Self {
            path: dir.join("redo"),
            draft: dir.join("redo.new"),
        }
    }

    /// Writes a batch durably.
    pub(super) fn write(&self, batch: &[RowChange]) -> io::Result<()> {
        let mut file = BufWriter::new(File::create(&self.draft)?);
        for part in batch.chunks(PART_ROWS) {
            write_frame(&mut file, &encode(part))?;
        }
        write_frame(&mut file, &[])?;
        let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        fs::rename(&self.draft, &self.path)?;
        self.sync_dir()
    }

    /// Removes the batch, once the database has it.
    pub(super) fn remove(&self) -> io::Result<()> {
        fs::remove_file(&self.path)?;
        self.sync_dir()
    }

    /// Returns the batch, if there is one.
    pub(super) fn read(&self) -> io::Result<Option<Vec<RowChange>>> {
        let bytes = match fs::read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => Bytes::from(read?),
        };
        decode(bytes).map(Some).map_err(io::Error::other)
    }

    fn sync_dir(&self) -> io::Result<()> {
        let dir = self.path.parent().expect("the file is in a directory");
        File::open(dir)?.sync_all()
    }
}

fn write_frame(file: &mut impl Write, body: &[u8]) -> io::Result<()> {
    let len = u32::try_from(body.len()).map_err(io::Error::other)?;
    file.write_all(&len.to_be_bytes())?;
    file.write_all(&crc32c::crc32c(body).to_be_bytes())?;
    file.write_all(body)
}

fn encode(part: &[RowChange]) -> Bytes {
    let mut w = Writer::default();
    for RowChange { key, value } in part {
        w.bytes(key).option(value.as_ref(), |w, value| {
            w.bytes(value);
        });
    }
    w.finish()
}

fn decode(bytes: Bytes) -> Result<Vec<RowChange>, Malformed> {
    let mut r = Reader::new(bytes, "file of a batch");
    let mut changes = Vec::new();
    loop {
        let (len, checksum) = (r.u32()?, r.u32()?);
        let body = r.raw(len as usize)?;
        if crc32c::crc32c(&body) != checksum {
            return Err(r.malformed());
        }
        if body.is_empty() {
            r.end()?;
            return Ok(changes);
        }
        let mut rows = Reader::new(body, "part of a batch");
        while !rows.is_empty() {
            changes.push(RowChange {
                key: rows.bytes()?,
                value: rows.option(Reader::bytes)?,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> Vec<RowChange> {
        let change = |number: usize| RowChange {
            key: number.to_string().into(),
            value: (!number.is_multiple_of(3)).then(|| vec![7; number % 50].into()),
        };
        (0..PART_ROWS * 2 + 5).map(change).collect()
    }

    #[test]
    fn redo_batch_reads_back_until_removed() {
        let dir = tempfile::tempdir().unwrap();
        let redo = Redo::new(dir.path());
        assert_eq!(redo.read().unwrap(), None);
        redo.write(&batch()).unwrap();
        assert_eq!(redo.read().unwrap(), Some(batch()));
        redo.remove().unwrap();
        assert_eq!(redo.read().unwrap(), None);
    }

    #[test]
    fn damaged_redo_file_is_rejected() {
        let dir = tempfile::tempdir().unwrap();
        let redo = Redo::new(dir.path());
        redo.write(&batch()).unwrap();
        let whole = fs::read(&redo.path).unwrap();
        for at in [0, 5, 20, whole.len() - 1] {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(&redo.path, damaged).unwrap();
            redo.read().unwrap_err();
            fs::write(&redo.path, &whole[..at]).unwrap();
            redo.read().unwrap_err();
        }
    }
}
