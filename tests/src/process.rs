//! Support for tests with real processes: the binary, one cluster at a time, and the command line as a user runs it.

use std::{
    env,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
    time::Duration,
};

use stead_testing::{
    Cluster,
    cluster::{Node, Plan, Ports, Region},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Time in which a cluster must be ready, on a machine that is busy with other tests.
const READY_WITHIN: Duration = Duration::from_secs(90);
const RESPONSE_LEN_MAX: u64 = 1 << 20;

/// Returns the binary `stead` of this build; `STEAD_BIN` names another one.
///
/// # Panics
///
/// It cannot be built.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| env::var_os("STEAD_BIN").map_or_else(build, PathBuf::from))
}

/// Builds the binary beside this test: cargo knows whether there is something to do.
fn build() -> PathBuf {
    let test = env::current_exe().expect("a test has a path");
    let profile = test.ancestors().nth(2).expect("a test is in target/PROFILE/deps");
    let name = match profile.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let target = profile.parent().expect("a profile's folder is in target");
    let built = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args([
            "build",
            "--quiet",
            "--package",
            "stead-cli",
            "--profile",
            name,
            "--target-dir",
        ])
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .expect("cargo runs");
    assert!(built.success(), "stead cannot be built");
    profile.join("stead")
}

/// Takes the machine-wide lock of tests that run processes: time budgets and ports are meant for one cluster at a time.
///
/// # Panics
///
/// The lock file cannot be made.
pub fn exclusive_lock() -> File {
    let path = binary().with_file_name("stead-processes.lock");
    let lock = File::create(path).expect("the folder of the binary can be written");
    lock.lock().expect("a file can be locked");
    lock
}

/// Cluster of one region on this machine, removed when this value is dropped.
#[derive(Debug)]
pub struct World {
    /// Its nodes, `eu-west-1` and so on.
    pub cluster: Cluster,
    /// Plan of the cluster.
    pub plan: Plan,
    /// Folder of everything; also `HOME` of the commands.
    pub folder: TempDir,
    _lock: File,
}

impl World {
    /// Starts one region and waits until it is ready.
    ///
    /// # Panics
    ///
    /// It does not become ready.
    pub async fn start(nodes: usize) -> Self {
        Self::start_prepared(nodes, |_| ()).await
    }

    /// Starts one region as [`World::start`] does, after its folders were prepared by the plan.
    ///
    /// # Panics
    ///
    /// It does not become ready.
    pub async fn start_prepared(nodes: usize, prepare: impl FnOnce(&Plan)) -> Self {
        let lock = exclusive_lock();
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let region = Region {
            name: "eu-west".into(),
            jurisdiction: "EU".into(),
            nodes,
            initial: nodes,
            witness: false,
        };
        let plan = Plan {
            binary: binary().to_owned(),
            data: folder.path().join("cluster"),
            regions: vec![region],
            round_trips: Vec::new(),
            ports: Ports::From(27_401),
            engines: vec!["fjall".into(), "fjall".into(), "sled".into()],
            groups_per_region: 1,
            tls: false,
            asks_for_credentials: false,
        };
        prepare(&plan);
        let cluster = Cluster::start(plan.clone()).await.expect("a cluster can be started");
        let mut world = Self {
            cluster,
            plan,
            folder,
            _lock: lock,
        };
        world.wait_until_ready().await;
        world
    }

    /// Waits until every running node is ready.
    ///
    /// # Panics
    ///
    /// One is not ready in time.
    pub async fn wait_until_ready(&mut self) {
        if let Err(error) = self.cluster.ready(READY_WITHIN).await {
            panic!("{error}");
        }
    }

    /// Returns the first node.
    pub fn first(&self) -> &Node {
        &self.cluster.nodes()[0]
    }

    /// Runs `stead` against the first node, with this folder as `HOME`.
    pub async fn stead<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> CommandOutput {
        let endpoint = self.first().client.clone();
        let mut command = stead_command(self.folder.path());
        command.env("STEAD_ENDPOINT", endpoint).args(arguments);
        run(command).await
    }

    /// Writes the first node's configuration with these replacements, and returns its path.
    ///
    /// # Panics
    ///
    /// A text to replace is not in it.
    pub fn config_with(&self, changes: &[(&str, &str)]) -> PathBuf {
        let path = self.plan.config_of(&self.first().name);
        let mut text = fs::read_to_string(path).expect("a started node has a configuration");
        for (old, new) in changes {
            assert!(text.contains(old), "{old} is not in\n{text}");
            text = text.replace(old, new);
        }
        let path = self.folder.path().join("changed.toml");
        fs::write(&path, text).expect("the folder can be written");
        path
    }
}

/// Waits until a new cluster allows moves: until then it must have no tenant. Its directory is updated twice, with the
/// regions and nodes, and once every node has told its version; the logs in this folder tell.
///
/// # Panics
///
/// It does not in time.
pub async fn wait_until_moves_are_allowed(folder: &Path) {
    let updates = || {
        let files = fs::read_dir(folder).expect("the cluster has a folder");
        let paths = files.map(|file| file.expect("the folder can be read").path());
        let logs = paths.filter(|path| path.extension().is_some_and(|ending| ending == "log"));
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        logs.map(|path| text(path).matches("directory updated").count())
            .sum::<usize>()
    };
    let allowed = async {
        while updates() < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let allowed = tokio::time::timeout(READY_WITHIN, allowed).await;
    allowed.expect("the nodes tell their versions in time");
}

/// Exit code and output of a command.
#[derive(Debug)]
pub struct CommandOutput {
    /// Its exit code; absent if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Returns the command `stead` with this folder as `HOME` and without variables of Stead.
pub fn stead_command(home: &Path) -> Command {
    let mut command = Command::new(binary());
    for (name, _) in env::vars().filter(|(name, _)| name.starts_with("STEAD_")) {
        command.env_remove(name);
    }
    command.env("HOME", home).env_remove("XDG_CONFIG_HOME");
    command.current_dir(home).stdin(Stdio::null());
    command
}

/// Runs a command to its end, for at most a minute.
///
/// # Panics
///
/// It cannot be started, or does not end.
pub async fn run(command: Command) -> CommandOutput {
    let name = format!("{command:?}");
    let mut command = tokio::process::Command::from(command);
    let ended = tokio::time::timeout(Duration::from_secs(60), command.kill_on_drop(true).output());
    let Ok(ended) = ended.await else {
        panic!("{name} does not end");
    };
    let Output { status, stdout, stderr } = ended.expect("a command can be started");
    CommandOutput {
        code: status.code(),
        stdout: String::from_utf8_lossy(&stdout).into_owned(),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
    }
}

/// Sends an HTTP GET request and returns status and body.
///
/// # Errors
///
/// The connection fails.
pub async fn http_get(address: &str, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut response = String::new();
    stream.take(RESPONSE_LEN_MAX).read_to_string(&mut response).await?;
    let status = response.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = response.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((status.unwrap_or(0), body.to_owned()))
}
