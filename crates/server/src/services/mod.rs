//! gRPC services: each converts, checks and calls one thing.

pub(crate) mod admin;
pub(crate) mod directory;
pub(crate) mod directory_peer;
pub(crate) mod forward;
mod health;
pub(crate) mod kv;
mod messages;
mod operations;
mod scan_stream;
mod watch;

use std::sync::Arc;

use axum::{Router as HttpRouter, middleware::map_response, response::Response};
use stead_api::net::Connect;
use stead_api::proto::{
    admin::v1::{
        audit_service_server::AuditServiceServer, group_service_server::GroupServiceServer,
        node_service_server::NodeServiceServer, region_service_server::RegionServiceServer,
        tenant_service_server::TenantServiceServer,
    },
    internal::v1::{
        directory_service_server::DirectoryServiceServer as DirectoryPeerServer,
        forward_service_server::ForwardServiceServer,
    },
    v1::{directory_service_server::DirectoryServiceServer, kv_service_server::KvServiceServer},
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, server::NamedService, service::Routes};
use tonic_health::pb::health_server::HealthServer;

use crate::{
    host::Host,
    reply::{self, MESSAGE_DECODE_MAX},
    router::Router,
    supervisor::Spawner,
    watch::Watches,
};

/// What serves data.
#[derive(Clone)]
pub(crate) struct Serving {
    /// Operations.
    pub(crate) router: Arc<Router>,
    /// Watches.
    pub(crate) watches: Arc<Watches>,
}

impl Serving {
    /// Returns what serves data on a node.
    pub(crate) fn new(host: &Arc<Host>, connect: Connect, spawner: &Spawner) -> Self {
        let router = Arc::new(Router::new(host.clone(), connect, spawner.clone()));
        let watches = Arc::new(Watches::new(router.clone(), spawner.clone()));
        Self { router, watches }
    }
}

/// Services of the peer listener that come from below.
pub(crate) struct Peers {
    /// Raft messages.
    pub(crate) raft: stead_raft::Service,
    /// The feed.
    pub(crate) feed: stead_replication::Service,
}

/// What services and operators can call.
pub(crate) fn client_router(host: &Arc<Host>, serving: &Serving, stop: &CancellationToken) -> HttpRouter {
    let kv = KvServiceServer::new(kv::KvService::new(serving.clone(), stop.clone()))
        .max_decoding_message_size(MESSAGE_DECODE_MAX)
        .max_encoding_message_size(MESSAGE_DECODE_MAX);
    let mut routes = Routes::builder();
    routes
        .add_service(kv)
        .add_service(DirectoryServiceServer::new(directory::DirectoryService::new(
            host.clone(),
            stop.clone(),
        )))
        .add_service(TenantServiceServer::new(admin::tenant::TenantService::new(
            host.clone(),
        )))
        .add_service(RegionServiceServer::new(admin::region::RegionService::new(
            host.clone(),
        )))
        .add_service(NodeServiceServer::new(admin::node::NodeService::new(host.clone())))
        .add_service(GroupServiceServer::new(admin::group::GroupService::new(host.clone())))
        .add_service(AuditServiceServer::new(admin::audit::AuditService::new(host.clone())));
    let health = health::HealthService::new(host.clone(), CLIENT_SERVICES, stop.clone());
    routes.add_service(HealthServer::new(health));
    add_reflection(&mut routes);
    let router = routes.routes().into_axum_router();
    router.layer(map_response(in_our_words))
}

/// tonic refuses a message beyond its reader's limit by itself. Other refusals are not read again here.
async fn in_our_words(response: Response) -> Response {
    let code = response.headers().get(Status::GRPC_STATUS);
    if code.is_none_or(|code| Code::from_bytes(code.as_bytes()) != Code::OutOfRange) {
        return response;
    }
    match Status::from_header_map(response.headers()) {
        Some(status) => reply::too_long(status).into_http(),
        None => response,
    }
}

/// The services of the client listener, by the names that health checks ask for.
const CLIENT_SERVICES: &[&str] = &[
    KvServiceServer::<kv::KvService>::NAME,
    DirectoryServiceServer::<directory::DirectoryService>::NAME,
    TenantServiceServer::<admin::tenant::TenantService>::NAME,
    RegionServiceServer::<admin::region::RegionService>::NAME,
    NodeServiceServer::<admin::node::NodeService>::NAME,
    GroupServiceServer::<admin::group::GroupService>::NAME,
    AuditServiceServer::<admin::audit::AuditService>::NAME,
];

/// Reflection in both versions: stock tools still ask for the older one.
fn add_reflection(routes: &mut tonic::service::RoutesBuilder) {
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(stead_api::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    if let (Ok(v1), Ok(v1alpha)) = (builder().build_v1(), builder().build_v1alpha()) {
        routes.add_service(v1).add_service(v1alpha);
    }
}

/// What other nodes can call.
pub(crate) fn peer_router(host: &Arc<Host>, serving: &Serving, peers: Peers, stop: &CancellationToken) -> HttpRouter {
    let forward = ForwardServiceServer::new(forward::ForwardService::new(serving.clone(), stop.clone()))
        .max_decoding_message_size(MESSAGE_DECODE_MAX)
        .max_encoding_message_size(MESSAGE_DECODE_MAX);
    let directory = directory_peer::DirectoryPeerService::new(host.directory.clone(), stop.clone());
    let mut routes = Routes::builder();
    routes
        .add_service(forward)
        .add_service(DirectoryPeerServer::new(directory))
        .add_service(peers.raft)
        .add_service(peers.feed);
    routes.routes().into_axum_router()
}
