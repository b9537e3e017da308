//! A snapshot that is being received: chunks, kept until the last one is there.
//!
//! On a disk they go through a file that has no name, so that nothing is left of it after a crash; without one (in
//! simulations and tests) they stay in memory.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;

use bytes::Bytes;
use stead_store::machine::{CHUNK_LEN_MAX, Chunks, Failed};

/// Chunks received so far.
pub(crate) enum Spool {
    Memory(Vec<Bytes>),
    File(File),
}

impl Spool {
    /// Opens an empty spool, in a folder if there is one.
    pub(crate) fn open(folder: Option<&Path>, name: &str) -> io::Result<Self> {
        let Some(folder) = folder else {
            return Ok(Self::Memory(Vec::new()));
        };
        std::fs::create_dir_all(folder)?;
        let path = folder.join(name);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true).open(&path)?;
        std::fs::remove_file(&path)?;
        Ok(Self::File(file))
    }

    pub(crate) fn push(&mut self, chunk: Bytes) -> io::Result<()> {
        if chunk.len() > CHUNK_LEN_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "a chunk of a snapshot has {} bytes, at most {CHUNK_LEN_MAX} are taken",
                    chunk.len()
                ),
            ));
        }
        match self {
            Self::Memory(chunks) => chunks.push(chunk),
            Self::File(file) => {
                let len = u32::try_from(chunk.len()).expect("it was compared with a smaller bound");
                file.write_all(&len.to_be_bytes())?;
                file.write_all(&chunk)?;
            }
        }
        Ok(())
    }

    /// Returns the chunks in their order.
    pub(crate) fn into_chunks(self) -> io::Result<Chunks> {
        match self {
            Self::Memory(chunks) => Ok(Box::new(chunks.into_iter().map(Ok))),
            Self::File(mut file) => {
                file.seek(SeekFrom::Start(0))?;
                let mut file = BufReader::new(file);
                let chunks = std::iter::from_fn(move || next(&mut file).transpose());
                Ok(Box::new(chunks.map(|chunk| {
                    chunk.map_err(|error| Failed {
                        doing: "reading a received snapshot",
                        source: Box::new(error),
                    })
                })))
            }
        }
    }
}

fn next(file: &mut BufReader<File>) -> io::Result<Option<Bytes>> {
    let mut len = [0; 4];
    match file.read_exact(&mut len) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let mut chunk = vec![0; u32::from_be_bytes(len) as usize];
    file.read_exact(&mut chunk)?;
    Ok(Some(chunk.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_come_back_in_their_order_and_leave_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        for place in [None, Some(folder.path())] {
            let mut spool = Spool::open(place, "g1").unwrap();
            for chunk in ["one", "", "three"] {
                spool.push(Bytes::from(chunk)).unwrap();
            }
            assert!(spool.push(vec![0; CHUNK_LEN_MAX + 1].into()).is_err());
            let chunks: Vec<Bytes> = spool.into_chunks().unwrap().map(Result::unwrap).collect();
            assert_eq!(chunks, ["one", "", "three"]);
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
