//! Directory: lookups, watches, and the routes that the client keeps up to date for itself.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use stead_api::proto::v1::{self, directory_service_client::DirectoryServiceClient as Service};
use stead_types::{DirectoryVersion, Error, ErrorKind, Incarnation, TenantName};
use tokio::time::{Instant, sleep};

use crate::{Client, Region, Route, client::Inner, cluster_map::NodePreference, failure};

/// Most tenants that are watched by name; above it all tenants are watched.
const WATCHED_NAMES_MAX: usize = 1_000;
/// Delay that collects newly used tenants before the watch is reopened.
const COLLECT_WAIT: Duration = Duration::from_millis(20);
/// Backoff between two attempts to watch, doubled.
const RETRY_WAIT_FIRST: Duration = Duration::from_millis(100);
const RETRY_WAIT_MAX: Duration = Duration::from_secs(5);

/// Reads and watches the directory: which region is home to which tenant.
#[derive(Clone, Debug)]
pub struct Directory(Client);

/// One change of the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryChange {
    /// Whether everything known before is void, because a snapshot begins.
    pub reset: bool,
    /// New or changed regions.
    pub regions: Vec<Region>,
    /// New or changed routes.
    pub routes: Vec<Route>,
    /// Names that are no longer used.
    pub removed: Vec<String>,
    /// Directory version after this change; absent in the middle of a snapshot.
    pub version: Option<DirectoryVersion>,
}

/// Stream of directory changes.
#[derive(Debug)]
pub struct DirectoryWatch {
    stream: tonic::Streaming<v1::DirectoryServiceWatchResponse>,
    address: String,
}

impl Directory {
    pub(crate) fn new(client: Client) -> Self {
        Self(client)
    }

    /// Looks up the route of a tenant.
    ///
    /// # Errors
    ///
    /// No such tenant, or no node answers.
    pub async fn lookup(&self, tenant: &str) -> Result<Route, Error> {
        let inner = self.0.inner();
        let request = v1::LookupRequest {
            tenant: tenant.to_owned(),
        };
        let call = async |channel, request| Service::new(channel).lookup(request).await;
        let answer = inner.unary(request, inner.deadline(None), true, call).await?;
        answer
            .route
            .and_then(Route::read)
            .ok_or_else(|| crate::response::malformed("route"))
    }

    /// Returns the regions and the addresses of their nodes.
    ///
    /// # Errors
    ///
    /// No node answers.
    pub async fn regions(&self) -> Result<Vec<Region>, Error> {
        let inner = self.0.inner();
        list_regions(inner, inner.deadline(None)).await
    }

    /// Watches the routes of tenants, or of all if none is named. The watch ends with its connection.
    ///
    /// # Errors
    ///
    /// No node answers.
    pub async fn watch(&self, tenants: Vec<String>) -> Result<DirectoryWatch, Error> {
        watch(self.0.inner(), tenants).await
    }
}

impl DirectoryWatch {
    /// Waits for the next change.
    ///
    /// # Errors
    ///
    /// The connection broke: watch again.
    pub async fn next(&mut self) -> Result<DirectoryChange, Error> {
        match self.stream.message().await {
            Ok(Some(message)) => Ok(change(message)),
            Ok(None) => Err(Error::new(
                ErrorKind::Unavailable,
                format!("{} ended the watch", self.address),
            )),
            Err(status) => Err(failure::of(&status, &self.address).error().clone()),
        }
    }
}

async fn watch(inner: &Inner, tenants: Vec<String>) -> Result<DirectoryWatch, Error> {
    let request = v1::DirectoryServiceWatchRequest { from: None, tenants };
    let no_node = || Error::new(ErrorKind::Unavailable, "no node is known that serves calls");
    let node = inner
        .map
        .load()
        .pick(NodePreference::Nearest, &[])
        .ok_or_else(no_node)?;
    match Service::new(node.channel.clone()).watch(request).await {
        Ok(stream) => Ok(DirectoryWatch {
            stream: stream.into_inner(),
            address: node.address.clone(),
        }),
        Err(status) => {
            node.mark_failed();
            Err(failure::of(&status, &node.address).error().clone())
        }
    }
}

fn change(message: v1::DirectoryServiceWatchResponse) -> DirectoryChange {
    let version = |version: v1::DirectoryVersion| DirectoryVersion {
        incarnation: Incarnation(version.incarnation),
        index: version.index,
    };
    DirectoryChange {
        reset: message.reset,
        regions: message.regions.into_iter().filter_map(Region::read).collect(),
        routes: message.routes.into_iter().filter_map(Route::read).collect(),
        removed: message.removed_tenants,
        version: message.version.map(version),
    }
}

pub(crate) async fn list_regions(inner: &Inner, deadline: Instant) -> Result<Vec<Region>, Error> {
    let mut regions = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = v1::ListRegionsRequest {
            page_size: 0,
            page_token,
        };
        let call = async |channel, request| Service::new(channel).list_regions(request).await;
        let answer = inner.unary(request, deadline, true, call).await?;
        regions.extend(answer.regions.into_iter().filter_map(Region::read));
        if answer.next_page_token.is_empty() {
            return Ok(regions);
        }
        page_token = answer.next_page_token;
    }
}

/// Keeps the routes of the watched tenants and the map of nodes up to date, for as long as the client lives. Known
/// routes stay while no node answers.
pub(crate) async fn watch_routes(inner: Arc<Inner>) {
    let mut wait = RETRY_WAIT_FIRST;
    loop {
        let watched = WatchedTenants::of(&inner);
        if watched.is_empty() {
            inner.watch_list_changed.notified().await;
            sleep(COLLECT_WAIT).await;
            continue;
        }
        match watch(&inner, watched.names()).await {
            Ok(watch) => {
                if watched.run(&inner, watch).await.is_ok() {
                    wait = RETRY_WAIT_FIRST;
                    continue;
                }
            }
            Err(error) => tracing::debug!(%error, "directory watch failed"),
        }
        sleep(inner.jitter(wait)).await;
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
    fn of(inner: &Inner) -> Self {
        let sessions = inner.sessions.lock();
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
    async fn run(mut self, inner: &Inner, mut watch: DirectoryWatch) -> Result<(), Error> {
        loop {
            tokio::select! {
                change = watch.next() => self.take(inner, change?),
                () = inner.watch_list_changed.notified() => {
                    sleep(COLLECT_WAIT).await;
                    return Ok(());
                }
            }
        }
    }

    fn take(&mut self, inner: &Inner, change: DirectoryChange) {
        inner.update_regions(change.regions);
        if change.reset {
            self.snapshot = Some(BTreeSet::new());
        }
        let sessions = inner.sessions.lock();
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
