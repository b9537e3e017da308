//! What a node takes from the world: connections, listeners, clocks. The simulation gives its own.

use std::{
    fs, io,
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

/// Connections that others opened.
pub type Incoming = Pin<Box<dyn Stream<Item = io::Result<Pin<Box<dyn Io>>>> + Send>>;

/// Binds an address, `host:port`.
pub type Bind = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Incoming>> + Send + Sync>;

/// How long a test's offset of the wall clock is kept before it is read again.
const OFFSET_KEPT: Duration = Duration::from_millis(50);

/// What a node takes from the world.
#[derive(Clone)]
pub struct Environment {
    /// Dials.
    pub connect: Connect,
    /// Listens.
    pub bind: Bind,
    /// Tells the time. Logged time is steered by the wall clocks of all voters together; nothing is decided by one alone.
    pub clocks: Clocks,
    /// The node's health, of one start: whoever runs the node may end it too.
    pub health: Health,
    /// Whether rows are written behind and checkpoints made by threads; a simulation has only one.
    pub threads: bool,
    /// What is kept of the past.
    pub upkeep: Upkeep,
}

/// What a node keeps of the past, and how often it looks. A simulation keeps little, so that it sees within seconds what
/// takes days otherwise.
#[derive(Clone, Copy, Debug, Default)]
pub struct Upkeep {
    /// Of each group's log.
    pub log: stead_raft::LogLimits,
    /// Of tenants' versions; bytes and age for the sake of followers are settings.
    pub history: stead_replication::Limits,
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Environment")
            .field("threads", &self.threads)
            .finish_non_exhaustive()
    }
}

impl Environment {
    /// The real world; an advertised address found in `dial` is dialled at the address that it maps to.
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
            upkeep: Upkeep::default(),
        }
    }

    /// Sets the wall clock off by what a file says, in milliseconds, read again at each look; without the file it is right.
    /// For tests only: it stands for a clock that is wrong.
    #[must_use]
    pub fn with_test_clock_offset(mut self, file: PathBuf) -> Self {
        let offset = Offset {
            file,
            known: Mutex::default(),
        };
        let Clocks { wall, boot } = self.clocks.clone();
        self.clocks.wall = Arc::new(move || wall().saturating_add_signed(offset.at(boot())));
        self
    }
}

async fn bind(address: String) -> io::Result<Incoming> {
    let listener = TcpListener::bind(address).await?;
    let incoming = futures::stream::unfold(listener, |listener| async move {
        let accepted = listener.accept().await.and_then(|(stream, _)| {
            stream.set_nodelay(true)?;
            Ok(Box::pin(stream) as Pin<Box<dyn Io>>)
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

/// The time since the machine was started, suspended or not.
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

/// Elsewhere the monotonic clock has to do: what passes while the machine is suspended is not seen.
#[cfg(not(target_os = "linux"))]
fn boot() -> Duration {
    static STARTED: std::sync::LazyLock<std::time::Instant> = std::sync::LazyLock::new(std::time::Instant::now);
    STARTED.elapsed()
}

/// By how much a test sets the wall clock off.
struct Offset {
    file: PathBuf,
    /// In milliseconds, and when it was read, by the boot clock.
    known: Mutex<Option<(i64, Duration)>>,
}

impl Offset {
    fn at(&self, now: Duration) -> i64 {
        let mut known = self.known.lock();
        let before = known.map_or(0, |(offset, _)| offset);
        if let Some((offset, read)) = *known
            && now.saturating_sub(read) < OFFSET_KEPT
        {
            return offset;
        }
        // What is not readable is being written.
        let offset = offset(&self.file).unwrap_or(before);
        *known = Some((offset, now));
        drop(known);
        if offset != before {
            tracing::warn!(offset_ms = offset, "a test has set the wall clock off");
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
    fn test_offset_is_read_again_and_garbage_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("node.clock");
        let offset = Offset {
            file: file.clone(),
            known: Mutex::default(),
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
    fn boot_clock_goes_forward() {
        let before = boot();
        assert!(before > Duration::ZERO);
        assert!(boot() >= before);
    }
}
