//! Test environment: the cluster, a client in each region, and the tenants of the demo and the steps.

use std::{collections::HashMap, io, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use stead_api::net::{self, Channel, InterceptedService, Keepalive};
use stead_client::{
    Client, Config, Connect, Consistency, ErrorKind, KeyRange, NewTenant, ReadOptions, Tenant, TenantChange,
    TenantLimit, TlsFiles, TokenSource, dial,
};
use stead_testing::{Cluster, cluster, moves::MovingTenant};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep},
};

/// Channel whose calls carry the token of this environment's clients.
pub(super) type ClientChannel = InterceptedService<Channel, TokenSource>;

/// Longest wait for any condition before the run is given up.
pub(super) const WAIT_TIMEOUT: Duration = Duration::from_secs(90);
/// Lease ttl of the environment: the shortest, so that nobody waits long for a lease to end.
pub(super) const LEASE_TTL: Duration = Duration::from_secs(15);
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Longest wait for a feature level at which the lease ttl can be set.
const LEVEL_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct World {
    pub(super) cluster: Arc<Mutex<Cluster>>,
    nodes: Vec<cluster::Node>,
    configs: HashMap<String, Config>,
    clients: HashMap<String, Client>,
    pub(super) started: Instant,
    /// Random prefix that distinguishes this run's keys from those of earlier runs.
    pub(super) run: String,
    /// Whether the lease ttl was set, or could not be.
    has_set_lease_ttl: bool,
}

impl World {
    pub(super) fn new(cluster: Cluster, started: Instant) -> anyhow::Result<Self> {
        let mut configs = HashMap::new();
        for region in cluster.regions() {
            let mut config = Config::new(cluster.endpoints(&region.name));
            config.region = Some(region.name.parse()?);
            config.connect = dial(cluster.dial(&region.name).clone());
            config.tls = cluster.tls();
            if let Some(credentials) = cluster.credentials() {
                config.token = TokenSource::file(credentials.operator_token())?;
            }
            configs.insert(region.name.clone(), config);
        }
        Ok(Self {
            nodes: cluster.nodes().to_vec(),
            cluster: Arc::new(Mutex::new(cluster)),
            configs,
            clients: HashMap::new(),
            started,
            run: format!("{:08x}", rand::random::<u32>()),
            has_set_lease_ttl: false,
        })
    }

    /// Returns a client in a region; it connects when it is used first.
    pub(super) async fn client(&mut self, region: &str) -> anyhow::Result<Client> {
        if let Some(client) = self.clients.get(region) {
            return Ok(client.clone());
        }
        let config = self
            .configs
            .get(region)
            .with_context(|| format!("no region {region}"))?;
        let deadline = Instant::now() + WAIT_TIMEOUT;
        let client = loop {
            match Client::connect(config.clone()).await {
                Ok(client) => break client,
                Err(error) if Instant::now() > deadline => return Err(error.into()),
                Err(_) => sleep(POLL_INTERVAL).await,
            }
        };
        self.clients.insert(region.to_owned(), client.clone());
        Ok(client)
    }

    /// Returns the configuration of a region's clients.
    pub(super) fn client_config(&self, region: &str) -> anyhow::Result<Config> {
        let config = self.configs.get(region);
        config.cloned().with_context(|| format!("no region {region}"))
    }

    /// Returns the connector of a region's clients, for channels that a step opens itself.
    pub(super) fn connector(&self, region: &str) -> anyhow::Result<Connect> {
        Ok(self.client_config(region)?.connector()?)
    }

    /// Returns a channel to a node as a region's clients open it, whose calls carry their token, for stubs of a step.
    pub(super) fn channel(&self, region: &str, address: &str, keepalive: Keepalive) -> anyhow::Result<ClientChannel> {
        let config = self.client_config(region)?;
        let channel = net::channel(&config.connector()?, address, keepalive)?;
        Ok(InterceptedService::new(channel, config.token))
    }

    /// Returns a client with another token, or none, that leaves the forwarding to the region's nodes.
    pub(super) async fn client_with_token(&self, region: &str, token: TokenSource) -> anyhow::Result<Client> {
        let config = self.client_config(region)?;
        // An operator's certificate would be a credential of its own.
        let tls = config.tls.clone().map(|files| TlsFiles {
            certificate: None,
            key: None,
            ..files
        });
        let config = Config {
            token,
            tls,
            nearest_only: true,
            ..config
        };
        Ok(Client::connect(config).await?)
    }

