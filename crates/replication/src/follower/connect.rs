//! Opening of a stream to the home group's leader.

use std::time::Duration;

use futures::StreamExt;
use stead_api::proto::internal::v1::{FeedListing, FeedOpen, FeedOpened};
use stead_state::shard::record::TenantRecord;
use stead_store::group_rows::IncompleteChange;
use stead_types::{DirectoryVersion, GroupId, NodeId, TenantNumber};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::{
    feed_clients::{FeedClients, RESPONSE_TIMEOUT},
    group_context::GroupContext,
    wire::{self, MessageToFollower, MessageToHome, SubscribeRequest, SubscribeResponse, TenantPosition},
};

/// Most records that are read under one lock for a page of the listing.
const PAGE_RECORDS_MAX: usize = 1_000;
/// Most messages to the home that wait to be sent. More can only mean that the home reads nothing.
const TO_HOME_MAX: usize = 8192;
/// First and longest backoff after no node of the home could be reached.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// An open stream.
pub(crate) struct OpenStream {
    pub(crate) opened: FeedOpened,
    pub(crate) to_home: mpsc::Sender<SubscribeRequest>,
    pub(crate) from_home: Streaming<SubscribeResponse>,
}

/// Result of the attempt to open a stream to a node.
enum OpenResult {
    Opened(Box<OpenStream>),
    NotLeader(Option<NodeId>),
    Unreachable,
}

/// Tries the home's voters, the leader that one of them names first, until a stream is open.
pub(crate) async fn connect(
    context: &GroupContext,
    feed_clients: &FeedClients,
    home: GroupId,
    hint: &mut Option<NodeId>,
) -> OpenStream {
    let mut backoff = BACKOFF_MIN;
    loop {
        let mut nodes = feed_clients.voters(home);
        if let Some(hint) = hint.take() {
            nodes.retain(|node| *node != hint);
            nodes.insert(0, hint);
        }
        let mut tries = 0..2 * nodes.len();
        while !nodes.is_empty() && tries.next().is_some() {
            let node = nodes.remove(0);
            match open_stream(context, feed_clients, home, node).await {
                OpenResult::Opened(open) => {
                    *hint = Some(node);
                    return *open;
                }
                OpenResult::NotLeader(Some(leader)) if leader != node => {
                    nodes.retain(|other| *other != leader);
                    nodes.insert(0, leader);
                }
                OpenResult::NotLeader(_) | OpenResult::Unreachable => {}
            }
        }
        tokio::time::sleep(backoff).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

async fn open_stream(context: &GroupContext, feed_clients: &FeedClients, home: GroupId, node: NodeId) -> OpenResult {
    let Some(mut client) = feed_clients.dedicated_client(node) else {
        return OpenResult::Unreachable;
    };
    // Nothing of an earlier leader, or of an earlier stream, is applied after this.
    if context.group.read_index().await.is_err() {
        return OpenResult::Unreachable;
    }
    // A node whose rows are closed stops.
    let Ok(OpenRequest { first, pages, seen }) = build_request(context, home).await else {
        return OpenResult::Unreachable;
    };
    // Proposals carry the version of this node's view: one with an older version than the record's would be void.
    if !context.directory_view.wait_for(seen, RESPONSE_TIMEOUT).await {
        return OpenResult::Unreachable;
    }
    let (to_home, requests) = mpsc::channel(TO_HOME_MAX);
    let pages = pages.into_iter().map(MessageToHome::Listing);
    let request = std::iter::once(MessageToHome::Open(first))
        .chain(pages)
        .map(wire::to_home);
    let requests = futures::stream::iter(request).chain(ReceiverStream::new(requests));
    let response = async {
        let mut from_home = client.subscribe(requests).await?.into_inner();
        let first = from_home.message().await?;
        Ok::<_, tonic::Status>((first, from_home))
    };
    let (first, from_home) = match timeout(RESPONSE_TIMEOUT, response).await {
        Ok(Ok((first, from_home))) => (first, from_home),
        Ok(Err(status)) => {
            context.alarms.record_status(&status);
            tracing::debug!(%home, %node, %status, "feed stream was not opened");
            return OpenResult::Unreachable;
        }
        Err(_) => return OpenResult::Unreachable,
    };
    match first.and_then(|first| first.message) {
        Some(MessageToFollower::Opened(opened)) => OpenResult::Opened(Box::new(OpenStream {
            opened,
            to_home,
            from_home,
        })),
        Some(MessageToFollower::NotLeader(not_leader)) => OpenResult::NotLeader(wire::leader_from(not_leader)),
        Some(_) | None => OpenResult::Unreachable,
    }
}

/// Messages that a stream is opened with.
struct OpenRequest {
    first: FeedOpen,
    pages: Vec<FeedListing>,
    /// Highest directory version in the records of these tenants.
    seen: DirectoryVersion,
}

/// Lists the tenants of a home that the group holds, a page at a time, so that no lock is held for all of it. Nothing
/// attaches a tenant or moves the offset meanwhile; a tenant that is detached behind a page is reported on the stream.
async fn build_request(context: &GroupContext, home: GroupId) -> Result<OpenRequest, IncompleteChange> {
    let offset = context.machine.read(|held| held.shard().stream(home))?;
    let mut request = OpenRequest {
        first: FeedOpen {
            follower_group: context.id().get(),
            home_group: home.get(),
            offset: Some(wire::offset_to(offset)),
            capabilities: Vec::new(),
        },
        pages: Vec::new(),
        seen: DirectoryVersion::ZERO,
    };
    let mut next = Some(TenantNumber::new(0));
    while let Some(from) = next {
        let (mut page, mut looked) = (FeedListing::default(), 0);
        next = context.machine.read(|held| {
            for (tenant, record) in held.shard().records_from(from) {
                if looked == PAGE_RECORDS_MAX {
                    return Some(tenant);
                }
                looked += 1;
                if record.home() != Some(home) {
                    continue;
                }
                request.seen = request.seen.max(record.view_version);
                let position = position(tenant, record).to_message();
                if held.shard().is_attached(record) {
                    page.attached.push(position);
                } else {
                    page.detached.push(position);
                }
            }
            None
        })?;
        page.last = next.is_none();
        if page.last || !page.attached.is_empty() || !page.detached.is_empty() {
            request.pages.push(page);
        }
        tokio::task::yield_now().await;
    }
    Ok(request)
}

/// Returns the position of a tenant's live copy, in its last attach attempt.
pub(super) fn position(tenant: TenantNumber, record: &TenantRecord) -> TenantPosition {
    TenantPosition {
        tenant,
        epoch: record.epoch,
        revision: record.live.revision,
        attach: record.attach,
        seed: record.shadow.as_ref().map(|shadow| shadow.state.revision),
    }
}
