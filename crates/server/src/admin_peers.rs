//! Channels to the client listeners of other nodes, for admin requests that only the other node can answer.

use std::{collections::BTreeMap, time::Duration};

use parking_lot::Mutex;
use stead_api::{
    caller_metadata,
    net::{Connect, Keepalive, channel},
};
use tonic::{Request, Response, Status, transport::Channel};

use crate::auth::Access;

/// Metadata that marks a request from another node. It is answered locally and not passed on again.
const PEER_REQUEST: &str = "x-stead-passed-on";
/// Longest time that another node may take to respond.
pub(crate) const RESPONSE_WAIT_MAX: Duration = Duration::from_secs(2);

/// Cache of channels by address.
pub(crate) struct AdminPeers {
    connect: Connect,
    channels: Mutex<BTreeMap<String, Channel>>,
}

impl AdminPeers {
    /// Returns an empty cache.
    pub(crate) fn new(connect: Connect) -> Self {
        Self {
            connect,
            channels: Mutex::default(),
        }
    }

    /// Returns the function that dials.
    pub(crate) fn connect(&self) -> Connect {
        self.connect.clone()
    }

    /// Returns the channel to an address, or `None` if the address is invalid.
    pub(crate) fn channel(&self, address: &str) -> Option<Channel> {
        let mut channels = self.channels.lock();
        if let Some(known) = channels.get(address) {
            return Some(known.clone());
        }
        let opened = channel(&self.connect, address, Keepalive::PEER).ok()?;
        channels.insert(address.to_owned(), opened.clone());
        Some(opened)
    }
}

/// Waits for another node's response, connecting included; `None` if there is none in time or it is an error.
pub(crate) async fn await_response<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Option<T> {
    let answer = tokio::time::timeout(RESPONSE_WAIT_MAX, call).await.ok()?;
    answer.ok().map(Response::into_inner)
}

/// Builds a request of this node on its own account, which another one answers as it answers a caller.
pub(crate) fn own_request<T>(message: T) -> Request<T> {
    Request::new(message)
}

/// Builds a request that is marked as coming from a node and has a deadline.
pub(crate) fn peer_request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request
        .metadata_mut()
        .insert(PEER_REQUEST, tonic::metadata::MetadataValue::from_static("1"));
    request.set_timeout(RESPONSE_WAIT_MAX);
    request
}

/// Adds the caller for whom a node asks another one: that node decides again what the caller may do.
pub(crate) fn name_caller<T>(request: &mut Request<T>, access: &Access) {
    if access.caller().is_some() {
        caller_metadata::write(&access.to_forwarded(), request.metadata_mut());
    }
}

/// Tells whether a request comes from another node.
pub(crate) fn is_peer_request<T>(request: &Request<T>) -> bool {
    request.metadata().contains_key(PEER_REQUEST)
}
