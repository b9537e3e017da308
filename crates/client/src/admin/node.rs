//! Nodes.

use std::time::{Duration, SystemTime};

use stead_api::proto::admin::v1::{self, node_service_client::NodeServiceClient as Service};
use stead_types::{DirectoryVersion, Error, Incarnation};

use super::{Admin, PAGE_SIZE};
use crate::answer::malformed;

/// A node as the directory knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    /// Its number.
    pub number: u64,
    /// Its name, unique in the cluster.
    pub name: String,
    /// Its region.
    pub region: String,
    /// Where it takes clients.
    pub client_address: String,
    /// Where it takes other nodes.
    pub peer_address: String,
    /// Where it answers HTTP.
    pub http_address: String,
    /// Only votes in the directory.
    pub witness: bool,
    /// Groups in which it votes.
    pub groups: Vec<u32>,
    /// How it is; absent if it could not be asked.
    pub status: Option<NodeStatus>,
}

/// How a node says that it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStatus {
    /// Of Stead.
    pub version: String,
    /// When it started.
    pub started: Option<SystemTime>,
    /// Whether it can serve.
    pub ready: bool,
    /// Groups that it leads.
    pub leads: Vec<u32>,
    /// How much of the directory it has.
    pub view: Option<DirectoryVersion>,
    /// Its storage engine.
    pub engine: String,
    /// Bytes on disk.
    pub disk_used: u64,
    /// Bytes left on disk.
    pub disk_free: u64,
    /// Bytes in RAM.
    pub memory: u64,
    /// How long its lease lasts.
    pub lease_left: Option<Duration>,
    /// What an operator should look at although the node serves.
    pub warnings: Vec<String>,
}

impl Admin {
    /// Returns the nodes of a region, or all if it is empty.
    ///
    /// # Errors
    ///
    /// Nobody who can answer.
    pub async fn nodes(&self, region: &str) -> Result<Vec<NodeInfo>, Error> {
        let mut nodes = Vec::new();
        let mut request = v1::ListNodesRequest {
            page_size: PAGE_SIZE,
            region: region.to_owned(),
            ..Default::default()
        };
        let inner = self.0.inner();
        let deadline = inner.deadline(None);
        loop {
            let call = async |channel, request| Service::new(channel).list_nodes(request).await;
            let answer = inner.unary(request.clone(), deadline, true, call).await?;
            nodes.extend(answer.nodes.into_iter().map(NodeInfo::read));
            if answer.next_page_token.is_empty() {
                return Ok(nodes);
            }
            request.page_token = answer.next_page_token;
        }
    }

    /// Returns how a node is.
    ///
    /// # Errors
    ///
    /// No such node, or nobody who can answer.
    pub async fn node(&self, number: u64) -> Result<NodeInfo, Error> {
        let call = async |channel, request| Service::new(channel).get_node(request).await;
        let inner = self.0.inner();
        let answer = inner
            .unary(v1::GetNodeRequest { number }, inner.deadline(None), true, call)
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
    let view = status.view_version.map(|version| DirectoryVersion {
        incarnation: Incarnation(version.incarnation),
        index: version.index,
    });
    NodeStatus {
        version: status.version,
        started: status.start_time.and_then(|time| time.try_into().ok()),
        ready: status.ready,
        leads: status.leads,
        view,
        engine: status.engine,
        disk_used: status.disk_used_bytes,
        disk_free: status.disk_free_bytes,
        memory: status.memory_bytes,
        lease_left: status.lease_left.and_then(|left| left.try_into().ok()),
        warnings: status.warnings,
    }
}
