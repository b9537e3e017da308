//! Channels to the client listeners of other nodes, for what only they know about themselves.

use std::{collections::BTreeMap, time::Duration};

use parking_lot::Mutex;
use stead_api::net::{Connect, Keepalive, channel};
use tonic::{Request, Response, Status, transport::Channel};

/// The metadata of a question that a node passes on: it is answered from there and passed on no further.
const PASSED_ON: &str = "x-stead-passed-on";
/// How long another node may take to say how it is.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// Channels by address.
pub(crate) struct Neighbours {
    connect: Connect,
    channels: Mutex<BTreeMap<String, Channel>>,
}

impl Neighbours {
    /// Returns no channels yet.
    pub(crate) fn new(connect: Connect) -> Self {
        Self {
            connect,
            channels: Mutex::default(),
        }
    }

    /// Returns the channel to an address, `None` if it is no address.
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

/// Waits for the answer to a question that was passed on, with the time that connecting takes; `None`: it came to nothing.
pub(crate) async fn answered<T>(asked: impl Future<Output = Result<Response<T>, Status>>) -> Option<T> {
    let answer = tokio::time::timeout(ANSWER_MAX, asked).await.ok()?;
    answer.ok().map(Response::into_inner)
}

/// Marks a question as passed on, and bounds it.
pub(crate) fn passed_on<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request
        .metadata_mut()
        .insert(PASSED_ON, tonic::metadata::MetadataValue::from_static("1"));
    request.set_timeout(ANSWER_MAX);
    request
}

/// Tells whether a question was passed on by another node.
pub(crate) fn was_passed_on<T>(request: &Request<T>) -> bool {
    request.metadata().contains_key(PASSED_ON)
}
