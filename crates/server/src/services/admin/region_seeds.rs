//! Copies that nodes make for groups of a region, asked of the nodes.

use stead_api::proto::admin::v1::{self as admin, GetRegionRequest, region_service_client::RegionServiceClient};
use stead_types::{NodeId, RegionName};

use crate::{
    admin_peers::{await_response, peer_request},
    host::{self, Host},
};

/// Asks all nodes that hold tenants for the copies that they make for a region.
pub(super) async fn seeds(host: &Host, name: &RegionName) -> Vec<admin::SeedProgress> {
    let nodes: Vec<NodeId> = host.directory_view.read(|view| {
        let holders = view.nodes().filter(|node| !node.witness);
        holders.map(|node| node.number).collect()
    });
    futures::future::join_all(nodes.into_iter().map(|node| seeds_at(host, node, name)))
        .await
        .concat()
}

/// Asks one node for the copies that it makes for a region; none if it does not answer.
pub(super) async fn seeds_at(host: &Host, node: NodeId, name: &RegionName) -> Vec<admin::SeedProgress> {
    if node == host.config.node.id {
        return host::seeds_to(host, name);
    }
    let channel = host.admin_address(node).and_then(|to| host.admin_peers.channel(&to));
    let Some(channel) = channel else { return Vec::new() };
    let request = peer_request(GetRegionRequest { name: name.to_string() });
    let answer = await_response(RegionServiceClient::new(channel).get_region(request)).await;
    answer.map(|answer| answer.seeds).unwrap_or_default()
}
