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
use stead_state::routing::CurrentHome;
use stead_types::{Error, ErrorKind, NodeId, limits::HOPS_MAX};
use tokio::time::timeout;
use tonic::{Status, Streaming};

use super::{Messages, ResolvedWatch, Watches, ended};
use crate::response;

/// Longest time for the other node to open the stream; it responds before the watch starts.
const OPEN_WAIT: Duration = Duration::from_secs(3);

impl Watches {
    /// Forwards a watch to one of a group's nodes, on account of an epoch, and relays its messages.
    pub(super) async fn forward(
        self: &Arc<Self>,
        watch: &ResolvedWatch,
        to: CurrentHome,
        nodes: &[NodeId],
        at_home: bool,
    ) -> Result<Messages, Error> {
        let (request, group) = (forward_request(watch, to, at_home)?, to.group);
        let unreachable = || {
            let message = "the node that must serve this watch cannot be reached from here: try again";
            Error::new(ErrorKind::Unavailable, message)
        };
        let (node, channel) = self
            .context
            .links
            .channel_for_watch(group, nodes)
            .ok_or_else(unreachable)?;
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

/// Returns the request that forwards a watch. Its epoch is the one by which it was routed, which a record of this node
/// may know before the directory view: a group that has not reached it waits, and does not send it back.
fn forward_request(watch: &ResolvedWatch, to: CurrentHome, at_home: bool) -> Result<ForwardWatchRequest, Error> {
    let hops = watch.forwarded_by.map_or(0, |forwarded_by| forwarded_by.hops) + 1;
    if hops > HOPS_MAX {
        let message = format!(
            "the watch of tenant {} was forwarded too often: try again",
            watch.tenant.name
        );
        return Err(Error::new(ErrorKind::TenantMoving, message));
    }
    Ok(ForwardWatchRequest {
        create: Some(watch.create.clone()),
        epoch: to.epoch.get(),
        hops,
        group: to.group.get(),
        tenant_number: watch.tenant.number.get(),
        at_home,
        caller: Some(watch.access.to_forwarded()),
    })
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

#[cfg(test)]
mod tests {
    use stead_api::proto::v1::WatchCreate;
    use stead_types::{Epoch, GroupId, TenantNumber};

    use super::{super::ForwardedWatch, *};
    use crate::{router::ForwardTarget, tenant_fixture};

    #[test]
    fn forwarded_watch_names_epoch_it_was_routed_by() {
        let create = WatchCreate {
            tenant: "acme".into(),
            ..WatchCreate::default()
        };
        let tenant = Arc::new(tenant_fixture::tenant(7, &[]));
        let watch = |hops| ResolvedWatch {
            access: crate::auth::Access::node(),
            spec: super::super::spec::parse(&create).unwrap(),
            create: create.clone(),
            forwarded_by: Some(ForwardedWatch {
                forwarded: ForwardTarget {
                    group: GroupId::new(1),
                    epoch: tenant.epoch,
                    tenant: TenantNumber::new(7),
                },
                hops,
                at_home: true,
            }),
            tenant: tenant.clone(),
        };
        // The view has epoch 1; the record of the group that has relinquished the tenant names the next home.
        let to = CurrentHome {
            group: GroupId::new(2),
            epoch: Epoch::new(4).unwrap(),
        };
        let request = forward_request(&watch(1), to, true).unwrap();
        assert_eq!((request.epoch, request.group, request.hops), (4, 2, 2));
        let refused = forward_request(&watch(HOPS_MAX), to, true).unwrap_err();
        assert_eq!(refused.kind, ErrorKind::TenantMoving);
    }
}
