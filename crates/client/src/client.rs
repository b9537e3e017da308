//! Client of a cluster, and the state that all its calls share.

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
use stead_types::{Error, TenantName};
use tokio::{
    sync::Notify,
    task::AbortHandle,
    time::{Instant, timeout_at},
};

use crate::{
    Config, Region, admin::Admin, cluster_map::ClusterMap, diagnose, directory, probe, retry::RetryBudget,
    session::TenantSession, tenant::Tenant, tokens::ImportedTokens,
};

/// Client of a cluster; clones share everything.
#[derive(Clone, Debug)]
pub struct Client(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    inner: Arc<Inner>,
    tasks: Vec<AbortHandle>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) config: Config,
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

impl Client {
    /// Connects: asks a node for the regions, so that wrong addresses are reported at once.
    ///
    /// # Errors
    ///
    /// No node of the configuration answers; the message says what does answer there.
    pub async fn connect(config: Config) -> Result<Self, Error> {
        let deadline = Instant::now() + config.connect_timeout;
        let client = Self::lazy(config)?;
        let answered = tokio::select! {
            answered = directory::list_regions(client.inner(), deadline) => answered,
            error = diagnose::find_wrong_protocol(client.inner()) => return Err(error),
        };
        match answered {
            Ok(regions) => client.inner().update_regions(regions),
            Err(error) => return Err(diagnose::explain_error(client.inner(), error).await),
        }
        Ok(client)
    }

    /// Returns a client that connects with its first call. It needs a tokio runtime.
    ///
    /// # Errors
    ///
    /// An endpoint that is no address.
    pub fn lazy(config: Config) -> Result<Self, Error> {
        let addresses = config.addresses()?;
        let mut random = config.seed.map_or_else(StdRng::from_os_rng, StdRng::seed_from_u64);
        let client_id: [u8; 16] = random.random();
        let inner = Arc::new(Inner {
            map: ArcSwap::from_pointee(ClusterMap::of_addresses(&addresses, &config.connect)?),
            config,
            budget: RetryBudget::new(),
            client_id: Bytes::copy_from_slice(&client_id),
            sequence: AtomicU64::new(0),
            sessions: Mutex::default(),
            imported: ImportedTokens::default(),
            watch_list_changed: Arc::default(),
            rotation: random.random_range(0..1 << 16),
            random: Mutex::new(random),
        });
        let watch = tokio::spawn(directory::watch_routes(inner.clone())).abort_handle();
        let probe = tokio::spawn(probe::measure(inner.clone())).abort_handle();
        Ok(Self(Arc::new(Handle {
            inner,
            tasks: vec![watch, probe],
        })))
    }

    /// Returns a handle of one tenant. All handles of a tenant share its session.
    ///
    /// # Errors
    ///
    /// A name that no tenant can have.
    pub fn tenant(&self, name: &str) -> Result<Tenant, Error> {
        let invalid = |why| Error::invalid("tenant", format!("tenant: {why}; got {name:?}"));
        let name: TenantName = name.parse().map_err(invalid)?;
        let mut sessions = self.inner().sessions.lock();
        let watch_list_changed = &self.inner().watch_list_changed;
        let session = sessions
            .entry(name)
            .or_insert_with_key(|name| Arc::new(TenantSession::new(name.clone(), watch_list_changed.clone())));
        Ok(Tenant::new(self.clone(), session.clone()))
    }

    /// Returns the calls for operators.
    pub fn admin(&self) -> Admin {
        Admin::new(self.clone())
    }

    /// Returns the calls that read the directory.
    pub fn directory(&self) -> directory::Directory {
        directory::Directory::new(self.clone())
    }

    /// Returns the regions that the client knows, with the measured round trips.
    pub fn regions(&self) -> Vec<(Region, Option<Duration>)> {
        let map = self.inner().map.load();
        let known = |region: &Region| (region.clone(), map.round_trips.get(&region.name).copied());
        map.regions.values().map(known).collect()
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.0.inner
    }
}

impl Inner {
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
    pub(crate) fn update_round_trips(&self, round_trips: BTreeMap<stead_types::RegionName, Duration>) {
        let regions = self.map.load().regions.clone();
        self.rebuild_map(regions, round_trips);
    }

    fn rebuild_map(
        &self,
        regions: BTreeMap<stead_types::RegionName, Region>,
        mut round_trips: BTreeMap<stead_types::RegionName, Duration>,
    ) {
        if let Some(region) = &self.config.region {
            round_trips.insert(region.clone(), Duration::ZERO);
        }
        let map = self
            .map
            .load()
            .with(regions, round_trips, &self.config.connect, self.rotation);
        self.map.store(Arc::new(map));
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
        Instant::now() + timeout.unwrap_or(self.config.timeout)
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

#[cfg(test)]
mod tests {
    use stead_types::{SessionToken, TenantTime};

    use super::*;

    #[tokio::test]
    async fn named_wait_is_never_shortened_and_others_are_jittered() {
        let client = Client::lazy(Config::new(["127.0.0.1:1"])).unwrap();
        let (wait, inner) = (Duration::from_secs(4), client.inner());
        let bounds = |draw: &dyn Fn() -> Duration| {
            let drawn: Vec<_> = (0..1_000).map(|_| draw().as_secs()).collect();
            (drawn.iter().min().copied(), drawn.iter().max().copied())
        };
        assert_eq!(bounds(&|| inner.jitter_at_least(wait)), (Some(4), Some(4)));
        assert_eq!(bounds(&|| inner.jitter(wait)), (Some(3), Some(4)));
    }

    #[tokio::test]
    async fn unknown_tenant_session_is_removed_with_last_handle() {
        let client = Client::lazy(Config::new(["127.0.0.1:1"])).unwrap();
        let names = || {
            client
                .inner()
                .sessions
                .lock()
                .keys()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        let acme = client.tenant("acme").unwrap();
        let token = SessionToken {
            tenant: stead_types::TenantNumber::new(1),
            revision: "1.1".parse().unwrap(),
        };
        acme.session().observe_token(token, TenantTime(1));
        let brix = client.tenant("brix").unwrap();
        for at in 0..100 {
            let _home = client.home(&format!("nobody-{at}")).unwrap();
        }
        let other = brix.clone();
        drop((acme, brix));
        assert_eq!(names(), ["acme", "brix"]);
        drop(other);
        assert_eq!(names(), ["acme"]);
    }
}
