//! Finds the home group's leader and opens a stream to it.

use std::time::Duration;

use stead_api::proto::internal::v1::{FeedOpen, FeedOpened, FeedPosition};
use stead_store::group_rows::HalfChanged;
use stead_types::{GroupId, NodeId};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::outcome;
use crate::{
    local::Local,
    peers::{ANSWER_TIMEOUT, Peers},
    wire::{self, SubscribeRequest, SubscribeResponse, ToFollower, ToHome},
};

/// Most detached tenants that are listed when a stream is opened.
const DETACHED_MAX: usize = 10_000;
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
    let Ok(opening) = opening(local, home) else {
        return Answer::Nothing;
    };
    let (to_home, requests) = mpsc::channel(TO_HOME_MAX);
    let first = wire::to_home(ToHome::Open(opening));
    to_home.try_send(first).expect("the channel is new and has room");
    let answer = async {
        let mut from_home = client.subscribe(ReceiverStream::new(requests)).await?.into_inner();
        let first = from_home.message().await?;
        Ok::<_, tonic::Status>((first, from_home))
    };
    let (first, from_home) = match timeout(ANSWER_TIMEOUT, answer).await {
        Ok(Ok((first, from_home))) => (first, from_home),
        Ok(Err(status)) => {
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

fn opening(local: &Local, home: GroupId) -> Result<FeedOpen, HalfChanged> {
    let (offset, detached) = local.machine.read(|held| {
        let detached = held
            .shard()
            .detached(home)
            .filter_map(|tenant| outcome::position(tenant, &held));
        let detached: Vec<FeedPosition> = detached.take(DETACHED_MAX + 1).collect();
        (held.shard().stream(home), detached)
    })?;
    let all_detached = detached.len() > DETACHED_MAX;
    Ok(FeedOpen {
        follower_group: local.id().get(),
        home_group: home.get(),
        offset: Some(wire::offset_to(offset)),
        detached: if all_detached { Vec::new() } else { detached },
        all_detached,
        capabilities: Vec::new(),
    })
}
