//! The operating-system process of one node.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    process::{ExitStatus, Stdio},
    thread,
    time::Duration,
};

use tokio::process::{Child, Command};

use super::{Error, Plan, error::at};

/// Variable with the number of tokio's worker threads.
const WORKER_THREADS: &str = "TOKIO_WORKER_THREADS";
/// Variable of the binary with the file of the clock offset, for tests.
const CLOCK_OFFSET: &str = "STEAD_TEST_CLOCK_OFFSET_FILE";

#[derive(Debug)]
pub(super) struct NodeProcess {
    child: Child,
}

impl NodeProcess {
    pub(super) fn start(plan: &Plan, name: &str, overrides: &BTreeMap<String, String>) -> Result<Self, Error> {
        let path = plan.log_of(name);
        let log = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(at("open", &path))?;
        let errors = log.try_clone().map_err(at("open", &path))?;
        let mut command = Command::new(&plan.binary);
        command.arg("serve").arg("--config").arg(plan.config_of(name));
        command.env(WORKER_THREADS, worker_threads(plan).to_string());
        command.env(CLOCK_OFFSET, plan.clock_of(name));
        let names = std::env::vars_os().map(|(name, _)| name);
        for name in names.filter(|name| is_of_one_node(&name.to_string_lossy())) {
            command.env_remove(name);
        }
        command.envs(overrides);
        command
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .kill_on_drop(true);
        // Ctrl-C on a terminal goes to the process that holds the cluster, which decides how its nodes end.
        command.process_group(0);
        die_with_parent(&mut command);
        let child = command.spawn().map_err(at("start", &plan.binary))?;
        Ok(Self { child })
    }

    pub(super) fn process(&mut self) -> Option<u32> {
        if self.is_running() { self.child.id() } else { None }
    }

    pub(super) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Returns its exit status, `None` while it runs.
    pub(super) fn status(&mut self) -> Option<String> {
        self.child.try_wait().ok().flatten().map(|status| status.to_string())
    }

    /// Sends a signal; nothing happens if the process has ended: its id is not reused until it was waited for.
    pub(super) fn signal(&mut self, signal: i32) {
        if let Some(process) = self.process() {
            send(process, signal);
        }
    }

    pub(super) async fn kill(&mut self) {
        // It fails only if the process has ended already.
        let _ = self.child.kill().await;
    }

    pub(super) async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }
}

/// Tells whether a variable overrides a setting that is each node's own: it was set for another node than these.
fn is_of_one_node(variable: &str) -> bool {
    let setting = variable.strip_prefix("STEAD_").and_then(|name| name.split_once("__"));
    let own = ["cluster", "node", "client", "peer", "http", "net", "tls"];
    setting.is_some_and(|(section, _)| own.iter().any(|own| section.eq_ignore_ascii_case(own)))
}

/// Returns a node's share of the processors: with threads for all of them in every node, they would mostly wake each
/// other.
fn worker_threads(plan: &Plan) -> usize {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let nodes: usize = plan.regions.iter().map(|region| region.nodes).sum();
    (processors / nodes.max(1)).max(1)
}

/// Most checks, one a millisecond, whether a killed process is gone.
const GONE_ASKS_MAX: u32 = 2_000;

impl Drop for NodeProcess {
    /// Waits until the process is gone, so that its ports and locks are free for the next one.
    fn drop(&mut self) {
        self.signal(libc::SIGKILL);
        let gone = (0..GONE_ASKS_MAX).any(|_| {
            let gone = !self.is_running();
            if !gone {
                thread::sleep(Duration::from_millis(1));
            }
            gone
        });
        if !gone {
            tracing::warn!(process = self.child.id(), "killed node is still running");
        }
    }
}

#[expect(
    unsafe_code,
    reason = "a signal to a child that was not waited for yet, so the number is its own"
)]
fn send(process: u32, signal: i32) {
    unsafe {
        libc::kill(process.cast_signed(), signal);
    }
}

/// Has the kernel kill the child when the thread that started it ends (C1). A runtime's threads live as long as it
/// does.
#[expect(unsafe_code, reason = "prctl and getppid may be called between fork and exec")]
fn die_with_parent(command: &mut Command) {
    let parent = std::process::id().cast_signed();
    let ask = move || unsafe {
        if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
            return Err(io::Error::last_os_error());
        }
        // The parent may have ended before the kernel was asked.
        if libc::getppid() == parent {
            Ok(())
        } else {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    };
    unsafe {
        command.pre_exec(ask);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_does_not_inherit_settings_of_one_node() {
        assert!(is_of_one_node("STEAD_NODE__DATA_DIR"));
        assert!(is_of_one_node("STEAD_CLIENT__LISTEN"));
        for meant_for_all in ["STEAD_LOG__LEVEL", "STEAD_BIN", "STEAD_STORAGE__ENGINE", "PATH"] {
            assert!(!is_of_one_node(meant_for_all), "{meant_for_all}");
        }
    }
}
