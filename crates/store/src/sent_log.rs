//! Durable ledger of what a node sends of tenants to other groups: allowances are on the disk before anything that they
//! cover is sent. The decisions are those of [`SentLedger`].
//!
//! Layout of the file: frames of length (u32), checksum of the body (crc32c, u32), body; a body is one record. Numbers are
//! big-endian. A frame that is not whole ends the file: what it allowed was not sent. The file is replaced by a new one
//! when a node starts, when it has grown, and after an error of its disk.
//!
//! # Invariants
//!
//! 1. Records become durable in the order in which the ledger decides them.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use stead_state::{
    codec::Reader,
    directory::SentReport,
    sent_ledger::{LedgerRecord, SentLedger, SentPart},
};
use stead_types::{NodeId, RegionName};
use tokio::sync::oneshot;

use crate::{
    background::{Background, Stagger},
    health::Health,
};

/// Length from which on the file is replaced, if most of it is outdated.
const FILE_LEN_MAX: u64 = 1 << 20;
/// Multiple of the length after a replacement that the file may reach.
const GROWTH_MAX: u64 = 4;

/// Ledger of a node, and its file.
pub struct SentLog {
    shared: Arc<Shared>,
    background: Background,
}

struct Shared {
    ledger: Mutex<SentLedger>,
    /// Held from a decision until it is durable. Without a path nothing is written.
    file: Mutex<LedgerFile>,
}

#[derive(Default)]
struct LedgerFile {
    path: Option<PathBuf>,
    /// `None` where the file is to be replaced.
    file: Option<File>,
    len: u64,
    len_replaced: u64,
}

impl SentLog {
    /// Returns a ledger in memory, for storage in memory and tests.
    pub fn in_memory(node: NodeId, now_ms: u64) -> Self {
        Self {
            shared: Arc::new(Shared {
                ledger: Mutex::new(SentLedger::new(node, now_ms)),
                file: Mutex::default(),
            }),
            background: Background::inline(),
        }
    }

    /// Opens the ledger in a file, which need not exist. What was allowed and may have been sent counts as sent.
    ///
    /// # Errors
    ///
    /// The file cannot be read or written.
    pub fn open(path: PathBuf, node: NodeId, now_ms: u64, health: Health) -> io::Result<Self> {
        let records = read(&path)?;
        let mut ledger = SentLedger::new(node, now_ms);
        ledger.restore(&records, now_ms);
        let mut file = LedgerFile {
            path: Some(path),
            ..LedgerFile::default()
        };
        file.replace(&ledger.as_records(false, now_ms))?;
        Ok(Self {
            shared: Arc::new(Shared {
                ledger: Mutex::new(ledger),
                file: Mutex::new(file),
            }),
            background: Background::thread("sent data", health, Stagger::default())?,
        })
    }

    /// Counts parts that are about to be sent to a region, and returns once it is durable that they may be.
    ///
    /// # Errors
    ///
    /// The file cannot be written: nothing is counted, and nothing may be sent.
    pub async fn record(&self, region: &RegionName, parts: &[SentPart], now_ms: u64) -> io::Result<()> {
        if self.shared.count(region, parts, now_ms) {
            return Ok(());
        }
        let (shared, region, parts) = (self.shared.clone(), region.clone(), parts.to_vec());
        self.write(move || shared.allow(&region, &parts, now_ms)).await
    }

    /// Returns the report that the directory is to have next, durable here; `None` if it has all.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub async fn next_report(&self, now_ms: u64) -> io::Result<Option<SentReport>> {
        let shared = self.shared.clone();
        self.write(move || shared.next_report(now_ms)).await
    }

    /// Records that the directory has a report.
    ///
    /// # Errors
    ///
    /// The file cannot be written: the report is repeated, and the directory ignores it.
    pub async fn end_report(&self, number: u64, now_ms: u64) -> io::Result<()> {
        let shared = self.shared.clone();
        self.write(move || shared.end_report(number, now_ms)).await
    }

    /// Runs work that writes the file.
    async fn write<T: Send + 'static>(&self, work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
        let (sender, done) = oneshot::channel();
        self.background.submit(None, "recording what is sent", move || {
            // Nobody waits any more: the stream has ended.
            drop(sender.send(work()));
            Ok(())
        });
        done.await
            .unwrap_or_else(|_| Err(io::Error::other("the node is stopping")))
    }
}

