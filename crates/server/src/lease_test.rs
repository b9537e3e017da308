//! Tests of the node's leases, on a paused clock.

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
    node.until(70_000).await;
    assert_eq!(
        waits(false).await,
        (false, Duration::ZERO),
        "it is gone, and the caller is told"
    );
}

/// One voter that does not lead is no outage.
#[tokio::test(start_paused = true)]
async fn tenant_that_goes_on_is_not_served_after_one_refused_attempt() {
    let node = Node::start();
    node.directory.refuses.store(true, Relaxed);
    node.until(1).await;
    node.directory.refuses.store(false, Relaxed);
    let view = node.view();
    let until = Instant::now() + Duration::from_secs(3);
    assert!(node.leases.wait_until_leased(&view, GROUP, until, || true).await);
    assert!(!node.leases.left(version(5), GROUP).is_zero(), "under a lease");
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
