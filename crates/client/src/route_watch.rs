//! Route watch: a task that keeps the routes of the used tenants and the map of nodes up to date.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use stead_types::{Error, TenantName};
use tokio::time::sleep;

use crate::{
    directory_calls::{self, DirectoryChange, DirectoryWatch},
    state::ClientState,
};

/// Most tenants that are watched by name; above it all tenants are watched.
const WATCHED_NAMES_MAX: usize = 1_000;
/// Delay that collects newly used tenants before the watch is reopened.
const COLLECT_WAIT: Duration = Duration::from_millis(20);
/// Backoff between two attempts to watch, doubled.
const RETRY_WAIT_FIRST: Duration = Duration::from_millis(100);
const RETRY_WAIT_MAX: Duration = Duration::from_secs(5);

/// Keeps the routes of the watched tenants and the map of nodes up to date, for as long as the client lives. Known
/// routes stay while no node answers.
pub(crate) async fn watch_routes(state: Arc<ClientState>) {
    let mut wait = RETRY_WAIT_FIRST;
    loop {
        let watched = WatchedTenants::of(&state);
        if watched.is_empty() {
            state.watch_list_changed.notified().await;
            sleep(COLLECT_WAIT).await;
            continue;
        }
        match directory_calls::watch(&state, watched.names()).await {
            Ok(watch) => {
                if watched.run(&state, watch).await.is_ok() {
                    wait = RETRY_WAIT_FIRST;
                    continue;
                }
            }
            Err(error) => tracing::debug!(%error, "directory watch failed"),
        }
        sleep(state.jitter(wait)).await;
        wait = (wait * 2).min(RETRY_WAIT_MAX);
    }
}

/// Tenants for which one watch was opened, and the part of its snapshot that has arrived.
struct WatchedTenants {
    /// `None`: all.
    tenants: Option<BTreeSet<TenantName>>,
    /// Names of a snapshot that is not complete yet.
    snapshot: Option<BTreeSet<TenantName>>,
}

impl WatchedTenants {
    fn of(state: &ClientState) -> Self {
        let sessions = state.sessions.lock();
        let followed = sessions.iter().filter(|(_, session)| session.is_watched());
        let tenants: BTreeSet<TenantName> = followed.map(|(name, _)| name.clone()).collect();
        Self {
            tenants: (tenants.len() <= WATCHED_NAMES_MAX).then_some(tenants),
            snapshot: None,
        }
    }

    fn is_empty(&self) -> bool {
        self.tenants.as_ref().is_some_and(BTreeSet::is_empty)
    }

    /// Returns the names to watch; none: all.
    fn names(&self) -> Vec<String> {
        self.tenants.iter().flatten().map(ToString::to_string).collect()
    }

    /// Applies changes; returns `Ok` when the set of watched tenants has changed.
    async fn run(mut self, state: &ClientState, mut watch: DirectoryWatch) -> Result<(), Error> {
        loop {
            tokio::select! {
                change = watch.next() => self.take(state, change?),
                () = state.watch_list_changed.notified() => {
                    sleep(COLLECT_WAIT).await;
                    return Ok(());
                }
            }
        }
    }

    fn take(&mut self, state: &ClientState, change: DirectoryChange) {
        state.update_regions(change.regions);
        if change.reset {
            self.snapshot = Some(BTreeSet::new());
        }
        let sessions = state.sessions.lock();
        for route in change.routes {
            if let Some(snapshot) = &mut self.snapshot {
                snapshot.insert(route.tenant.clone());
            }
            if let Some(session) = sessions.get(&route.tenant) {
                session.set_route(Some(Arc::new(route)));
            }
        }
        for name in change.removed {
            let session = name.parse::<TenantName>().ok().and_then(|name| sessions.get(&name));
            if let Some(session) = session {
                session.set_route(None);
            }
        }
        if change.version.is_none() {
            return;
        }
        // A tenant that was deleted while nothing was watched is missing in the snapshot, and reported by nothing else.
        if let Some(snapshot) = self.snapshot.take() {
            let is_gone = |name: &TenantName| {
                self.tenants.as_ref().is_none_or(|tenants| tenants.contains(name)) && !snapshot.contains(name)
            };
            let gone = sessions.iter().filter(|(name, _)| is_gone(name));
            gone.for_each(|(_, session)| session.set_route(None));
        }
    }
}
