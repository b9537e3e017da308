//! The feed service: calls of other nodes to this node's groups.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Weak},
};

use futures::Stream;
use parking_lot::RwLock;
use stead_api::peer_identity::PeerIdentity;
use stead_api::proto::internal::v1::{
    FreshnessProof, FreshnessRequest, FreshnessResponse, PullRequest, PullResponse, SeedRequest, SeedResponse,
    SubscribeRequest, SubscribeResponse,
    feed_service_server::{FeedService, FeedServiceServer},
};
use stead_state::directory::DirectoryView;
use stead_types::{FeedOffset, GroupId};
use tonic::{Request, Response, Status, Streaming};

use crate::{
    group_context::GroupContext,
    source::{self, pull::PullSource, seed::SeedSource},
    wire::{self, MESSAGE_LEN_MAX, MessageToHome},
};

/// Registry of the groups of a node that serve the feed.
#[derive(Default)]
pub(crate) struct FeedRegistry(RwLock<BTreeMap<GroupId, Weak<GroupContext>>>);

impl FeedRegistry {
    pub(crate) fn add(&self, context: &Arc<GroupContext>) {
        self.0.write().insert(context.id(), Arc::downgrade(context));
    }

    fn get(&self, group: u32) -> Result<Arc<GroupContext>, Status> {
        let found = self.0.read().get(&GroupId::new(group)).and_then(Weak::upgrade);
        found.ok_or_else(|| Status::not_found(format!("group {group} is not on this node")))
    }
}

/// Handler of the feed service for the groups of a node.
pub struct FeedHandler(Arc<FeedRegistry>);

/// The feed service as it is mounted on a server.
pub type Service = FeedServiceServer<FeedHandler>;

pub(crate) fn service(registry: Arc<FeedRegistry>) -> Service {
    FeedServiceServer::new(FeedHandler(registry))
        .max_decoding_message_size(MESSAGE_LEN_MAX)
        .max_encoding_message_size(MESSAGE_LEN_MAX)
}

/// Refuses changes for a group to a node of another region than the group's, by the certificate of the connection: what
/// a follower says of itself does not decide what may be sent there. Over plain text there is no certificate.
fn check_region(context: &GroupContext, peer: Option<&PeerIdentity>, follower: GroupId) -> Result<(), Status> {
    let Some(peer) = peer else { return Ok(()) };
    let region = |view: &DirectoryView| view.region_of(follower).map(|region| region.name.clone());
    match context.directory_view.read(region) {
        Some(region) if region == peer.region => Ok(()),
        Some(region) => Err(Status::permission_denied(format!(
            "the certificate of this connection is of {peer}, and {follower} is in {region}: its changes go to its own \
             nodes only"
        ))),
        None => Err(Status::unavailable(format!(
            "this node does not know {follower} yet: try again"
        ))),
    }
}

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl FeedService for FeedHandler {
    type SubscribeStream = Responses<SubscribeResponse>;
    type SeedStream = Responses<SeedResponse>;
    type PullStream = Responses<PullResponse>;

    async fn subscribe(
        &self,
        request: Request<Streaming<SubscribeRequest>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let peer = request.extensions().get().cloned();
        let mut inbound = request.into_inner();
        let Some(MessageToHome::Open(open)) = inbound.message().await?.and_then(|first| first.message) else {
            return Err(Status::invalid_argument("a stream begins with open"));
        };
        let context = self.0.get(open.home_group)?;
        check_region(&context, peer.as_ref(), GroupId::new(open.follower_group))?;
        let source = Box::pin(source::open(context, open, inbound)).await?;
        let messages = futures::stream::unfold(source, |mut source| async {
            let message = source.next().await?;
            Some((message, source))
        });
        Ok(Response::new(Box::pin(messages)))
    }

    async fn seed(&self, request: Request<SeedRequest>) -> Result<Response<Self::SeedStream>, Status> {
        let peer = request.extensions().get().cloned();
        let request = request.into_inner();
        let context = self.0.get(request.home_group)?;
        check_region(&context, peer.as_ref(), GroupId::new(request.follower_group))?;
        let invalid = |invalid: wire::InvalidMessage| Status::invalid_argument(invalid.to_string());
        let seeding = SeedSource::new(context, &request).map_err(invalid)?;
        let messages = futures::stream::unfold(seeding, |mut seeding| async {
            let message = seeding.next().await?;
            Some((message, seeding))
        });
        Ok(Response::new(Box::pin(messages)))
    }

    async fn pull(&self, request: Request<PullRequest>) -> Result<Response<Self::PullStream>, Status> {
        let peer = request.extensions().get().cloned();
        let request = request.into_inner();
        let context = self.0.get(request.from_group)?;
        check_region(&context, peer.as_ref(), GroupId::new(request.to_group))?;
        let invalid = |invalid: wire::InvalidMessage| Status::invalid_argument(invalid.to_string());
        let pull = PullSource::new(context, &request).map_err(invalid)?;
        let messages = futures::stream::unfold(pull, |mut pull| async {
            let message = pull.next().await?;
            Some((message, pull))
        });
        Ok(Response::new(Box::pin(messages)))
    }

    async fn freshness(&self, request: Request<FreshnessRequest>) -> Result<Response<FreshnessResponse>, Status> {
        let request = request.into_inner();
        let context = self.0.get(request.group)?;
        if request.busy {
            context.freshness.record_demand();
        }
        let mut proofs = Vec::new();
        // For tenants that the group owns: all that was acknowledged before the request came is at or below this index.
        if !request.skip_own
            && let Ok(index) = context.group.read_index().await
        {
            let offset = FeedOffset {
                incarnation: context.group.incarnation(),
                index,
            };
            let version = context.directory_view.version();
            proofs.push((context.id(), std::time::Duration::ZERO, offset, version));
        }
        proofs.extend(context.freshness.valid_proofs());
        let proofs = proofs.into_iter().map(|(home, age, offset, version)| FreshnessProof {
            home_group: home.get(),
            age_us: u64::try_from(age.as_micros()).unwrap_or(u64::MAX),
            offset: Some(wire::offset_to(offset)),
            view_incarnation: version.incarnation.0,
            view_index: version.index,
        });
        let proofs = proofs.collect();
        let applied = context.machine.read(|held| held.applied());
        let applied = applied.map_err(|half_changed| Status::unavailable(half_changed.to_string()))?;
        Ok(Response::new(FreshnessResponse { proofs, applied }))
    }
}
