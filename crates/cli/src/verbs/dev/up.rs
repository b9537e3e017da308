//! Life cycle of the cluster: start, demo or acceptance steps, staying up, shutdown.

use std::{
    fmt::Write,
    fs,
    io::IsTerminal,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::Args;
use stead_client::TlsFiles;
use stead_testing::{
    Cluster, TemporaryFolder,
    cluster::{self, Ports, Region},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::Instant,
};

use super::{
    check::{self, Step, StepOptions},
    contexts::{self, ContextFile},
    control, demo, json,
    plan::{self, RegionChoice, Regions, RoundTrip},
    topology::TopologyChoice,
    world::World,
};
use crate::{
    context,
    exit::{Code, CommandError},
    output::{self, Output},
};

/// Timeout of the nodes' shutdown.
pub(super) const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(super) struct Up {
    /// Round trips: us-east:eu-west=90ms, or 50ms for all pairs; may be given several times
    #[arg(long = "rtt", value_name = "[A:B=]TIME")]
    round_trips: Vec<RoundTrip>,
    /// Folder of all data [default: target/dev; with --json a folder that is deleted with the cluster]
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// Delete existing data first
    #[arg(long)]
    fresh: bool,
    /// Without TLS and without credentials: plain text between all, and everybody may do everything
    #[arg(long)]
    plain: bool,
    /// Exit after the demo, with 0 or 1
    #[arg(long, conflicts_with = "keep")]
    exit: bool,
    /// Stay up after the demo, also without a terminal
    #[arg(long)]
    keep: bool,
    /// Run the acceptance steps, all if none is named, and exit with 0 or 1
    #[arg(long, num_args = 0.., value_name = "STEP", value_enum)]
    check: Option<Vec<Step>>,
    #[command(flatten)]
    step_options: StepOptions,
    /// The first node's client port; later ranges are tried if it is in use and the data is new [default: 7401; with
    /// --json any free ports]
    #[arg(long, value_name = "PORT")]
    base_port: Option<u16>,
    /// For tests in any language: events on standard output, commands on standard input, one JSON object a line; ends
    /// when standard input does
    #[arg(long, conflicts_with_all = ["exit", "keep", "check"])]
    json: bool,
    /// 2: two regions and a witness, without the demo; with --json also other regions than the three of the demo, such as
    /// us-east:1,eu-west:3
    #[arg(long, value_delimiter = ',', value_name = "2|NAME[:NODES[:LAW]]")]
    regions: Option<Vec<RegionChoice>>,
    /// Tenant groups of a region, 1 to 16, with new data [default: 1, or as the topology's file says]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=16))]
    groups: Option<u8>,
    /// Shape of the cluster: one-node, one-region, active-passive, small-follower, three-regions, five-regions, or a file of
    /// one's own, see docs/topologies.md; the demo needs three-regions
    #[arg(long, value_name = "NAME|FILE", conflicts_with_all = ["regions", "json"])]
    topology: Option<TopologyChoice>,
}

/// Text about the leases of `dev`.
const LEASES_TEXT: &str =
    "leases last 15 s here, 60 s elsewhere: tenants of a region that cannot reach the directory for longer stop";
const DATA: &str = "target/dev";
const BASE_PORT: u16 = 7401;
/// Tenant groups of a region, unless a flag or a file says another number.
const GROUPS: usize = 1;

impl Up {
    pub(super) async fn run(self) -> Result<(), CommandError> {
        if self.json {
            return self.run_json().await;
        }
        if self.check.is_some() && matches!(self.topology, Some(TopologyChoice::File(_))) {
            let why = "--check: the steps need regions that they know: name a topology, no file";
            return Err(CommandError::new(Code::Usage, why));
        }
        let (regions, groups) = match &self.topology {
            Some(topology) => {
                let described = topology.described()?;
                (described.regions, described.groups_per_region)
            }
            None => (Regions::chosen(self.regions.as_deref(), false)?, GROUPS),
        };
        let mut terminate = signal(SignalKind::terminate())?;
        let data = self.data.clone().unwrap_or_else(|| DATA.into());
        if self.fresh {
            Cluster::clear(&data).map_err(failed)?;
        }
        let started = Instant::now();
        let ports = Ports::From(self.base_port.unwrap_or(BASE_PORT));
        let plan = self.plan(&data, ports, regions, groups)?;
        let cluster = Cluster::start(plan).await.map_err(failed)?;
        // The contexts end with this function, the nodes with the cluster.
        let contexts = context::folder().map(|folder| contexts::write(&cluster, &folder));
        let contexts = contexts.transpose()?;
        let mut world = World::new(cluster, started)?;
        let control_task = tokio::spawn(control::serve(
            control::listen(&data)?,
            world.cluster.clone(),
            data.clone(),
        ));
        let outcome = tokio::select! {
            outcome = self.run_demo_or_check(&mut world, &data, contexts.as_ref()) => outcome,
            _ = tokio::signal::ctrl_c() => Ok(()),
            _ = terminate.recv() => Ok(()),
        };
        control_task.abort();
        // Wait for its end: it holds the cluster.
        let _ = control_task.await;
        let _ = fs::remove_file(control::socket(&data));
        if let Some(cluster) = Arc::into_inner(world.cluster) {
            cluster.into_inner().shut_down(SHUTDOWN_TIMEOUT).await;
        }
        outcome
    }

    /// Data in a named folder is kept, on ports that stay; otherwise nothing is, and every run has its own.
    async fn run_json(self) -> Result<(), CommandError> {
        let regions = Regions::chosen(self.regions.as_deref(), true)?;
        let Some(data) = &self.data else {
            let folder = TemporaryFolder::make()?;
            let ports = self.base_port.map_or(Ports::Any, Ports::From);
            let plan = self.plan(folder.path(), ports, regions, GROUPS)?;
            return json::run(plan, Some(folder)).await;
        };
        if self.fresh {
            Cluster::clear(data).map_err(failed)?;
        }
        let ports = Ports::From(self.base_port.unwrap_or(BASE_PORT));
        json::run(self.plan(data, ports, regions, GROUPS)?, None).await
    }

    fn plan(&self, data: &Path, ports: Ports, regions: Regions, groups: usize) -> Result<cluster::Plan, CommandError> {
        let plan = plan::plan(data, ports, regions, &self.round_trips, !self.plain)?;
        Ok(cluster::Plan {
            groups_per_region: self.groups.map_or(groups, usize::from),
            ..plan
        })
    }

    async fn run_demo_or_check(
        &self,
        world: &mut World,
        data: &Path,
        contexts: Option<&ContextFile>,
    ) -> Result<(), CommandError> {
        if let Some(steps) = &self.check {
            println!("{LEASES_TEXT}");
            return check::run(world, steps, data, &self.step_options).await;
        }
        let regions = {
            let cluster = world.cluster.lock().await;
            header(&cluster, data)
        };
        let (above, last) = regions.trim_end().rsplit_once('\n').unwrap_or(("", &regions));
        println!("{above}");
        world.ready().await?;
        println!(
            "{:<66}ready in {:.1} s",
            last.trim_end(),
            world.started.elapsed().as_secs_f64()
        );
        if world.set_lease_ttl().await? {
            println!("{LEASES_TEXT}");
        }
        // The demo takes the lock itself.
        let has_demo = has_demo_regions(&*world.cluster.lock().await);
        let outcome = match has_demo {
            true => demo::run(world).await.map_err(CommandError::from),
            false => {
                println!("the demo needs the topology three-regions: none is shown");
                Ok(())
            }
        };
        if self.keep || (std::io::stdout().is_terminal() && !self.exit) {
            print_instructions(world, data, contexts).await;
            if let Err(failure) = outcome {
                failure.report(Output::Table);
            }
            std::future::pending::<()>().await;
            return Ok(());
        }
        outcome
    }
}

fn failed(error: cluster::Error) -> CommandError {
    CommandError::from(anyhow::Error::from(error))
}

/// Tells whether the regions are those of the demo.
fn has_demo_regions(cluster: &Cluster) -> bool {
    let names = cluster.regions().iter().map(|region| region.name.as_str());
    names.eq(plan::REGIONS.iter().map(|(name, _)| *name))
}

/// Returns the first lines: the regions, and the round trips to those below.
fn header(cluster: &Cluster, data: &Path) -> String {
    let regions = cluster.regions();
    let (witnesses, others): (Vec<&Region>, Vec<&Region>) = regions.iter().partition(|region| region.witness);
    let nodes = others.first().map_or(0, |region| region.nodes);
    let shape = match others.iter().all(|region| region.nodes == nodes) {
        true => format!("{} x {nodes} real nodes", output::count(others.len() as u64, "region")),
        false => {
            let nodes: Vec<String> = others.iter().map(|region| region.nodes.to_string()).collect();
            format!("regions of {} real nodes", nodes.join(" and "))
        }
    };
    let witness = if witnesses.is_empty() { "" } else { " and a witness" };
    let mut text = format!(
        "Stead dev · {shape}{witness} · {} · fsync on · data in {}\n",
        if cluster.tls().is_some() { "TLS" } else { "plain text" },
        data.display()
    );
    for (at, region) in regions.iter().enumerate() {
        let far = regions[at + 1..].iter().filter_map(|other| {
            let link = cluster.link(&region.name, &other.name).ok()?;
            Some(format!("{} {}", other.name, output::duration(link.round_trip())))
        });
        let far = far.collect::<Vec<_>>().join(" · ");
        let first = cluster.endpoints(&region.name).into_iter().next().unwrap_or_default();
        let jurisdiction = if region.witness { "-" } else { &region.jurisdiction };
        let _ = writeln!(text, "  {:<10}{jurisdiction:<4}{first}   {far}", region.name);
    }
    text
}

/// Returns the flags that name CA, certificate and key.
fn tls_flags(cluster: &Cluster) -> String {
    let Some(TlsFiles { ca, certificate, key }) = cluster.tls() else {
        return String::new();
    };
    let flags = [("ca", Some(ca)), ("certificate", certificate), ("certificate-key", key)];
    let flags = flags.into_iter().filter_map(|(flag, file)| Some((flag, file?)));
    flags
        .map(|(flag, file)| format!(" --{flag} {}", file.display()))
        .collect()
}

/// Prints example commands for the running cluster.
async fn print_instructions(world: &World, data: &Path, contexts: Option<&ContextFile>) {
    let program = std::env::current_exe().unwrap_or_default();
    let here = std::env::current_dir().unwrap_or_default();
    let program = program.strip_prefix(&here).unwrap_or(&program).display();
    let cluster = world.cluster.lock().await;
    // Without a home folder there are no contexts: nodes are named by their addresses.
    let target = |region: &str| match contexts {
        Some(contexts) => format!("--context {}", contexts.name(region)),
        None => format!(
            "--endpoint {}{}",
            cluster.endpoints(region).join(","),
            tls_flags(&cluster)
        ),
    };
    let regions = cluster.regions().iter();
    let names: Vec<String> = regions
        .filter_map(|region| Some(contexts?.name(&region.name)))
        .collect();
    let known = if names.is_empty() {
        String::new()
    } else {
        format!(" (contexts {})", names.join(", "))
    };
    let folder = if data == Path::new(DATA) {
        String::new()
    } else {
        format!(" --data {}", data.display())
    };
    println!("\nup until Ctrl-C; in another terminal{known}:");
    let has_demo = has_demo_regions(&cluster);
    let first = cluster.regions().first().map_or("", |region| region.name.as_str());
    let lines = match has_demo {
        true => vec![
            format!(
                "kv get acme session/42 {} --consistency local --verbose",
                target("ap-south")
            ),
            format!("tenant create globex --home us-east {}", target("us-east")),
            format!("dev kill eu-west-1{folder}"),
            format!("dev cut us-east eu-west{folder}"),
        ],
        // Nothing was written by a demo, and only the regions of the topology are there.
        false => vec![
            format!("tenant create acme --home {first} {}", target(first)),
            format!("kv put acme session/42 hello {}", target(first)),
            format!("dev kill {first}-1{folder}"),
        ],
    };
    for line in lines {
        println!("  {program} {line}");
    }
    println!("  {program} dev status{folder}");
}