    /// Returns a client that leaves the forwarding to the home to the region's nodes.
    pub(super) async fn nearest_only_client(&self, region: &str) -> anyhow::Result<Client> {
        let mut config = self
            .configs
            .get(region)
            .with_context(|| format!("no region {region}"))?
            .clone();
        config.nearest_only = true;
        Ok(Client::connect(config).await?)
    }

    /// Returns a client that sends everything to one node, which forwards to the home.
    pub(super) async fn node_client(&self, node: &str) -> anyhow::Result<Client> {
        let node = self.nodes.iter().find(|known| known.name == node);
        let node = node.context("there is no such node")?;
        let mut config = self.configs.get(&node.region).context("no such region")?.clone();
        config.endpoints = vec![node.client.clone()];
        config.nearest_only = true;
        // It learns of the others, of which one may be nearer.
        let (only, connect) = (node.client.clone(), config.connect.clone());
        config.connect = Arc::new(move |address| {
            if address == only {
                connect(address)
            } else {
                Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) })
            }
        });
        Ok(Client::connect(config).await?)
    }

    /// Returns the number of regions that hold tenants.
    pub(super) async fn data_regions(&self) -> usize {
        let cluster = self.cluster.lock().await;
        cluster.regions().iter().filter(|region| !region.witness).count()
    }

    /// Returns the names of a region's other nodes, those on the second engine first.
    pub(super) fn others(&self, node: &str) -> Vec<String> {
        let region = self
            .nodes
            .iter()
            .find(|known| known.name == node)
            .map(|known| &known.region);
        let others = self
            .nodes
            .iter()
            .filter(|known| known.name != node && Some(&known.region) == region);
        let mut others: Vec<_> = others
            .map(|known| (known.engine != "sled", known.name.clone()))
            .collect();
        others.sort();
        others.into_iter().map(|(_, name)| name).collect()
    }

    /// Drops all clients, so that this process sends nothing to the nodes.
    pub(super) fn drop_clients(&mut self) {
        self.clients.clear();
    }

    /// Returns a tenant as seen from a region; it is created, with this home, if it does not exist.
    pub(super) async fn tenant(&mut self, name: &str, home: &str, from: &str) -> anyhow::Result<Tenant> {
        let client = self.client(from).await?;
        ensure_tenant(client.clone(), name.to_owned(), home).await?;
        Ok(client.tenant(name)?)
    }

    /// Starts to write to a tenant in the two regions between which it is to move; it is made in the first.
    pub(super) async fn moving_tenant(
        &mut self,
        name: &str,
        [home, next]: [&str; 2],
        writes_per_second: u32,
    ) -> anyhow::Result<MovingTenant> {
        let source = self.tenant(name, home, home).await?;
        let target = self.tenant(name, home, next).await?;
        let admin = self.client(home).await?.admin();
        let (sides, prefix) = ([(home, source), (next, target)], format!("moves/{}", self.run));
        Ok(MovingTenant::start(admin, sides, &prefix, writes_per_second).await?)
    }

    /// Returns an empty tenant with limits of its own, as seen from its home.
    pub(super) async fn limited_tenant(
        &mut self,
        name: &str,
        home: &str,
        limits: &[(TenantLimit, u64)],
    ) -> anyhow::Result<Tenant> {
        let tenant = self.tenant(name, home, home).await?;
        let mut change = TenantChange {
            name: name.to_owned(),
            ..TenantChange::default()
        };
        for (limit, value) in limits {
            change.limits.set(*limit, *value)?;
        }
        let admin = self.client(home).await?.admin();
        // A group that is still busy with an earlier step may need a while; setting limits is idempotent.
        until("the tenant has its limits", async || {
            admin.update_tenant(change.clone()).await?;
            Ok(true)
        })
        .await?;
        tenant.delete_range_within(&KeyRange::all(), Some(WAIT_TIMEOUT)).await?;
        Ok(tenant)
    }

    /// Sets the lease ttl of `dev`: a region that is cut off for longer stops soon enough to be watched. Returns whether it
    /// is set: data of an earlier version may not allow it yet.
    pub(super) async fn set_lease_ttl(&mut self) -> anyhow::Result<bool> {
        if std::mem::replace(&mut self.has_set_lease_ttl, true) {
            return Ok(true);
        }
        let region = self.nodes.first().context("there are no nodes")?.region.clone();
        let admin = self.client(&region).await?.admin();
        let deadline = Instant::now() + LEVEL_TIMEOUT;
        loop {
            match admin.set_lease_ttl(LEASE_TTL, "dev").await {
                Ok(_) => return Ok(true),
                // A new cluster raises its feature level once all nodes have reported theirs.
                Err(error) if error.kind == ErrorKind::Conflict && Instant::now() > deadline => return Ok(false),
                Err(error) if Instant::now() > deadline => return Err(error).context("the lease ttl cannot be set"),
                Err(_) => sleep(POLL_INTERVAL).await,
            }
        }
    }

    /// Waits until every node is ready.
    pub(super) async fn ready(&self) -> anyhow::Result<()> {
        Ok(self.cluster.lock().await.ready(WAIT_TIMEOUT).await?)
    }

    /// Returns the name of the node that responds as the home of a tenant, asked from its own region.
    pub(super) async fn leader(&self, tenant: &Tenant) -> anyhow::Result<String> {
        self.node_that_answers(tenant, &ReadOptions::default()).await
    }

    /// Returns the name of the node that answers a local read: one that has no copy yet passes it on to the home.
    pub(super) async fn answering_node(&self, tenant: &Tenant) -> anyhow::Result<String> {
        self.node_that_answers(tenant, &ReadOptions::at(Consistency::Local))
            .await
    }

    /// Waits until no node of a region has a lease that was granted under a longer ttl than [`LEASE_TTL`].
    pub(super) async fn leases_are_short(&self, region: &str) -> anyhow::Result<()> {
        for node in self.nodes.iter().filter(|node| node.region == region) {
            until("leases of the longer ttl have ended", async || {
                let metrics = node.metrics().await?;
                let mut left = metrics
                    .lines()
                    .filter(|line| line.starts_with("stead_lease_remaining_seconds{"))
                    .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
                Ok(left.all(|left| left <= LEASE_TTL.as_secs_f64()))
            })
            .await?;
        }
        Ok(())
    }

    /// Returns the name of the node that leads a group; 0 is the directory.
    pub(super) async fn leader_of_group(&mut self, group: u32) -> anyhow::Result<String> {
        let region = self.nodes.first().context("there are no nodes")?.region.clone();
        let admin = self.client(&region).await?.admin();
        let mut leader = None;
        until(&format!("group {group} has a leader"), async || {
            let status = admin.group(group).await?.status;
            leader = status.and_then(|status| status.leader);
            Ok(leader.is_some())
        })
        .await?;
        self.node_name(leader.context("it has one")?)
    }

    fn node_name(&self, number: u64) -> anyhow::Result<String> {
        let at = usize::try_from(number)?.checked_sub(1);
        match at.and_then(|at| self.nodes.get(at)) {
            Some(node) => Ok(node.name.clone()),
            None => bail!("node {number} answered, which is not a node of this cluster"),
        }
    }

    async fn node_that_answers(&self, tenant: &Tenant, read: &ReadOptions) -> anyhow::Result<String> {
        let got = tenant.get_with("leader", read).await?;
        self.node_name(got.header.node.get())
    }
}

