//! How fresh a group's copies are here: what pings have proved, counted for the tenants of this node.
//!
//! The group's leader pings the homes over their streams; its other nodes ask the leader. Both end up here, and readers
//! ask here. For tenants that the group owns, its other nodes ask the leader for a read index the same way.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use stead_state::{
    freshness::{Following, Proof, Proofs},
    shard::{Shard, record::Record},
};
use stead_store::shard::ShardMachine;
use stead_types::{DirectoryVersion, FeedOffset, GroupId, Incarnation, TenantNumber};
use tokio::{sync::Notify, time::Instant};

use crate::Views;

/// How often is pinged while records flow or somebody asks.
const BUSY_INTERVAL: Duration = Duration::from_millis(50);
/// How often otherwise.
const IDLE_INTERVAL: Duration = Duration::from_secs(2);
/// How long somebody's asking lasts.
const BUSY_FOR: Duration = Duration::from_secs(1);

/// How one stream is, on the leader that follows it.
#[derive(Clone, Copy, Debug)]
pub struct Lag {
    /// The group that is followed.
    pub home: GroupId,
    /// Whether its stream is open.
    pub connected: bool,
    /// What has been applied of it.
    pub offset: FeedOffset,
    /// How old the youngest proof is that nothing before it is missing of the attached tenants.
    pub staleness: Option<Duration>,
    /// Tenants that the offset speaks for.
    pub attached: u64,
    /// Tenants that it does not speak for.
    pub detached: u64,
    /// Of these, those of which the home has sent what could not be taken.
    pub unreadable: u64,
}

/// The proofs of one group on one node.
pub struct Freshness {
    group: GroupId,
    incarnation: Incarnation,
    machine: Arc<ShardMachine>,
    views: Views,
    origin: Instant,
    proofs: Mutex<BTreeMap<GroupId, Proofs>>,
    asked: Mutex<Option<Instant>>,
    wanted: Notify,
    /// Homes whose stream is open.
    connected: Mutex<BTreeSet<GroupId>>,
    /// Tenants of which their home has sent what could not be taken, since they were attached last.
    unreadable: Mutex<BTreeSet<(GroupId, TenantNumber)>>,
}

impl Freshness {
    pub(crate) fn new(group: (GroupId, Incarnation), machine: Arc<ShardMachine>, views: Views) -> Self {
        Self {
            group: group.0,
            incarnation: group.1,
            machine,
            views,
            origin: Instant::now(),
            proofs: Mutex::default(),
            asked: Mutex::default(),
            wanted: Notify::new(),
            connected: Mutex::default(),
            unreadable: Mutex::default(),
        }
    }

    /// Returns how far this node's copy of a tenant can be behind its home; `None` if nothing is known, as for a copy
    /// that is not attached. Asking makes pings more frequent for a while.
    pub fn staleness(&self, tenant: TenantNumber) -> Option<Duration> {
        self.want();
        self.measured(tenant)
    }

    /// Returns the same, from the pings that there are.
    pub fn measured(&self, tenant: TenantNumber) -> Option<Duration> {
        // All of it as of one state: a proof that is taken in after a tenant was detached does not speak for it.
        let measured = self.machine.read(|held| {
            let following = self.following(held.shard(), tenant)?;
            let applied = self.reached(held.shard(), held.applied(), following.home);
            let mut proofs = self.proofs.lock();
            let proofs = proofs.get_mut(&following.home)?;
            self.views.read(|view| {
                proofs.advance(applied, view.version());
                proofs.staleness(self.now(), view, &following)
            })
        });
        measured.ok().flatten()
    }

