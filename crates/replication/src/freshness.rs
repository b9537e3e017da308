//! Freshness of a group's copies on this node: staleness bounds from the proofs that pings have brought.
//!
//! The group's leader pings the homes over their streams; its other nodes poll the leader. Both add their proofs here,
//! and readers ask here. For tenants that the group owns, its other nodes get a read index from the leader the same
//! way.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use stead_state::{
    directory::DirectoryView,
    freshness::{FollowedTenant, Proof, Proofs},
    shard::{Shard, record::TenantRecord},
};
use stead_store::{
    latency::{LatencyHistogram, LatencySnapshot},
    shard::ShardMachine,
};
use stead_types::{DirectoryVersion, FeedOffset, GroupId, Incarnation, TenantNumber};
use tokio::{sync::Notify, time::Instant};

use crate::directory_view::SharedDirectoryView;

/// Interval between pings while records arrive or readers ask for freshness.
const BUSY_INTERVAL: Duration = Duration::from_millis(50);
/// Interval between pings while readers have asked in the last minutes. With that between polls it bounds the staleness of an
/// idle copy on a healthy link to the round trip and 450 ms, so that a bounded read after a pause is served where it is made.
const WARM_PING_INTERVAL: Duration = Duration::from_millis(240);
/// Interval between polls of the leader in the same time.
const WARM_POLL_INTERVAL: Duration = Duration::from_millis(200);
/// Interval between pings and polls otherwise: each ping costs a round among the home's voters.
const IDLE_INTERVAL: Duration = Duration::from_secs(2);
/// Time for which a reader's demand keeps copies fresh.
const WARM_LIFETIME: Duration = Duration::from_secs(600);
/// Time for which a reader's demand keeps pings frequent.
const DEMAND_LIFETIME: Duration = Duration::from_secs(1);

/// Replication lag of one stream, on the follower group's leader.
#[derive(Clone, Copy, Debug)]
pub struct Lag {
    /// The home group.
    pub home: GroupId,
    /// Whether its stream is open.
    pub connected: bool,
    /// Offset up to which it is applied.
    pub offset: FeedOffset,
    /// Age of the youngest proof that nothing before it is missing of the attached tenants.
    pub staleness: Option<Duration>,
    /// Number of tenants that the offset covers.
    pub attached: u64,
    /// Number of tenants that it does not cover.
    pub detached: u64,
    /// Number of detached tenants for which the home has sent invalid data.
    pub unreadable: u64,
}

/// Freshness proofs of one group on one node.
pub struct Freshness {
    group: GroupId,
    incarnation: Incarnation,
    machine: Arc<ShardMachine>,
    directory_view: SharedDirectoryView,
    origin: Instant,
    proofs: Mutex<BTreeMap<GroupId, Proofs>>,
    last_demand: Mutex<Option<Instant>>,
    demand: Notify,
    /// Latencies of logging and applying batches of changes, on the group's leader.
    pub(crate) batches: LatencyHistogram,
    /// Homes whose stream is open.
    connected: Mutex<BTreeSet<GroupId>>,
    /// Tenants for which their home has sent invalid data, since they were attached last.
    unreadable: Mutex<BTreeSet<(GroupId, TenantNumber)>>,
}

impl Freshness {
    pub(crate) fn new(
        group: GroupId,
        incarnation: Incarnation,
        machine: Arc<ShardMachine>,
        directory_view: SharedDirectoryView,
    ) -> Self {
        Self {
            group,
            incarnation,
            machine,
            directory_view,
            origin: Instant::now(),
            proofs: Mutex::default(),
            last_demand: Mutex::default(),
            demand: Notify::new(),
            batches: LatencyHistogram::default(),
            connected: Mutex::default(),
            unreadable: Mutex::default(),
        }
    }

    /// Returns the staleness bound of this node's copy of a tenant; `None` if it is unknown, as for a copy that is not
    /// attached. The call makes pings more frequent for a while.
    pub fn staleness(&self, tenant: TenantNumber) -> Option<Duration> {
        self.record_demand();
        self.peek_staleness(tenant)
    }

    /// Returns the staleness bound of [`Self::staleness`] without making pings more frequent.
    pub fn peek_staleness(&self, tenant: TenantNumber) -> Option<Duration> {
        self.measure(tenant, |proofs, view, following| {
            proofs.staleness(self.now(), view, following)
        })
    }