/// Creates a tenant if it does not exist.
pub(super) async fn ensure_tenant(client: Client, name: String, home: &str) -> anyhow::Result<()> {
    match client.admin().tenant(&name).await {
        Ok(_) => return Ok(()),
        Err(error) if matches!(error.kind, ErrorKind::TenantNotFound | ErrorKind::NotFound) => {}
        Err(error) => return Err(error).with_context(|| format!("tenant {name} cannot be looked up")),
    }
    let new = NewTenant {
        name: name.clone(),
        home_region: home.into(),
        ..NewTenant::default()
    };
    match client.admin().create_tenant(new).await {
        Ok(_) => Ok(()),
        Err(error) if error.kind == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error).with_context(|| format!("tenant {name} cannot be made")),
    }
}

/// Waits for a condition.
pub(super) async fn until(what: &str, mut holds: impl AsyncFnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let deadline = Instant::now() + WAIT_TIMEOUT;
    loop {
        match holds().await {
            Ok(true) => return Ok(()),
            Ok(false) if Instant::now() > deadline => bail!("timed out waiting: {what}"),
            Err(error) if Instant::now() > deadline => return Err(error.context(format!("timed out waiting: {what}"))),
            Ok(false) | Err(_) => sleep(POLL_INTERVAL).await,
        }
    }
}
