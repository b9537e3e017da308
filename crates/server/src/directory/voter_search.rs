//! Search for the voters of the directory, by a node that was away while they all changed: any node knows those of its view.

use std::time::Duration;

use stead_api::{
    net::{Connect, Keepalive, channel},
    proto::admin::v1::{ListNodesRequest, Node, node_service_client::NodeServiceClient},
};
use stead_types::{GroupId, NodeId};
use tokio::time::timeout;

/// Longest time for one node's answer: it asks all nodes for their status.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Most nodes that are asked.
const ASKED_MAX: usize = 32;
/// Most nodes in an answer.
const PAGE_SIZE: i32 = 1_000;

/// Asks nodes at these client addresses, one after the other, for the directory's voters; `None` if none answers.
pub(super) async fn find(connect: &Connect, addresses: &[String]) -> Option<Vec<(NodeId, String)>> {
    for address in addresses.iter().take(ASKED_MAX) {
        let Ok(channel) = channel(connect, address, Keepalive::PEER) else {
            continue;
        };
        let request = ListNodesRequest {
            page_size: PAGE_SIZE,
            ..ListNodesRequest::default()
        };
        let asked = timeout(ANSWER_MAX, NodeServiceClient::new(channel).list_nodes(request)).await;
        let Ok(Ok(answer)) = asked else { continue };
        let voters = voters(answer.into_inner().nodes);
        if !voters.is_empty() {
            return Some(voters);
        }
    }
    None
}

fn voters(nodes: Vec<Node>) -> Vec<(NodeId, String)> {
    let votes = |node: &Node| node.groups.contains(&GroupId::DIRECTORY.get()) && !node.peer_address.is_empty();
    let voters = nodes.into_iter().filter(votes);
    voters
        .map(|node| (NodeId::new(node.number), node.peer_address))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn voters_are_nodes_of_the_directory_group() {
        let node = |number, groups: &[u32]| Node {
            number,
            groups: groups.to_vec(),
            peer_address: format!("n{number}:2"),
            ..Node::default()
        };
        let found = voters(vec![node(1, &[0, 1]), node(2, &[1]), node(3, &[0])]);
        let ids: Vec<u64> = found.iter().map(|(node, _)| node.get()).collect();
        assert_eq!(ids, [1, 3]);
    }
}
