//! Forwarding of watches that another node must serve.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use stead_api::{
    proto::{
        internal::v1::{ForwardWatchRequest, ForwardWatchResponse, forward_service_client::ForwardServiceClient},
        v1::{WatchResponse, watch_response::Response},
    },
    status,
};
use stead_types::{Error, ErrorKind, GroupId, NodeId, limits::HOPS_MAX};
use tokio::time::timeout;
use tonic::{Status, Streaming};

use super::{Messages, ResolvedWatch, Watches, ended};
use crate::response;

/// Longest time for the other node to open the stream; it responds before the watch starts.
const OPEN_WAIT: Duration = Duration::from_secs(3);

impl Watches {
    /// Forwards a watch to one of a group's nodes, and relays its messages.
    pub(super) async fn forward(
        self: &Arc<Self>,
        watch: &ResolvedWatch,
        group: GroupId,
        nodes: &[NodeId],
        at_home: bool,
    ) -> Result<Messages, Error> {
        let hops = watch.forwarded_by.map_or(0, |forwarded_by| forwarded_by.hops) + 1;
        if hops > HOPS_MAX {
            let message = format!(
                "the watch of tenant {} was forwarded too often: try again",
                watch.tenant.name
            );
            return Err(Error::new(ErrorKind::TenantMoving, message));
        }
        let unreachable = || {
            let message = "the node that must serve this watch cannot be reached from here: try again";
            Error::new(ErrorKind::Unavailable, message)
        };
        let (node, channel) = self
            .context
            .links
            .channel_for_watch(group, nodes)
            .ok_or_else(unreachable)?;
        let request = ForwardWatchRequest {
            create: Some(watch.create.clone()),
            epoch: watch.tenant.epoch.get(),
            hops,
            group: group.get(),
            tenant_number: watch.tenant.number.get(),
            at_home,
        };
        let mut client = ForwardServiceClient::new(channel).max_decoding_message_size(response::MESSAGE_DECODE_MAX);
        let opened = timeout(OPEN_WAIT, client.watch(request)).await;
        match opened.unwrap_or_else(|_| Err(Status::unavailable("it does not respond"))) {
            Ok(inbound) => Ok(relay_messages(watch.create.id, inbound.into_inner())),
            Err(status) => {
                self.context.links.record_failure(group, node, nodes);
                tracing::debug!(%node, %status, "forwarding a watch failed");
                Err(unreachable())
            }
        }
    }
}

/// Relays messages. A broken stream ends the watch; a watch that has ended carries its own error.
fn relay_messages(id: u64, inbound: Streaming<ForwardWatchResponse>) -> Messages {
    let messages = stream::unfold(Some(inbound), move |inbound| async move {
        let mut inbound = inbound?;
        match inbound.message().await {
            Ok(Some(message)) => {
                let message = message.response.unwrap_or_default();
                let is_over = matches!(message.response, Some(Response::Ended(_)));
                Some((message, (!is_over).then_some(inbound)))
            }
            Ok(None) => Some((stream_broken(id, &Status::unavailable("the stream ended")), None)),
            Err(status) => Some((stream_broken(id, &status), None)),
        }
    });
    messages.boxed()
}

fn stream_broken(id: u64, status: &Status) -> WatchResponse {
    tracing::debug!(%status, "a forwarded watch failed");
    let error = status::from_status(status);
    let message = format!(
        "the connection to the node that serves the watch failed, {}: resume it",
        error.message
    );
    ended(id, Some(&Error::new(ErrorKind::Unavailable, message)))
}
