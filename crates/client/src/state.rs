//! State that all calls of a client share: the known nodes, sessions, retry budget and random numbers.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::Mutex;
use rand::{Rng, SeedableRng, rngs::StdRng};
use stead_types::{Error, ErrorKind, RegionName, TenantName};
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

use crate::{
    Config, Region,
    channel::Transport,
    cluster_map::{ClusterMap, NodePreference},
    imported_tokens::ImportedTokens,
    node::Node,
    retry::RetryBudget,
    session::TenantSession,
};

/// State that all calls of a client share. It knows neither calls nor handles.
#[derive(Debug)]
pub(crate) struct ClientState {
    pub(crate) config: Config,
    pub(crate) transport: Transport,
    pub(crate) map: ArcSwap<ClusterMap>,
    pub(crate) budget: RetryBudget,
    /// 16 random bytes, the client id of idempotency keys.
    pub(crate) client_id: Bytes,
    pub(crate) sequence: AtomicU64,
    pub(crate) sessions: Mutex<BTreeMap<TenantName, Arc<TenantSession>>>,
    pub(crate) imported: ImportedTokens,
    /// Notified when the route of another tenant must be watched, or when a known route was wrong.
    pub(crate) watch_list_changed: Arc<Notify>,
    random: Mutex<StdRng>,
    /// Offset of this client in a region's list of nodes, which spreads clients over them.
    rotation: usize,
}

impl ClientState {
    pub(crate) fn new(config: Config) -> Result<Self, Error> {
        let addresses = config.addresses()?;
        let transport = Transport {
            connect: config.connect.clone(),
            token: config.token.clone(),
        };
        let mut random = config.seed.map_or_else(StdRng::from_os_rng, StdRng::seed_from_u64);
        let client_id: [u8; 16] = random.random();
        Ok(Self {
            map: ArcSwap::from_pointee(ClusterMap::of_addresses(&addresses, &transport)?),
            config,
            transport,
            budget: RetryBudget::new(),
            client_id: Bytes::copy_from_slice(&client_id),
            sequence: AtomicU64::new(0),
            sessions: Mutex::default(),
            imported: ImportedTokens::default(),
            watch_list_changed: Arc::default(),
            rotation: random.random_range(0..1 << 16),
            random: Mutex::new(random),
        })
    }

    /// Returns the session of a tenant, which all its handles share.
    pub(crate) fn session(&self, name: TenantName) -> Arc<TenantSession> {
        let new = |name: &TenantName| Arc::new(TenantSession::new(name.clone(), self.watch_list_changed.clone()));
        self.sessions.lock().entry(name).or_insert_with_key(new).clone()
    }

    /// Releases the session of a dropped handle. With its last handle a name is removed that has not turned out to be a
    /// tenant's: names may come from outside, as many as somebody cares to send.
    pub(crate) fn release_session(&self, session: Arc<TenantSession>) {
        let mut sessions = self.sessions.lock();
        let name = session.tenant.clone();
        // Counted without this handle, under the lock: of two that go together the second one is the last.
        drop(session);
        let is_last = |session: &Arc<TenantSession>| Arc::strong_count(session) == 1 && session.is_unknown();
        if sessions.get(&name).is_some_and(is_last) {
            sessions.remove(&name);
        }
    }

    /// Adds new and changed regions to the map.
    pub(crate) fn update_regions(&self, regions: Vec<Region>) {
        let map = self.map.load();
        let mut known = map.regions.clone();
        known.extend(regions.into_iter().map(|region| (region.name.clone(), region)));
        if known != map.regions {
            self.rebuild_map(known, map.round_trips.clone());
        }
    }

    /// Sets the measured round trips.
    pub(crate) fn update_round_trips(&self, round_trips: BTreeMap<RegionName, Duration>) {
        let regions = self.map.load().regions.clone();
        self.rebuild_map(regions, round_trips);
    }

    fn rebuild_map(&self, regions: BTreeMap<RegionName, Region>, mut round_trips: BTreeMap<RegionName, Duration>) {
        if let Some(region) = &self.config.region {
            round_trips.insert(region.clone(), Duration::ZERO);
        }
        let map = self
            .map
            .load()
            .with(regions, round_trips, &self.transport, self.rotation);
        self.map.store(Arc::new(map));
    }

    /// Returns the node to ask, of those that were not tried.
    pub(crate) fn pick(&self, preference: NodePreference<'_>, tried: &[Arc<Node>]) -> Result<Arc<Node>, Error> {
        let no_node = || Error::new(ErrorKind::Unavailable, "no node is known that serves calls");
        self.map.load().pick(preference, tried).ok_or_else(no_node)
    }

    pub(crate) fn next_sequence(&self) -> u64 {
        self.sequence.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Returns a random id, unique for practical purposes.
    pub(crate) fn random_id(&self) -> u128 {
        self.random.lock().random()
    }

    /// Returns the wait with a jitter of 25 % either way, so that callers do not come back together.
    pub(crate) fn jitter(&self, wait: Duration) -> Duration {
        if wait.is_zero() {
            wait
        } else {
            wait.mul_f64(self.random.lock().random_range(0.75..1.25))
        }
    }

    /// Returns the wait with a jitter of up to 25 % more: a caller that comes before the time that a node has named is
    /// refused again.
    pub(crate) fn jitter_at_least(&self, wait: Duration) -> Duration {
        wait.mul_f64(self.random.lock().random_range(1.0..1.25))
    }

    pub(crate) fn deadline(&self, timeout: Option<Duration>) -> Instant {
        deadline_after(timeout.unwrap_or(self.config.timeout))
    }

    /// Sleeps; returns `false` at once if the deadline would pass meanwhile.
    pub(crate) async fn wait(&self, wait: Duration, deadline: Instant) -> bool {
        if Instant::now() + wait >= deadline {
            return false;
        }
        if !wait.is_zero() {
            let _ = timeout_at(deadline, tokio::time::sleep(wait)).await;
        }
        true
    }
}

/// Longest timeout; a longer one is cut to it, so that the clock does not overflow.
const TIMEOUT_MAX: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

/// Returns the time after a timeout of any size.
pub(crate) fn deadline_after(timeout: Duration) -> Instant {
    Instant::now() + timeout.min(TIMEOUT_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn named_wait_is_never_shortened_and_others_are_jittered() {
        let state = ClientState::new(Config::new(["127.0.0.1:1"])).unwrap();
        let wait = Duration::from_secs(4);
        let bounds = |draw: &dyn Fn() -> Duration| {
            let drawn: Vec<_> = (0..1_000).map(|_| draw().as_secs()).collect();
            (drawn.iter().min().copied(), drawn.iter().max().copied())
        };
        assert_eq!(bounds(&|| state.jitter_at_least(wait)), (Some(4), Some(4)));
        assert_eq!(bounds(&|| state.jitter(wait)), (Some(3), Some(4)));
    }

    #[tokio::test]
    async fn timeout_of_any_size_is_a_deadline() {
        let state = ClientState::new(Config::new(["127.0.0.1:1"])).unwrap();
        let year = Instant::now() + Duration::from_secs(365 * 24 * 3600);
        assert!(state.deadline(Some(Duration::MAX)) > year);
    }
}
