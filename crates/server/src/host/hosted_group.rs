//! Data groups in which this node votes, and what their copies say of a tenant.

use std::{collections::BTreeMap, sync::Arc};

use stead_raft::{Group, Proposal, ProposeError};
use stead_replication::Freshness;
use stead_state::shard::{
    Shard,
    apply_result::{ApplyResult, GuardFailure},
    read::TenantReader,
};
use stead_store::{group_rows::IncompleteChange, machine::CommandResult, shard::ShardMachine};
use stead_types::{Epoch, Error, ErrorKind, GroupId, TenantNumber};

use crate::directory::DirectoryClient;

/// The data groups of a node, by id.
pub(crate) type HostedGroups = BTreeMap<GroupId, HostedGroup>;

/// A data group in which this node votes.
#[derive(Clone)]
pub(crate) struct HostedGroup {
    /// The Raft group.
    pub(crate) raft: Group,
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
        let results = self.raft.propose_by(tenant.get(), proposals).await?;
        Ok(results.into_iter().map(|result| result.map(apply_result)).collect())
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

fn apply_result(result: CommandResult) -> ApplyResult {
    match result.downcast::<ApplyResult>() {
        Ok(result) => *result,
        Err(_) => ApplyResult::GuardFailed(GuardFailure::NoRecord),
    }
}

/// Returns the Raft groups of a node, the directory included.
pub(super) fn raft_groups<'a>(
    directory: &DirectoryClient,
    groups: &'a HostedGroups,
) -> impl Iterator<Item = Group> + use<'a> {
    let directory = directory.local_voter().map(|local_voter| local_voter.group.clone());
    directory
        .into_iter()
        .chain(groups.values().map(|hosted| hosted.raft.clone()))
}

/// Returns the error of a request that needs rows which are closed: this node is about to stop, and other nodes have
/// the rows.
pub(crate) fn storage_unavailable(incomplete: &IncompleteChange) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!("this node is stopping, try another one: {incomplete}"),
    )
}
