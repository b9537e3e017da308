//! The node's leases: the task that renews them, and the handle that the serving check asks.
//!
//! `stead_state::lease` decides; this reads the clocks, sends attempts and waits. The clocks and the call of the
//! directory are arguments.
//!
//! # Invariants
//!
//! 1. Clocks are read before an attempt is sent: its lease counts from there.
//! 2. Timers only say when to look again. Whether a lease has run out is read from the boot clock, since timers stand
//!    still while a machine is suspended.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use parking_lot::Mutex;
use stead_raft::Clocks;
use stead_replication::SharedDirectoryView;
use stead_state::{
    lease::{
        LeaseAnswer, Renewal,
        clock::NodeTime,
        holder::{FullLease, LeaseHolder, ServedTenant},
    },
    serving::{BootTime, Lease, ServingState},
};
use stead_types::{DirectoryVersion, Epoch, Error, ErrorKind, GroupId, TenantNumber};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::supervisor::BoxError;

/// Longest time for one attempt.
const ATTEMPT_MAX: Duration = Duration::from_secs(3);
/// Pause after a failed attempt; it doubles up to the longest.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause after a failed attempt.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(1);
/// Time for which the answer of a node that grants no leases counts, from before it was asked for.
const WITHOUT_LEASES_MAX: Duration = Duration::from_secs(60);
/// Pause after the directory's leader has answered that it grants no leases.
const UNSUPPORTED_PAUSE: Duration = Duration::from_secs(5);
/// Time for which a failed attempt shows that the directory cannot be reached: longer than any time between two attempts
/// that fail.
const IN_VAIN_MAX: Duration = Duration::from_secs(10);
/// Time for which attempts must have failed before the directory counts as unreachable: one voter that does not lead, or
/// one connection that broke, is no outage, and an election passes.
const IN_VAIN_MIN: Duration = Duration::from_secs(9);
/// Time without a lease after which nobody waits for one: it comes back when the directory does.
const GONE_MAX: Duration = Duration::from_secs(1);
/// Interval at which the clocks are looked at between renewals.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Sends one renewal to the directory's leader and returns its answer; `None` if it runs a version that grants none.
pub(crate) type Renew = Arc<dyn Fn(Renewal) -> BoxFuture<'static, Result<Option<LeaseAnswer>, Error>> + Send + Sync>;

/// Takes note of an epoch of a tenant that another node has shown.
pub(crate) type SeeEpoch = Arc<dyn Fn(TenantNumber, Epoch) + Send + Sync>;

/// Handle of the node's leases; clones share them.
#[derive(Clone)]
pub(crate) struct NodeLeases(Arc<Inner>);

struct Inner {
    clocks: Clocks,
    holder: Mutex<LeaseHolder>,
    /// Wakes the task when leases are dropped.
    dropped: Notify,
    /// Changes with each answer, and with each attempt that fails.
    answered: watch::Sender<()>,
    /// Attempts that have failed since one was answered.
    failed: Mutex<Option<FailedAttempts>>,
    /// Boot clock at the start.
    started: BootTime,
    /// Time until which the groups are served without leases: a node of the directory runs a version that grants none,
    /// and the view is below the feature level at which tenants can be moved. One lease granted ends that for good.
    without: Mutex<WithoutLeases>,
}

/// Boot clock when the first and the last of several attempts that failed were begun.
#[derive(Clone, Copy, Debug)]
struct FailedAttempts {
    first: BootTime,
    last: BootTime,
}

/// Serving without leases, as long as the directory's nodes run an earlier version.
#[derive(Clone, Copy, Debug)]
enum WithoutLeases {
    Never,
    Until(BootTime),
}

impl NodeLeases {
    /// Returns the handle of a node without leases.
    pub(crate) fn new(clocks: Clocks) -> Self {
        Self(Arc::new(Inner {
            started: BootTime::new((clocks.boot)()),
            failed: Mutex::default(),
            clocks,
            holder: Mutex::default(),
            dropped: Notify::new(),
            answered: watch::Sender::new(()),
            without: Mutex::new(WithoutLeases::Until(BootTime(0))),
        }))
    }

