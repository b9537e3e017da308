//! `stead.v1.DirectoryService`: routes, answered from this node's own view.

use std::{collections::BTreeSet, pin::Pin, sync::Arc};

use futures::{Stream, stream};
use stead_api::{
    convert,
    proto::v1::{
        BatchLookupRequest, BatchLookupResponse, DirectoryServiceWatchRequest, DirectoryServiceWatchResponse, Endpoint,
        ListRegionsRequest, ListRegionsResponse, LookupRequest, LookupResponse, Region, Route,
        directory_service_server,
    },
    status,
};
use stead_state::directory::{DirectoryView, Tenant, TenantState};
use stead_types::{DirectoryVersion, Error, TenantName};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::host::Host;

/// Most tenants of one lookup, and of one filtered watch.
const TENANTS_MAX: usize = 1_000;
/// Most routes in one message.
const MESSAGE_ROUTES_MAX: usize = 1_000;
/// Page size of regions.
const REGIONS_PAGE: u32 = 100;

/// The service.
#[derive(Clone)]
pub(crate) struct DirectoryService {
    host: Arc<Host>,
    stop: CancellationToken,
}

impl DirectoryService {
    /// Returns the service; watches end when the token fires.
    pub(crate) fn new(host: Arc<Host>, stop: CancellationToken) -> Self {
        Self { host, stop }
    }
}

/// Converts a tenant's route into a message.
pub(crate) fn route(view: &DirectoryView, tenant: &Tenant) -> Route {
    let region = |group| view.region_of(group).map(|region| region.name.to_string());
    let home = region(tenant.home);
    // The target of a move within the region is a follower there, for the length of the move.
    let followers = tenant.follower_groups().filter_map(region);
    Route {
        tenant: tenant.name.to_string(),
        tenant_number: tenant.number.get(),
        follower_regions: followers.filter(|region| Some(region) != home.as_ref()).collect(),
        home_region: home.unwrap_or_default(),
        home_group: tenant.home.get(),
        epoch: tenant.epoch.get(),
    }
}

fn regions(view: &DirectoryView) -> Vec<Region> {
    let endpoint = |node: &stead_state::directory::Node| Endpoint {
        node: node.number.get(),
        client_address: node.addresses.client.clone(),
        http_address: node.addresses.http.clone(),
        groups: view
            .groups()
            .filter(|g| g.voters.contains(&node.number))
            .map(|g| g.number.get())
            .collect(),
    };
    let region = |region: &stead_state::directory::Region| Region {
        name: region.name.to_string(),
        jurisdiction: region.jurisdiction.to_string(),
        endpoints: view
            .nodes()
            .filter(|node| node.region == region.name && !node.witness)
            .map(endpoint)
            .collect(),
    };
    view.regions().map(region).collect()
}

fn version(view: &DirectoryView) -> Option<stead_api::proto::v1::DirectoryVersion> {
    Some(convert::id::from_directory_version(view.version()))
}

/// A watch of routes, with the state that its client has received.
struct RouteWatcher {
    host: Arc<Host>,
    versions: watch::Receiver<DirectoryVersion>,
    stop: CancellationToken,
    filter: BTreeSet<TenantName>,
    sent_version: DirectoryVersion,
    sent_names: BTreeSet<TenantName>,
    queued: Vec<DirectoryServiceWatchResponse>,
    is_first: bool,
}

impl RouteWatcher {
    async fn next(mut self) -> Option<(Result<DirectoryServiceWatchResponse, Status>, Self)> {
        loop {
            if let Some(message) = self.queued.pop() {
                return Some((Ok(message), self));
            }
            if !self.is_first {
                tokio::select! {
                    changed = self.versions.changed() => changed.ok()?,
                    () = self.stop.cancelled() => return None,
                }
            }
            self.versions.borrow_and_update();
            self.queued = self.messages();
            self.is_first = false;
        }
    }

