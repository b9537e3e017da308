//! One node as the client sees it: its connection, and whether it is worth asking.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use stead_api::{
    net::{self, Connect, Keepalive},
    proto::v1::{ListRegionsRequest, directory_service_client::DirectoryServiceClient},
};
use stead_types::Error;
use tokio::{
    task::AbortHandle,
    time::{sleep, timeout},
};
use tonic::transport::Channel;

use crate::{
    failure::{self, Failure},
    pipe::Pipe,
};

/// When a node that has failed is asked for a sign of life first; doubled up to [`REST_MAX`].
const REST_FIRST: Duration = Duration::from_millis(50);
const REST_MAX: Duration = Duration::from_secs(2);
const SIGN_WITHIN: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) address: String,
    pub(crate) channel: Channel,
    /// For watches: whoever reads one slowly holds up no calls.
    pub(crate) watches: Channel,
    pub(crate) pipe: Pipe,
    /// Asks a node that has failed until it answers; calls go elsewhere meanwhile, so that none waits for a frozen one.
    rest: Mutex<Option<AbortHandle>>,
}

impl Node {
    pub(crate) fn new(connect: &Connect, address: &str) -> Result<Self, Error> {
        let invalid = |why| Error::invalid("endpoints", format!("endpoints: {address} is no address: {why}"));
        let channel = net::channel(connect, address, Keepalive::CLIENT).map_err(invalid)?;
        let watches = net::watch_channel(connect, address, Keepalive::CLIENT).map_err(invalid)?;
        Ok(Self {
            address: address.to_owned(),
            pipe: Pipe::new(address.to_owned(), channel.clone()),
            channel,
            watches,
            rest: Mutex::new(None),
        })
    }

    /// Tells whether the node has failed and not answered since, so that another one should be asked.
    pub(crate) fn rests(&self) -> bool {
        self.rest.lock().is_some()
    }

    pub(crate) fn answered(&self) {
        if let Some(asking) = self.rest.lock().take() {
            asking.abort();
        }
    }

    pub(crate) fn failed(self: &Arc<Self>) {
        let mut rest = self.rest.lock();
        if rest.is_none() {
            *rest = Some(tokio::spawn(ask_until_answered(Arc::downgrade(self))).abort_handle());
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.answered();
    }
}

async fn ask_until_answered(node: Weak<Node>) {
    let mut wait = REST_FIRST;
    loop {
        sleep(wait).await;
        wait = (wait * 2).min(REST_MAX);
        let Some((channel, address)) = node.upgrade().map(|node| (node.channel.clone(), node.address.clone())) else {
            return;
        };
        let request = ListRegionsRequest {
            page_size: 1,
            page_token: String::new(),
        };
        let mut service = DirectoryServiceClient::new(channel);
        let alive = match timeout(SIGN_WITHIN, service.list_regions(request)).await {
            Ok(Ok(_)) => true,
            // A refusal is a sign of life as well.
            Ok(Err(status)) => matches!(failure::of(&status, &address), Failure::Answered(..)),
            Err(_) => false,
        };
        if alive {
            if let Some(node) = node.upgrade() {
                *node.rest.lock() = None;
            }
            return;
        }
    }
}
