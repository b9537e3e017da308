//! Session of `stead dev --json`: a cluster from the first line to the last.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::future::join_all;
use stead_testing::{
    Cluster, TemporaryFolder,
    cluster::{Node, Plan},
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    signal::unix::{SignalKind, signal},
    sync::{Mutex, mpsc},
    time::{Instant, sleep},
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    super::{
        contexts::{self, ContextFile},
        control,
        up::SHUTDOWN_TIMEOUT,
        world::{World, ensure_tenant},
    },
    command::{Command, CommandAction},
    event::{CommandResponse, Event, Ready, Region, Status, Tls},
    observed_state::ObservedState,
};
use crate::{context, exit::CommandError};

const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Most commands in the queue; more wait in the pipe.
const COMMANDS_MAX: usize = 16;

/// Reasons for the end of the cluster.
const INPUT_ENDED: &str = "standard input has ended";
const SIGNAL_RECEIVED: &str = "a signal";

/// Cluster that reports its changes as events.
struct DevSession {
    world: World,
    data: PathBuf,
    contexts: ContextFile,
    observed: Arc<Mutex<ObservedState>>,
}

/// Runs a cluster until standard input ends or a signal comes. `folder` is deleted with it.
pub(in super::super) async fn run(plan: Plan, folder: Option<TemporaryFolder>) -> Result<(), CommandError> {
    let mut terminate = signal(SignalKind::terminate())?;
    let (sender, mut commands) = mpsc::channel(COMMANDS_MAX);
    let mut reading = AbortOnDropHandle::new(tokio::spawn(read(sender)));
    let stop = async {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
    };
    tokio::pin!(stop);
    // J2 holds from the first moment on.
    let started = tokio::select! {
        started = DevSession::start(plan) => started,
        _ = &mut reading => return Event::Stopping { reason: INPUT_ENDED }.print(),
        () = &mut stop => return Event::Stopping { reason: SIGNAL_RECEIVED }.print(),
    };
    let mut session = match started {
        Ok(session) => session,
        Err(failure) => {
            let error = failure.text().to_owned();
            Event::Failed { error }.print()?;
            return Err(failure);
        }
    };
    let cluster = session.world.cluster.clone();
    let listener = control::listen(&session.data)?;
    let control_task = AbortOnDropHandle::new(tokio::spawn(control::serve(
        listener,
        cluster.clone(),
        session.data.clone(),
    )));
    let watch = AbortOnDropHandle::new(tokio::spawn(watch(cluster, session.observed.clone())));
    session.ready().await?.print()?;
    let reason = tokio::select! {
        ended = session.run_commands(&mut commands) => ended.map(|()| INPUT_ENDED)?,
        () = &mut stop => SIGNAL_RECEIVED,
    };
    Event::Stopping { reason }.print()?;
    // Wait for their end: they hold the cluster.
    control_task.abort();
    watch.abort();
    let _ = (control_task.await, watch.await);
    session.end(folder.is_none()).await;
    Ok(())
}

/// Sends lines of standard input until it ends.
async fn read(commands: mpsc::Sender<String>) {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    // An unreadable line, such as one that is no text, ends the input as well.
    while let Ok(Some(line)) = lines.next_line().await {
        if commands.send(line).await.is_err() {
            return;
        }
    }
}

/// Reports changes that no command here has made: nodes that end by themselves, commands from elsewhere, nodes that
/// serve again.
async fn watch(cluster: Arc<Mutex<Cluster>>, observed: Arc<Mutex<ObservedState>>) {
    loop {
        // Standard output that nobody reads is no reason to stop observing: standard input decides (J2).
        let _ = print_changes(&cluster, &observed).await;
        let starting = observed.lock().await.starting();
        let nodes = cluster.lock().await.nodes().to_vec();
        let checks = starting
            .into_iter()
            .map(|(name, process)| check_ready(&nodes, name, process));
        for (name, process) in join_all(checks).await.into_iter().flatten() {
            if let Some(event) = observed.lock().await.serves(name, process) {
                let _ = event.print();
            }
        }
        sleep(POLL_INTERVAL).await;
    }
}

async fn check_ready(nodes: &[Node], name: String, process: u32) -> Option<(String, u32)> {
    let node = nodes.iter().find(|node| node.name == name)?;
    node.is_ready().await.then_some((name, process))
}

