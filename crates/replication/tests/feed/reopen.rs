//! Pauses between the streams of a follower to a home that ends each of them at once.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::Stream;
use parking_lot::Mutex;
use stead_api::proto::internal::v1::{
    FeedOpened, FreshnessRequest, FreshnessResponse, PullRequest, PullResponse, SeedRequest, SeedResponse,
    SubscribeRequest, SubscribeResponse,
    feed_service_server::{FeedService, FeedServiceServer},
    subscribe_response::Message,
};
use stead_replication::RetentionLimits;
use stead_types::Incarnation;
use tokio::time::{Instant, sleep};
use tokio_stream::{StreamExt, wrappers::UnboundedReceiverStream};
use tonic::{Request, Response, Status, Streaming};

use crate::world::World;

/// Streams that end with an invalid message, and streams after them that end without any.
const INVALID: usize = 6;
const BROKEN: usize = 4;

/// Home that opens each stream and ends it at once, the first [`INVALID`] ones with a message that is out of place.
#[derive(Default)]
struct EndingHome {
    streams: AtomicUsize,
    opened_at: Arc<Mutex<Vec<Instant>>>,
}

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl FeedService for EndingHome {
    type SubscribeStream = Responses<SubscribeResponse>;
    type SeedStream = Responses<SeedResponse>;
    type PullStream = Responses<PullResponse>;

    async fn subscribe(
        &self,
        _: Request<Streaming<SubscribeRequest>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        self.opened_at.lock().push(Instant::now());
        let opened = SubscribeResponse {
            message: Some(Message::Opened(FeedOpened {
                incarnation: Incarnation::FIRST.0,
                begins: None,
                capabilities: Vec::new(),
            })),
        };
        let is_invalid = self.streams.fetch_add(1, Ordering::Relaxed) < INVALID;
        let messages = vec![Ok(opened); 1 + usize::from(is_invalid)];
        Ok(Response::new(Box::pin(futures::stream::iter(messages))))
    }

    async fn seed(&self, _: Request<SeedRequest>) -> Result<Response<Self::SeedStream>, Status> {
        Err(Status::unavailable("not here"))
    }

    async fn pull(&self, _: Request<PullRequest>) -> Result<Response<Self::PullStream>, Status> {
        Err(Status::unavailable("not here"))
    }

    async fn freshness(&self, _: Request<FreshnessRequest>) -> Result<Response<FreshnessResponse>, Status> {
        Err(Status::unavailable("not here"))
    }
}

#[tokio::test(start_paused = true)]
async fn pause_after_invalid_message_is_no_part_of_a_stream_lifetime() {
    let mut world = World::start(1, 1, RetentionLimits::default()).await;
    let tenant = world.tenant(7, true);
    let revision = world.put(tenant, "k", b"v").await;
    world.wait_until_replicated(tenant, revision).await;
    // After a long stream nothing has doubled yet.
    sleep(Duration::from_secs(2)).await;

    let home = EndingHome::default();
    let opened_at = home.opened_at.clone();
    let incoming = UnboundedReceiverStream::new(world.net.listen(1)).map(Ok::<_, std::io::Error>);
    let server = tonic::transport::Server::builder().add_service(FeedServiceServer::new(home));
    tokio::spawn(server.serve_with_incoming(incoming));
    world.net.break_all(1, 11);
    let all = || Some(opened_at.lock().clone()).filter(|opened_at| opened_at.len() > INVALID + BROKEN);
    let opened_at = world.eventually("the streams to be opened", all).await;

    let gaps: Vec<Duration> = opened_at.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let (invalid, broken) = gaps.split_at(INVALID);
    let is_about = |gap: &Duration, millis| {
        let pause = Duration::from_millis(millis);
        (pause..pause + Duration::from_millis(100)).contains(gap)
    };
    assert!(invalid.iter().all(|gap| is_about(gap, 5_000)), "{invalid:?}");
    // Each of the invalid ones was short: the pause has doubled as often.
    for (gap, doublings) in broken.iter().zip(INVALID..) {
        assert!(is_about(gap, 5 << doublings), "{broken:?}");
    }
}
