//! `stead serve`: runs one node.

use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
};

use clap::Args;
use sd_notify::NotifyState;
use stead_server::{
    config::{Config, ConfigError, Log, ValidatedConfig},
    disk::{RunState, run_through_full_disks},
    environment::Environment,
    join,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::exit::{Code, CommandError};

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// The node's configuration; `stead config default` prints one
    #[arg(long, env = "STEAD_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Name of this node in cluster.initial
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Peer address of a node of the cluster that this node joins, after `stead node add` or `stead node replace`; once it has
    /// joined it is not needed any more
    #[arg(long, value_name = "ADDRESS")]
    join: Vec<String>,
    /// Folder of all data
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<String>,
    /// Log filter, such as info or stead_raft=debug,info
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
    /// For tests only: a file with milliseconds by which the wall clock is offset
    #[arg(long, env = "STEAD_TEST_CLOCK_OFFSET_FILE", value_name = "FILE", hide = true)]
    test_clock_offset_file: Option<PathBuf>,
}

impl Serve {
    pub(crate) fn run(self) -> Result<(), CommandError> {
        let mut config = load(self.config.as_deref(), std::env::vars())?;
        if let Some(node) = self.node {
            config.node.name = node;
        }
        if let Some(data_dir) = self.data_dir {
            config.node.data_dir = data_dir;
        }
        if let Some(log) = self.log {
            config.log.level = log;
        }
        if !self.join.is_empty() {
            config.cluster.join = self.join;
        }
        let has_nodes = !config.cluster.initial.is_empty() || !config.cluster.join.is_empty();
        if self.config.is_none() && !has_nodes {
            return Err(
                CommandError::new(Code::Usage, "a node needs a configuration: name it with --config FILE").hint(
                    "`stead config default > stead.toml` makes one; `stead dev` runs a whole cluster without one",
                ),
            );
        }
        let validate = |config: &Config| {
            config
                .validate()
                .map_err(|error| invalid(self.config.as_deref(), &error))
        };
        if join::is_initial(&config) {
            validate(&config)?;
        }
        log_to_stderr(&config.log)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(prepare(&mut config))?;
        let checked = validate(&config)?;
        let outcome = runtime.block_on(run_until_signal(checked, self.test_clock_offset_file));
        runtime.shutdown_background();
        outcome
    }
}

/// Lets a node join that was announced, if it has not joined before.
async fn prepare(config: &mut Config) -> Result<(), CommandError> {
    let connect = Environment::real(config.net.dial.clone()).connect;
    tokio::select! {
        joined = join::prepare(config, &connect, rand::random) => joined.map_err(|error| {
            CommandError::new(Code::Failed, format!("{:#}", anyhow::Error::from(error)))
        }),
        _ = tokio::signal::ctrl_c() => Err(CommandError::new(Code::Interrupted, "interrupted before the node has joined")),
    }
}

/// Runs a node until SIGTERM or Ctrl-C; a second one ends it at once.
async fn run_until_signal(
    config: ValidatedConfig,
    test_clock_offset_file: Option<PathBuf>,
) -> Result<(), CommandError> {
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop_signal = stop.clone();
    tokio::spawn(async move {
        for round in 0_u8.. {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if round > 0 {
                std::process::exit(i32::from(Code::Interrupted as u8));
            }
            tracing::info!("stopping: calls in progress are finished; a second signal ends the node at once");
            // Without systemd nothing is notified.
            let _unnotified = sd_notify::notify(&[NotifyState::Stopping]);
            stop_signal.cancel();
        }
    });
    let dial = config.dial.clone();
    let environment = move || {
        let mut environment = Environment::real(dial.clone());
        if let Some(file) = &test_clock_offset_file {
            environment = environment.with_test_clock_offset(file.clone());
        }
        std::panic::set_hook(Box::new(stead_server::panics::hook(environment.health.clone())));
        environment
    };
    let ended = Box::pin(run_through_full_disks(config, environment, stop, notify)).await;
    ended.map_err(|error| CommandError::new(Code::Failed, format!("{:#}", anyhow::Error::from(error))))
}

/// Tells systemd what the node does. One that waits for disk space has started, as far as systemd is concerned: it would be
/// ended for its slow start otherwise.
fn notify(state: RunState) {
    let status = match state {
        RunState::Serving => "serving",
        RunState::WaitingForRoom => "waiting for disk space",
    };
    let _unnotified = sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Default log filter of libraries, unless the user's filter names them. openraft warns of an unreachable peer with each
/// heartbeat, which our own log reports once; raft-engine of the torn end that every killed process leaves.
const LIBRARIES: &str = "openraft=error,raft_engine=error,fjall=warn,lsm_tree=warn,sled=warn";

/// Logs go to standard error: text for people, JSON for machines.
fn log_to_stderr(log: &Log) -> Result<(), CommandError> {
    let filter = EnvFilter::try_new(format!("{LIBRARIES},{}", log.level))
        .map_err(|error| CommandError::new(Code::Usage, format!("log.level: {error}")))?;
    let is_terminal = std::io::stderr().is_terminal();
    let is_json = match log.format.as_str() {
        "json" => true,
        "text" => false,
        _ => !is_terminal,
    };
    let layer = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if is_json {
        layer.json().flatten_event(true).init();
    } else {
        layer.with_ansi(is_terminal).init();
    }
    Ok(())
}

/// Loads a node's configuration: the file, overridden by the environment.
pub(crate) fn load(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Config, CommandError> {
    let unreadable = |path: &Path, error| {
        CommandError::new(Code::Usage, format!("{} cannot be read: {error}", path.display()))
            .hint("`stead config default > FILE` makes one")
    };
    let text = match file {
        Some(path) => std::fs::read_to_string(path).map_err(|error| unreadable(path, error))?,
        None => String::new(),
    };
    Config::load(&text, environment).map_err(|error| invalid(file, &error))
}

/// Returns the error of an invalid configuration.
pub(crate) fn invalid(file: Option<&Path>, error: &ConfigError) -> CommandError {
    let place = file.map_or_else(String::new, |path| format!("{}: ", path.display()));
    let cause = std::error::Error::source(error)
        .map_or_else(String::new, |cause| format!(": {}", cause.to_string().trim_end()));
    CommandError::new(Code::Usage, format!("{place}{error}{cause}")).hint("`stead config default` shows every setting")
}