    /// Returns the messages with all changes since the last one, in reverse order for popping.
    fn messages(&mut self) -> Vec<DirectoryServiceWatchResponse> {
        let host = self.host.clone();
        host.directory_view.read(|view| {
            let is_changed = |tenant: &&Arc<Tenant>| {
                tenant.state != TenantState::Deleting
                    && (self.is_first || tenant.version > self.sent_version)
                    && (self.filter.is_empty() || self.filter.contains(&tenant.name))
            };
            let changed: Vec<Arc<Tenant>> = view.tenants_after(None).filter(is_changed).cloned().collect();
            let gone: Vec<TenantName> = self
                .sent_names
                .iter()
                .filter(|name| view.tenant_named(name).is_none())
                .cloned()
                .collect();
            for name in &gone {
                self.sent_names.remove(name);
            }
            self.sent_names.extend(changed.iter().map(|tenant| tenant.name.clone()));
            let routes: Vec<Route> = changed.iter().map(|tenant| route(view, tenant)).collect();
            let mut messages: Vec<DirectoryServiceWatchResponse> = routes
                .chunks(MESSAGE_ROUTES_MAX)
                .map(|routes| DirectoryServiceWatchResponse {
                    routes: routes.to_vec(),
                    ..Default::default()
                })
                .collect();
            if messages.is_empty() {
                messages.push(DirectoryServiceWatchResponse::default());
            }
            if let Some(first) = messages.first_mut() {
                first.reset = self.is_first;
                first.regions = regions(view);
                first.removed_tenants = gone.iter().map(ToString::to_string).collect();
            }
            if let Some(last) = messages.last_mut() {
                last.version = version(view);
            }
            self.sent_version = view.version();
            messages.reverse();
            messages
        })
    }
}

#[tonic::async_trait]
impl directory_service_server::DirectoryService for DirectoryService {
    async fn lookup(&self, request: Request<LookupRequest>) -> Result<Response<LookupResponse>, Status> {
        let name = convert::id::tenant("tenant", &request.get_ref().tenant).map_err(|e| status::to_status(&e))?;
        let tenant = self
            .host
            .resolve(&name)
            .await
            .map_err(|error| status::to_status(&error))?;
        let (route, version) = self
            .host
            .directory_view
            .read(|view| (route(view, &tenant), version(view)));
        Ok(Response::new(LookupResponse {
            route: Some(route),
            version,
        }))
    }

    async fn batch_lookup(
        &self,
        request: Request<BatchLookupRequest>,
    ) -> Result<Response<BatchLookupResponse>, Status> {
        let names = names(&request.get_ref().tenants).map_err(|error| status::to_status(&error))?;
        let answer = self.host.directory_view.read(|view| BatchLookupResponse {
            routes: names
                .iter()
                .filter_map(|n| view.tenant_named(n))
                .map(|tenant| route(view, tenant))
                .collect(),
            version: version(view),
        });
        Ok(Response::new(answer))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<DirectoryServiceWatchResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<DirectoryServiceWatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let filter = names(&request.get_ref().tenants).map_err(|error| status::to_status(&error))?;
        let watcher = RouteWatcher {
            host: self.host.clone(),
            versions: self.host.directory_view.watch(),
            stop: self.stop.clone(),
            filter: filter.into_iter().collect(),
            sent_version: DirectoryVersion::ZERO,
            sent_names: BTreeSet::new(),
            queued: Vec::new(),
            is_first: true,
        };
        Ok(Response::new(Box::pin(stream::unfold(watcher, RouteWatcher::next))))
    }

    async fn list_regions(
        &self,
        request: Request<ListRegionsRequest>,
    ) -> Result<Response<ListRegionsResponse>, Status> {
        let requested = request.get_ref().page_size;
        let size =
            convert::page::size(requested, REGIONS_PAGE, REGIONS_PAGE).map_err(|error| status::to_status(&error))?;
        let after = convert::page::position(b"regions", &request.get_ref().page_token);
        let after = after.map_err(|error| status::to_status(&error))?.unwrap_or_default();
        let (all, version) = self.host.directory_view.read(|view| (regions(view), version(view)));
        let mut rest = all
            .into_iter()
            .filter(|region| region.name.as_bytes() > after.as_slice());
        let page: Vec<Region> = rest.by_ref().take(size as usize).collect();
        let more = rest.next().is_some();
        let last = page.last().filter(|_| more);
        let next_page_token = last.map(|last| convert::page::token(b"regions", last.name.as_bytes()));
        let next_page_token = next_page_token.unwrap_or_default();
        Ok(Response::new(ListRegionsResponse {
            regions: page,
            next_page_token,
            version,
        }))
    }
}

fn names(texts: &[String]) -> Result<Vec<TenantName>, Error> {
    if texts.len() > TENANTS_MAX {
        let message = format!(
            "tenants: at most {TENANTS_MAX} a request, not {}: ask in parts",
            texts.len()
        );
        return Err(Error::invalid("tenants", message));
    }
    texts
        .iter()
        .enumerate()
        .map(|(at, name)| convert::id::tenant(&format!("tenants[{at}]"), name))
        .collect()
}