    /// Waits until a lease for a group counts, or until the tenant goes on without one: `goes_on` says so, and the
    /// directory was asked in vain just now. Returns whether either is so in time, or at once where there has been no
    /// lease for [`GONE_MAX`] and the directory does not answer.
    pub(crate) async fn wait_until_leased(
        &self,
        view: &SharedDirectoryView,
        group: GroupId,
        until: Instant,
        goes_on: impl Fn() -> bool,
    ) -> bool {
        // Nearly always: no operation pays for watching what it need not wait for.
        if !self.left(view.version(), group).is_zero() {
            return true;
        }
        let is_gone = self.asks_in_vain()
            && self
                .lost(view.version(), group)
                .is_some_and(|lost| lost.lasted > GONE_MAX);
        let until = if is_gone { Instant::now() } else { until };
        let (mut versions, mut answered) = (view.watch(), self.0.answered.subscribe());
        loop {
            versions.borrow_and_update();
            answered.borrow_and_update();
            if !self.left(view.version(), group).is_zero() || (self.asks_in_vain() && goes_on()) {
                return true;
            }
            let changed = async {
                tokio::select! {
                    changed = versions.changed() => changed.is_ok(),
                    changed = answered.changed() => changed.is_ok(),
                }
            };
            if timeout_at(until, changed).await != Ok(true) {
                return false;
            }
        }
    }

    /// Returns the wall clock, in milliseconds since 1970.
    pub(crate) fn wall_ms(&self) -> u64 {
        (self.0.clocks.wall)()
    }

    /// Returns the boot clock.
    pub(crate) fn now(&self) -> BootTime {
        BootTime::new((self.0.clocks.boot)())
    }

    fn take(&self, answer: LeaseAnswer) {
        self.with(|holder, _| holder.answer(answer));
        *self.0.without.lock() = WithoutLeases::Never;
        *self.0.failed.lock() = None;
        self.0.answered.send_replace(());
    }

    /// Records that an attempt that began at `begun` has failed.
    fn take_failure(&self, begun: BootTime) {
        let mut failed = self.0.failed.lock();
        let before = failed.filter(|failed| begun.since(failed.last) <= IN_VAIN_MAX);
        *failed = Some(FailedAttempts {
            first: before.map_or(begun, |failed| failed.first),
            last: begun,
        });
        drop(failed);
        self.0.answered.send_replace(());
    }

    /// Tells whether the directory has been asked for a lease in vain for [`IN_VAIN_MIN`], up to just now. A node that was
    /// started or paused asks first.
    fn asks_in_vain(&self) -> bool {
        let now = BootTime::new((self.0.clocks.boot)());
        let failed = *self.0.failed.lock();
        failed.is_some_and(|failed| now.since(failed.last) <= IN_VAIN_MAX && now.since(failed.first) >= IN_VAIN_MIN)
    }

    /// Records that a node of the directory grants no leases, in answer to an attempt that began at `begun`.
    fn take_unsupported(&self, begun: BootTime) {
        let mut without = self.0.without.lock();
        if let WithoutLeases::Until(until) = &mut *without {
            *until = begun.after(WITHOUT_LEASES_MAX);
        }
        drop(without);
        self.0.answered.send_replace(());
    }

    fn needs_none(&self) -> bool {
        match *self.0.without.lock() {
            WithoutLeases::Never => false,
            WithoutLeases::Until(until) => BootTime::new((self.0.clocks.boot)()) < until,
        }
    }

    /// Returns the input of the serving check, after the state was read or the write was applied.
    pub(crate) fn serving_state(&self, served: ServedTenant, leader_confirmed: bool) -> ServingState {
        let state = self.with(|holder, now| holder.serving_state(now, served, leader_confirmed));
        if self.needs_none() {
            return ServingState {
                lease: Lease::Unbounded,
                ..state
            };
        }
        state
    }

    /// Returns the best lease for a group that counts by a view of this version, for proposals and pings.
    pub(crate) fn full_lease(&self, view: DirectoryVersion, group: GroupId) -> Option<FullLease> {
        let lease = self.with(|holder, now| holder.full_lease(now, view, group));
        let unbounded = || FullLease {
            asked: BootTime(0),
            left: Duration::MAX,
            version: view,
        };
        lease.or_else(|| self.needs_none().then(unbounded))
    }

    /// Returns the time for which a group may still be served with a view of this version.
    pub(crate) fn left(&self, view: DirectoryVersion, group: GroupId) -> Duration {
        if self.needs_none() {
            return Duration::MAX;
        }
        self.with(|holder, now| holder.left(now, view, group))
    }

    /// Returns since when no lease of a group has counted; `None` if one does or none is needed.
    pub(crate) fn lost(&self, view: DirectoryVersion, group: GroupId) -> Option<LeaseLost> {
        if !self.left(view, group).is_zero() {
            return None;
        }
        self.with(|holder, now| {
            let since = holder.last_end(group).unwrap_or(self.0.started);
            let lasted = now.boot.since(since);
            let ms = u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX);
            Some(LeaseLost {
                lasted,
                since_ms: now.wall_ms.saturating_sub(ms),
            })
        })
    }

    /// Calls a function with the holder and the current clocks, after leases from before a pause were dropped.
    fn with<R>(&self, call: impl FnOnce(&mut LeaseHolder, NodeTime) -> R) -> R {
        let Inner {
            clocks,
            holder,
            dropped,
            ..
        } = &*self.0;
        let mut holder = holder.lock();
        let now = NodeTime {
            boot: BootTime::new((clocks.boot)()),
            wall_ms: (clocks.wall)(),
        };
        if holder.observe(now) {
            warn!("wall clock and boot clock disagree about the time that has passed: leases dropped, asking anew");
            dropped.notify_waiters();
        }
        call(&mut holder, now)
    }
}

