//! Data groups in which this node votes, and what their copies say of a tenant.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use stead_raft::{Group, Proposal, ProposeError, TypedGroup};
use stead_replication::{Freshness, OutgoingSeeds, RemoteWatermark};
use stead_state::{
    routing::LocalRecord,
    shard::{Shard, apply_result::ApplyResult, read::TenantReader},
};
use stead_store::{group_rows::IncompleteChange, shard::ShardMachine};
use stead_types::{Epoch, Error, ErrorKind, GroupId, TenantNumber};

use crate::directory::DirectoryClient;

/// Longest wait for a tenant to be ready at its home: just created, or just moved there.
pub(crate) const READY_WAIT: Duration = Duration::from_secs(3);

/// The data groups of a node, by id.
pub(crate) type HostedGroups = BTreeMap<GroupId, HostedGroup>;

/// A data group in which this node votes.
#[derive(Clone)]
pub(crate) struct HostedGroup {
    /// The Raft group.
    pub(crate) raft: TypedGroup<ShardMachine>,
    /// The state machine with the tenants' data.
    pub(crate) machine: Arc<ShardMachine>,
    /// Freshness of the tenants that the group follows.
    pub(crate) freshness: Arc<Freshness>,
    /// Seeds that the group sends, while this node leads it.
    pub(crate) seeds: Arc<OutgoingSeeds>,
    /// Up to where other regions have what the group owns, while this node leads it.
    pub(crate) remote: Arc<RemoteWatermark>,
}

impl HostedGroup {
    /// Returns what a tenant's record in this group says about its home, if there is a record.
    pub(crate) fn local_record(&self, tenant: TenantNumber) -> Option<LocalRecord> {
        let group = self.raft.id();
        let record = self
            .machine
            .read(|view| view.record(tenant).map(|record| LocalRecord::of(group, record)));
        record.ok().flatten()
    }

    /// Tells whether another group is a tenant's home, in an epoch that is not below `epoch`, according to this group's
    /// own log.
    pub(crate) fn knows_other_home(&self, tenant: TenantNumber, epoch: Epoch) -> bool {
        let home = self.local_record(tenant).and_then(|record| record.home);
        home.is_some_and(|home| home.group != self.raft.id() && home.epoch > epoch)
    }

    /// Tells whether this group owns a tenant, according to its own log.
    pub(crate) fn owns(&self, tenant: TenantNumber) -> bool {
        let owns = self
            .machine
            .read(|view| view.record(tenant).is_some_and(|record| record.owned().is_some()));
        owns.unwrap_or(false)
    }

    /// Proposes commands of a tenant, and returns their results in the same order; `None` for one whose deadline passed
    /// before it was part of an entry.
    ///
    /// # Errors
    ///
    /// When nothing, or nothing that is known, was proposed.
    pub(crate) async fn propose(
        &self,
        tenant: TenantNumber,
        proposals: Vec<Proposal>,
    ) -> Result<Vec<Option<ApplyResult>>, ProposeError> {
        self.raft.propose_by(tenant.get(), proposals).await
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

/// Returns the Raft groups of a node, the directory included.
pub(super) fn raft_groups<'a>(
    directory: &DirectoryClient,
    groups: &'a HostedGroups,
) -> impl Iterator<Item = Group> + use<'a> {
    let directory = directory.local_voter().map(|local_voter| local_voter.group.untyped());
    directory
        .into_iter()
        .chain(groups.values().map(|hosted| hosted.raft.untyped()))
}

/// Returns the error of a request that needs rows which are closed: this node is about to stop, and other nodes have
/// the rows.
pub(crate) fn storage_unavailable(incomplete: &IncompleteChange) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!("this node is stopping, try another one: {incomplete}"),
    )
}
