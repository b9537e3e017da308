//! Serving check: whether the home may still answer for a tenant, after a commit or after a read index.

use stead_api::convert;
use stead_replication::{EpochsSeen, SharedDirectoryView};
use stead_state::{
    directory::{ClusterSettings, DirectoryView, Tenant},
    lease::{
        holder::ServedTenant,
        loss::{self, Confirmation},
    },
    serving::{self, NotServing, ServingState},
    shard::apply_result::{ApplyResult, ReplayOutcome, ReplayResult},
};
use stead_store::shard::ReadView;
use stead_types::{Epoch, Error, ErrorKind, GroupId, NodeId, Revision, TenantNumber};
use tokio::time::{Instant, timeout_at};

use crate::{
    host::{Host, HostedGroup, storage_unavailable},
    lease::{LeaseLost, NodeLeases},
};

/// Serving check of this node: by its leases, and the fences of its directory view.
#[derive(Clone)]
pub(crate) struct ServingCheck {
    directory_view: SharedDirectoryView,
    leases: NodeLeases,
    epochs_seen: EpochsSeen,
}

impl ServingCheck {
    /// Returns the check by the leases of a node, the fences of its directory view, and the epochs that others have shown.
    pub(crate) fn new(host: &Host) -> Self {
        Self {
            directory_view: host.directory_view.clone(),
            leases: host.leases.clone(),
            epochs_seen: host.epochs_seen.clone(),
        }
    }

    /// Returns the settings of the cluster, as the directory view has them.
    pub(super) fn settings(&self) -> ClusterSettings {
        self.directory_view.read(DirectoryView::settings)
    }

    /// Waits until a lease of a group counts, or the tenant goes on without one, before anything is proposed or read; or
    /// until this node does not lead the group: a leader without a lease passes leadership on.
    ///
    /// # Errors
    ///
    /// `NO_LEASE` if none of that is so in time; nothing happened.
    pub(super) async fn wait_until_leased(
        &self,
        hosted: &HostedGroup,
        tenant: TenantNumber,
        until: Instant,
    ) -> Result<LeaseWait, Error> {
        let group = hosted.raft.id();
        let goes_on = || {
            let record = |view: ReadView<'_>| {
                let record = view.record(tenant);
                record.is_some_and(|record| loss::goes_on(record, || self.epochs_seen.of(tenant)))
            };
            hosted.machine.read(record).unwrap_or(false)
        };
        let leased = self
            .leases
            .wait_until_leased(&self.directory_view, group, until, goes_on);
        let led_elsewhere = async {
            let mut leadership = hosted.raft.watch_leader();
            let known = leadership.wait_for(|known| !known.is_here && known.leader.is_some());
            known.await.ok().and_then(|known| known.leader)
        };
        let is_leased = tokio::select! {
            biased;
            is_leased = leased => is_leased,
            Some(leader) = led_elsewhere => return Ok(LeaseWait::LedBy(leader)),
        };
        if is_leased {
            return Ok(LeaseWait::MayServe);
        }
        Err(self.no_lease(hosted))
    }

    /// Returns the error of an operation that needs a lease of a group that has none.
    pub(super) fn no_lease(&self, hosted: &HostedGroup) -> Error {
        let group = hosted.raft.id();
        no_lease(group, self.leases.lost(self.directory_view.version(), group))
    }

    /// Checks a read that followed a read index and whose answer would be wrong if another group served the tenant.
    pub(crate) fn check_leased(&self, hosted: &HostedGroup, tenant: TenantNumber) -> Result<(), ReadNotServed> {
        match self.check(hosted, tenant)? {
            Confirmation::Leased => Ok(()),
            Confirmation::Unconfirmed => Err(ReadNotServed::Refused(self.no_lease(hosted))),
        }
    }

    /// Checks a read that followed a read index.
    pub(crate) fn check(&self, hosted: &HostedGroup, tenant: TenantNumber) -> Result<Confirmation, ReadNotServed> {
        let serving_state = self.serving_state(hosted, tenant);
        let check = |view: ReadView<'_>| {
            let record = view.record(tenant).ok_or(NotServing::NotOwner { to: None })?;
            loss::check_or_continue(record, &serving_state, || self.epochs_seen.of(tenant), serving::check)
        };
        match hosted.machine.read(check) {
            Ok(Ok(confirmation)) => Ok(confirmation),
            Ok(Err(NotServing::NotOwner { .. })) => Err(ReadNotServed::NotOwner),
            Ok(Err(why @ NotServing::Fenced(_))) => {
                let message = format!("the home serves the tenant no more: {why}; try again");
                Err(ReadNotServed::Refused(Error::new(ErrorKind::TenantMoving, message)))
            }
            Ok(Err(why)) => {
                let message = format!("the home may not serve the tenant: {why}");
                Err(ReadNotServed::Refused(Error::new(ErrorKind::NoLease, message)))
            }
            Err(incomplete) => Err(ReadNotServed::Refused(storage_unavailable(&incomplete))),
        }
    }

    /// Checks writes that were committed at these revisions.
    pub(super) fn check_committed(
        &self,
        hosted: &HostedGroup,
        tenant: TenantNumber,
        results: &[ApplyResult],
    ) -> Vec<Result<Confirmation, NotServing>> {
        let serving_state = self.serving_state(hosted, tenant);
        let epoch_seen = || self.epochs_seen.of(tenant);
        let checked = hosted.machine.read(|view| {
            let check = |result: &ApplyResult| {
                let record = view.record(tenant).ok_or(NotServing::NotOwner { to: None })?;
                loss::check_or_continue(record, &serving_state, epoch_seen, |record, state| {
                    match changed_at(result) {
                        Some(revision) => serving::check_committed(record, revision, state),
                        None => serving::check(record, state),
                    }
                })
            };
            results.iter().map(check).collect()
        });
        // If the rows are closed it is unknown whether the tenant may still be served.
        checked.unwrap_or_else(|_| results.iter().map(|_| Err(NotServing::NotOwner { to: None })).collect())
    }

    /// Returns the input of the serving check, after a commit in this term or after a read index.
    fn serving_state(&self, hosted: &HostedGroup, tenant: TenantNumber) -> ServingState {
        let served = self.directory_view.read(|view| ServedTenant {
            group: hosted.raft.id(),
            tenant,
            fence: view.tenant(tenant).map_or(Epoch::MAX, |tenant| tenant.fence()),
            view: view.version(),
        });
        // The clocks are read after the view.
        self.leases.serving_state(served, true)
    }
}

