//! Shared state of a node: its directory view, its groups, the client of the directory, health and metrics.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use stead_api::{convert, peer_codec::PeerAlarms, proto::admin::v1 as admin};
use stead_raft::{Group, TypedGroup};
use stead_replication::{Freshness, Lag, SharedDirectoryView, TrafficCounters};
use stead_state::{
    directory::Tenant,
    logged_time::Alarm,
    shard::{Shard, read::TenantReader},
};
use stead_store::{engine::Kind, group_rows::IncompleteChange, health::Health, shard::ShardMachine};
use stead_types::{Epoch, Error, ErrorKind, GroupId, NodeId, RegionName, TenantName, TenantNumber};

use crate::{
    admin_peers::AdminPeers,
    config::ValidatedConfig,
    directory::DirectoryClient,
    health::{CheckResult, HealthChecks},
    metrics::{GroupSample, Metrics},
};

/// Longest wait for the directory view when a name is unknown.
const VIEW_WAIT: Duration = Duration::from_secs(3);
/// Longest wait for a tenant to be ready at its home: just created, or just moved there.
pub(crate) const READY_WAIT: Duration = Duration::from_secs(3);
/// Least free disk space of a ready node: room for a few log files and a checkpoint.
const DISK_FREE_MIB_MIN: u64 = 256;

/// A data group in which this node votes.
#[derive(Clone)]
pub(crate) struct HostedGroup {
    /// The Raft group.
    pub(crate) raft: TypedGroup<ShardMachine>,
    /// The state machine with the tenants' data.
    pub(crate) machine: Arc<ShardMachine>,
    /// Freshness of the tenants that the group follows.
    pub(crate) freshness: Arc<Freshness>,
}

impl HostedGroup {
    /// Returns the epoch of a tenant's record in this group, if there is a record.
    pub(crate) fn epoch(&self, tenant: TenantNumber) -> Option<Epoch> {
        let epoch = self.machine.read(|view| view.record(tenant).map(|record| record.epoch));
        epoch.ok().flatten()
    }

    /// Tells whether this group owns a tenant, according to its own log.
    pub(crate) fn owns(&self, tenant: TenantNumber) -> bool {
        let owns = self
            .machine
            .read(|view| view.record(tenant).is_some_and(|record| record.owned().is_some()));
        owns.unwrap_or(false)
    }

    /// Reads a tenant's data if its record is readable. The closure must not block.
    ///
    /// # Errors
    ///
    /// When the group's rows are closed.
    pub(crate) fn read_if_readable<T>(
        &self,
        tenant: TenantNumber,
        read: impl FnOnce(Option<TenantReader<'_>>) -> T,
    ) -> Result<T, Error> {
        self.read_tenant(tenant, |reading| {
            read(reading.filter(|reading| Shard::is_readable(reading.record())))
        })
    }

    /// Reads a tenant's data. The closure must not block.
    ///
    /// # Errors
    ///
    /// When the group's rows are closed.
    pub(crate) fn read_tenant<T>(
        &self,
        tenant: TenantNumber,
        read: impl FnOnce(Option<TenantReader<'_>>) -> T,
    ) -> Result<T, Error> {
        self.machine
            .read(|view| read(view.reading(tenant)))
            .map_err(|incomplete| storage_unavailable(&incomplete))
    }
}

/// Returns the error of a request that needs rows which are closed: this node is about to stop, and other nodes have
/// the rows.
pub(crate) fn storage_unavailable(incomplete: &IncompleteChange) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!("this node is stopping, try another one: {incomplete}"),
    )
}

