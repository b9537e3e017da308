//! What everything on a node shares: its view, its groups, the way to the directory.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use stead_api::{convert, peer_codec::PeerAlarms, proto::admin::v1 as admin};
use stead_raft::Group;
use stead_replication::{Counters, Freshness, Lag, Views};
use stead_state::{
    directory::Tenant,
    logged_time::Alarm,
    shard::{Shard, read::Reading},
};
use stead_store::{engine::Kind, group_rows::HalfChanged, health::Health, shard::ShardMachine};
use stead_types::{Epoch, Error, ErrorKind, GroupId, NodeId, RegionName, TenantName, TenantNumber};

use crate::{
    config::Checked,
    directory::Directory,
    health::{Checks, Finding},
    metrics::{GroupSample, Metrics},
    neighbours::Neighbours,
};

/// How long a node waits for its view when a name is unknown to it.
const VIEW_WAIT: Duration = Duration::from_secs(3);
/// A node with less room than a few files of the log and a checkpoint take is not ready.
const DISK_FREE_MIB_MIN: u64 = 256;

/// A data group of this node.
#[derive(Clone)]
pub(crate) struct Hosted {
    /// The group.
    pub(crate) raft: Group,
    /// What it holds.
    pub(crate) machine: Arc<ShardMachine>,
    /// How fresh the tenants that it follows are.
    pub(crate) freshness: Arc<Freshness>,
}

impl Hosted {
    /// Returns the epoch that a tenant's record here has, if there is one.
    pub(crate) fn epoch(&self, tenant: TenantNumber) -> Option<Epoch> {
        let epoch = self.machine.read(|view| view.record(tenant).map(|record| record.epoch));
        epoch.ok().flatten()
    }

    /// Tells whether this group owns a tenant in its own log.
    pub(crate) fn owns(&self, tenant: TenantNumber) -> bool {
        let owns = self
            .machine
            .read(|view| view.record(tenant).is_some_and(|record| record.owned().is_some()));
        owns.unwrap_or(false)
    }

    /// Reads a tenant's data where the group may be asked for it; nothing may wait inside.
    ///
    /// # Errors
    ///
    /// When its rows are closed.
    pub(crate) fn readable<T>(
        &self,
        tenant: TenantNumber,
        read: impl FnOnce(Option<Reading<'_>>) -> T,
    ) -> Result<T, Error> {
        self.reading(tenant, |reading| {
            read(reading.filter(|reading| Shard::is_readable(reading.record())))
        })
    }

    /// Reads a tenant's data; nothing may wait inside.
    ///
    /// # Errors
    ///
    /// When its rows are closed.
    pub(crate) fn reading<T>(
        &self,
        tenant: TenantNumber,
        read: impl FnOnce(Option<Reading<'_>>) -> T,
    ) -> Result<T, Error> {
        self.machine
            .read(|view| read(view.reading(tenant)))
            .map_err(|half_changed| storage_failed(&half_changed))
    }
}

/// The error of whatever needs rows that are closed: another node has them, and this one is about to stop.
pub(crate) fn storage_failed(half_changed: &HalfChanged) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!("this node stops, try another one: {half_changed}"),
    )
}

/// What everything on a node shares.
pub(crate) struct Host {
    /// The node's configuration.
    pub(crate) config: Checked,
    /// Its view of the directory.
    pub(crate) views: Views,
    /// The way to the directory's leader.
    pub(crate) directory: Arc<Directory>,
    /// The data groups in which it votes.
    pub(crate) groups: BTreeMap<GroupId, Hosted>,
    /// Channels to other nodes' client listeners.
    pub(crate) neighbours: Neighbours,
    /// Whether this node can serve.
    pub(crate) ready: Checks,
    /// Whether its region can serve.
    pub(crate) region_ready: Checks,
    /// What it counts.
    pub(crate) counts: Metrics,
    /// What it has sent over borders.
    pub(crate) borders: Arc<Counters>,
    /// What came from other nodes and could not be taken.
    pub(crate) peer_alarms: PeerAlarms,
    /// When it started, in milliseconds since 1970.
    pub(crate) started: u64,
    /// Whether the node can go on, and what was retried.
    pub(crate) health: Health,
    /// It takes no more work.
    pub(crate) draining: AtomicBool,
    /// Bytes of disk that its rows use, asked when needed.
    pub(crate) disk_len: Box<dyn Fn() -> u64 + Send + Sync>,
}

