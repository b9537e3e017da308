//! `NodeService`: nodes from the directory, with the status that each reports.

use std::sync::Arc;

use stead_api::{
    convert,
    proto::admin::v1::{
        self as admin, GetNodeRequest, GetNodeResponse, ListNodesRequest, ListNodesResponse,
        node_service_client::NodeServiceClient, node_service_server,
    },
};
use stead_state::directory::{DirectoryView, Node};
use stead_types::{Error, ErrorKind, NodeId};
use tonic::{Request, Response, Status};

use super::{PAGE_DEFAULT, PAGE_MAX, to_status};
use crate::{
    admin_peers::{await_response, is_peer_request, peer_request},
    host::{self, Host},
};

/// The service.
#[derive(Clone)]
pub(crate) struct NodeService(Arc<Host>);

impl NodeService {
    /// Returns the service.
    pub(crate) fn new(host: Arc<Host>) -> Self {
        Self(host)
    }
}

/// Converts a node into a message, without its status.
pub(super) fn message(view: &DirectoryView, node: &Node) -> admin::Node {
    let groups = view.groups().filter(|group| group.voters.contains(&node.number));
    admin::Node {
        number: node.number.get(),
        region: node.region.to_string(),
        client_address: node.addresses.client.clone(),
        peer_address: node.addresses.peer.clone(),
        http_address: node.addresses.http.clone(),
        witness: node.witness,
        groups: groups.map(|group| group.number.get()).collect(),
        status: None,
        name: node.name.clone(),
    }
}

/// Adds the status that a node reports, if it can be reached.
pub(super) async fn with_status(host: &Host, mut node: admin::Node) -> admin::Node {
    if node.number == host.config.node.id.get() {
        node.status = Some(host::node_status(host));
        return node;
    }
    let address = host.admin_address(NodeId::new(node.number));
    if let Some(channel) = address.and_then(|address| host.admin_peers.channel(&address)) {
        let mut client = NodeServiceClient::new(channel);
        let pending = client.get_node(peer_request(GetNodeRequest { number: node.number }));
        node.status = await_response(pending).await.and_then(|answer| answer.node?.status);
    }
    node
}

/// Asks another node for its free bytes of disk; `None` if it does not answer, or does not know.
pub(crate) async fn disk_free_at(host: &Host, node: NodeId) -> Option<u64> {
    let asked = host.directory_view.read(|view| Some(message(view, view.node(node)?)));
    let status = with_status(host, asked?).await.status?;
    Some(status.disk_free_bytes).filter(|free| *free > 0)
}

impl NodeService {
    async fn get(&self, request: Request<GetNodeRequest>) -> Result<GetNodeResponse, Error> {
        self.0.check_view_loaded()?;
        let number = request.get_ref().number;
        let missing = || Error::new(ErrorKind::NotFound, format!("there is no node {number}"));
        let found = |view: &DirectoryView| view.node(NodeId::new(number)).map(|node| message(view, node));
        let node = self.0.directory_view.read(found).ok_or_else(missing)?;
        if is_peer_request(&request) && number != self.0.config.node.id.get() {
            return Ok(GetNodeResponse { node: Some(node) });
        }
        Ok(GetNodeResponse {
            node: Some(with_status(&self.0, node).await),
        })
    }

    async fn list(&self, request: &ListNodesRequest) -> Result<ListNodesResponse, Error> {
        self.0.check_view_loaded()?;
        let size = convert::page::size(request.page_size, PAGE_DEFAULT, PAGE_MAX)? as usize;
        let after = convert::page::position(request.region.as_bytes(), &request.page_token)?;
        let invalid = || Error::invalid("page_token", "page_token: not a token of this store");
        let after = match after {
            Some(bytes) => u64::from_be_bytes(bytes.try_into().map_err(|_| invalid())?),
            None => 0,
        };
        let mut nodes: Vec<admin::Node> = self.0.directory_view.read(|view| {
            let nodes = view.nodes().filter(|node| node.number.get() > after);
            let nodes = nodes.filter(|node| request.region.is_empty() || node.region.as_str() == request.region);
            nodes.take(size + 1).map(|node| message(view, node)).collect()
        });
        let more = nodes.len() > size;
        nodes.truncate(size);
        let last = nodes.last().filter(|_| more);
        let next = last.map(|last| convert::page::token(request.region.as_bytes(), &last.number.to_be_bytes()));
        let nodes = futures::future::join_all(nodes.into_iter().map(|node| with_status(&self.0, node))).await;
        Ok(ListNodesResponse {
            nodes,
            next_page_token: next.unwrap_or_default(),
        })
    }
}

#[tonic::async_trait]
impl node_service_server::NodeService for NodeService {
    async fn list_nodes(&self, request: Request<ListNodesRequest>) -> Result<Response<ListNodesResponse>, Status> {
        self.list(request.get_ref())
            .await
            .map(Response::new)
            .map_err(|error| to_status(&error))
    }

    async fn get_node(&self, request: Request<GetNodeRequest>) -> Result<Response<GetNodeResponse>, Status> {
        self.get(request)
            .await
            .map(Response::new)
            .map_err(|error| to_status(&error))
    }
}
