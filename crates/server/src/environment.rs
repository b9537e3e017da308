//! Environment of a node: connections, listeners and clocks. The simulation supplies its own.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::{Stream, future::BoxFuture};
use parking_lot::Mutex;
use stead_api::net::{Connect, Io};
use stead_raft::Clocks;
use stead_store::health::Health;
use tokio::net::{TcpListener, TcpStream};

use crate::resources::Resources;

/// Inbound connection.
pub struct Inbound {
    /// Its bytes.
    pub io: Pin<Box<dyn Io>>,
    /// Address of the other end; `None` where that says nothing.
    pub from: Option<IpAddr>,
}

/// Stream of inbound connections.
pub type Incoming = Pin<Box<dyn Stream<Item = io::Result<Inbound>> + Send>>;

/// Function that binds an address, `host:port`.
pub type Bind = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Incoming>> + Send + Sync>;

/// Time for which a test's clock offset is cached before the file is read again.
const OFFSET_CACHE_TIME: Duration = Duration::from_millis(50);

/// The node's connections, listeners and clocks.
#[derive(Clone)]
pub struct Environment {
    /// Dials an address.
    pub connect: Connect,
    /// Binds a listener.
    pub bind: Bind,
    /// Wall clock and boot clock. Logged time is steered by the wall clocks of all voters together; nothing is decided
    /// by one clock alone.
    pub clocks: Clocks,
    /// Health of the node, of one start. Whoever runs the node may fail it too.
    pub health: Health,
    /// Whether rows are written and checkpoints are made by background threads; a simulation has only one thread.
    pub threads: bool,
    /// Retention limits.
    pub retention: RetentionConfig,
    /// Disk and memory.
    pub resources: Resources,
}

/// Retention limits of a node: its logs and its tenants' history. A simulation keeps little, so that compaction, which
/// takes days otherwise, happens within seconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct RetentionConfig {
    /// Limits of each group's log.
    pub log: stead_raft::LogLimits,
    /// Limits of tenants' version history. Bytes and age kept for followers are settings.
    pub history: stead_replication::RetentionLimits,
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Environment")
            .field("threads", &self.threads)
            .finish_non_exhaustive()
    }
}

impl Environment {
    /// Returns the operating system's network and clocks. An advertised address found in `dial` is dialled at the
    /// address that it maps to.
    pub fn real(dial: std::collections::BTreeMap<String, String>) -> Self {
        let dial = Arc::new(dial);
        let connect: Connect = Arc::new(move |address: String| {
            let address = dial.get(&address).cloned().unwrap_or(address);
            Box::pin(async move {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Ok(Box::pin(stream) as Pin<Box<dyn Io>>)
            })
        });
        Self {
            connect,
            bind: Arc::new(|address| Box::pin(bind(address))),
            clocks: Clocks {
                wall: Arc::new(wall),
                boot: Arc::new(boot),
            },
            health: Health::default(),
            threads: true,
            retention: RetentionConfig::default(),
            resources: Resources::real(),
        }
    }

    /// Offsets the wall clock by the milliseconds in a file, which is read again at each use; without the file the
    /// offset is zero. For tests only: it simulates a wrong clock.
    #[must_use]
    pub fn with_test_clock_offset(mut self, file: PathBuf) -> Self {
        let offset = ClockOffset {
            file,
            cached: Mutex::default(),
        };
        let Clocks { wall, boot } = self.clocks.clone();
        self.clocks.wall = Arc::new(move || wall().saturating_add_signed(offset.at(boot())));
        self
    }
}

async fn bind(address: String) -> io::Result<Incoming> {
    let listener = TcpListener::bind(address).await?;
    let incoming = futures::stream::unfold(listener, |listener| async move {
        let accepted = listener.accept().await.and_then(|(stream, from)| {
            stream.set_nodelay(true)?;
            Ok(Inbound {
                io: Box::pin(stream),
                from: Some(from.ip()),
            })
        });
        Some((accepted, listener))
    });
    Ok(Box::pin(incoming))
}

fn wall() -> u64 {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Returns the time since the machine was started, suspended time included.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "the standard library has no clock that runs through suspend")]
fn boot() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the time is plain data that outlives the call.
    let answer = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    assert_eq!(answer, 0, "Linux has this clock since 2.6.39");
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), nanos)
}

/// Returns the time since the first call, from the monotonic clock. Time while the machine is suspended is not counted
/// here.
#[cfg(not(target_os = "linux"))]
fn boot() -> Duration {
    static STARTED: std::sync::LazyLock<std::time::Instant> = std::sync::LazyLock::new(std::time::Instant::now);
    STARTED.elapsed()
}

/// Offset of the wall clock that a test sets through a file.
struct ClockOffset {
    file: PathBuf,
    /// The offset in milliseconds, and the boot time at which it was read.
    cached: Mutex<Option<(i64, Duration)>>,
}

impl ClockOffset {
    fn at(&self, now: Duration) -> i64 {
        let mut cached = self.cached.lock();
        let before = cached.map_or(0, |(offset, _)| offset);
        if let Some((offset, read)) = *cached
            && now.saturating_sub(read) < OFFSET_CACHE_TIME
        {
            return offset;
        }
        // A file that cannot be parsed is being written: the previous offset stays.
        let offset = offset(&self.file).unwrap_or(before);
        *cached = Some((offset, now));
        drop(cached);
        if offset != before {
            tracing::warn!(offset_ms = offset, "wall clock offset set by a test");
        }
        offset
    }
}

fn offset(file: &Path) -> Option<i64> {
    match fs::read_to_string(file) {
        Ok(text) => text.trim().parse().ok(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some(0),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_offset_is_reread_and_invalid_text_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("node.clock");
        let offset = ClockOffset {
            file: file.clone(),
            cached: Mutex::default(),
        };
        let look = |seconds| offset.at(Duration::from_secs(seconds));
        assert_eq!(look(1), 0);
        fs::write(&file, "-7200000\n").unwrap();
        assert_eq!(look(1), 0, "kept for a moment");
        assert_eq!(look(2), -7_200_000);
        fs::write(&file, "").unwrap();
        assert_eq!(look(3), -7_200_000);
        fs::remove_file(&file).unwrap();
        assert_eq!(look(4), 0);
    }

    #[test]
    fn boot_clock_is_monotonic() {
        let before = boot();
        assert!(before > Duration::ZERO);
        assert!(boot() >= before);
    }
}