/// Ends allowances at what was sent: nobody sends any more, and no job is left that writes the file, as each has a share.
impl Drop for Shared {
    fn drop(&mut self) {
        let (ledger, file) = (self.ledger.get_mut(), self.file.get_mut());
        if let Err(error) = file.replace(&ledger.as_records(true, 0)) {
            tracing::warn!(%error, "cannot record exactly what was sent: residency evidence will show more");
        }
    }
}

impl Shared {
    /// Counts parts if they are allowed.
    fn count(&self, region: &RegionName, parts: &[SentPart], now_ms: u64) -> bool {
        let mut ledger = self.ledger.lock();
        let is_allowed = ledger.missing(region, parts, now_ms).is_empty();
        if is_allowed {
            ledger.count(region, parts, now_ms);
        }
        is_allowed
    }

    fn allow(&self, region: &RegionName, parts: &[SentPart], now_ms: u64) -> io::Result<()> {
        let mut file = self.file.lock();
        loop {
            let records = self.ledger.lock().missing(region, parts, now_ms);
            self.append(&mut file, &records, now_ms)?;
            // Others may have counted meanwhile.
            if self.count(region, parts, now_ms) {
                return Ok(());
            }
        }
    }

    fn next_report(&self, now_ms: u64) -> io::Result<Option<SentReport>> {
        let mut file = self.file.lock();
        let next = {
            let ledger = self.ledger.lock();
            if let Some(begun) = ledger.begun_report() {
                return Ok(Some(begun.clone()));
            }
            ledger.next_report()
        };
        let records: Vec<LedgerRecord> = next.iter().cloned().map(LedgerRecord::BeginReport).collect();
        self.append(&mut file, &records, now_ms)?;
        Ok(next)
    }

    fn end_report(&self, number: u64, now_ms: u64) -> io::Result<()> {
        let mut file = self.file.lock();
        self.append(&mut file, &[LedgerRecord::EndReport(number)], now_ms)?;
        let idle = self.ledger.lock().forget_idle(now_ms);
        file.append(&idle, || self.ledger.lock().as_records(false, now_ms))
    }

    /// Makes records durable, and then applies them.
    fn append(&self, file: &mut LedgerFile, records: &[LedgerRecord], now_ms: u64) -> io::Result<()> {
        file.append(records, || self.ledger.lock().as_records(false, now_ms))?;
        let mut ledger = self.ledger.lock();
        records.iter().for_each(|record| ledger.apply(record));
        Ok(())
    }
}

impl LedgerFile {
    /// Appends records and syncs them; or writes a new file of what leads to the ledger before, and these.
    fn append(&mut self, records: &[LedgerRecord], before: impl FnOnce() -> Vec<LedgerRecord>) -> io::Result<()> {
        if records.is_empty() || self.path.is_none() {
            return Ok(());
        }
        let has_grown = self.len > FILE_LEN_MAX && self.len > GROWTH_MAX * self.len_replaced;
        // After an error nothing is known of the end of the file: it is taken away, and put back once all is synced.
        let Some(mut file) = self.file.take().filter(|_| !has_grown) else {
            let mut all = before();
            all.extend_from_slice(records);
            return self.replace(&all);
        };
        let bytes = frames(records);
        file.write_all(&bytes)?;
        file.sync_data()?;
        self.len += bytes.len() as u64;
        self.file = Some(file);
        Ok(())
    }

    /// Replaces the file, durably.
    fn replace(&mut self, records: &[LedgerRecord]) -> io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        self.file = None;
        let draft = path.with_extension("new");
        let mut file = File::create(&draft)?;
        let bytes = frames(records);
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&draft, path)?;
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()?;
        self.len = bytes.len() as u64;
        self.len_replaced = self.len;
        self.file = Some(file);
        Ok(())
    }
}

fn frames(records: &[LedgerRecord]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for record in records {
        let body = record.encode();
        let len = u32::try_from(body.len()).expect("a record is bounded far below 4 GiB");
        bytes.extend_from_slice(&len.to_be_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(&body).to_be_bytes());
        bytes.extend_from_slice(&body);
    }
    bytes
}

