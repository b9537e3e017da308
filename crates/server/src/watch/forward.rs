//! Watches that another node must serve.

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

use super::{Messages, Opening, Watches, ended};
use crate::reply;

/// How long the other node may take to say anything; it answers before the watch begins.
const OPEN_WAIT: Duration = Duration::from_secs(3);

impl Watches {
    /// Hands a watch to one of a group's nodes, and its messages back.
    pub(super) async fn elsewhere(
        self: &Arc<Self>,
        opening: &Opening,
        (group, nodes): (GroupId, &[NodeId]),
        at_home: bool,
    ) -> Result<Messages, Error> {
        let hops = opening.came.map_or(0, |came| came.hops) + 1;
        if hops > HOPS_MAX {
            let message = format!(
                "the watch of tenant {} was handed on too often: try again",
                opening.tenant.name
            );
            return Err(Error::new(ErrorKind::TenantMoving, message));
        }
        let unreachable = || {
            let message = "the node that must serve this watch cannot be reached from here: try again";
            Error::new(ErrorKind::Unavailable, message)
        };
        let (node, channel) = self.router.channel_to(group, nodes).ok_or_else(unreachable)?;
        let request = ForwardWatchRequest {
            create: Some(opening.create.clone()),
            epoch: opening.tenant.epoch.get(),
            hops,
            group: group.get(),
            tenant_number: opening.tenant.number.get(),
            at_home,
        };
        let mut client = ForwardServiceClient::new(channel).max_decoding_message_size(reply::MESSAGE_DECODE_MAX);
        let opened = timeout(OPEN_WAIT, client.watch(request)).await;
        match opened.unwrap_or_else(|_| Err(Status::unavailable("it does not answer"))) {
            Ok(answers) => Ok(handed_through(opening.create.id, answers.into_inner())),
            Err(status) => {
                self.router.failed_at(group, node, nodes);
                tracing::debug!(%node, %status, "a watch could not be handed on");
                Err(unreachable())
            }
        }
    }
}

/// A broken stream ends the watch; an ended one has said why.
fn handed_through(id: u64, answers: Streaming<ForwardWatchResponse>) -> Messages {
    let messages = stream::unfold(Some(answers), move |answers| async move {
        let mut answers = answers?;
        match answers.message().await {
            Ok(Some(message)) => {
                let message = message.response.unwrap_or_default();
                let is_over = matches!(message.response, Some(Response::Ended(_)));
                Some((message, (!is_over).then_some(answers)))
            }
            Ok(None) => Some((broken(id, &Status::unavailable("the stream ended")), None)),
            Err(status) => Some((broken(id, &status), None)),
        }
    });
    messages.boxed()
}

fn broken(id: u64, status: &Status) -> WatchResponse {
    tracing::debug!(%status, "a watch that was handed on broke");
    let error = status::from_status(status);
    let message = format!(
        "the way to the node that serves the watch broke, {}: resume it",
        error.message
    );
    ended(id, Some(&Error::new(ErrorKind::Unavailable, message)))
}