    /// Returns how the streams are that this node follows; of use on the group's leader.
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
                    .and_then(Proofs::counted)
                    .map(|proof| now.saturating_sub(proof.as_of)),
                attached,
                detached,
                unreadable: unreadable.iter().filter(|(of, _)| *of == home).count() as u64,
            };
            tenants.into_iter().map(lag).collect()
        });
        lags.unwrap_or_default()
    }

    /// Notes that a home has sent what could not be taken of a tenant.
    pub(crate) fn unreadable(&self, home: GroupId, tenant: TenantNumber) {
        self.unreadable.lock().insert((home, tenant));
    }

    /// Notes whether a home's stream is open.
    pub(crate) fn connected(&self, home: GroupId, is_open: bool) {
        let mut connected = self.connected.lock();
        if is_open {
            connected.insert(home);
        } else {
            connected.remove(&home);
        }
    }

    /// Returns how a group's record says that a tenant is followed.
    fn following(&self, shard: &Shard, tenant: TenantNumber) -> Option<Following> {
        let record = shard.record(tenant).filter(|record| !record.suspect)?;
        let (home, incarnation) = match record.owned() {
            Some(_) => (self.group, Some(self.incarnation)),
            None => (record.home()?, session(shard, record)),
        };
        Some(Following {
            tenant,
            home,
            epoch: record.epoch,
            // Whatever a stream lacked for a tenant comes before it is attached, up to a state of the home that is
            // not older than any proof from before: so a proof of any offset counts.
            attached: incarnation.map(|incarnation| FeedOffset { incarnation, index: 0 }),
            baton: None,
        })
    }

    fn reached(&self, shard: &Shard, applied: u64, home: GroupId) -> FeedOffset {
        if home == self.group {
            let incarnation = self.incarnation;
            return FeedOffset {
                incarnation,
                index: applied,
            };
        }
        shard.stream(home)
    }

    /// Returns the time since this began, by the own clock.
    pub(crate) fn now(&self) -> Duration {
        self.at(Instant::now())
    }

    pub(crate) fn at(&self, instant: Instant) -> Duration {
        instant.saturating_duration_since(self.origin)
    }

    /// Takes in a proof.
    pub(crate) fn answered(&self, home: GroupId, proof: Proof) {
        self.proofs.lock().entry(home).or_default().answered(proof);
        self.advance(home);
    }

    /// Counts what can be counted.
    pub(crate) fn advance(&self, home: GroupId) {
        let applied = self
            .machine
            .read(|held| self.reached(held.shard(), held.applied(), home));
        let Ok(applied) = applied else { return };
        let version = self.views.version();
        if let Some(proofs) = self.proofs.lock().get_mut(&home) {
            proofs.advance(applied, version);
        }
    }

    /// Tells whether another ping of a home is of use.
    pub(crate) fn wants_ping(&self, home: GroupId) -> bool {
        self.advance(home);
        self.proofs.lock().get(&home).is_none_or(Proofs::wants_ping)
    }

    /// Returns what is proved, by home: how old, up to which offset, under which version.
    pub(crate) fn counted(&self) -> Vec<(GroupId, Duration, FeedOffset, DirectoryVersion)> {
        let now = self.now();
        let proofs = self.proofs.lock();
        let counted = proofs
            .iter()
            .filter(|(home, _)| **home != self.group)
            .filter_map(|(home, proofs)| {
                let proof = proofs.counted()?;
                Some((*home, now.saturating_sub(proof.as_of), proof.offset, proof.view))
            });
        counted.collect()
    }

    /// Notes that somebody asks.
    pub(crate) fn want(&self) {
        let now = Instant::now();
        let before = self.asked.lock().replace(now);
        if before.is_none_or(|before| now - before > BUSY_FOR) {
            self.wanted.notify_waiters();
        }
    }

    /// Tells whether somebody has asked lately.
    pub(crate) fn is_wanted(&self) -> bool {
        self.asked.lock().is_some_and(|asked| asked.elapsed() <= BUSY_FOR)
    }

    /// Waits until somebody asks who has not asked for a while.
    pub(crate) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// Returns how long to wait between pings; `busy` is when records last came.
    pub(crate) fn interval(&self, busy: Option<Instant>) -> Duration {
        let last = busy.max(*self.asked.lock());
        let is_busy = last.is_some_and(|last| last.elapsed() <= BUSY_FOR);
        if is_busy { BUSY_INTERVAL } else { IDLE_INTERVAL }
    }
}

/// Returns the incarnation of the home on whose stream a tenant is attached.
fn session(shard: &Shard, record: &Record) -> Option<Incarnation> {
    let session = record.session.filter(|_| shard.is_attached(record))?;
    Some(session.incarnation)
}
