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
    /// Boot clock when the last attempt that failed was begun; none since one was answered.
    failed: Mutex<Option<BootTime>>,
    /// Boot clock at the start.
    started: BootTime,
    /// Time until which the groups are served without leases: a node of the directory runs a version that grants none,
    /// and the view is below the feature level at which tenants can be moved. One lease granted ends that for good.
    without: Mutex<WithoutLeases>,
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
    /// directory was asked in vain just now. Returns whether either is so in time.
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

    fn take(&self, answer: LeaseAnswer) {
        self.with(|holder, _| holder.answer(answer));
        *self.0.without.lock() = WithoutLeases::Never;
        *self.0.failed.lock() = None;
        self.0.answered.send_replace(());
    }

    /// Records that an attempt that began at `begun` has failed.
    fn take_failure(&self, begun: BootTime) {
        *self.0.failed.lock() = Some(begun);
        self.0.answered.send_replace(());
    }

    /// Tells whether the directory was asked for a lease just now, and in vain. A node that was paused asks first.
    fn asks_in_vain(&self) -> bool {
        let now = BootTime::new((self.0.clocks.boot)());
        let failed = *self.0.failed.lock();
        failed.is_some_and(|failed| now.since(failed) <= IN_VAIN_MAX)
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
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};

    use super::*;
    use stead_state::{
        directory::DirectoryView,
        serving::{self, NotServing},
        shard::record::{Role, TenantRecord},
    };
    use stead_types::Incarnation;

    const TTL: Duration = Duration::from_secs(60);
    const GROUP: GroupId = GroupId::new(1);

    fn version(index: u64) -> DirectoryVersion {
        DirectoryVersion {
            incarnation: Incarnation::FIRST,
            index,
        }
    }

    /// The directory's leader as its callers see it.
    #[derive(Default)]
    struct Directory {
        is_silent: AtomicBool,
        refuses: AtomicBool,
        asked: AtomicU64,
        /// Milliseconds until it answers.
        delay_ms: AtomicU64,
        /// Milliseconds by which the node's wall clock is ahead.
        wall_ahead_ms: AtomicI64,
    }

    struct Node {
        directory: Arc<Directory>,
        leases: NodeLeases,
        started: Instant,
        stop: CancellationToken,
    }

    impl Drop for Node {
        fn drop(&mut self) {
            self.stop.cancel();
        }
    }

    impl Node {
        /// Starts the task of a node whose view has reached the version that the directory grants.
        fn start() -> Self {
            let directory = Arc::new(Directory::default());
            let (started, ahead) = (Instant::now(), directory.clone());
            let boot = move || started.elapsed();
            let wall = move || {
                let passed = u64::try_from(boot().as_millis()).unwrap();
                (1_700_000_000_000 + passed).saturating_add_signed(ahead.wall_ahead_ms.load(Relaxed))
            };
            let leases = NodeLeases::new(Clocks {
                wall: Arc::new(wall),
                boot: Arc::new(boot),
            });
            let directory_view = SharedDirectoryView::new(DirectoryView::default());
            directory_view.apply(false, Vec::new(), version(5));
            let asked = directory.clone();
            let renewal = LeaseRenewal {
                leases: leases.clone(),
                directory_view,
                groups: BTreeSet::from([GROUP]),
                renew: Arc::new(move |renewal| Box::pin(grant(asked.clone(), renewal))),
                see_epoch: Arc::new(|_, _| {}),
            };
            let stop = CancellationToken::new();
            tokio::spawn(renewal.run(stop.clone()));
            Self {
                directory,
                leases,
                started,
                stop,
            }
        }

        fn view(&self) -> SharedDirectoryView {
            let view = SharedDirectoryView::new(DirectoryView::default());
            view.apply(false, Vec::new(), version(5));
            view
        }

        async fn until(&self, millis: u64) {
            tokio::time::sleep_until(self.started + Duration::from_millis(millis)).await;
        }

        fn check(&self) -> Result<Epoch, NotServing> {
            let served = ServedTenant {
                group: GROUP,
                tenant: TenantNumber::new(7),
                fence: Epoch::FIRST,
                view: version(5),
            };
            let record = TenantRecord {
                role: Role::Owner,
                epoch: Epoch::FIRST,
                ..TenantRecord::unknown()
            };
            serving::check(&record, &self.leases.serving_state(served, true))
        }

        fn asked(&self) -> u64 {
            self.directory.asked.load(Relaxed)
        }
    }

    async fn grant(directory: Arc<Directory>, renewal: Renewal) -> Result<Option<LeaseAnswer>, Error> {
        directory.asked.fetch_add(1, Relaxed);
        if directory.is_silent.load(Relaxed) {
            return std::future::pending().await;
        }
        sleep(Duration::from_millis(directory.delay_ms.load(Relaxed))).await;
        if directory.refuses.load(Relaxed) {
            return Err(Error::new(ErrorKind::NoLeader, "an election"));
        }
        Ok(Some(LeaseAnswer {
            attempt: renewal.attempt,
            version: version(5),
            ttl: TTL,
            fences: None,
        }))
    }

    #[tokio::test(start_paused = true)]
    async fn lease_is_renewed_four_times_within_ttl() {
        let node = Node::start();
        for second in 1..300 {
            node.until(second * 1_000 + 1).await;
            assert_eq!(node.check(), Ok(Epoch::FIRST), "after {second} s");
        }
        assert_eq!(node.asked(), 20);
        let full = node.leases.full_lease(version(5), GROUP).unwrap();
        assert_eq!(full.asked, BootTime(285_000));
        assert_eq!(node.leases.full_lease(version(4), GROUP), None);
    }

    /// protocol.md "Leases", rule 1: the clock is noted before the attempt is sent.
    #[tokio::test(start_paused = true)]
    async fn lease_of_slow_answer_counts_from_send() {
        let node = Node::start();
        node.directory.delay_ms.store(2_000, Relaxed);
        node.until(1_999).await;
        assert_eq!(node.check(), Err(NotServing::NoLease));
        node.until(2_001).await;
        assert_eq!(node.leases.left(version(5), GROUP), Duration::from_millis(57_999));
    }

    #[tokio::test(start_paused = true)]
    async fn lease_runs_out_while_directory_is_silent_and_returns() {
        let node = Node::start();
        node.until(1).await;
        node.directory.is_silent.store(true, Relaxed);
        node.until(59_999).await;
        assert_eq!(node.check(), Ok(Epoch::FIRST));
        node.until(60_000).await;
        assert_eq!(node.check(), Err(NotServing::NoLease));
        assert!((10..40).contains(&node.asked()), "{}", node.asked());
        node.directory.is_silent.store(false, Relaxed);
        node.until(60_000 + 5_000).await;
        assert_eq!(node.check(), Ok(Epoch::FIRST));
    }

    #[tokio::test(start_paused = true)]
    async fn refused_attempts_are_retried_with_backoff() {
        let node = Node::start();
        node.directory.refuses.store(true, Relaxed);
        node.until(9_000).await;
        assert!((8..16).contains(&node.asked()), "{}", node.asked());
        node.directory.refuses.store(false, Relaxed);
        node.until(10_100).await;
        assert_eq!(node.check(), Ok(Epoch::FIRST), "after an election of the directory");
    }

    /// on_lease_loss: a tenant goes on as soon as its lease has run out, because the directory was asked in vain.
    #[tokio::test(start_paused = true)]
    async fn tenant_that_goes_on_does_not_wait_for_unreachable_directory() {
        let node = Node::start();
        node.until(1).await;
        node.directory.refuses.store(true, Relaxed);
        node.until(60_000).await;
        let waits = async |goes_on: bool| {
            let (started, view) = (Instant::now(), node.view());
            let until = started + Duration::from_secs(3);
            let found = node.leases.wait_until_leased(&view, GROUP, until, || goes_on).await;
            (found, started.elapsed())
        };
        assert_eq!(waits(true).await, (true, Duration::ZERO));
        assert_eq!(waits(false).await, (false, Duration::from_secs(3)));
    }

    /// A leader that was paused for longer than its lease asks before it goes on.
    #[tokio::test(start_paused = true)]
    async fn tenant_that_goes_on_waits_for_answer_of_reachable_directory() {
        let node = Node::start();
        node.directory.delay_ms.store(500, Relaxed);
        let (started, view) = (Instant::now(), node.view());
        let until = started + Duration::from_secs(3);
        assert!(node.leases.wait_until_leased(&view, GROUP, until, || true).await);
        assert_eq!(started.elapsed(), Duration::from_millis(500));
        assert!(!node.leases.left(version(5), GROUP).is_zero(), "under a lease");
    }

    #[tokio::test(start_paused = true)]
    async fn loss_of_lease_is_dated() {
        let node = Node::start();
        node.until(1).await;
        assert_eq!(node.leases.lost(version(5), GROUP), None);
        node.directory.is_silent.store(true, Relaxed);
        node.until(72_000).await;
        let lost = LeaseLost {
            lasted: Duration::from_secs(12),
            since_ms: 1_700_000_000_000 + 60_000,
        };
        assert_eq!(node.leases.lost(version(5), GROUP), Some(lost));
        // Of a group for which it never had one: since the start.
        let lasted = Duration::from_secs(72);
        let other = node.leases.lost(version(5), GroupId::new(9)).unwrap();
        assert_eq!(other.lasted, lasted);
        node.directory.is_silent.store(false, Relaxed);
        node.until(80_000).await;
        assert_eq!(node.leases.lost(version(5), GROUP), None);
    }

    /// Rule 6: "drop the lease, and ask anew at once", whether or not anybody is served meanwhile.
    #[tokio::test(start_paused = true)]
    async fn clocks_that_disagree_drop_lease_and_ask_anew() {
        let node = Node::start();
        node.until(5_000).await;
        assert_eq!(node.asked(), 1);
        node.directory.wall_ahead_ms.store(30_000, Relaxed);
        node.directory.delay_ms.store(10, Relaxed);
        assert_eq!(node.check(), Err(NotServing::NoLease));
        node.until(5_011).await;
        assert_eq!(node.check(), Ok(Epoch::FIRST));
        assert_eq!(node.asked(), 2);
        node.directory.wall_ahead_ms.store(0, Relaxed);
        node.until(6_100).await;
        assert_eq!(node.asked(), 3, "the task looks by itself");
    }

    /// An attempt that was begun before a pause is given up.
    #[tokio::test(start_paused = true)]
    async fn clocks_that_disagree_end_attempt_under_way() {
        let node = Node::start();
        node.until(14_999).await;
        node.directory.is_silent.store(true, Relaxed);
        node.until(15_500).await;
        assert_eq!(node.asked(), 2);
        node.directory.is_silent.store(false, Relaxed);
        node.directory.wall_ahead_ms.store(30_000, Relaxed);
        assert_eq!(node.check(), Err(NotServing::NoLease));
        node.until(15_501).await;
        assert_eq!(node.check(), Ok(Epoch::FIRST));
    }

    #[tokio::test(start_paused = true)]
    async fn directory_that_grants_none_is_served_without_until_its_answer_is_old() {
        let started = Instant::now();
        let leases = NodeLeases::new(Clocks {
            wall: Arc::new(move || u64::try_from(started.elapsed().as_millis()).unwrap()),
            boot: Arc::new(move || started.elapsed()),
        });
        let is_reachable = Arc::new(AtomicBool::new(true));
        let asked = is_reachable.clone();
        let renewal = LeaseRenewal {
            leases: leases.clone(),
            directory_view: SharedDirectoryView::new(DirectoryView::default()),
            groups: BTreeSet::from([GROUP]),
            see_epoch: Arc::new(|_, _| {}),
            renew: Arc::new(move |_| {
                let is_reachable = asked.load(Relaxed);
                Box::pin(async move {
                    let unreachable = || Error::new(ErrorKind::NoLeader, "cut off");
                    is_reachable.then_some(None).ok_or_else(unreachable)
                })
            }),
        };
        let stop = CancellationToken::new();
        tokio::spawn(renewal.run(stop.clone()));
        sleep(Duration::from_secs(120)).await;
        assert_eq!(leases.left(version(5), GROUP), Duration::MAX);
        is_reachable.store(false, Relaxed);
        sleep(WITHOUT_LEASES_MAX + Duration::from_secs(1)).await;
        stop.cancel();
        assert_eq!(leases.left(version(5), GROUP), Duration::ZERO);
        let served = ServedTenant {
            group: GROUP,
            tenant: TenantNumber::new(7),
            fence: Epoch::FIRST,
            view: version(5),
        };
        assert_eq!(leases.serving_state(served, true).lease, Lease::Absent);
    }
}
