//! gRPC services: each converts, checks and calls one thing.

pub(crate) mod admin;
mod call_metadata;
mod copies;
mod data_services;
pub(crate) mod digests;
pub(crate) mod directory;
pub(crate) mod directory_peer;
pub(crate) mod forward;
mod health;
mod join;
pub(crate) mod kv;
pub(crate) mod longrunning;
mod messages;
mod operations;
mod receipts;
mod replays;
mod route_watcher;
mod routes;
mod scan_stream;
mod unary;
mod watch;

use std::sync::Arc;

use axum::{
    Router as HttpRouter,
    middleware::{from_fn_with_state, map_response},
    response::Response,
};
use stead_api::proto::{
    admin::v1::{
        audit_service_server::AuditServiceServer, bulk_move_service_server::BulkMoveServiceServer,
        cluster_service_server::ClusterServiceServer, fork_service_server::ForkServiceServer,
        group_service_server::GroupServiceServer, node_service_server::NodeServiceServer,
        operation_service_server::OperationServiceServer, promotion_service_server::PromotionServiceServer,
        region_service_server::RegionServiceServer, role_service_server::RoleServiceServer,
        tenant_service_server::TenantServiceServer, topology_service_server::TopologyServiceServer,
    },
    google::longrunning::operations_server::OperationsServer,
    internal::v1::{
        copy_service_server::CopyServiceServer, digest_service_server::DigestServiceServer,
        directory_service_server::DirectoryServiceServer as DirectoryPeerServer,
        forward_service_server::ForwardServiceServer, replay_service_server::ReplayServiceServer,
    },
    v1::{
        directory_service_server::DirectoryServiceServer, kv_service_server::KvServiceServer,
        receipt_service_server::ReceiptServiceServer,
    },
};
use tokio_util::sync::CancellationToken;
use tonic::{
    Code, Status,
    server::NamedService,
    service::{Routes, RoutesBuilder},
};
use tonic_health::pb::health_server::HealthServer;

pub(crate) use data_services::DataServices;

use crate::{
    answers, auth,
    host::Host,
    response::{self, MESSAGE_DECODE_MAX, REQUEST_DECODE_MAX},
};

/// Services of the peer listener that other crates supply.
pub(crate) struct PeerServices {
    /// Raft messages.
    pub(crate) raft: stead_raft::Service,
    /// The feed.
    pub(crate) feed: stead_replication::Service,
}

/// Returns the router of the client listener, for services and operators.
pub(crate) fn client_router(host: &Arc<Host>, data_services: &DataServices, stop: &CancellationToken) -> HttpRouter {
    let kv = KvServiceServer::new(kv::KvService::new(data_services.clone(), stop.clone()))
        .max_decoding_message_size(REQUEST_DECODE_MAX)
        .max_encoding_message_size(MESSAGE_DECODE_MAX);
    let mut routes = Routes::builder();
    routes
        .add_service(kv)
        .add_service(DirectoryServiceServer::new(directory::DirectoryService::new(
            host.clone(),
            stop.clone(),
        )))
        .add_service(ReceiptServiceServer::new(receipts::ReceiptService::new(host.clone())));
    add_operators_services(&mut routes, host, stop);
    let health = health::HealthService::new(host.clone(), CLIENT_SERVICES, stop.clone());
    routes.add_service(HealthServer::new(health));
    add_reflection(&mut routes);
    let router = routes.routes().into_axum_router();
    router
        .layer(from_fn_with_state(host.auth.clone(), auth::client_access))
        .layer(map_response(rewrite_message_too_long))
        .layer(map_response(answers::hold))
}

/// Adds the services for operators: to the client listener, and to the peer listener, for what only another node can
/// answer.
fn add_operators_services(routes: &mut RoutesBuilder, host: &Arc<Host>, stop: &CancellationToken) {
    routes
        .add_service(TenantServiceServer::new(admin::tenant::TenantService::new(
            host.clone(),
        )))
        .add_service(RegionServiceServer::new(admin::region::RegionService::new(
            host.clone(),
        )))
        .add_service(TopologyServiceServer::new(admin::topology::TopologyService::new(
            host.clone(),
        )))
        .add_service(NodeServiceServer::new(admin::node::NodeService::new(host.clone())))
        .add_service(GroupServiceServer::new(admin::group::GroupService::new(host.clone())))
        .add_service(RoleServiceServer::new(admin::role::RoleService::new(host.clone())))
        .add_service(ForkServiceServer::new(admin::fork::ForkService::new(host.clone())))
        .add_service(BulkMoveServiceServer::new(admin::bulk_move::BulkMoveService::new(
            host.clone(),
        )))
        .add_service(PromotionServiceServer::new(admin::promotion::PromotionService::new(
            host.clone(),
        )))
        .add_service(AuditServiceServer::new(admin::audit::AuditService::new(host.clone())))
        .add_service(ClusterServiceServer::new(admin::cluster::ClusterService::new(
            host.clone(),
        )))
        .add_service(OperationServiceServer::new(admin::operation::OperationService::new(
            host.clone(),
            stop.clone(),
        )))
        .add_service(OperationsServer::new(longrunning::Operations::new(
            host.clone(),
            stop.clone(),
        )));
}