impl Host {
    /// Returns a tenant by its name. A name that the view does not know is unknown only when the view has reached a
    /// version of the directory that was read after this call.
    pub(crate) async fn resolve(&self, name: &TenantName) -> Result<Arc<Tenant>, Error> {
        if let Some(tenant) = self.known(name) {
            return Ok(tenant);
        }
        let version = self.directory.version().await?;
        if !self.views.reach(version, VIEW_WAIT).await {
            let message = format!("this node's copy of the directory is behind {version}; try another node");
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        let unknown = || {
            Error::new(
                ErrorKind::TenantNotFound,
                format!("there is no tenant {name}: create it first"),
            )
        };
        self.known(name).ok_or_else(unknown)
    }

    /// Returns a tenant that the view knows.
    pub(crate) fn known(&self, name: &TenantName) -> Option<Arc<Tenant>> {
        self.views.read(|view| view.tenant_named(name).cloned())
    }

    /// Returns the client addresses of a group's voters.
    pub(crate) fn client_addresses(&self, group: GroupId) -> Vec<String> {
        self.views.read(|view| {
            let voters = view.group(group).map(|group| group.voters.clone()).unwrap_or_default();
            voters
                .into_iter()
                .filter_map(|voter| Some(view.node(voter)?.addresses.client.clone()))
                .collect()
        })
    }

    /// Returns a node's client address.
    pub(crate) fn client_address(&self, node: NodeId) -> Option<String> {
        self.views.read(|view| Some(view.node(node)?.addresses.client.clone()))
    }

    /// Returns a group of this node, the directory included.
    pub(crate) fn raft_group(&self, group: GroupId) -> Option<Group> {
        if group == GroupId::DIRECTORY {
            return self.directory.seat().map(|seat| seat.group.clone());
        }
        self.groups.get(&group).map(|hosted| hosted.raft.clone())
    }

    fn raft_groups(&self) -> impl Iterator<Item = Group> + '_ {
        let directory = self.directory.seat().map(|seat| seat.group.clone());
        directory
            .into_iter()
            .chain(self.groups.values().map(|hosted| hosted.raft.clone()))
    }

    /// Says how a group is, as this node sees it.
    pub(crate) fn group_status(&self, group: GroupId) -> Option<admin::GroupStatus> {
        let raft = self.raft_group(group)?;
        let numbers = raft.numbers();
        let clocks = raft.clocks().unwrap_or_default();
        let voter = |voter: &NodeId| {
            let found = numbers.replicated.iter().find(|(node, _)| node == voter);
            admin::VoterStatus {
                node: voter.get(),
                matched_index: found.map(|(_, index)| *index),
                clock_ahead: clocks.clocks.get(voter).copied().map(convert::read::distance),
            }
        };
        Some(admin::GroupStatus {
            // A leader that is not heard of, or that does not reach its majority, leads nobody.
            leader: numbers
                .leadership
                .leader
                .filter(|_| raft.is_in_touch())
                .map(NodeId::get),
            term: numbers.leadership.term,
            applied_index: numbers.applied,
            durable_index: numbers.checkpoint,
            voters: numbers.voters.iter().map(voter).collect(),
            logged_time_ahead: clocks.logged.map(convert::read::distance),
        })
    }