    /// Returns the age of the last proof that this node's copy of a tenant has everything that was acknowledged, also
    /// where the tenant is fenced since. Only for the report of a promotion.
    pub(crate) fn proof_age_below_fence(&self, tenant: TenantNumber) -> Option<Duration> {
        self.measure(tenant, |proofs, view, following| {
            self.now().checked_sub(proofs.proved_below_fence(view, following)?)
        })
    }

    /// Measures a copy by the proofs of the home that it follows.
    fn measure<T>(
        &self,
        tenant: TenantNumber,
        measure: impl FnOnce(&Proofs, &DirectoryView, &FollowedTenant) -> Option<T>,
    ) -> Option<T> {
        // All of it as of one state: a proof that is added after a tenant was detached does not cover it.
        let measured = self.machine.read(|held| {
            let following = self.following(held.shard(), tenant)?;
            let applied = self.applied_offset(held.shard(), held.applied(), following.home);
            let mut proofs = self.proofs.lock();
            let proofs = proofs.get_mut(&following.home)?;
            self.directory_view.read(|view| {
                proofs.advance(applied, view.version());
                measure(proofs, view, &following)
            })
        });
        measured.ok().flatten()
    }

    /// Returns how long batches of changes took from their turn until the group had logged and applied them.
    pub fn batch_latency(&self) -> LatencySnapshot {
        self.batches.snapshot()
    }

    /// Returns the lag of each stream that this node follows; meaningful on the group's leader.
    pub fn lags(&self) -> Vec<Lag> {
        let now = self.now();
        let connected = self.connected.lock().clone();
        let lags = self.machine.read(|held| {
            let shard = held.shard();
            let mut tenants: BTreeMap<GroupId, (u64, u64)> = BTreeMap::new();
            let mut unreadable = self.unreadable.lock();
            unreadable.retain(|(home, tenant)| {
                let record = shard.record(*tenant).filter(|record| record.home() == Some(*home));
                record.is_some_and(|record| !shard.is_attached(record))
            });
            for (_, record) in shard.records() {
                let Some(home) = record.home() else { continue };
                let (attached, detached) = tenants.entry(home).or_default();
                *(if shard.is_attached(record) { attached } else { detached }) += 1;
            }
            let proofs = self.proofs.lock();
            let lag = |(home, (attached, detached))| Lag {
                home,
                connected: connected.contains(&home),
                offset: shard.stream(home),
                staleness: proofs
                    .get(&home)
                    .and_then(Proofs::latest)
                    .map(|proof| now.saturating_sub(proof.as_of)),
                attached,
                detached,
                unreadable: unreadable.iter().filter(|(of, _)| *of == home).count() as u64,
            };
            tenants.into_iter().map(lag).collect()
        });
        lags.unwrap_or_default()
    }

    /// Notes that a home has sent invalid data for a tenant.
    pub(crate) fn mark_unreadable(&self, home: GroupId, tenant: TenantNumber) {
        self.unreadable.lock().insert((home, tenant));
    }

    /// Notes whether a home's stream is open.
    pub(crate) fn set_connected(&self, home: GroupId, is_open: bool) {
        let mut connected = self.connected.lock();
        if is_open {
            connected.insert(home);
        } else {
            connected.remove(&home);
        }
    }

    /// Returns from which home, and in which epoch, a tenant is followed according to its record.
    fn following(&self, shard: &Shard, tenant: TenantNumber) -> Option<FollowedTenant> {
        let record = shard.record(tenant).filter(|record| !record.suspect)?;
        let (home, incarnation) = match record.owned() {
            Some(_) => (self.group, Some(self.incarnation)),
            None => (record.home()?, attached_incarnation(shard, record)),
        };
        Some(FollowedTenant {
            tenant,
            home,
            epoch: record.epoch,
            // Whatever a stream lacked for a tenant comes before it is attached, up to a state of the home that is
            // not older than any proof from before: so a proof of any offset counts.
            attached: incarnation.map(|incarnation| FeedOffset { incarnation, index: 0 }),
            baton: None,
        })
    }

