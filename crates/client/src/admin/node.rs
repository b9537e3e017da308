//! Operators' calls for nodes.

use std::time::{Duration, SystemTime};

use stead_api::proto::admin::v1::{self, node_service_client::NodeServiceClient as Service};
use stead_types::{DirectoryVersion, Error, Incarnation};

use super::{Admin, PAGE_SIZE};
use crate::{paging::ListPage, response::malformed};

/// Node in the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    /// Number of the node.
    pub number: u64,
    /// Name of the node, unique in the cluster.
    pub name: String,
    /// Region of the node.
    pub region: String,
    /// Address for clients.
    pub client_address: String,
    /// Address for other nodes.
    pub peer_address: String,
    /// Address for HTTP.
    pub http_address: String,
    /// Whether it is a witness, which only votes in the directory.
    pub witness: bool,
    /// Groups in which it votes.
    pub groups: Vec<u32>,
    /// Status; absent if the node did not answer.
    pub status: Option<NodeStatus>,
}

/// Status of a node, as it reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStatus {
    /// Version of Stead.
    pub version: String,
    /// Time of its start.
    pub started: Option<SystemTime>,
    /// Readiness.
    pub ready: bool,
    /// Groups that it leads.
    pub leads: Vec<u32>,
    /// Version of its directory view.
    pub directory_view: Option<DirectoryVersion>,
    /// Storage engine.
    pub engine: String,
    /// Bytes used on disk.
    pub disk_used: u64,
    /// Bytes free on disk.
    pub disk_free: u64,
    /// Resident memory in bytes.
    pub memory: u64,
    /// Remaining time of its lease.
    pub lease_left: Option<Duration>,
    /// Warnings for operators, although the node serves.
    pub warnings: Vec<String>,
}

impl Admin {
    /// Returns the nodes of a region, or all if it is empty.
    ///
    /// # Errors
    ///
    /// No node answers.
    pub async fn nodes(&self, region: &str) -> Result<Vec<NodeInfo>, Error> {
        let state = self.0.state();
        let request = v1::ListNodesRequest {
            page_size: PAGE_SIZE,
            region: region.to_owned(),
            ..Default::default()
        };
        let nodes = state
            .list(
                request,
                state.deadline(None),
                async |channel, request| Service::new(channel).list_nodes(request).await,
                |request, page_token| request.page_token = page_token,
                |answer| ListPage {
                    items: answer.nodes,
                    next_page_token: answer.next_page_token,
                },
            )
            .await?;
        Ok(nodes.into_iter().map(NodeInfo::read).collect())
    }

    /// Returns a node with its status.
    ///
    /// # Errors
    ///
    /// No such node, or no node answers.
    pub async fn node(&self, number: u64) -> Result<NodeInfo, Error> {
        let call = async |channel, request| Service::new(channel).get_node(request).await;
        let state = self.0.state();
        let answer = state
            .unary(v1::GetNodeRequest { number }, state.deadline(None), true, call)
            .await?;
        answer.node.map(NodeInfo::read).ok_or_else(|| malformed("node"))
    }
}

impl NodeInfo {
    pub(super) fn read(node: v1::Node) -> Self {
        let v1::Node {
            number,
            region,
            client_address,
            peer_address,
            http_address,
            witness,
            groups,
            status,
            name,
        } = node;
        let status = status.map(status_of);
        Self {
            number,
            name,
            region,
            client_address,
            peer_address,
            http_address,
            witness,
            groups,
            status,
        }
    }
}

fn status_of(status: v1::NodeStatus) -> NodeStatus {
    let directory_view = status.view_version.map(|version| DirectoryVersion {
        incarnation: Incarnation(version.incarnation),
        index: version.index,
    });
    NodeStatus {
        version: status.version,
        started: status.start_time.and_then(|time| time.try_into().ok()),
        ready: status.ready,
        leads: status.leads,
        directory_view,
        engine: status.engine,
        disk_used: status.disk_used_bytes,
        disk_free: status.disk_free_bytes,
        memory: status.memory_bytes,
        lease_left: status.lease_left.and_then(|left| left.try_into().ok()),
        warnings: status.warnings,
    }
}