    /// Says how this node is.
    pub(crate) fn status(&self) -> admin::NodeStatus {
        let seconds = i64::try_from(self.started / 1000).unwrap_or(i64::MAX);
        let nanos = i32::try_from((self.started % 1000) * 1_000_000).unwrap_or(0);
        let ready = self.ready.report();
        admin::NodeStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            start_time: Some(prost_types::Timestamp { seconds, nanos }),
            ready: ready.is_ready(),
            leads: self
                .raft_groups()
                .filter(Group::is_leader)
                .map(|group| group.id().get())
                .collect(),
            view_version: Some(stead_api::convert::id::from_directory_version(self.views.version())),
            engine: self.config.engine.clone(),
            disk_used_bytes: (self.disk_len)(),
            disk_free_bytes: disk_free(&self.config.data_dir),
            memory_bytes: memory(),
            lease_left: None,
            warnings: ready.warnings(),
        }
    }

    /// How far the groups of a region that this node leads are behind the homes that they follow.
    pub(crate) fn lags(&self, region: &RegionName) -> Vec<admin::FollowerLag> {
        if *region != self.config.node.region {
            return Vec::new();
        }
        let region_of = |group| {
            self.views
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

    /// Everything that is counted, as text for Prometheus.
    pub(crate) fn metrics(&self) -> String {
        self.counts.forget_clocks();
        for group in self.raft_groups() {
            let numbers = group.numbers();
            if let Some(report) = group.clocks() {
                self.counts.clocks(group.id(), &report);
            }
            self.counts.group(GroupSample {
                group: group.id().get(),
                is_leader: numbers.leadership.is_here,
                term: numbers.leadership.term,
                applied: numbers.applied,
                durable: numbers.checkpoint,
                differs: group.differs(),
            });
        }
        for (border, bytes) in self.borders.totals() {
            self.counts.border(&border, bytes);
        }
        for lag in self
            .groups
            .iter()
            .flat_map(|(id, hosted)| hosted.freshness.lags().into_iter().map(|lag| (*id, lag)))
        {
            self.counts.lag(lag.0, &lag.1);
        }
        for (part, total) in self.health.retries() {
            self.counts.retries(part, total);
        }
        let (index, tenants) = self.views.read(|view| (view.version().index, view.tenant_count()));
        self.counts.peers(&self.peer_alarms);
        self.counts.view(index, tenants);
        self.counts.ready(self.ready.report().is_ready());
        self.counts.text()
    }

    /// Adds what must hold for this node to serve.
    pub(crate) fn add_checks(self: &Arc<Self>) {
        let host = Arc::downgrade(self);
        self.ready.add("draining", move || match host.upgrade() {
            Some(host) if !host.draining.load(Ordering::Relaxed) => Ok("no".into()),
            Some(_) | None => Err("the node is stopping".into()),
        });
        let health = self.health.clone();
        self.ready.add("parts", move || match health.failure() {
            None => Ok("all are well".into()),
            Some(failure) => Err(format!("{failure}: {}", failure.source)),
        });
        let views = self.views.clone();
        self.ready.add("directory view", move || {
            let (version, nodes) = views.read(|view| (view.version(), view.nodes().count()));
            if nodes > 0 {
                Ok(format!("at {version}"))
            } else {
                Err("not loaded yet".into())
            }
        });
        if self.config.engine != Kind::Memory.to_string() {
            let data_dir = self.config.data_dir.clone();
            self.ready.add("disk", move || {
                let free = disk_free(&data_dir) >> 20;
                if free < DISK_FREE_MIB_MIN {
                    Err(format!(
                        "{free} MiB are free, less than {DISK_FREE_MIB_MIN}; make room before writing fails"
                    ))
                } else {
                    Ok(format!("{free} MiB are free"))
                }
            });
        }
        let groups: Vec<Group> = self.raft_groups().collect();
        self.ready.advise("clocks", move || clocks(&groups));
        for (id, hosted) in &self.groups {
            let (raft, name) = (hosted.raft.clone(), format!("group {id}"));
            let leader = move || match raft.leader() {
                Some(_) if !raft.is_in_touch() && raft.is_leader() => {
                    Err(format!("{name} is led by this node, and its majority does not answer"))
                }
                Some(leader) if !raft.is_in_touch() => Err(format!("{name} hears nothing of {leader}, its leader")),
                Some(leader) => Ok(format!("{name} is led by {leader}")),
                None => Err(format!("{name} has no leader that this node knows")),
            };
            self.region_ready.add("leader", leader.clone());
            self.ready.add("leader", leader);
        }
    }
}

/// Says how the wall clocks of the voters are, as far as this node leads.
fn clocks(groups: &[Group]) -> Finding {
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
            format!("logged time of group {group} goes by the boot clock alone: fewer than three of its voters answer")
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
    let (asked, stat) = unsafe {
        let mut stat: libc::statvfs = std::mem::zeroed();
        (libc::statvfs(path.as_ptr(), &mut stat), stat)
    };
    if asked == 0 {
        stat.f_bavail.saturating_mul(stat.f_frsize)
    } else {
        0
    }
}

/// Resident memory of this process, in bytes; zero where the system does not say.
fn memory() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .unwrap_or(0);
    pages * 4096
}