/// Prints the changes.
async fn print_changes(cluster: &Mutex<Cluster>, observed: &Mutex<ObservedState>) -> Result<(), CommandError> {
    let mut observed = observed.lock().await;
    let events = observed.refresh(&mut *cluster.lock().await);
    events.iter().try_for_each(Event::print)
}

impl DevSession {
    async fn start(plan: Plan) -> Result<Self, CommandError> {
        let data = plan.data.clone();
        let cluster = Cluster::start(plan).await.map_err(anyhow::Error::from)?;
        let mut world = World::new(cluster, Instant::now())?;
        world.ready().await?;
        world.set_lease_ttl().await?;
        let data = fs::canonicalize(&data)?;
        let mut cluster = world.cluster.lock().await;
        let contexts = contexts::write(&cluster, &context::context_folder(&config_home(&data)))?.keep();
        let observed = ObservedState::of(&mut cluster);
        drop(cluster);
        Ok(Self {
            world,
            data,
            contexts,
            observed: Arc::new(Mutex::new(observed)),
        })
    }

    async fn ready(&self) -> Result<Event, CommandError> {
        let mut cluster = self.world.cluster.lock().await;
        let home = config_home(&self.data).display().to_string();
        Ok(Event::Ready(Box::new(Ready {
            program: std::env::current_exe()?.display().to_string(),
            data: self.data.display().to_string(),
            control: control::socket(&self.data).display().to_string(),
            environment: BTreeMap::from([(context::CONFIG_HOME, home)]),
            tls: Tls::of(&cluster),
            regions: Region::all(&cluster, &self.contexts),
            status: Status::of(&mut cluster, &self.data),
        })))
    }

    /// Executes commands, one after the other, until the input ends.
    async fn run_commands(&mut self, commands: &mut mpsc::Receiver<String>) -> Result<(), CommandError> {
        while let Some(line) = commands.recv().await {
            if line.trim().is_empty() {
                continue;
            }
            let (id, action) = Command::read(&line);
            let answer = match action {
                Ok(action) => self.execute(action).await,
                Err(error) => Err(error),
            };
            let answer = match answer {
                Ok(answer) => answer,
                Err(error) => CommandResponse {
                    error: Some(error),
                    ..CommandResponse::default()
                },
            };
            Event::Answer(Box::new(CommandResponse { id, ..answer })).print()?;
            print_changes(&self.world.cluster, &self.observed).await?;
        }
        Ok(())
    }

    async fn execute(&mut self, action: CommandAction) -> Result<CommandResponse, String> {
        let (text, status) = match action {
            CommandAction::Status => {
                let mut cluster = self.world.cluster.lock().await;
                ("status".to_owned(), Some(Status::of(&mut cluster, &self.data)))
            }
            CommandAction::CreateTenant { name, home } => {
                let client = self.world.client(&home).await.map_err(chain)?;
                ensure_tenant(client, name.clone(), &home).await.map_err(chain)?;
                (format!("create-tenant: {name}"), None)
            }
            CommandAction::Control(request) => {
                let mut cluster = self.world.cluster.lock().await;
                let done = control::execute(&mut cluster, &request).await;
                (done.map_err(|failure| failure.text().to_owned())?, None)
            }
        };
        Ok(CommandResponse {
            ok: Some(text),
            status,
            ..CommandResponse::default()
        })
    }

    /// Ends the nodes: in order if their data is kept, else at once.
    async fn end(self, keeps_data: bool) {
        // Nobody may have connected since the cluster ran.
        let _ = fs::remove_file(control::socket(&self.data));
        let Some(cluster) = Arc::into_inner(self.world.cluster) else {
            return;
        };
        let mut cluster = cluster.into_inner();
        if keeps_data {
            cluster.shut_down(SHUTDOWN_TIMEOUT).await;
        } else {
            cluster.kill_all().await;
        }
    }
}

fn chain(error: anyhow::Error) -> String {
    format!("{error:#}")
}

/// Returns the folder of this cluster's contexts, beside its data: the user's own contexts stay as they are.
fn config_home(data: &Path) -> PathBuf {
    data.join("config")
}
