//! Server processes of a system, and their CPU, memory and disk writes by the operating system.

use std::{
    collections::BTreeSet,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use tokio::time::{Instant, sleep, timeout};

/// Time that a system has to start.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Longest wait for one answer meanwhile.
const TRY_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause between two tries of something that is not there yet.
pub(crate) const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Processes that end with this value.
#[derive(Debug, Default)]
pub(crate) struct Processes(Vec<Child>);

/// Resources that processes and their descendants have used so far, and the memory that they hold.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) cpu: Duration,
    pub(crate) written: u64,
    /// Shared pages are counted once.
    pub(crate) memory: u64,
}

impl Processes {
    /// Starts a program with its output in a file of its folder.
    pub(crate) fn start(&mut self, folder: &Path, command: &mut Command) -> Result<u32> {
        let log = fs::File::create(folder.join("log.txt"))?;
        // In the group of the load generator, so that a signal to the group ends them too.
        command.stdin(Stdio::null()).stderr(log.try_clone()?).stdout(log);
        let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        let id = child.id();
        self.0.push(child);
        Ok(id)
    }

    pub(crate) fn ids(&self) -> Vec<u32> {
        self.0.iter().map(Child::id).collect()
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // PostgreSQL ends its own children at this signal; all others end at once as well.
            let asked = Command::new("kill").args(["-QUIT", &child.id().to_string()]).status();
            if !asked.is_ok_and(|status| status.success()) {
                let _ = child.kill();
            }
            let _ = child.wait();
        }
    }
}

/// Returns the path of a program of `PATH`, or of a folder where packages hide it.
pub(crate) fn find(name: &str, hidden: &[&str]) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(hidden.iter().map(PathBuf::from));
    let found = folders.map(|folder| folder.join(name)).find(|path| path.is_file());
    found.with_context(|| format!("{name} is not installed: see benches/README.md"))
}

/// Returns the first line that a program prints about its version.
pub(crate) fn version(program: &Path) -> Result<String> {
    let output = Command::new(program).arg("--version").output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// Tries something until it succeeds.
pub(crate) async fn eventually<T>(what: &str, tried: impl AsyncFn() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        // A server that is starting may never answer.
        let answer = timeout(TRY_TIMEOUT, tried()).await;
        match answer.unwrap_or_else(|_| Err(anyhow!("no answer"))) {
            Err(error) if deadline <= Instant::now() => return Err(error.context(format!("{what}: not in time"))),
            Err(_) => sleep(RETRY_PAUSE).await,
            done => return done,
        }
    }
}

/// Returns what processes have used, with their descendants.
pub(crate) fn usage(ids: &[u32]) -> Result<Usage> {
    let mut used = Usage::default();
    for id in with_descendants(ids)? {
        match usage_of(id) {
            Ok(of) => {
                used.cpu += of.cpu;
                used.written += of.written;
                used.memory += of.memory;
            }
            // It ended meanwhile; its parent has its CPU and its writes.
            Err(error) if error.downcast_ref::<std::io::Error>().is_some_and(is_gone) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(used)
}

fn is_gone(error: &std::io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

fn with_descendants(ids: &[u32]) -> Result<BTreeSet<u32>> {
    let mut children: Vec<(u32, u32)> = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(id) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if let Ok(fields) = stat(id) {
            children.push((fields[1].parse()?, id));
        }
    }
    let mut found: BTreeSet<u32> = ids.iter().copied().collect();
    loop {
        let more = children
            .iter()
            .filter(|(parent, id)| found.contains(parent) && !found.contains(id));
        let more: Vec<u32> = more.map(|(_, id)| *id).collect();
        if more.is_empty() {
            return Ok(found);
        }
        found.extend(more);
    }
}

/// Returns the fields of `/proc/ID/stat` after the name: state, parent and so on.
fn stat(id: u32) -> Result<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{id}/stat"))?;
    let Some((_, fields)) = text.rsplit_once(") ") else {
        bail!("/proc/{id}/stat has no name");
    };
    Ok(fields.split(' ').map(str::to_owned).collect())
}

fn usage_of(id: u32) -> Result<Usage> {
    let fields = stat(id)?;
    // User and kernel mode, of the process itself and of children that have ended.
    let ticks: u64 = fields[11..15]
        .iter()
        .filter_map(|ticks| ticks.parse::<u64>().ok())
        .sum();
    Ok(Usage {
        cpu: Duration::from_secs_f64(ticks as f64 / ticks_per_second()),
        written: field(id, "io", "write_bytes:")?,
        memory: field(id, "smaps_rollup", "Pss:")? << 10,
    })
}

fn field(id: u32, file: &str, name: &str) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{id}/{file}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let line = line.with_context(|| format!("/proc/{id}/{file} has no {name}"))?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

#[expect(unsafe_code, reason = "the standard library does not know the length of a tick")]
fn ticks_per_second() -> f64 {
    // SAFETY: no pointer is passed.
    unsafe { libc::sysconf(libc::_SC_CLK_TCK) as f64 }
}
