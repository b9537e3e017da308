//! A cluster from the first line to the last.

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
        contexts, control,
        up::END_WITHIN,
        world::{World, make_tenant},
    },
    command::{Asked, Command},
    event::{Answer, Event, Ready, Region, Status},
    seen::Seen,
};
use crate::{context, exit::Failure};

const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Commands that wait for the one before them; more wait in the pipe.
const COMMANDS_MAX: usize = 16;

/// Why the cluster ends.
const INPUT_ENDED: &str = "standard input has ended";
const SIGNALLED: &str = "a signal";

/// A cluster that tells what happens to it.
struct Session {
    world: World,
    data: PathBuf,
    seen: Arc<Mutex<Seen>>,
}

/// Runs a cluster until standard input ends or a signal comes. `folder` goes with it.
pub(in super::super) async fn run(plan: Plan, folder: Option<TemporaryFolder>) -> Result<(), Failure> {
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
        started = Session::start(plan) => started,
        _ = &mut reading => return Event::Stopping { reason: INPUT_ENDED }.tell(),
        () = &mut stop => return Event::Stopping { reason: SIGNALLED }.tell(),
    };
    let mut session = match started {
        Ok(session) => session,
        Err(failure) => {
            let error = failure.text().to_owned();
            Event::Failed { error }.tell()?;
            return Err(failure);
        }
    };
    let cluster = session.world.cluster.clone();
    let listener = control::listen(&session.data)?;
    let orders = AbortOnDropHandle::new(tokio::spawn(control::serve(listener, cluster.clone())));
    let watch = AbortOnDropHandle::new(tokio::spawn(watch(cluster, session.seen.clone())));
    session.ready().await?.tell()?;
    let reason = tokio::select! {
        obeyed = session.obey(&mut commands) => obeyed.map(|()| INPUT_ENDED)?,
        () = &mut stop => SIGNALLED,
    };
    Event::Stopping { reason }.tell()?;
    // Their end is what is waited for: they hold the cluster.
    orders.abort();
    watch.abort();
    let _ = (orders.await, watch.await);
    session.end(folder.is_none()).await;
    Ok(())
}

/// Passes lines on until there are none.
async fn read(commands: mpsc::Sender<String>) {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    // What cannot be read, such as a line that is no text, ends the input as well.
    while let Ok(Some(line)) = lines.next_line().await {
        if commands.send(line).await.is_err() {
            return;
        }
    }
}

/// Tells of what nobody here asked for: nodes that end by themselves, orders from elsewhere, nodes that serve again.
async fn watch(cluster: Arc<Mutex<Cluster>>, seen: Arc<Mutex<Seen>>) {
    loop {
        // Standard output that nobody reads is no reason to stop looking: standard input decides (J2).
        let _ = look(&cluster, &seen).await;
        let starting = seen.lock().await.starting();
        let nodes = cluster.lock().await.nodes().to_vec();
        let asked = starting.into_iter().map(|(name, process)| ask(&nodes, name, process));
        for (name, process) in join_all(asked).await.into_iter().flatten() {
            if let Some(event) = seen.lock().await.serves(name, process) {
                let _ = event.tell();
            }
        }
        sleep(LOOK_EVERY).await;
    }
}

async fn ask(nodes: &[Node], name: String, process: u32) -> Option<(String, u32)> {
    let node = nodes.iter().find(|node| node.name == name)?;
    node.is_ready().await.then_some((name, process))
}

/// Tells what is new.
async fn look(cluster: &Mutex<Cluster>, seen: &Mutex<Seen>) -> Result<(), Failure> {
    let mut seen = seen.lock().await;
    let events = seen.look(&mut *cluster.lock().await);
    events.iter().try_for_each(Event::tell)
}

impl Session {
    async fn start(plan: Plan) -> Result<Self, Failure> {
        let data = plan.data.clone();
        let cluster = Cluster::start(plan).await.map_err(anyhow::Error::from)?;
        let world = World::new(cluster, Instant::now())?;
        world.ready().await?;
        let data = fs::canonicalize(&data)?;
        let mut cluster = world.cluster.lock().await;
        contexts::write(&cluster, Some(context::below(&config_home(&data))))?.keep();
        let seen = Seen::of(&mut cluster);
        drop(cluster);
        Ok(Self {
            world,
            data,
            seen: Arc::new(Mutex::new(seen)),
        })
    }

    async fn ready(&self) -> Result<Event, Failure> {
        let mut cluster = self.world.cluster.lock().await;
        let home = config_home(&self.data).display().to_string();
        Ok(Event::Ready(Box::new(Ready {
            program: std::env::current_exe()?.display().to_string(),
            data: self.data.display().to_string(),
            control: control::socket(&self.data).display().to_string(),
            environment: BTreeMap::from([(context::HOME, home)]),
            regions: Region::all(&cluster),
            status: Status::of(&mut cluster, &self.data),
        })))
    }

    /// Carries out commands, one after the other, until there are no more.
    async fn obey(&mut self, commands: &mut mpsc::Receiver<String>) -> Result<(), Failure> {
        while let Some(line) = commands.recv().await {
            if line.trim().is_empty() {
                continue;
            }
            let (id, asked) = Command::read(&line);
            let answer = match asked {
                Ok(asked) => self.carry_out(asked).await,
                Err(error) => Err(error),
            };
            let answer = match answer {
                Ok(answer) => answer,
                Err(error) => Answer {
                    error: Some(error),
                    ..Answer::default()
                },
            };
            Event::Answer(Box::new(Answer { id, ..answer })).tell()?;
            look(&self.world.cluster, &self.seen).await?;
        }
        Ok(())
    }

    async fn carry_out(&mut self, asked: Asked) -> Result<Answer, String> {
        let (text, status) = match asked {
            Asked::Status => {
                let mut cluster = self.world.cluster.lock().await;
                ("status".to_owned(), Some(Status::of(&mut cluster, &self.data)))
            }
            Asked::CreateTenant { name, home } => {
                let client = self.world.client(&home).await.map_err(chain)?;
                make_tenant(client, name.clone(), &home).await.map_err(chain)?;
                (format!("create-tenant: {name}"), None)
            }
            Asked::Order(order) => {
                let mut cluster = self.world.cluster.lock().await;
                let done = control::carry_out(&mut cluster, &order).await;
                (done.map_err(|failure| failure.text().to_owned())?, None)
            }
        };
        Ok(Answer {
            ok: Some(text),
            status,
            ..Answer::default()
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
            cluster.shut_down(END_WITHIN).await;
        } else {
            cluster.kill_all().await;
        }
    }
}

fn chain(error: anyhow::Error) -> String {
    format!("{error:#}")
}

/// Contexts of this cluster lie beside its data: those of the person who runs the test stay as they are.
fn config_home(data: &Path) -> PathBuf {
    data.join("config")
}