/// Time without a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeaseLost {
    /// How long it has lasted.
    pub(crate) lasted: Duration,
    /// Its start, in milliseconds since 1970; that of the node if it has had no lease since.
    pub(crate) since_ms: u64,
}

/// The task that renews the node's leases.
pub(crate) struct LeaseRenewal {
    /// The leases.
    pub(crate) leases: NodeLeases,
    /// The node's directory view.
    pub(crate) directory_view: SharedDirectoryView,
    /// Data groups in which the node votes.
    pub(crate) groups: BTreeSet<GroupId>,
    /// Call of the directory's leader.
    pub(crate) renew: Renew,
    /// Takes note of a fence that an answer carries.
    pub(crate) see_epoch: SeeEpoch,
}

impl LeaseRenewal {
    /// Runs until the token fires.
    pub(crate) async fn run(self, stop: CancellationToken) -> Result<(), BoxError> {
        // A witness votes in no data group; it renews because that tells which feature level it supports.
        stop.run_until_cancelled(self.renew_for_ever()).await;
        Ok(())
    }

    async fn renew_for_ever(&self) {
        let mut failures = 0;
        loop {
            self.wait_until_due().await;
            match self.attempt().await {
                Ok(()) if failures > 0 => {
                    info!(failures, "leases are renewed again");
                    failures = 0;
                }
                Ok(()) => {}
                Err(error) => {
                    if failures == 0 {
                        let left = self.shortest_left();
                        warn!(?left, %error, "cannot renew leases: without one this node's tenants are not served");
                    }
                    sleep(retry_pause(failures)).await;
                    failures += 1;
                }
            }
        }
    }

    /// Waits until a renewal is due by the boot clock.
    async fn wait_until_due(&self) {
        loop {
            let dropped = self.leases.0.dropped.notified();
            let left = self
                .leases
                .with(|holder, now| holder.renew_at(&self.groups).since(now.boot));
            if left.is_zero() {
                return;
            }
            tokio::select! {
                () = sleep(left.min(LOOK_INTERVAL)) => {}
                () = dropped => {}
            }
        }
    }

    /// Makes one attempt. If leases are dropped meanwhile it ends, because its answer would not count.
    async fn attempt(&self) -> Result<(), Error> {
        let (view, begun) = (
            self.directory_view.version(),
            BootTime::new((self.leases.0.clocks.boot)()),
        );
        // The holder's lock is held here: what is dropped after the attempt began ends it, and nothing else does.
        let (renewal, dropped) = self.leases.with(|holder, now| {
            let renewal = holder.begin(now, view, self.groups.clone());
            (renewal, self.leases.0.dropped.notified())
        });
        let answered = tokio::select! {
            answered = timeout(ATTEMPT_MAX, (self.renew)(renewal)) => answered,
            () = dropped => return Ok(()),
        };
        let timed_out = |_| Error::new(ErrorKind::NoLeader, "the directory's leader did not respond");
        let answer = answered.map_err(timed_out).and_then(|answer| answer);
        match answer.inspect_err(|_| self.leases.take_failure(begun))? {
            Some(answer) => {
                // They outlast the lease. The highest epoch fences a tenant that is disabled, which may end.
                let fences = answer.fences.iter().flatten();
                for (tenant, fence) in fences.filter(|(_, fence)| **fence < Epoch::MAX) {
                    (self.see_epoch)(*tenant, *fence);
                }
                self.leases.take(answer);
            }
            None => {
                // With tenants that can be moved, only leases tell who may serve them.
                if !self.directory_view.read(|view| view.settings().has_moves()) {
                    self.leases.take_unsupported(begun);
                }
                sleep(UNSUPPORTED_PAUSE).await;
            }
        }
        Ok(())
    }

    fn shortest_left(&self) -> Duration {
        let view = self.directory_view.version();
        let left = self.groups.iter().map(|group| self.leases.left(view, *group));
        left.min().unwrap_or_default()
    }
}

fn retry_pause(failures: u32) -> Duration {
    let doubled = RETRY_PAUSE_MIN.saturating_mul(1 << failures.min(8));
    doubled.min(RETRY_PAUSE_MAX)
}

#[cfg(test)]
#[path = "lease_test.rs"]
mod lease_test;
