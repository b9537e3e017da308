//! Readiness of a node and of its region: what is checked whenever someone asks.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use stead_raft::Group;
use stead_replication::SharedDirectoryView;
use stead_state::logged_time::Alarm;
use stead_store::{engine::Kind, health::Health};
use stead_types::GroupId;

use super::hosted_group::{HostedGroups, raft_groups};
use crate::{
    config::ValidatedConfig,
    directory::DirectoryClient,
    health::{CheckResult, HealthChecks},
    lease::{LeaseLost, NodeLeases},
    resources::Resources,
};

/// Readiness checks of a node and of its region.
pub(crate) struct Readiness {
    /// Checks of this node.
    pub(crate) node: HealthChecks,
    /// Checks of its region.
    pub(crate) region: HealthChecks,
    /// Set while the node stops: it takes no more work.
    draining: Arc<AtomicBool>,
}

/// Parts of a node that are checked.
#[derive(Clone, Copy)]
pub(crate) struct ReadinessSubjects<'a> {
    /// The node's configuration.
    pub(crate) config: &'a ValidatedConfig,
    /// Disk that it has left.
    pub(crate) resources: Resources,
    /// Failure of the node, if any.
    pub(crate) health: &'a Health,
    /// Its directory view.
    pub(crate) directory_view: &'a SharedDirectoryView,
    /// Client of the directory, which may be a group of this node.
    pub(crate) directory: &'a DirectoryClient,
    /// The data groups in which it votes.
    pub(crate) groups: &'a HostedGroups,
    /// Its leases.
    pub(crate) leases: &'a NodeLeases,
}

impl Readiness {
    /// Returns the checks of a node.
    pub(crate) fn new(subjects: ReadinessSubjects<'_>) -> Self {
        let readiness = Self {
            node: HealthChecks::default(),
            region: HealthChecks::default(),
            draining: Arc::default(),
        };
        readiness.add_node_checks(subjects);
        let groups: Vec<Group> = raft_groups(subjects.directory, subjects.groups).collect();
        readiness.node.add_warning("clocks", move || clocks(&groups));
        if let Some(directory) = subjects.directory.local_voter() {
            // Its groups serve on while their leases last, so that the node stays ready.
            readiness
                .node
                .add_warning("directory", leader_check("the directory", &directory.group));
        }
        for (id, hosted) in subjects.groups {
            readiness.add_leader_check(*id, &hosted.raft);
            let (leases, view, group) = (subjects.leases.clone(), subjects.directory_view.clone(), *id);
            readiness.node.add("lease", move || {
                let version = view.version();
                lease(group, leases.left(version, group), leases.lost(version, group))
            });
        }
        readiness
    }

    /// Makes the node not ready: it stops.
    pub(super) fn start_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    fn add_node_checks(&self, subjects: ReadinessSubjects<'_>) {
        let draining = self.draining.clone();
        self.node.add("draining", move || {
            if draining.load(Ordering::Relaxed) {
                Err("the node is stopping".into())
            } else {
                Ok("no".into())
            }
        });
        let health = subjects.health.clone();
        self.node.add("failures", move || match health.failure() {
            None => Ok("none".into()),
            Some(failure) => Err(format!("{failure}: {}", failure.source)),
        });
        let directory_view = subjects.directory_view.clone();
        self.node.add("directory view", move || {
            let (version, nodes) = directory_view.read(|view| (view.version(), view.nodes().count()));
            if nodes > 0 {
                Ok(format!("at {version}"))
            } else {
                Err("not loaded yet".into())
            }
        });
        if subjects.config.engine != Kind::Memory.to_string() {
            let data_dir = subjects.config.data_dir.clone();
            let (disk_free, reserve) = (subjects.resources.disk_free, subjects.config.disk_reserve);
            // It serves reads and deletes, also where all disks of a group are full.
            self.node
                .add_warning("disk", move || disk(disk_free(&data_dir), reserve));
        }
    }

    /// Adds the check that a group has a leader: of the node, and of its region.
    fn add_leader_check(&self, group: GroupId, raft: &Group) {
        let leader = leader_check(&format!("group {group}"), raft);
        self.region.add("leader", leader.clone());
        self.node.add("leader", leader);
    }
}

/// Returns the check that a group has a leader, with a majority, that this node hears from.
fn leader_check(name: &str, raft: &Group) -> impl Fn() -> CheckResult + Clone + Send + Sync + use<> {
    let (raft, name) = (raft.clone(), name.to_owned());
    move || match raft.leader() {
        Some(_) if !raft.is_connected() && raft.is_leader() => {
            Err(format!("{name} is led by this node, and its majority does not respond"))
        }
        Some(leader) if !raft.is_connected() => Err(format!("{name} has no contact with its leader {leader}")),
        Some(leader) => Ok(format!("{name} is led by {leader}")),
        None => Err(format!("{name} has no leader that this node knows")),
    }
}

/// Checks that a lease of a group counts.
fn lease(group: GroupId, left: Duration, lost: Option<LeaseLost>) -> CheckResult {
    match left {
        Duration::ZERO => {
            let lasted = lost.map_or(0, |lost| lost.lasted.as_secs());
            Err(format!(
                "group {group} has had no lease for {lasted} s: this node cannot reach the directory's leader, and serves as \
                 a home only tenants that go on without one"
            ))
        }
        Duration::MAX => Ok(format!(
            "group {group} needs none: the directory's leader grants none yet"
        )),
        left => Ok(format!("group {group} has one for {} s", left.as_secs())),
    }
}

/// Checks that so many free bytes of disk are not below the reserve; `None` where they are unknown.
fn disk(free: Option<u64>, reserve: u64) -> CheckResult {
    let Some(free) = free else {
        return Ok("free space is unknown".into());
    };
    let (free_mib, reserve_mib) = (free >> 20, reserve >> 20);
    if free < reserve {
        Err(format!(
            "{free_mib} MiB are free, below the reserve of {reserve_mib} MiB: writes that need room are refused where a \
             majority of a group is so; free disk space, or delete keys"
        ))
    } else {
        Ok(format!("{free_mib} MiB are free, the reserve is {reserve_mib} MiB"))
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