    fn applied_offset(&self, shard: &Shard, applied: u64, home: GroupId) -> FeedOffset {
        if home == self.group {
            let incarnation = self.incarnation;
            return FeedOffset {
                incarnation,
                index: applied,
            };
        }
        shard.stream(home)
    }

    /// Returns the time since this value was made, by this node's clock.
    pub(crate) fn now(&self) -> Duration {
        self.at(Instant::now())
    }

    pub(crate) fn at(&self, instant: Instant) -> Duration {
        instant.saturating_duration_since(self.origin)
    }

    /// Adds a proof of a home.
    pub(crate) fn add_proof(&self, home: GroupId, proof: Proof) {
        self.proofs.lock().entry(home).or_default().add(proof);
        self.advance(home);
    }

    /// Makes proofs valid whose offset is applied and whose directory version is reached.
    pub(crate) fn advance(&self, home: GroupId) {
        let applied = self
            .machine
            .read(|held| self.applied_offset(held.shard(), held.applied(), home));
        let Ok(applied) = applied else { return };
        let version = self.directory_view.version();
        if let Some(proofs) = self.proofs.lock().get_mut(&home) {
            proofs.advance(applied, version);
        }
    }

    /// Tells whether the proof of another ping to a home would be kept.
    pub(crate) fn wants_ping(&self, home: GroupId) -> bool {
        self.advance(home);
        self.proofs.lock().get(&home).is_none_or(Proofs::may_ping)
    }

    /// Returns the valid proof of each home: its age, offset and directory version.
    pub(crate) fn valid_proofs(&self) -> Vec<(GroupId, Duration, FeedOffset, DirectoryVersion)> {
        let now = self.now();
        let proofs = self.proofs.lock();
        let counted = proofs
            .iter()
            .filter(|(home, _)| **home != self.group)
            .filter_map(|(home, proofs)| {
                let proof = proofs.latest()?;
                Some((*home, now.saturating_sub(proof.as_of), proof.offset, proof.view))
            });
        counted.collect()
    }

    /// Notes that a reader asks for freshness.
    pub(crate) fn record_demand(&self) {
        let now = Instant::now();
        let before = self.last_demand.lock().replace(now);
        if before.is_none_or(|before| now - before > DEMAND_LIFETIME) {
            self.demand.notify_waiters();
        }
    }

    /// Tells whether a reader has asked for freshness lately.
    pub(crate) fn has_recent_demand(&self) -> bool {
        self.last_demand
            .lock()
            .is_some_and(|asked| asked.elapsed() <= DEMAND_LIFETIME)
    }

    /// Waits until a reader asks for freshness after a time without demand.
    pub(crate) async fn demand_began(&self) {
        self.demand.notified().await;
    }

    /// Returns the interval between pings; `busy` is the time of the last records.
    pub(crate) fn ping_interval(&self, busy: Option<Instant>) -> Duration {
        if busy.is_some_and(|busy| busy.elapsed() <= DEMAND_LIFETIME) {
            return BUSY_INTERVAL;
        }
        self.interval(WARM_PING_INTERVAL)
    }

    /// Returns the interval between polls of the leader.
    pub(crate) fn poll_interval(&self) -> Duration {
        self.interval(WARM_POLL_INTERVAL)
    }

    /// Returns an interval by the time since a reader has asked.
    fn interval(&self, warm: Duration) -> Duration {
        match self.last_demand.lock().map(|asked| asked.elapsed()) {
            Some(since) if since <= DEMAND_LIFETIME => BUSY_INTERVAL,
            Some(since) if since <= WARM_LIFETIME => warm,
            Some(_) | None => IDLE_INTERVAL,
        }
    }

    /// Tells whether a poll should ask for a proof of the group itself, which costs a round among its voters; `last` is
    /// the time of the last poll that did.
    pub(crate) fn polls_own(&self, last: Option<Instant>) -> bool {
        self.has_recent_demand() || last.is_none_or(|last| last.elapsed() >= IDLE_INTERVAL)
    }
}

/// Returns the incarnation of the home on whose stream a tenant is attached.
fn attached_incarnation(shard: &Shard, record: &TenantRecord) -> Option<Incarnation> {
    let session = record.session.filter(|_| shard.is_attached(record))?;
    Some(session.incarnation)
}
