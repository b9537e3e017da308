//! Connection to one node, with a circuit breaker.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use stead_api::{
    net::{self, Keepalive},
    proto::v1::{ListRegionsRequest, directory_service_client::DirectoryServiceClient},
};
use stead_types::Error;
use tokio::{
    task::AbortHandle,
    time::{sleep, timeout},
};
use tonic::{Status, service::interceptor::InterceptedService};

use crate::{
    channel::{Channel, Transport},
    failure::{self, AttemptFailure},
    pipeline::Pipeline,
};

/// First wait before a failed node is checked; doubled up to [`CHECK_WAIT_MAX`].
const CHECK_WAIT_FIRST: Duration = Duration::from_millis(50);
const CHECK_WAIT_MAX: Duration = Duration::from_secs(2);
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) address: String,
    pub(crate) channel: Channel,
    /// Channel for watches, apart from the calls: a slow reader of a watch holds up no calls.
    pub(crate) watches: Channel,
    pub(crate) pipeline: Pipeline,
    /// Health check of a failed node, until it answers; calls go elsewhere meanwhile, so that none waits for a frozen
    /// node.
    health_check: Mutex<Option<AbortHandle>>,
}

impl Node {
    pub(crate) fn new(transport: &Transport, address: &str) -> Result<Self, Error> {
        let invalid = |why| Error::invalid("endpoints", format!("endpoints: {address} is no address: {why}"));
        let Transport { connect, token } = transport;
        let channel = net::channel(connect, address, Keepalive::CLIENT).map_err(invalid)?;
        let watches = net::watch_channel(connect, address, Keepalive::CLIENT).map_err(invalid)?;
        let [channel, watches] = [channel, watches].map(|channel| InterceptedService::new(channel, token.clone()));
        Ok(Self {
            address: address.to_owned(),
            pipeline: Pipeline::new(address.to_owned(), channel.clone()),
            channel,
            watches,
            health_check: Mutex::new(None),
        })
    }

    /// Tells whether the circuit is open: the node has failed and not answered since, so another one should be asked.
    pub(crate) fn is_circuit_open(&self) -> bool {
        self.health_check.lock().is_some()
    }

    pub(crate) fn mark_alive(&self) {
        if let Some(check) = self.health_check.lock().take() {
            check.abort();
        }
    }

    /// Returns the error of a stream that has broken; another node is asked next unless this one has answered it.
    pub(crate) fn stream_failed(self: &Arc<Self>, status: &Status) -> Error {
        let failure = failure::of(status, &self.address);
        if !matches!(failure, AttemptFailure::ErrorResponse(..)) {
            self.mark_failed();
        }
        failure.error().clone()
    }

    pub(crate) fn mark_failed(self: &Arc<Self>) {
        let mut health_check = self.health_check.lock();
        if health_check.is_none() {
            *health_check = Some(tokio::spawn(check_until_alive(Arc::downgrade(self))).abort_handle());
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.mark_alive();
    }
}

async fn check_until_alive(node: Weak<Node>) {
    let mut wait = CHECK_WAIT_FIRST;
    loop {
        sleep(wait).await;
        wait = (wait * 2).min(CHECK_WAIT_MAX);
        let Some((channel, address)) = node.upgrade().map(|node| (node.channel.clone(), node.address.clone())) else {
            return;
        };
        let request = ListRegionsRequest {
            page_size: 1,
            page_token: String::new(),
        };
        let mut service = DirectoryServiceClient::new(channel);
        let alive = match timeout(CHECK_TIMEOUT, service.list_regions(request)).await {
            Ok(Ok(_)) => true,
            // An error response shows that the node is alive as well.
            Ok(Err(status)) => matches!(failure::of(&status, &address), AttemptFailure::ErrorResponse(..)),
            Err(_) => false,
        };
        if alive {
            if let Some(node) = node.upgrade() {
                *node.health_check.lock() = None;
            }
            return;
        }
    }
}