/// Rewrites tonic's own refusal of a message beyond the decoder's limit. Other statuses are not decoded here.
async fn rewrite_message_too_long(response: Response) -> Response {
    let code = response.headers().get(Status::GRPC_STATUS);
    if code.is_none_or(|code| Code::from_bytes(code.as_bytes()) != Code::OutOfRange) {
        return response;
    }
    match Status::from_header_map(response.headers()) {
        Some(status) => response::message_too_long(status).into_http(),
        None => response,
    }
}

/// Names of the client listener's services, for health checks.
const CLIENT_SERVICES: &[&str] = &[
    KvServiceServer::<kv::KvService>::NAME,
    DirectoryServiceServer::<directory::DirectoryService>::NAME,
    ReceiptServiceServer::<receipts::ReceiptService>::NAME,
    TenantServiceServer::<admin::tenant::TenantService>::NAME,
    RegionServiceServer::<admin::region::RegionService>::NAME,
    TopologyServiceServer::<admin::topology::TopologyService>::NAME,
    NodeServiceServer::<admin::node::NodeService>::NAME,
    GroupServiceServer::<admin::group::GroupService>::NAME,
    ForkServiceServer::<admin::fork::ForkService>::NAME,
    BulkMoveServiceServer::<admin::bulk_move::BulkMoveService>::NAME,
    PromotionServiceServer::<admin::promotion::PromotionService>::NAME,
    AuditServiceServer::<admin::audit::AuditService>::NAME,
    RoleServiceServer::<admin::role::RoleService>::NAME,
    ClusterServiceServer::<admin::cluster::ClusterService>::NAME,
    OperationServiceServer::<admin::operation::OperationService>::NAME,
    OperationsServer::<longrunning::Operations>::NAME,
];

/// Adds reflection in both versions: common tools still use the older one.
fn add_reflection(routes: &mut RoutesBuilder) {
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(stead_api::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    if let (Ok(v1), Ok(v1alpha)) = (builder().build_v1(), builder().build_v1alpha()) {
        routes.add_service(v1).add_service(v1alpha);
    }
}

/// Returns the router of the peer listener, for other nodes.
pub(crate) fn peer_router(
    host: &Arc<Host>,
    data_services: &DataServices,
    peers: PeerServices,
    stop: &CancellationToken,
) -> HttpRouter {
    let forward = ForwardServiceServer::new(forward::ForwardService::new(data_services.clone(), stop.clone()))
        .max_decoding_message_size(MESSAGE_DECODE_MAX)
        .max_encoding_message_size(MESSAGE_DECODE_MAX);
    let replays = ReplayServiceServer::new(replays::ReplayService::new(host.clone()))
        .max_decoding_message_size(MESSAGE_DECODE_MAX)
        .max_encoding_message_size(MESSAGE_DECODE_MAX);
    let directory = directory_peer::DirectoryPeerService::new(host.clone(), stop.clone());
    let mut routes = Routes::builder();
    routes
        .add_service(forward)
        .add_service(DirectoryPeerServer::new(directory))
        .add_service(DigestServiceServer::new(digests::DigestService::new(host.clone())))
        .add_service(CopyServiceServer::new(copies::CopyService::new(host.clone())))
        .add_service(replays)
        .add_service(peers.raft)
        .add_service(peers.feed)
        .add_service(ReceiptServiceServer::new(receipts::ReceiptService::new(host.clone())));
    add_operators_services(&mut routes, host, stop);
    let router = routes.routes().into_axum_router();
    router
        .layer(from_fn_with_state(host.auth.clone(), auth::peer_access))
        .layer(map_response(answers::hold))
}
