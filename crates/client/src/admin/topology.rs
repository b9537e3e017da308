//! Operators' calls that change the nodes and regions of the cluster.

use stead_api::proto::admin::v1::{self, topology_service_client::TopologyServiceClient as Service};
use stead_types::Error;

use super::{Admin, OperationInfo, operation};

/// Change of the nodes or regions of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopologyRequest {
    /// Announces a node, which then joins.
    AddNode {
        /// Its name.
        name: String,
        /// Its region.
        region: String,
        /// Whether it only votes in the directory.
        witness: bool,
    },
    /// Announces a node that takes the place of another one.
    ReplaceNode {
        /// Name or number of the node that goes.
        node: String,
        /// Name of the node that comes; empty: that of the one that goes.
        name: String,
    },
    /// Removes a node.
    RemoveNode {
        /// Its name or number.
        node: String,
        /// Whether groups may be left able to lose fewer nodes.
        accept_less: bool,
    },
    /// Adds a region with its first nodes.
    AddRegion {
        /// Its name.
        name: String,
        /// Its jurisdiction.
        jurisdiction: String,
        /// Names of its nodes.
        nodes: Vec<String>,
        /// Whether they only vote in the directory.
        witness: bool,
    },
    /// Removes a region in which no tenant is at home.
    RemoveRegion {
        /// Its name.
        name: String,
        /// Whether its nodes are lost: its copies are given up instead of erased.
        lost: bool,
    },
    /// Gives the directory the voters that the nodes allow.
    RestoreDirectory,
    /// Adds a group to a region.
    AddGroup {
        /// Name of the region.
        region: String,
    },
}

impl Admin {
    /// Begins a change of the nodes or regions of the cluster.
    ///
    /// # Errors
    ///
    /// It is refused, or a failure that says whether it may have begun.
    pub async fn change_topology(&self, request: TopologyRequest, reason: &str) -> Result<OperationInfo, Error> {
        let reason = reason.to_owned();
        let state = self.0.state();
        macro_rules! begin {
            ($method:ident, $request:expr) => {{
                let call = async |channel, request| Service::new(channel).$method(request).await;
                state.unary($request, state.deadline(None), false, call).await?
            }};
        }
        let begun = match request {
            TopologyRequest::AddNode { name, region, witness } => {
                let request = v1::AddNodeRequest {
                    name,
                    region,
                    witness,
                    reason,
                };
                begin!(add_node, request)
            }
            TopologyRequest::ReplaceNode { node, name } => {
                begin!(replace_node, v1::ReplaceNodeRequest { node, name, reason })
            }
            TopologyRequest::RemoveNode { node, accept_less } => {
                let request = v1::RemoveNodeRequest {
                    node,
                    accept_less,
                    reason,
                };
                begin!(remove_node, request)
            }
            TopologyRequest::AddRegion {
                name,
                jurisdiction,
                nodes,
                witness,
            } => {
                let request = v1::AddRegionRequest {
                    name,
                    jurisdiction,
                    nodes,
                    reason,
                    witness,
                };
                begin!(add_region, request)
            }
            TopologyRequest::RemoveRegion { name, lost } => {
                begin!(remove_region, v1::RemoveRegionRequest { name, reason, lost })
            }
            TopologyRequest::RestoreDirectory => begin!(restore_directory, v1::RestoreDirectoryRequest { reason }),
            TopologyRequest::AddGroup { region } => begin!(add_group, v1::AddGroupRequest { region, reason }),
        };
        operation::read(Some(begun))
    }
}
