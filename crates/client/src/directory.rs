//! Which region is home to whom: asked, watched, and followed by the client itself.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use stead_api::proto::v1::{self, directory_service_client::DirectoryServiceClient as Service};
use stead_types::{DirectoryVersion, Error, ErrorKind, Incarnation, TenantName};
use tokio::time::{Instant, sleep};

use crate::{Client, Region, Route, client::Inner, failure, map::Want};

/// Above this many tenants in use, all are watched instead of each by name.
const NAMED_MAX: usize = 1_000;
/// How long the use of new tenants is collected before the watch is opened anew.
const COLLECT: Duration = Duration::from_millis(20);
/// Waits between two attempts to watch, doubled.
const AGAIN_FIRST: Duration = Duration::from_millis(100);
const AGAIN_MAX: Duration = Duration::from_secs(5);

/// Asks and watches which region is home to whom.
#[derive(Clone, Debug)]
pub struct Directory(Client);

/// What has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What was known is void: a snapshot begins.
    pub reset: bool,
    /// New or changed regions.
    pub regions: Vec<Region>,
    /// New or changed routes.
    pub routes: Vec<Route>,
    /// Names that are no longer used.
    pub removed: Vec<String>,
    /// Reached with this change; absent in the middle of a snapshot.
    pub version: Option<DirectoryVersion>,
}

/// Changes as they come.
#[derive(Debug)]
pub struct Watch {
    stream: tonic::Streaming<v1::DirectoryServiceWatchResponse>,
    address: String,
}

impl Directory {
    pub(crate) fn new(client: Client) -> Self {
        Self(client)
    }

    /// Asks where a tenant lives.
    ///
    /// # Errors
    ///
    /// No such tenant, or nobody who can answer.
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
            .ok_or_else(|| crate::answer::malformed("route"))
    }

    /// Returns the regions and how to reach their nodes.
    ///
    /// # Errors
    ///
    /// Nobody who can answer.
    pub async fn regions(&self) -> Result<Vec<Region>, Error> {
        let inner = self.0.inner();
        list_regions(inner, inner.deadline(None)).await
    }

    /// Watches tenants, or all if none is named. It ends when its connection does.
    ///
    /// # Errors
    ///
    /// Nobody who can answer.
    pub async fn watch(&self, tenants: Vec<String>) -> Result<Watch, Error> {
        watch(self.0.inner(), tenants).await
    }
}

impl Watch {
    /// Waits for the next change.
    ///
    /// # Errors
    ///
    /// The connection broke: watch again.
    pub async fn next(&mut self) -> Result<Change, Error> {
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

async fn watch(inner: &Inner, tenants: Vec<String>) -> Result<Watch, Error> {
    let request = v1::DirectoryServiceWatchRequest { from: None, tenants };
    let nobody = || Error::new(ErrorKind::Unavailable, "the cluster names no node that takes calls");
    let node = inner.map.load().pick(Want::Nearest, &[]).ok_or_else(nobody)?;
    match Service::new(node.channel.clone()).watch(request).await {
        Ok(stream) => Ok(Watch {
            stream: stream.into_inner(),
            address: node.address.clone(),
        }),
        Err(status) => {
            node.failed();
            Err(failure::of(&status, &node.address).error().clone())
        }
    }
}

fn change(message: v1::DirectoryServiceWatchResponse) -> Change {
    let version = |version: v1::DirectoryVersion| DirectoryVersion {
        incarnation: Incarnation(version.incarnation),
        index: version.index,
    };
    Change {
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

/// Keeps the routes of the tenants in use and the map of nodes, for as long as the client lives. What is known stays
/// known while nobody can be asked.
pub(crate) async fn follow(inner: Arc<Inner>) {
    let mut again = AGAIN_FIRST;
    loop {
        let following = Following::of(&inner);
        if following.is_nobody() {
            inner.newly_followed.notified().await;
            sleep(COLLECT).await;
            continue;
        }
        match watch(&inner, following.names()).await {
            Ok(watch) => {
                if following.run(&inner, watch).await.is_ok() {
                    again = AGAIN_FIRST;
                    continue;
                }
            }
            Err(error) => tracing::debug!(%error, "routes cannot be watched"),
        }
        sleep(inner.jitter(again)).await;
        again = (again * 2).min(AGAIN_MAX);
    }
}

/// The tenants for which one watch was opened, and its snapshot as far as it has come.
struct Following {
    /// `None`: all.
    tenants: Option<BTreeSet<TenantName>>,
    /// Names of a snapshot whose end has not come.
    snapshot: Option<BTreeSet<TenantName>>,
}

impl Following {
    fn of(inner: &Inner) -> Self {
        let sessions = inner.sessions.lock();
        let followed = sessions.iter().filter(|(_, session)| session.is_followed());
        let tenants: BTreeSet<TenantName> = followed.map(|(name, _)| name.clone()).collect();
        Self {
            tenants: (tenants.len() <= NAMED_MAX).then_some(tenants),
            snapshot: None,
        }
    }

    fn is_nobody(&self) -> bool {
        self.tenants.as_ref().is_some_and(BTreeSet::is_empty)
    }

    /// Returns the names to ask for; none: all.
    fn names(&self) -> Vec<String> {
        self.tenants.iter().flatten().map(ToString::to_string).collect()
    }

    /// Ends well when other tenants must be watched.
    async fn run(mut self, inner: &Inner, mut watch: Watch) -> Result<(), Error> {
        loop {
            tokio::select! {
                change = watch.next() => self.take(inner, change?),
                () = inner.newly_followed.notified() => {
                    sleep(COLLECT).await;
                    return Ok(());
                }
            }
        }
    }

    fn take(&mut self, inner: &Inner, change: Change) {
        inner.learn(change.regions);
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
        // Whoever was deleted while nobody watched is told of by nothing else.
        if let Some(snapshot) = self.snapshot.take() {
            let is_gone = |name: &TenantName| {
                self.tenants.as_ref().is_none_or(|tenants| tenants.contains(name)) && !snapshot.contains(name)
            };
            let gone = sessions.iter().filter(|(name, _)| is_gone(name));
            gone.for_each(|(_, session)| session.set_route(None));
        }
    }
}
