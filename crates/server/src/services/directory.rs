//! `stead.v1.DirectoryService`: routes, answered from this node's own view.

use std::{pin::Pin, sync::Arc};

use futures::{Stream, StreamExt};
use stead_api::{
    convert,
    proto::v1::{
        BatchLookupRequest, BatchLookupResponse, DirectoryServiceWatchRequest, DirectoryServiceWatchResponse,
        ListRegionsRequest, ListRegionsResponse, LookupRequest, LookupResponse, Region, directory_service_server,
    },
    status,
};
use stead_state::authorization::Need;
use stead_types::{Error, TenantName};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::{
    call_metadata::access,
    route_watcher::{RouteFilter, RouteWatcher},
    routes::{regions, route, version},
};
use crate::host::Host;

/// Most tenants of one lookup, and of one filtered watch.
const TENANTS_MAX: usize = 1_000;
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

#[tonic::async_trait]
impl directory_service_server::DirectoryService for DirectoryService {
    async fn lookup(&self, request: Request<LookupRequest>) -> Result<Response<LookupResponse>, Status> {
        let name = convert::id::tenant("tenant", &request.get_ref().tenant).map_err(|e| status::to_status(&e))?;
        let access = access(&request).map_err(|error| status::to_status(&error))?;
        access
            .check(&Need::Member(&name))
            .map_err(|error| status::to_status(&error))?;
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
        let access = access(&request).map_err(|error| status::to_status(&error))?;
        // What the caller may not see is left out, as what does not exist.
        let answer = self.host.directory_view.read(|view| BatchLookupResponse {
            routes: names
                .iter()
                .filter(|name| access.allows_in(view, &Need::Member(name)))
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
        let from = request.get_ref().from.map(convert::id::directory_version);
        let directory_view = self.host.directory_view.clone();
        let names = filter.into_iter().collect();
        let access = access(&request).map_err(|error| status::to_status(&error))?;
        let ended = access.wait_for_end();
        let watcher = RouteWatcher::new(directory_view, RouteFilter { names, access }, from, self.stop.clone());
        // A client watches again with its next token.
        Ok(Response::new(Box::pin(
            watcher.into_messages().take_until(Box::pin(ended)),
        )))
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
