//! What other nodes ask of this one's groups.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Weak},
};

use futures::Stream;
use parking_lot::RwLock;
use stead_api::proto::internal::v1::{
    FreshnessProof, FreshnessRequest, FreshnessResponse, SeedRequest, SeedResponse, SubscribeRequest,
    SubscribeResponse,
    feed_service_server::{FeedService, FeedServiceServer},
};
use stead_types::{FeedOffset, GroupId};
use tonic::{Request, Response, Status, Streaming};

use crate::{
    local::Local,
    source::{self, seed::Seeding},
    wire::{self, MESSAGE_LEN_MAX, ToHome},
};

/// The groups of a node that can be asked.
#[derive(Default)]
pub(crate) struct Registry(RwLock<BTreeMap<GroupId, Weak<Local>>>);

impl Registry {
    pub(crate) fn add(&self, local: &Arc<Local>) {
        self.0.write().insert(local.id(), Arc::downgrade(local));
    }

    fn get(&self, group: u32) -> Result<Arc<Local>, Status> {
        let found = self.0.read().get(&GroupId::new(group)).and_then(Weak::upgrade);
        found.ok_or_else(|| Status::not_found(format!("group {group} is not on this node")))
    }
}

/// Serves the feed for the groups of a node.
pub struct Feeds(Arc<Registry>);

/// The service as it is mounted.
pub type Service = FeedServiceServer<Feeds>;

pub(crate) fn service(registry: Arc<Registry>) -> Service {
    FeedServiceServer::new(Feeds(registry))
        .max_decoding_message_size(MESSAGE_LEN_MAX)
        .max_encoding_message_size(MESSAGE_LEN_MAX)
}

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl FeedService for Feeds {
    type SubscribeStream = Responses<SubscribeResponse>;
    type SeedStream = Responses<SeedResponse>;

    async fn subscribe(
        &self,
        request: Request<Streaming<SubscribeRequest>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let mut inbound = request.into_inner();
        let Some(ToHome::Open(open)) = inbound.message().await?.and_then(|first| first.message) else {
            return Err(Status::invalid_argument("a stream begins with open"));
        };
        let local = self.0.get(open.home_group)?;
        let source = Box::pin(source::open(local, open, inbound)).await?;
        let messages = futures::stream::unfold(source, |mut source| async {
            let message = source.next().await?;
            Some((message, source))
        });
        Ok(Response::new(Box::pin(messages)))
    }

    async fn seed(&self, request: Request<SeedRequest>) -> Result<Response<Self::SeedStream>, Status> {
        let request = request.into_inner();
        let local = self.0.get(request.home_group)?;
        let garbled = |garbled: wire::Garbled| Status::invalid_argument(garbled.to_string());
        let seeding = Seeding::new(local, &request).map_err(garbled)?;
        let messages = futures::stream::unfold(seeding, |mut seeding| async {
            let message = seeding.next().await?;
            Some((message, seeding))
        });
        Ok(Response::new(Box::pin(messages)))
    }

    async fn freshness(&self, request: Request<FreshnessRequest>) -> Result<Response<FreshnessResponse>, Status> {
        let request = request.into_inner();
        let local = self.0.get(request.group)?;
        if request.busy {
            local.freshness.want();
        }
        let mut proofs = Vec::new();
        // For tenants that the group owns: whatever was acknowledged before the request came is at or below this index.
        if let Ok(index) = local.group.read_index().await {
            let offset = FeedOffset {
                incarnation: local.group.incarnation(),
                index,
            };
            let version = local.views.version();
            proofs.push((local.id(), std::time::Duration::ZERO, offset, version));
        }
        proofs.extend(local.freshness.counted());
        let proofs = proofs.into_iter().map(|(home, age, offset, version)| FreshnessProof {
            home_group: home.get(),
            age_us: u64::try_from(age.as_micros()).unwrap_or(u64::MAX),
            offset: Some(wire::offset_to(offset)),
            view_incarnation: version.incarnation.0,
            view_index: version.index,
        });
        let proofs = proofs.collect();
        let applied = local.machine.read(|held| held.applied());
        let applied = applied.map_err(|half_changed| Status::unavailable(half_changed.to_string()))?;
        Ok(Response::new(FreshnessResponse { proofs, applied }))
    }
}
