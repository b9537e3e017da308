//! Shared context of the tasks of one group on one node.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use stead_api::peer_codec::PeerAlarms;
use stead_raft::TypedGroup;
use stead_state::sent_ledger::SentPart;
use stead_state::{
    directory::DirectoryView,
    rows::Unreadable,
    shard::{
        feed_validation::InvalidFeedData,
        record::{Role, TenantRecord},
    },
};
use stead_store::{health::NodeFailure, sent_log::SentLog, shard::ShardMachine};
use stead_types::{DirectoryVersion, Epoch, Error, GroupId, NodeId, TenantNumber};
use tokio::{sync::watch, time::sleep};
use tonic::{Code, Status};

use crate::{
    acknowledgements::Acknowledgements,
    completed_pulls::Pulls,
    directory_view::SharedDirectoryView,
    epochs_seen::EpochsSeen,
    freshness::Freshness,
    heirs::Heirs,
    outgoing_seeds::OutgoingSeeds,
    traffic::{RegionPair, TrafficCounters},
    wire::{InvalidMessage, TenantPosition},
};

/// Function that returns how long this node's lease of a group still lasts; `None` without one that counts by the
/// directory view.
pub type LeaseLeft = Arc<dyn Fn(GroupId) -> Option<Duration> + Send + Sync>;

/// Function that returns the wall clock, in milliseconds since 1970.
pub type WallClock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Function that tells whether a group with these voters takes entries that need room on their disks.
pub type RoomCheck = Arc<dyn Fn(BTreeSet<NodeId>) -> Result<(), Error> + Send + Sync>;

/// Interval of looks for room.
const ROOM_INTERVAL: Duration = Duration::from_millis(250);
const WAITING_FOR_ROOM: &str = "waiting for disk space before changes of a home are applied";
/// Interval of attempts to record what is to be sent.
const RECORD_INTERVAL: Duration = Duration::from_millis(250);
const RECORDING_SENT: &str = "recording what is about to be sent: it is not sent before";

/// One group of this node, with the state that its replication tasks share.
pub(crate) struct GroupContext {
    pub(crate) group: TypedGroup<ShardMachine>,
    pub(crate) machine: Arc<ShardMachine>,
    pub(crate) directory_view: SharedDirectoryView,
    pub(crate) counters: Arc<TrafficCounters>,
    /// Durable ledger of what this node sends, for residency evidence.
    pub(crate) sent: Arc<SentLog>,
    pub(crate) acknowledgements: Arc<Acknowledgements>,
    pub(crate) freshness: Arc<Freshness>,
    pub(crate) alarms: PeerAlarms,
    /// Leases of this node.
    pub(crate) lease_left: LeaseLeft,
    /// Epochs that other nodes have shown.
    pub(crate) epochs_seen: EpochsSeen,
    /// Wall clock of this node.
    pub(crate) wall: WallClock,
    /// Room on the disks of the group's voters.
    pub(crate) room: RoomCheck,
    /// Readiness of heirs, on the leader of their home.
    pub(crate) heirs: Heirs,
    /// Seeds that this home sends, while this node leads it.
    pub(crate) seeds: Arc<OutgoingSeeds>,
    /// Pulls of this group that are complete, while this node leads it.
    pub(crate) pulls: Pulls,
    /// Wakes the streams of this home when it has relinquished a tenant.
    pub(crate) handovers: watch::Sender<()>,
    /// Wakes the reconciler when this group has taken a tenant over: the directory is to be told.
    pub(crate) taken_over: watch::Sender<()>,
}

impl GroupContext {
    pub(crate) fn id(&self) -> GroupId {
        self.group.id()
    }

    /// Returns how long this node's lease of the group still lasts; `None` without one that counts.
    pub(crate) fn lease(&self) -> Option<Duration> {
        (self.lease_left)(self.id())
    }

    /// Waits until the disks of the group's voters have room for what a home sends.
    pub(crate) async fn wait_for_room(&self) {
        let mut has_waited = false;
        while let Err(error) = (self.room)(self.group.metrics().voters) {
            has_waited = true;
            self.record_retry(WAITING_FOR_ROOM, &error);
            sleep(ROOM_INTERVAL).await;
        }
        if has_waited {
            self.succeeded(WAITING_FOR_ROOM);
        }
    }

    /// Records durably what is about to be sent to another group. Nothing is sent before.
    ///
    /// # Errors
    ///
    /// The group has left the directory since this was admitted: nothing is recorded, and nothing may be sent.
    pub(crate) async fn record_sent(&self, to: GroupId, parts: &[SentPart]) -> Result<(), Status> {
        if parts.is_empty() {
            return Ok(());
        }
        let region = self.directory_view.read(|view| Some(view.region_of(to)?.name.clone()));
        let region = region
            .ok_or_else(|| Status::failed_precondition(format!("group {to} is not in the directory any more")))?;
        let mut has_failed = false;
        while let Err(error) = self.sent.record(&region, parts, (self.wall)()).await {
            has_failed = true;
            self.record_retry(RECORDING_SENT, &error);
            sleep(RECORD_INTERVAL).await;
        }
        if has_failed {
            self.succeeded(RECORDING_SENT);
        }
        Ok(())
    }

