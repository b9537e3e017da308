//! Spool of a snapshot that is being received: its chunks, kept until the last one has arrived.
//!
//! On a disk they go through an unlinked file, so that nothing is left of it after a crash; without a disk (in
//! simulations and tests) they stay in memory.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use stead_api::proto::internal::v1::RaftEnvelope;
use stead_store::machine::{CHUNK_LEN_MAX, Chunks, MachineError};
use tokio::time::timeout;
use tonic::{Status, Streaming};

use crate::blocking::BlockingWorker;
use crate::wire::{self, MessageKind};

/// Timeout for the next chunk of a snapshot.
const CHUNK_WAIT_MAX: Duration = Duration::from_secs(30);

const RECEIVING: &str = "receiving a snapshot";

/// Spool of the chunks received so far.
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
                format!("snapshot chunk has {} bytes, the limit is {CHUNK_LEN_MAX}", chunk.len()),
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
                let chunks = std::iter::from_fn(move || read_chunk(&mut file).transpose());
                Ok(Box::new(chunks.map(|chunk| {
                    chunk.map_err(|error| MachineError {
                        doing: "reading a received snapshot",
                        source: Box::new(error),
                    })
                })))
            }
        }
    }
}

/// Snapshot that was received completely.
pub(crate) struct ReceivedSnapshot {
    pub(crate) chunks: Chunks,
    pub(crate) count: u64,
    pub(crate) bytes: u64,
}

/// Bytes of the snapshot that a group receives or installs; zero while there is none.
#[derive(Debug, Default)]
pub(crate) struct ReceiveProgress(AtomicU64);

/// Guard of one snapshot that is received; the progress is zero again when it is dropped.
#[derive(Debug)]
pub(crate) struct Receiving<'a>(&'a ReceiveProgress);

impl ReceiveProgress {
    pub(crate) fn begin(&self) -> Receiving<'_> {
        Receiving(self)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Receiving<'_> {
    fn add(&self, len: u64) {
        self.0.0.fetch_add(len, Ordering::Relaxed);
    }
}

impl Drop for Receiving<'_> {
    fn drop(&mut self) {
        self.0.0.store(0, Ordering::Relaxed);
    }
}

/// Receives the chunks of a snapshot up to its end message.
pub(crate) async fn receive(
    mut spool: Spool,
    envelopes: &mut Streaming<RaftEnvelope>,
    worker: &BlockingWorker,
    progress: &Receiving<'_>,
) -> Result<ReceivedSnapshot, Status> {
    let malformed = |error: stead_state::codec::Malformed| Status::invalid_argument(error.to_string());
    let (mut count, mut bytes) = (0, 0);
    loop {
        let next = next_envelope(envelopes).await?;
        if wire::kind(&next).map_err(malformed)? == MessageKind::SnapshotEnd {
            let end = wire::read_snapshot_end(next.body).map_err(malformed)?;
            if end != (count, bytes) {
                return Err(Status::data_loss("chunks of the snapshot are missing"));
            }
            let chunks = spool.into_chunks().map_err(|error| reject(worker, &error))?;
            return Ok(ReceivedSnapshot { chunks, count, bytes });
        }
        let chunk = wire::body(next, MessageKind::SnapshotChunk).map_err(malformed)?;
        count += 1;
        bytes += chunk.len() as u64;
        progress.add(chunk.len() as u64);
        let push = move || match spool.push(chunk) {
            Ok(()) => Ok(spool),
            Err(error) => Err(MachineError {
                doing: RECEIVING,
                source: Box::new(error),
            }),
        };
        let pushed = worker.run(RECEIVING, push).await;
        spool = pushed.map_err(|failed| reject(worker, &*failed.source))?;
    }
}

/// Returns the status for a snapshot that cannot be spooled, most often on a full disk. The sender retries.
pub(crate) fn reject(worker: &BlockingWorker, error: &(dyn std::error::Error + 'static)) -> Status {
    worker.health.record_retry(Some(worker.group), RECEIVING, error);
    Status::resource_exhausted(error.to_string())
}

/// Records in the health that a snapshot was received and installed.
pub(crate) fn mark_installed(worker: &BlockingWorker) {
    worker.health.succeeded(Some(worker.group), RECEIVING);
}

/// Waits for the next envelope of a snapshot.
pub(crate) async fn next_envelope(envelopes: &mut Streaming<RaftEnvelope>) -> Result<RaftEnvelope, Status> {
    let next = timeout(CHUNK_WAIT_MAX, envelopes.message()).await;
    let next = next.map_err(|_| Status::deadline_exceeded("timed out waiting for the next chunk"))??;
    next.ok_or_else(|| Status::aborted("the snapshot stream ended before its end message"))
}

fn read_chunk(file: &mut BufReader<File>) -> io::Result<Option<Bytes>> {
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
    fn progress_of_a_snapshot_ends_with_it() {
        let progress = ReceiveProgress::default();
        let receiving = progress.begin();
        receiving.add(3);
        receiving.add(4);
        assert_eq!(progress.bytes(), 7);
        drop(receiving);
        assert_eq!(progress.bytes(), 0);
    }

    #[test]
    fn spooled_chunks_keep_order_and_leave_no_file() {
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
