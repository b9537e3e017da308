//! Finds the home group's leader and opens a stream to it.

use std::time::Duration;

use futures::StreamExt;
use stead_api::proto::internal::v1::{FeedListing, FeedOpen, FeedOpened};
use stead_state::shard::record::Record;
use stead_store::group_rows::HalfChanged;
use stead_types::{DirectoryVersion, GroupId, NodeId, TenantNumber};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::{
    local::Local,
    peers::{ANSWER_TIMEOUT, Peers},
    wire::{self, Position, SubscribeRequest, SubscribeResponse, ToFollower, ToHome},
};

/// Records that are looked at for one page of the tenants that are listed when a stream is opened.
const PAGE_RECORDS_MAX: usize = 1_000;
/// Most messages to the home that wait to be sent. More can only mean that it reads nothing.
const TO_HOME_MAX: usize = 8192;
/// The first wait after no node of the home could be reached, and the longest.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// An open stream.
pub(crate) struct Open {
    pub(crate) opened: FeedOpened,
    pub(crate) to_home: mpsc::Sender<SubscribeRequest>,
    pub(crate) from_home: Streaming<SubscribeResponse>,
}

/// What a node answered.
enum Answer {
    Opened(Box<Open>),
    NotLeader(Option<NodeId>),
    Nothing,
}

/// Tries the home's voters, whom they name first, until a stream is open.
pub(crate) async fn connect(local: &Local, peers: &Peers, home: GroupId, hint: &mut Option<NodeId>) -> Open {
    let mut backoff = BACKOFF_MIN;
    loop {
        let mut nodes = peers.voters(home);
        if let Some(hint) = hint.take() {
            nodes.retain(|node| *node != hint);
            nodes.insert(0, hint);
        }
        let mut tries = 0..2 * nodes.len();
        while !nodes.is_empty() && tries.next().is_some() {
            let node = nodes.remove(0);
            match open(local, peers, home, node).await {
                Answer::Opened(open) => {
                    *hint = Some(node);
                    return *open;
                }
                Answer::NotLeader(Some(leader)) if leader != node => {
                    nodes.retain(|other| *other != leader);
                    nodes.insert(0, leader);
                }
                Answer::NotLeader(_) | Answer::Nothing => {}
            }
        }
        tokio::time::sleep(backoff).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

async fn open(local: &Local, peers: &Peers, home: GroupId, node: NodeId) -> Answer {
    let Some(mut client) = peers.client_alone(node) else {
        return Answer::Nothing;
    };
    // Nothing of an earlier leader, or of an earlier stream, is applied after this.
    if local.group.read_index().await.is_err() {
        return Answer::Nothing;
    }
    // A node whose rows are closed stops.
    let Ok(Opening { first, pages, seen }) = opening(local, home).await else {
        return Answer::Nothing;
    };
    // What is proposed carries the version of this node's view: an older one than records have seen would be void.
    if !local.views.reach(seen, ANSWER_TIMEOUT).await {
        return Answer::Nothing;
    }
    let (to_home, requests) = mpsc::channel(TO_HOME_MAX);
    let pages = pages.into_iter().map(ToHome::Listing);
    let opening = std::iter::once(ToHome::Open(first)).chain(pages).map(wire::to_home);
    let requests = futures::stream::iter(opening).chain(ReceiverStream::new(requests));
    let answer = async {
        let mut from_home = client.subscribe(requests).await?.into_inner();
        let first = from_home.message().await?;
        Ok::<_, tonic::Status>((first, from_home))
    };
    let (first, from_home) = match timeout(ANSWER_TIMEOUT, answer).await {
        Ok(Ok((first, from_home))) => (first, from_home),
        Ok(Err(status)) => {
            local.alarms.note(&status);
            tracing::debug!(%home, %node, %status, "no stream");
            return Answer::Nothing;
        }
        Err(_) => return Answer::Nothing,
    };
    match first.and_then(|first| first.message) {
        Some(ToFollower::Opened(opened)) => Answer::Opened(Box::new(Open {
            opened,
            to_home,
            from_home,
        })),
        Some(ToFollower::NotLeader(not_leader)) => {
            Answer::NotLeader((not_leader.leader != 0).then_some(NodeId::new(not_leader.leader)))
        }
        Some(_) | None => Answer::Nothing,
    }
}

/// What a stream is opened with.
struct Opening {
    first: FeedOpen,
    pages: Vec<FeedListing>,
    /// The highest version that the records of these tenants have seen.
    seen: DirectoryVersion,
}

/// Lists what the group holds of a home, a page at a time, so that no lock is held for all of it. Nothing attaches a
/// tenant or moves the offset meanwhile; who is detached behind a page is told on the stream.
async fn opening(local: &Local, home: GroupId) -> Result<Opening, HalfChanged> {
    let offset = local.machine.read(|held| held.shard().stream(home))?;
    let mut opening = Opening {
        first: FeedOpen {
            follower_group: local.id().get(),
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
        next = local.machine.read(|held| {
            for (tenant, record) in held.shard().records_from(from) {
                if looked == PAGE_RECORDS_MAX {
                    return Some(tenant);
                }
                looked += 1;
                if record.home() != Some(home) {
                    continue;
                }
                opening.seen = opening.seen.max(record.view_version);
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
            opening.pages.push(page);
        }
        tokio::task::yield_now().await;
    }
    Ok(opening)
}

/// Returns where a tenant's live copy is, in its last attempt to attach.
pub(super) fn position(tenant: TenantNumber, record: &Record) -> Position {
    Position {
        tenant,
        epoch: record.epoch,
        revision: record.live.revision,
        attach: record.attach,
    }
}
