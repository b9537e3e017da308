//! Cluster of real node processes, with links between its regions.
//!
//! # Invariants
//!
//! * **C1** No node outlives the cluster, also when the process that holds it is killed.
//! * **C2** Addresses that nodes advertise stay the same for as long as their data is kept.
//! * **C3** Two clusters never share a directory.

mod certificates;
mod config;
pub mod credentials;
mod error;
mod layout;
mod links;
pub(crate) mod lock;
mod node_process;
mod ports;
mod ready;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

pub use credentials::Credentials;
pub use error::Error;
pub use layout::{Node, Plan, Region};
pub use ports::Ports;
use stead_cert::CertificateFolder;
use stead_client::TlsFiles;

use self::{error::at, layout::Layout, links::Links, lock::LockFile, node_process::NodeProcess};
use crate::Link;

/// Map from advertised addresses to the addresses to dial instead, from one region.
pub type DialMap = BTreeMap<String, String>;

/// Direction of a wall clock's skew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SkewDirection {
    /// The clock shows a later time.
    Ahead,
    /// The clock shows an earlier time.
    Behind,
}

/// A started cluster; its nodes are killed when it is dropped.
#[derive(Debug)]
pub struct Cluster {
    plan: Plan,
    links: Links,
    running: BTreeMap<String, NodeProcess>,
    /// Environment variables of nodes that are started from now on, which set keys of their configuration.
    overrides: BTreeMap<String, String>,
    // Ports and folder are given up after the nodes are gone.
    layout: Layout,
    /// Names of the nodes that were started, here or before in the same directory.
    begun: BTreeSet<String>,
    _lock: LockFile,
}

impl Cluster {
    /// Creates directories, proxies and configurations, and starts all nodes but those that are to join; [`Cluster::ready`]
    /// waits for them.
    ///
    /// # Errors
    ///
    /// An invalid plan, a directory in use or of another layout, a port in use, a binary that cannot be started.
    pub async fn start(plan: Plan) -> Result<Self, Error> {
        plan.check()?;
        fs::create_dir_all(&plan.data).map_err(at("create", &plan.data))?;
        let lock = LockFile::take(&plan.data)?;
        let layout = Layout::of(&plan)?;
        if plan.tls {
            certificates::ensure(&plan, &layout)?;
        }
        let links = Links::start(&plan, &layout).await?;
        if plan.asks_for_credentials {
            Credentials::of(&plan).make()?;
        }
        let mut cluster = Self {
            plan,
            layout,
            links,
            running: BTreeMap::new(),
            overrides: BTreeMap::new(),
            begun: BTreeSet::new(),
            _lock: lock,
        };
        for node in cluster.layout.nodes.clone() {
            let text = config::of(&cluster.plan, &cluster.layout, &node, cluster.links.dial(&node.region));
            let path = cluster.plan.config_of(&node.name);
            fs::write(&path, text).map_err(at("write", &path))?;
            cluster.set_clock(&node.name, Duration::ZERO, SkewDirection::Ahead)?;
            if node.initial || cluster.plan.data_of(&node.name).exists() {
                cluster.start_node(&node.name)?;
            }
        }
        Ok(cluster)
    }

