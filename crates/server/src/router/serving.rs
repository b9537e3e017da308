//! Serving check: whether the home may still answer for a tenant, after a commit or after a read index.

use std::time::Duration;

use stead_replication::SharedDirectoryView;
use stead_state::{
    serving::{self, BootTime, Lease, NotServing, ServingState},
    shard::apply_result::ApplyResult,
};
use stead_store::shard::ReadView;
use stead_types::{Epoch, Error, ErrorKind, TenantNumber};
use tokio::time::{Instant, timeout_at};

use crate::host::{HostedGroup, storage_unavailable};

/// Longest wait for a tenant to be ready at its home: just created, or just moved there.
pub(super) const READY_WAIT: Duration = Duration::from_secs(3);

/// Serving check of this node, against the fences of its directory view.
#[derive(Clone)]
pub(super) struct ServingCheck {
    directory_view: SharedDirectoryView,
}

impl ServingCheck {
    /// Returns the check against the fences of a directory view.
    pub(super) fn new(directory_view: SharedDirectoryView) -> Self {
        Self { directory_view }
    }

    /// Checks a read that followed a read index.
    pub(super) fn check(&self, hosted: &HostedGroup, tenant: TenantNumber) -> Result<(), Error> {
        let serving_state = self.serving_state(tenant);
        let refused = |why| Error::new(ErrorKind::NoLease, format!("the home may not serve the tenant: {why}"));
        let check = |view: ReadView<'_>| {
            let record = view.record(tenant).ok_or(NotServing::NotOwner);
            record
                .and_then(|record| serving::check(record, &serving_state))
                .map(drop)
                .map_err(refused)
        };
        let checked = hosted.machine.read(check);
        checked.map_err(|incomplete| storage_unavailable(&incomplete))?
    }

    /// Checks writes that were committed at these revisions.
    pub(super) fn check_committed(
        &self,
        hosted: &HostedGroup,
        tenant: TenantNumber,
        results: &[ApplyResult],
    ) -> Vec<Result<(), NotServing>> {
        let serving_state = self.serving_state(tenant);
        let checked = hosted.machine.read(|view| {
            let check = |result: &ApplyResult| {
                let record = view.record(tenant).ok_or(NotServing::NotOwner)?;
                match result {
                    ApplyResult::Write(written) => serving::check_committed(record, written.revision, &serving_state),
                    ApplyResult::Txn(done) if done.changed => {
                        serving::check_committed(record, done.at.revision, &serving_state)
                    }
                    ApplyResult::DeleteRange(deleted) if deleted.keys > 0 => {
                        serving::check_committed(record, deleted.at.revision, &serving_state)
                    }
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
                    | ApplyResult::GuardFailed(_) => serving::check(record, &serving_state),
                }
                .map(drop)
            };
            results.iter().map(check).collect()
        });
        // If the rows are closed it is unknown whether the tenant may still be served.
        checked.unwrap_or_else(|_| results.iter().map(|_| Err(NotServing::NotOwner)).collect())
    }

    /// Returns the input of the serving check, after a commit in this term or after a read index.
    fn serving_state(&self, tenant: TenantNumber) -> ServingState {
        let (fence, view_version) = self.directory_view.read(|view| {
            let fence = view.tenant(tenant).map_or(Epoch::MAX, |tenant| tenant.fence());
            (fence, view.version())
        });
        // Until leases exist the lease never runs out, and the clock that it would be checked against does not matter.
        let (lease, now) = (Lease::Unbounded, BootTime(0));
        ServingState {
            leader_confirmed: true,
            lease,
            view_version,
            now,
            fence_epoch: fence,
        }
    }
}

/// Waits until a group owns a tenant according to its own log; returns whether it did in time.
pub(super) async fn wait_until_owner(hosted: &HostedGroup, tenant: TenantNumber, until: Instant) -> bool {
    let mut applied = hosted.raft.applied();
    loop {
        applied.borrow_and_update();
        if hosted.owns(tenant) {
            return true;
        }
        if !matches!(timeout_at(until, applied.changed()).await, Ok(Ok(()))) {
            return false;
        }
    }
}