/// Shared state of a node.
pub(crate) struct Host {
    /// The node's configuration.
    pub(crate) config: ValidatedConfig,
    /// Its directory view.
    pub(crate) directory_view: SharedDirectoryView,
    /// Client of the directory's leader.
    pub(crate) directory: Arc<DirectoryClient>,
    /// The data groups in which it votes.
    pub(crate) groups: BTreeMap<GroupId, HostedGroup>,
    /// Channels to other nodes' client listeners.
    pub(crate) admin_peers: AdminPeers,
    /// Readiness checks of this node.
    pub(crate) readiness: HealthChecks,
    /// Readiness checks of its region.
    pub(crate) region_readiness: HealthChecks,
    /// Metrics.
    pub(crate) metrics: Metrics,
    /// Traffic sent from region to region.
    pub(crate) traffic: Arc<TrafficCounters>,
    /// Messages of other nodes that could not be read.
    pub(crate) peer_alarms: PeerAlarms,
    /// Start time in milliseconds since 1970.
    pub(crate) started_ms: u64,
    /// Failure of the node, if any, and its retries.
    pub(crate) health: Health,
    /// Set while the node stops: it takes no more work.
    pub(crate) draining: AtomicBool,
    /// Returns the bytes of disk that the rows use.
    pub(crate) disk_len: Box<dyn Fn() -> u64 + Send + Sync>,
}

impl Host {
    /// Returns a tenant by its name. A name that the view does not have is reported as unknown only once the view has
    /// reached a version of the directory that was read after this call.
    pub(crate) async fn resolve(&self, name: &TenantName) -> Result<Arc<Tenant>, Error> {
        if let Some(tenant) = self.tenant_in_view(name) {
            return Ok(tenant);
        }
        let version = self.directory.version().await?;
        if !self.directory_view.wait_for(version, VIEW_WAIT).await {
            let message = format!("this node's copy of the directory is behind {version}; try another node");
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        let unknown = || {
            Error::new(
                ErrorKind::TenantNotFound,
                format!("there is no tenant {name}: create it first"),
            )
        };
        self.tenant_in_view(name).ok_or_else(unknown)
    }

    /// Returns a tenant from the directory view.
    pub(crate) fn tenant_in_view(&self, name: &TenantName) -> Option<Arc<Tenant>> {
        self.directory_view.read(|view| view.tenant_named(name).cloned())
    }

    /// Returns the client addresses of a group's voters.
    pub(crate) fn client_addresses(&self, group: GroupId) -> Vec<String> {
        self.directory_view.read(|view| {
            let voters = view.group(group).map(|group| group.voters.clone()).unwrap_or_default();
            voters
                .into_iter()
                .filter_map(|voter| Some(view.node(voter)?.addresses.client.clone()))
                .collect()
        })
    }

    /// Returns a node's client address.
    pub(crate) fn client_address(&self, node: NodeId) -> Option<String> {
        self.directory_view
            .read(|view| Some(view.node(node)?.addresses.client.clone()))
    }

    /// Returns a group of this node, the directory included.
    pub(crate) fn raft_group(&self, group: GroupId) -> Option<Group> {
        if group == GroupId::DIRECTORY {
            return self
                .directory
                .local_voter()
                .map(|local_voter| local_voter.group.untyped());
        }
        self.groups.get(&group).map(|hosted| hosted.raft.untyped())
    }

    fn raft_groups(&self) -> impl Iterator<Item = Group> + '_ {
        let directory = self
            .directory
            .local_voter()
            .map(|local_voter| local_voter.group.untyped());
        directory
            .into_iter()
            .chain(self.groups.values().map(|hosted| hosted.raft.untyped()))
    }

    /// Returns the status of a group, as this node sees it.
    pub(crate) fn group_status(&self, group: GroupId) -> Option<admin::GroupStatus> {
        let raft = self.raft_group(group)?;
        let numbers = raft.metrics();
        let clocks = raft.clocks().unwrap_or_default();
        let voter = |voter: &NodeId| {
            let found = numbers.replicated.iter().find(|(node, _)| node == voter);
            admin::VoterStatus {
                node: voter.get(),
                matched_index: found.map(|(_, index)| *index),
                clock_ahead: clocks.clocks.get(voter).copied().map(convert::read::clock_difference),
            }
        };
        Some(admin::GroupStatus {
            // A leader that is not heard of, or that does not reach its majority, is not reported.
            leader: numbers
                .leadership
                .leader
                .filter(|_| raft.is_connected())
                .map(NodeId::get),
            term: numbers.leadership.term,
            applied_index: numbers.applied,
            durable_index: numbers.checkpoint,
            voters: numbers.voters.iter().map(voter).collect(),
            logged_time_ahead: clocks.logged.map(convert::read::clock_difference),
        })
    }