/// Returns the error of an operation that found no lease.
fn no_lease(group: GroupId, lost: Option<LeaseLost>) -> Error {
    let since = lost.map_or_else(String::new, |lost| {
        let (seconds, since) = (lost.lasted.as_secs(), convert::read::timestamp_ms(lost.since_ms));
        format!(" since {since}, {seconds} s ago")
    });
    let message = format!(
        "group {group} has had no lease{since}, because this node cannot reach the directory's leader: it serves again \
         once it can"
    );
    Error::new(ErrorKind::NoLease, message)
}

/// Outcome of waiting for a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeaseWait {
    /// A lease counts, or the tenant goes on without one.
    MayServe,
    /// Another node leads the group now.
    LedBy(NodeId),
}

/// Reason why the home may not answer a read.
pub(crate) enum ReadNotServed {
    /// The group does not own the tenant any more: the read can be served elsewhere.
    NotOwner,
    /// The read fails.
    Refused(Error),
}

/// Returns the revision of the change that a write made; `None` if it changed nothing, so that it may be evaluated again.
pub(super) fn changed_at(result: &ApplyResult) -> Option<Revision> {
    match result {
        ApplyResult::Write(written) => Some(written.revision),
        ApplyResult::Txn(done) if done.changed => Some(done.at.revision),
        ApplyResult::DeleteRange(deleted) if deleted.keys > 0 => Some(deleted.at.revision),
        ApplyResult::Replay(ReplayResult {
            outcome: ReplayOutcome::Written(revision),
            ..
        }) => Some(*revision),
        ApplyResult::Txn(_)
        | ApplyResult::TxnFailed { .. }
        | ApplyResult::TxnTooLarge { .. }
        | ApplyResult::DeleteRange(_)
        | ApplyResult::Unchanged(_)
        | ApplyResult::BoundReached { .. }
        | ApplyResult::ValueError { .. }
        | ApplyResult::ConditionFailed { .. }
        | ApplyResult::Forked { .. }
        | ApplyResult::KeyReused(_)
        | ApplyResult::Expired { .. }
        | ApplyResult::Replay(_)
        | ApplyResult::Done
        | ApplyResult::Data(_)
        | ApplyResult::GuardFailed(_) => None,
    }
}

/// Outcome of waiting for a group to own a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OwnerWait {
    /// It owns the tenant.
    Owner,
    /// Another group is the home, in a later epoch than the one by which the operation was routed.
    Elsewhere,
    /// Neither was known in time.
    TimedOut,
}

/// Waits until a group owns a tenant, or knows its home elsewhere, according to its own log. `tenant` is as it was when
/// an operation was routed here.
pub(super) async fn wait_until_owner(hosted: &HostedGroup, tenant: &Tenant, until: Instant) -> OwnerWait {
    let mut applied = hosted.raft.applied();
    loop {
        applied.borrow_and_update();
        if hosted.owns(tenant.number) {
            return OwnerWait::Owner;
        }
        // The recorded home may have relinquished the tenant; the home of an epoch that is not recorded yet may have too.
        if hosted.knows_other_home(tenant.number, tenant.epoch) {
            return OwnerWait::Elsewhere;
        }
        if !matches!(timeout_at(until, applied.changed()).await, Ok(Ok(()))) {
            return OwnerWait::TimedOut;
        }
    }
}