    /// Takes note of the epochs in which a follower has followed tenants.
    pub(crate) fn see_epochs<'a>(&self, positions: impl Iterator<Item = &'a TenantPosition>) {
        // If the rows are closed the node stops.
        let _ = self.machine.read(|held| {
            for position in positions {
                if let Some(record) = held.record(position.tenant) {
                    self.epochs_seen.see(position.tenant, position.epoch, record);
                }
            }
        });
    }

    /// Stops the node: its storage could not be read.
    pub(crate) fn fail_unreadable(&self, unreadable: Unreadable) {
        let failure = NodeFailure::of_group(self.id(), "reading rows", unreadable);
        self.group.health().fail(failure);
    }

    /// Reports that a part of the group's work failed and will be retried.
    pub(crate) fn record_retry(&self, part: &'static str, error: &(dyn std::error::Error + 'static)) {
        self.group.health().record_retry(Some(self.id()), part, error);
    }

    /// Reports that a part of the group's work succeeded.
    pub(crate) fn succeeded(&self, part: &'static str) {
        self.group.health().succeeded(Some(self.id()), part);
    }

    /// Raises an alarm about feed data of a tenant that its home has sent and that is not proposed.
    pub(crate) fn report_invalid_data(&self, home: GroupId, tenant: TenantNumber, why: &InvalidFeedData) {
        self.alarms.record_unreadable();
        self.freshness.mark_unreadable(home, tenant);
        tracing::error!(
            group = %self.id(), %home, %tenant, error = why as &dyn std::error::Error,
            "feed data of a tenant is invalid; the tenant stays as it is, detached"
        );
    }

    /// Raises an alarm about a home's stream that cannot be read as a whole.
    pub(crate) fn report_invalid_stream(&self, home: GroupId, invalid: &InvalidMessage) {
        self.alarms.record_unreadable();
        let error: &dyn std::error::Error = invalid;
        tracing::error!(group = %self.id(), %home, error, "feed stream from the home is invalid; it is opened again");
    }

    /// Reports that a follower's stream was not opened, and raises an alarm if the follower's message is the cause.
    pub(crate) fn report_open_failure(&self, follower: GroupId, status: &Status) {
        self.alarms.record_status(status);
        if status.code() == Code::InvalidArgument {
            self.alarms.record_unreadable();
            let reason = status.message();
            tracing::error!(group = %self.id(), %follower, reason, "feed stream to the follower cannot be opened");
        }
    }

    /// Returns the regions that a stream to another group connects, if the directory view knows both.
    pub(crate) fn region_pair_to(&self, other: GroupId) -> Option<RegionPair> {
        self.directory_view.read(|view| {
            let region = |group| Some(view.region_of(group)?.name.clone());
            let (from, to) = (region(self.id())?, region(other)?);
            Some(RegionPair { from, to })
        })
    }
}

/// Returns the epoch of a tenant that this group feeds to a follower: the one that it owns, or that it has handed over
/// to this follower, up to its last change.
pub(crate) fn fed_epoch(record: &TenantRecord, follower: GroupId) -> Option<Epoch> {
    match record.role {
        Role::Owner => Some(record.epoch),
        Role::Relinquished { to, .. } if to == follower => Some(record.epoch),
        Role::Relinquished { .. } | Role::Follower { .. } | Role::Heir { .. } | Role::Frozen { .. } | Role::Erased => {
            None
        }
    }
}

/// Returns the version of the record of a tenant that `home` owns, if that admits another group, according to this
/// directory view.
pub(crate) fn admitting_policy(
    view: &DirectoryView,
    tenant: TenantNumber,
    home: GroupId,
    follower: GroupId,
) -> Option<DirectoryVersion> {
    let (tenant, region) = (view.tenant(tenant)?, view.region_of(follower)?);
    let is_admitted = tenant.home == home && tenant.has(follower) && tenant.admits(&region.jurisdiction);
    is_admitted.then_some(tenant.version)
}

/// Returns the version of a tenant's record in this directory view.
pub(crate) fn policy_of(view: &DirectoryView, tenant: TenantNumber) -> DirectoryVersion {
    view.tenant(tenant)
        .map_or(DirectoryVersion::ZERO, |tenant| tenant.version)
}

/// Tells whether another group is in another region than `group`, according to this directory view.
pub(crate) fn is_elsewhere(view: &DirectoryView, group: GroupId, other: GroupId) -> bool {
    let region = |group| view.region_of(group).map(|region| &region.name);
    region(other).is_some_and(|of| region(group).is_some_and(|own| own != of))
}