    /// Returns the status of this node.
    pub(crate) fn status(&self) -> admin::NodeStatus {
        let seconds = i64::try_from(self.started_ms / 1000).unwrap_or(i64::MAX);
        let nanos = i32::try_from((self.started_ms % 1000) * 1_000_000).unwrap_or(0);
        let ready = self.readiness.report();
        admin::NodeStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            start_time: Some(prost_types::Timestamp { seconds, nanos }),
            ready: ready.is_ready(),
            leads: self
                .raft_groups()
                .filter(Group::is_leader)
                .map(|group| group.id().get())
                .collect(),
            view_version: Some(stead_api::convert::id::from_directory_version(
                self.directory_view.version(),
            )),
            engine: self.config.engine.clone(),
            disk_used_bytes: (self.disk_len)(),
            disk_free_bytes: disk_free(&self.config.data_dir),
            memory_bytes: memory(),
            lease_left: None,
            warnings: ready.warnings(),
        }
    }

    /// Returns the lag of each follower group of a region that this node leads.
    pub(crate) fn lags(&self, region: &RegionName) -> Vec<admin::FollowerLag> {
        if *region != self.config.node.region {
            return Vec::new();
        }
        let region_of = |group| {
            self.directory_view
                .read(|view| view.region_of(group).map(|region| region.name.to_string()))
        };
        let lag = |(group, lag): (GroupId, Lag)| admin::FollowerLag {
            home_group: lag.home.get(),
            home_region: region_of(lag.home).unwrap_or_default(),
            follower_group: group.get(),
            follower_region: region.to_string(),
            connected: lag.connected,
            applied_offset: lag.offset.index,
            staleness: lag.staleness.map(stead_api::convert::read::duration),
            attached_tenants: lag.attached,
            detached_tenants: lag.detached,
            unreadable_tenants: lag.unreadable,
        };
        let led = self.groups.iter().filter(|(_, hosted)| hosted.raft.is_leader());
        let lags = led.flat_map(|(id, hosted)| hosted.freshness.lags().into_iter().map(|lag| (*id, lag)));
        lags.map(lag).collect()
    }

    /// Updates the metrics and returns them as text for Prometheus.
    pub(crate) fn metrics_text(&self) -> String {
        self.metrics.forget_clocks();
        for group in self.raft_groups() {
            let numbers = group.metrics();
            if let Some(report) = group.clocks() {
                self.metrics.clocks(group.id(), &report);
            }
            self.metrics.group(GroupSample {
                group: group.id().get(),
                is_leader: numbers.leadership.is_here,
                term: numbers.leadership.term,
                applied: numbers.applied,
                durable: numbers.checkpoint,
                purged: numbers.purged,
                differs: group.differs(),
            });
        }
        for (pair, bytes) in self.traffic.totals() {
            self.metrics.traffic(&pair, bytes);
        }
        for lag in self
            .groups
            .iter()
            .flat_map(|(id, hosted)| hosted.freshness.lags().into_iter().map(|lag| (*id, lag)))
        {
            self.metrics.lag(lag.0, &lag.1);
        }
        for (part, total) in self.health.retries() {
            self.metrics.retries(part, total);
        }
        let (index, tenants) = self
            .directory_view
            .read(|view| (view.version().index, view.tenant_count()));
        self.metrics.peers(&self.peer_alarms);
        self.metrics.view(index, tenants);
        self.metrics.ready(self.readiness.report().is_ready());
        self.metrics.text()
    }

    /// Adds the readiness checks of the node and of its region.
    pub(crate) fn add_checks(self: &Arc<Self>) {
        let host = Arc::downgrade(self);
        self.readiness.add("draining", move || match host.upgrade() {
            Some(host) if !host.draining.load(Ordering::Relaxed) => Ok("no".into()),
            Some(_) | None => Err("the node is stopping".into()),
        });
        let health = self.health.clone();
        self.readiness.add("failures", move || match health.failure() {
            None => Ok("none".into()),
            Some(failure) => Err(format!("{failure}: {}", failure.source)),
        });
        let directory_view = self.directory_view.clone();
        self.readiness.add("directory view", move || {
            let (version, nodes) = directory_view.read(|view| (view.version(), view.nodes().count()));
            if nodes > 0 {
                Ok(format!("at {version}"))
            } else {
                Err("not loaded yet".into())
            }
        });
        if self.config.engine != Kind::Memory.to_string() {
            let data_dir = self.config.data_dir.clone();
            self.readiness.add("disk", move || {
                let free = disk_free(&data_dir) >> 20;
                if free < DISK_FREE_MIB_MIN {
                    Err(format!(
                        "{free} MiB are free, at least {DISK_FREE_MIB_MIN} are needed: free disk space before writes fail"
                    ))
                } else {
                    Ok(format!("{free} MiB are free"))
                }
            });
        }
        let groups: Vec<Group> = self.raft_groups().collect();
        self.readiness.add_warning("clocks", move || clocks(&groups));
        for (id, hosted) in &self.groups {
            let (raft, name) = (hosted.raft.clone(), format!("group {id}"));
            let leader = move || match raft.leader() {
                Some(_) if !raft.is_connected() && raft.is_leader() => {
                    Err(format!("{name} is led by this node, and its majority does not respond"))
                }
                Some(leader) if !raft.is_connected() => Err(format!("{name} has no contact with its leader {leader}")),
                Some(leader) => Ok(format!("{name} is led by {leader}")),
                None => Err(format!("{name} has no leader that this node knows")),
            };
            self.region_readiness.add("leader", leader.clone());
            self.readiness.add("leader", leader);
        }
    }
}

