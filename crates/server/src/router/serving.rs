//! Serving check: whether the home may still answer for a tenant, after a commit or after a read index.

use stead_replication::SharedDirectoryView;
use stead_state::{
    directory::Tenant,
    lease::holder::ServedTenant,
    serving::{self, NotServing, ServingState},
    shard::apply_result::ApplyResult,
};
use stead_store::shard::ReadView;
use stead_types::{Epoch, Error, ErrorKind, Revision, TenantNumber};
use tokio::time::{Instant, timeout_at};

use crate::{
    host::{HostedGroup, storage_unavailable},
    lease::NodeLeases,
};

/// Serving check of this node: by its leases, and the fences of its directory view.
#[derive(Clone)]
pub(crate) struct ServingCheck {
    directory_view: SharedDirectoryView,
    leases: NodeLeases,
}

impl ServingCheck {
    /// Returns the check by these leases and the fences of a directory view.
    pub(crate) fn new(directory_view: SharedDirectoryView, leases: NodeLeases) -> Self {
        Self { directory_view, leases }
    }

    /// Waits until a lease of a group counts, before anything is proposed or read.
    ///
    /// # Errors
    ///
    /// `NO_LEASE` if none does in time; nothing happened.
    pub(super) async fn wait_until_leased(&self, hosted: &HostedGroup, until: Instant) -> Result<(), Error> {
        let group = hosted.raft.id();
        if self.leases.wait_until_leased(&self.directory_view, group, until).await {
            return Ok(());
        }
        let message = format!(
            "group {group} has no lease, because this node cannot reach the directory's leader: it serves again once it \
             can"
        );
        Err(Error::new(ErrorKind::NoLease, message))
    }

    /// Checks a read that followed a read index.
    pub(crate) fn check(&self, hosted: &HostedGroup, tenant: TenantNumber) -> Result<(), ReadNotServed> {
        let serving_state = self.serving_state(hosted, tenant);
        let check = |view: ReadView<'_>| {
            let record = view.record(tenant).ok_or(NotServing::NotOwner { to: None })?;
            serving::check(record, &serving_state).map(drop)
        };
        match hosted.machine.read(check) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(NotServing::NotOwner { .. })) => Err(ReadNotServed::NotOwner),
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
    ) -> Vec<Result<(), NotServing>> {
        let serving_state = self.serving_state(hosted, tenant);
        let checked = hosted.machine.read(|view| {
            let check = |result: &ApplyResult| {
                let record = view.record(tenant).ok_or(NotServing::NotOwner { to: None })?;
                match changed_at(result) {
                    Some(revision) => serving::check_committed(record, revision, &serving_state),
                    None => serving::check(record, &serving_state),
                }
                .map(drop)
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
