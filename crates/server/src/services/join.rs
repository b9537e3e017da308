//! Joining and identity of nodes, on any node of the cluster.

use stead_api::proto::internal::v1::{
    DirectoryVoter, JoinRequest, JoinResponse, ReadIdentityRequest, ReadIdentityResponse,
};
use stead_state::directory::{
    Addresses, AuditContext, Command, DirectoryOutcome, DirectoryView, NewNode, Rejection, TopologyRejection,
};
use stead_types::{DirectoryVersion, Error, ErrorKind, GroupId, NodeId};

use crate::host::Host;

/// Longest wait for this node's view to show what was announced, and who has joined.
const VIEW_WAIT: std::time::Duration = std::time::Duration::from_secs(3);

/// Lets an announced node join.
pub(super) async fn join(host: &Host, request: JoinRequest) -> Result<JoinResponse, Error> {
    if request.cluster != host.config.cluster {
        let message = format!(
            "cluster: this is cluster {:?}, not {:?}: correct cluster.name or the addresses of --join",
            host.config.cluster, request.cluster
        );
        return Err(Error::invalid("cluster", message));
    }
    wait_for(host, host.directory.version().await?).await?;
    let command = host.directory_view.read(|view| command(view, &request))?;
    let (outcome, version) = host.directory.propose(&command).await?;
    let DirectoryOutcome::Node(number) = outcome else {
        let message = "the directory has answered a join with no node: this is a bug, please report it";
        return Err(Error::new(ErrorKind::Internal, message));
    };
    wait_for(host, version).await?;
    host.directory_view.read(|view| response(view, number))
}

async fn wait_for(host: &Host, version: DirectoryVersion) -> Result<(), Error> {
    if host.directory_view.wait_for(version, VIEW_WAIT).await {
        return Ok(());
    }
    let message = format!("this node's copy of the directory is behind {version}; try another node");
    Err(Error::new(ErrorKind::Unavailable, message))
}

fn command(view: &DirectoryView, request: &JoinRequest) -> Result<Command, Error> {
    let level = view.settings().feature_level;
    if request.feature_level < level {
        let message = format!(
            "feature_level: the node supports {}, the cluster is at {level}: run the cluster's version of stead",
            request.feature_level
        );
        return Err(Error::invalid("feature_level", message));
    }
    view.settings().check_topology()?;
    let announced = view.nodes().find(|node| node.name == request.name);
    let announced = announced.ok_or_else(|| Rejection::from(TopologyRejection::NotAnnounced(request.name.clone())))?;
    let invalid = |_| Error::invalid("token", "token: it has 16 bytes");
    let token = u128::from_be_bytes(request.token.as_ref().try_into().map_err(invalid)?);
    let own = [&request.client_address, &request.peer_address, &request.http_address];
    let others = view.nodes().filter(|node| node.number != announced.number);
    for other in others {
        let theirs = [&other.addresses.client, &other.addresses.peer, &other.addresses.http];
        let is_used = |address: &&&String| !address.is_empty() && theirs.contains(address);
        // A machine with a new disk has the addresses of the node that it replaces.
        if let Some(address) = own.iter().find(is_used).filter(|_| !is_replaced(view, other.number)) {
            let message = format!(
                "addresses: {address} is an address of node {}: give this node its own",
                other.name
            );
            return Err(Error::invalid("addresses", message));
        }
    }
    let node = NewNode {
        name: request.name.clone(),
        region: announced.region.clone(),
        addresses: Addresses {
            client: request.client_address.clone(),
            peer: request.peer_address.clone(),
            http: request.http_address.clone(),
        },
        witness: announced.witness,
        token,
    };
    let by = AuditContext {
        who: format!("node {}", request.name),
        reason: "joins".to_owned(),
    };
    Ok(Command::Join(by, node))
}

/// Tells whether a node has lost its name to the one that replaces it.
fn is_replaced(view: &DirectoryView, node: NodeId) -> bool {
    view.node(node).is_some_and(|node| node.name.contains('~'))
}

fn response(view: &DirectoryView, number: NodeId) -> Result<JoinResponse, Error> {
    let missing = || Error::new(ErrorKind::NotFound, format!("there is no node {number}"));
    let node = view.node(number).ok_or_else(missing)?;
    let directory = view.group(GroupId::DIRECTORY);
    let voters = directory.map(|directory| &directory.voters[..]).unwrap_or_default();
    let voter = |voter: &NodeId| {
        let node = view.node(*voter)?;
        Some(DirectoryVoter {
            node: node.number.get(),
            name: node.name.clone(),
            region: node.region.to_string(),
            peer_address: node.addresses.peer.clone(),
            client_address: node.addresses.client.clone(),
        })
    };
    Ok(JoinResponse {
        node: number.get(),
        region: node.region.to_string(),
        witness: node.witness,
        voters: voters.iter().filter_map(voter).collect(),
    })
}

/// Says what this node knows of a node, and who it is itself.
pub(super) fn identity(host: &Host, request: &ReadIdentityRequest) -> ReadIdentityResponse {
    host.directory_view.read(|view| {
        let version = view.version();
        ReadIdentityResponse {
            node: host.config.node.id.get(),
            process: host.process,
            incarnation: version.incarnation.0,
            index: version.index,
            is_known: view.node(NodeId::new(request.node)).is_some(),
        }
    })
}