/// Reads the records of a file up to the first frame that is not whole.
fn read(path: &Path) -> io::Result<Vec<LedgerRecord>> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => Bytes::from(read?),
    };
    let len = bytes.len();
    let mut r = Reader::new(bytes, "ledger of what was sent");
    let (mut records, mut whole) = (Vec::new(), 0);
    while !r.is_empty() {
        let frame = (|| {
            let (len, checksum) = (r.u32()?, r.u32()?);
            let body = r.raw(len as usize)?;
            if crc32c::crc32c(&body) != checksum {
                return Err(r.malformed());
            }
            whole += 8 + body.len();
            LedgerRecord::decode(body)
        })();
        match frame {
            Ok(record) => records.push(record),
            Err(error) => {
                let bytes = len - whole;
                tracing::warn!(path = %path.display(), bytes, %error, "the end of the ledger of what was sent is not whole");
                break;
            }
        }
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use stead_types::{DirectoryVersion, TenantNumber};

    use super::*;

    const NOW: u64 = 1_000;

    fn open(path: &Path) -> SentLog {
        SentLog::open(path.to_owned(), NodeId::new(1), NOW, Health::default()).unwrap()
    }

    fn part(bytes: u64) -> SentPart {
        SentPart {
            tenant: TenantNumber::new(1),
            policy: DirectoryVersion::ZERO,
            bytes,
        }
    }

    async fn send(log: &SentLog, bytes: u64) {
        log.record(&"us".parse().unwrap(), &[part(bytes)], NOW).await.unwrap();
    }

    async fn reported(log: &SentLog) -> u64 {
        let mut bytes = 0;
        while let Some(report) = log.next_report(NOW).await.unwrap() {
            bytes += report.sent.iter().map(|data| data.bytes).sum::<u64>();
            log.end_report(report.number, NOW).await.unwrap();
        }
        bytes
    }

    #[tokio::test]
    async fn sent_bytes_survive_orderly_stop_exactly() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sent");
        for expected in [50, 7] {
            let log = open(&path);
            send(&log, expected).await;
            drop(log);
            assert_eq!(reported(&open(&path)).await, expected);
        }
        assert_eq!(reported(&open(&path)).await, 0);
    }

    #[tokio::test]
    async fn crash_counts_no_less_than_was_sent() {
        let dir = tempfile::tempdir().unwrap();
        let (path, copy) = (dir.path().join("sent"), dir.path().join("copy"));
        let log = open(&path);
        for bytes in [10, 100_000, 1_000_000, 3] {
            send(&log, bytes).await;
        }
        // The file as a crash leaves it, with a frame that is not whole.
        fs::copy(&path, &copy).unwrap();
        let mut torn = fs::OpenOptions::new().append(true).open(&copy).unwrap();
        torn.write_all(&[0, 0, 0, 9, 1]).unwrap();
        let counted = reported(&open(&copy)).await;
        assert!((1_100_013..1_300_000).contains(&counted), "{counted}");
        assert_eq!(reported(&log).await, 1_100_013);
    }

    #[tokio::test]
    async fn file_is_replaced_when_it_has_grown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sent");
        let log = open(&path);
        for _ in 0..40_000 {
            let number = log.shared.ledger.lock().len() as u64 + 1;
            let records = [LedgerRecord::EndReport(number)];
            log.shared.append(&mut log.shared.file.lock(), &records, NOW).unwrap();
            if log.shared.file.lock().len > FILE_LEN_MAX {
                break;
            }
            log.shared.file.lock().len += 30_000;
        }
        send(&log, 50).await;
        assert!(fs::metadata(&path).unwrap().len() < 1_000);
        assert_eq!(reported(&log).await, 50);
    }

    #[tokio::test]
    async fn nothing_is_counted_that_cannot_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("folder").join("sent");
        fs::create_dir(dir.path().join("folder")).unwrap();
        let log = open(&path);
        {
            let mut file = log.shared.file.lock();
            file.path = Some(dir.path().join("missing").join("sent"));
            file.file = None;
        }
        let refused = log.record(&"us".parse().unwrap(), &[part(5)], NOW).await;
        refused.unwrap_err();
        log.shared.file.lock().path = Some(path);
        send(&log, 7).await;
        assert_eq!(reported(&log).await, 7);
    }
}
