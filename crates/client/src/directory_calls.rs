//! Calls of the directory service, which handles and the client's own tasks make.

use std::sync::Arc;

use stead_api::proto::v1::{self, directory_service_client::DirectoryServiceClient as Service};
use stead_types::{DirectoryVersion, Error, ErrorKind, Incarnation};
use tokio::time::Instant;

use crate::{Region, Route, node::Node, paging::ListPage, response::malformed, state::ClientState};

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
    node: Arc<Node>,
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
                format!("{} ended the watch", self.node.address),
            )),
            Err(status) => Err(self.node.stream_failed(&status)),
        }
    }
}

/// Looks up the route of a tenant.
pub(crate) async fn lookup(state: &ClientState, tenant: &str) -> Result<Route, Error> {
    let request = v1::LookupRequest {
        tenant: tenant.to_owned(),
    };
    let call = async |channel, request| Service::new(channel).lookup(request).await;
    let answer = state.unary(request, state.deadline(None), true, call).await?;
    answer.route.and_then(Route::read).ok_or_else(|| malformed("route"))
}

/// Returns all regions, with the addresses of their nodes.
pub(crate) async fn list_regions(state: &ClientState, deadline: Instant) -> Result<Vec<Region>, Error> {
    let request = v1::ListRegionsRequest::default();
    let regions = state
        .list(
            request,
            deadline,
            async |channel, request| Service::new(channel).list_regions(request).await,
            |request, page_token| request.page_token = page_token,
            |answer| ListPage {
                items: answer.regions,
                next_page_token: answer.next_page_token,
            },
        )
        .await?;
    Ok(regions.into_iter().filter_map(Region::read).collect())
}

/// Opens a watch of the routes of tenants, or of all if none is named.
pub(crate) async fn watch(state: &ClientState, tenants: Vec<String>) -> Result<DirectoryWatch, Error> {
    let request = v1::DirectoryServiceWatchRequest { from: None, tenants };
    let call = async |channel, request| Service::new(channel).watch(request).await;
    let (stream, node) = state.open_stream(request, state.deadline(None), call).await?;
    Ok(DirectoryWatch { stream, node })
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