    /// Empties a cluster's directory; nothing happens if there is none.
    ///
    /// # Errors
    ///
    /// A directory in use, or one that does not hold a cluster's data.
    pub fn clear(data: &Path) -> Result<(), Error> {
        if !data.exists() {
            return Ok(());
        }
        let _lock = LockFile::take(data)?;
        let entries = fs::read_dir(data).map_err(at("read", data))?;
        let paths: Vec<PathBuf> = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| !path.ends_with(lock::NAME))
            .collect();
        if !paths.is_empty() && !paths.iter().any(|path| path.ends_with(layout::LAYOUT_FILE)) {
            return Err(Error::NoCluster(data.to_owned()));
        }
        for path in paths {
            let removed = if path.is_dir() {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            };
            removed.map_err(at("remove", &path))?;
        }
        Ok(())
    }

    /// Waits until every running node reports that it can serve.
    ///
    /// # Errors
    ///
    /// A node that ended, or that is not ready at the timeout: with the end of its log.
    pub async fn ready(&mut self, within: Duration) -> Result<(), Error> {
        let all: Vec<String> = self.layout.nodes.iter().map(|node| node.name.clone()).collect();
        self.ready_of(&all, within).await
    }

    /// Waits until those of these nodes that are running report that they can serve.
    ///
    /// # Errors
    ///
    /// No such node, one that ended, or one that is not ready at the timeout: with the end of its log.
    pub async fn ready_of(&mut self, nodes: &[String], within: Duration) -> Result<(), Error> {
        let deadline = tokio::time::Instant::now() + within;
        for name in nodes {
            let node = self.node(name)?.clone();
            if let Some(running) = self.running.get_mut(name) {
                let log = self.plan.log_of(name);
                ready::wait(&node, running, &log, deadline).await?;
            }
        }
        Ok(())
    }

    /// Returns the credentials of a cluster that asks for them.
    pub fn credentials(&self) -> Option<Credentials> {
        self.plan.asks_for_credentials.then(|| Credentials::of(&self.plan))
    }

    /// Returns the plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Returns the nodes, running or not, region by region.
    pub fn nodes(&self) -> &[Node] {
        &self.layout.nodes
    }

    /// Returns a node's log file.
    pub fn log_of(&self, node: &str) -> PathBuf {
        self.plan.log_of(node)
    }

    /// Returns the regions in their order.
    pub fn regions(&self) -> &[Region] {
        &self.plan.regions
    }

    /// Returns the client addresses of a region's nodes.
    pub fn endpoints(&self, region: &str) -> Vec<String> {
        let of_region = self.layout.nodes.iter().filter(|node| node.region == region);
        of_region.map(|node| node.client.clone()).collect()
    }

    /// Returns the CA, and the certificate and key of the operator who runs the cluster; `None` without TLS.
    pub fn tls(&self) -> Option<TlsFiles> {
        self.plan.tls.then(|| certificates::of_operator(&self.plan))
    }

    /// Returns the folder of the cluster's certificates.
    pub fn certificates(&self) -> CertificateFolder {
        self.plan.certificates()
    }

    /// Returns the addresses to dial from this region instead of those that nodes of other regions advertise.
    pub fn dial(&self, region: &str) -> &DialMap {
        self.links.dial(region)
    }

    /// Returns the link between two regions, seen from the first.
    ///
    /// # Errors
    ///
    /// No such pair of regions.
    pub fn link(&self, from: &str, to: &str) -> Result<Link, Error> {
        self.links.get(from, to)
    }

    /// Returns every pair of regions and the link between them.
    pub fn links(&self) -> impl Iterator<Item = (&str, &str, &Link)> {
        self.links.all()
    }

    /// Returns a node's process id, `None` while it is not running.
    pub fn process(&mut self, node: &str) -> Option<u32> {
        self.running.get_mut(node).and_then(NodeProcess::process)
    }

    /// Sets a key of the configuration, such as `storage.seed_history_bytes_max`, of nodes that are started from now on;
    /// `None`: what the plan says.
    pub fn set_option(&mut self, key: &str, value: Option<&str>) {
        let variable = format!("STEAD_{}", key.replace('.', "__").to_ascii_uppercase());
        match value {
            Some(value) => drop(self.overrides.insert(variable, value.to_owned())),
            None => drop(self.overrides.remove(&variable)),
        }
    }

    /// Starts a node that is not running.
    ///
    /// # Errors
    ///
    /// No such node, it runs already, or the binary cannot be started.
    pub fn start_node(&mut self, node: &str) -> Result<(), Error> {
        let node = self.node(node)?.clone();
        if self.process(&node.name).is_some() {
            return Err(Error::Running(node.name));
        }
        let running = NodeProcess::start(&self.plan, &node.name, &self.overrides)?;
        self.begun.insert(node.name.clone());
        self.running.insert(node.name, running);
        Ok(())
    }

    /// Kills a node with SIGKILL and waits until it is gone.
    ///
    /// # Errors
    ///
    /// No such node, or it is not running.
    pub async fn kill_node(&mut self, node: &str) -> Result<(), Error> {
        self.running(node)?.kill().await;
        self.running.remove(node);
        Ok(())
    }

    /// Terminates a node with SIGTERM, as a service manager does, waits until it is gone, and returns its exit status.
    ///
    /// # Errors
    ///
    /// No such node, it is not running, or its exit status cannot be read.
    pub async fn terminate_node(&mut self, node: &str) -> Result<ExitStatus, Error> {
        let running = self.running(node)?;
        running.signal(libc::SIGTERM);
        let ended = running.ended().await;
        self.running.remove(node);
        ended.map_err(at("wait for", &self.plan.binary))
    }

    /// Kills all nodes at once, so that no node sees another one leave before it is gone itself.
    pub async fn kill_all(&mut self) {
        for running in self.running.values_mut() {
            running.signal(libc::SIGKILL);
        }
        for running in self.running.values_mut() {
            running.kill().await;
        }
        self.running.clear();
    }

    /// Starts every node that ran before and is not running.
    ///
    /// # Errors
    ///
    /// A binary that cannot be started.
    pub fn start_all(&mut self) -> Result<(), Error> {
        for name in self.begun.clone() {
            if self.process(&name).is_none() {
                self.start_node(&name)?;
            }
        }
        Ok(())
    }

    /// Skews a node's wall clock, running or not, within a tenth of a second; a skew of zero makes it right again.
    ///
    /// # Errors
    ///
    /// No such node, or its file cannot be written.
    pub fn set_clock(&self, node: &str, by: Duration, way: SkewDirection) -> Result<(), Error> {
        let path = self.plan.clock_of(&self.node(node)?.name);
        let sign = if way == SkewDirection::Behind { "-" } else { "" };
        // The node never reads a half-written file.
        let new = path.with_extension("clock.new");
        fs::write(&new, format!("{sign}{}", by.as_millis())).map_err(at("write", &new))?;
        fs::rename(&new, &path).map_err(at("write", &path))
    }

    /// Forgets a node that has left the cluster: it is killed if it runs, and its data is removed.
    ///
    /// # Errors
    ///
    /// No such node, or its data cannot be removed.
    pub async fn remove_node(&mut self, node: &str) -> Result<(), Error> {
        let name = self.node(node)?.name.clone();
        if let Some(mut running) = self.running.remove(&name) {
            running.kill().await;
        }
        self.begun.remove(&name);
        let data = self.plan.data_of(&name);
        if data.exists() {
            fs::remove_dir_all(&data).map_err(at("remove", &data))?;
        }
        Ok(())
    }

    /// Freezes a node with SIGSTOP.
    ///
    /// # Errors
    ///
    /// No such node, or it is not running.
    pub fn freeze_node(&mut self, node: &str) -> Result<(), Error> {
        self.running(node)?.signal(libc::SIGSTOP);
        Ok(())
    }

    /// Resumes a frozen node with SIGCONT.
    ///
    /// # Errors
    ///
    /// No such node, or it is not running.
    pub fn thaw_node(&mut self, node: &str) -> Result<(), Error> {
        self.running(node)?.signal(libc::SIGCONT);
        Ok(())
    }

    /// Returns the nodes with a name: the node itself, or all of a region.
    ///
    /// # Errors
    ///
    /// Neither a node nor a region.
    pub fn named(&self, name: &str) -> Result<Vec<String>, Error> {
        let meant = |node: &&Node| node.name == name || node.region == name;
        let named: Vec<String> = self
            .layout
            .nodes
            .iter()
            .filter(meant)
            .map(|node| node.name.clone())
            .collect();
        if named.is_empty() {
            Err(Error::Unknown(name.into()))
        } else {
            Ok(named)
        }
    }

    /// Terminates all nodes, and kills those that are still there at the timeout.
    pub async fn shut_down(mut self, within: Duration) {
        for running in self.running.values_mut() {
            running.signal(libc::SIGCONT);
            running.signal(libc::SIGTERM);
        }
        let ended = async {
            for running in self.running.values_mut() {
                // A node that cannot be waited for is killed when dropped (C1).
                let _ = running.ended().await;
            }
        };
        // A node that did not end in time is killed when dropped, too.
        let _ = tokio::time::timeout(within, ended).await;
    }

    fn node(&self, name: &str) -> Result<&Node, Error> {
        let found = self.layout.nodes.iter().find(|node| node.name == name);
        found.ok_or_else(|| Error::Unknown(name.into()))
    }

    fn running(&mut self, name: &str) -> Result<&mut NodeProcess, Error> {
        self.node(name)?;
        let not_running = || Error::NotRunning(name.into());
        let running = self.running.get_mut(name).ok_or_else(not_running)?;
        if running.is_running() {
            Ok(running)
        } else {
            Err(not_running())
        }
    }
}