/// Reports the voters' wall clocks that are wrong, of the groups that this node leads.
fn clocks(groups: &[Group]) -> CheckResult {
    let mut wrong = Vec::new();
    let mut led = 0;
    for group in groups {
        let Some(report) = group.clocks() else { continue };
        led += 1;
        wrong.extend(
            report
                .alarms
                .into_iter()
                .map(|(alarm, micros)| wrong_clock(group, alarm, micros)),
        );
    }
    if wrong.is_empty() {
        Ok(format!("right in {led} groups that this node leads"))
    } else {
        Err(wrong.join("; "))
    }
}

fn wrong_clock(group: &Group, alarm: Alarm, micros: i64) -> String {
    let group = group.id();
    let way = if micros < 0 { "behind" } else { "ahead of" };
    let seconds = micros.unsigned_abs() / 1_000_000;
    match alarm {
        Alarm::Clock(node) => {
            format!("the wall clock of node {node} is {seconds} s {way} the median in group {group}: look at NTP there")
        }
        Alarm::LoggedTime => format!("logged time of group {group} is {seconds} s {way} the median of its clocks"),
        Alarm::Unsteered => {
            format!(
                "logged time of group {group} follows the boot clock alone: fewer than three of its voters report their clocks"
            )
        }
    }
}

#[expect(unsafe_code, reason = "statvfs has no safe form in the standard library")]
fn disk_free(path: &std::path::Path) -> u64 {
    use std::os::unix::ffi::OsStrExt;
    let Ok(path) = std::ffi::CString::new(path.as_os_str().as_bytes()) else {
        return 0;
    };
    // SAFETY: statvfs is plain data, and the path is a C string that outlives the call.
    let (code, stat) = unsafe {
        let mut stat: libc::statvfs = std::mem::zeroed();
        (libc::statvfs(path.as_ptr(), &mut stat), stat)
    };
    if code == 0 {
        stat.f_bavail.saturating_mul(stat.f_frsize)
    } else {
        0
    }
}

/// Returns the resident memory of this process in bytes; zero where the system does not report it.
fn memory() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .unwrap_or(0);
    pages * 4096
}
