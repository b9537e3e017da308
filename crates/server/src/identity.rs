//! Check that this node is who its data directory says: that the cluster still has it, and that no other process is it.

use std::time::Duration;

use futures::future::join_all;
use stead_api::{
    net::{Connect, Keepalive, channel},
    proto::internal::v1::{
        ReadIdentityRequest, ReadIdentityResponse, directory_service_client::DirectoryServiceClient,
    },
};
use stead_replication::SharedDirectoryView;
use stead_types::{DirectoryVersion, Incarnation, NodeId};
use tokio::time::timeout;

use crate::{config::ValidatedConfig, environment::Environment};

/// Longest time for a node to answer.
const ANSWER_MAX: Duration = Duration::from_millis(1_500);

/// Most nodes that are asked.
const ASKED_MAX: usize = 32;

/// Reason for which a node must not run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It was removed.
    #[error(
        "node {0} was removed from the cluster, or replaced: its data directory is of no more use; to bring this machine back, \
         announce it with `stead node add`, and start it with an empty data directory and --join"
    )]
    Removed(NodeId),
    /// Another process is the node.
    #[error(
        "node {node} runs already, at {address}: two processes with one data directory's identity would break what the cluster \
         promises; stop that one first, or give this machine a data directory of its own and a node of its own (`stead node add`)"
    )]
    RunsElsewhere {
        /// The node.
        node: NodeId,
        /// Address at which it answers.
        address: String,
    },
}

/// This node, as it would be checked.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    /// Its number.
    pub(crate) node: NodeId,
    /// Number of its process.
    pub(crate) process: u64,
    /// Version of its view.
    pub(crate) version: DirectoryVersion,
}

/// Answer from an address.
#[derive(Clone, Debug)]
struct Answer {
    address: String,
    response: ReadIdentityResponse,
}

/// Asks these addresses, of other nodes and of this one elsewhere.
///
/// # Errors
///
/// Another process is this node, or a node with a newer view does not know it.
pub(crate) async fn check(claim: &Claim, addresses: &[String], connect: &Connect) -> Result<(), Refusal> {
    let asked = addresses.iter().map(async |address| {
        let response = ask(address, claim.node, connect).await?;
        let address = address.clone();
        Some(Answer { address, response })
    });
    let answers: Vec<Answer> = join_all(asked).await.into_iter().flatten().collect();
    decide(claim, &answers)
}

async fn ask(address: &str, node: NodeId, connect: &Connect) -> Option<ReadIdentityResponse> {
    let channel = channel(connect, address, Keepalive::PEER).ok()?;
    let request = ReadIdentityRequest { node: node.get() };
    let mut client = DirectoryServiceClient::new(channel);
    let answer = timeout(ANSWER_MAX, client.read_identity(request)).await.ok()?;
    Some(answer.ok()?.into_inner())
}

/// Returns a number of this process, which differs from that of another one with the same identity.
pub(crate) fn process_number(environment: &Environment) -> u64 {
    let boot = u64::try_from((environment.clocks.boot)().as_nanos()).unwrap_or(0);
    ((environment.clocks.wall)() << 20) ^ boot
}

/// Returns the peer address at which this node was before, if it is another one than now.
pub(crate) fn former_address(config: &ValidatedConfig, view: &SharedDirectoryView) -> Vec<String> {
    let former = view.read(|view| view.node(config.node.id).map(|node| node.addresses.peer.clone()));
    let is_other = |address: &String| !address.is_empty() && *address != config.peer.advertise;
    former.filter(is_other).into_iter().collect()
}

/// Returns peer addresses of other nodes, a bounded number of them.
pub(crate) fn others(own: NodeId, view: &SharedDirectoryView) -> Vec<String> {
    view.read(|view| {
        let others = view.nodes().filter(|node| node.number != own && node.has_joined());
        others.map(|node| node.addresses.peer.clone()).take(ASKED_MAX).collect()
    })
}

fn decide(claim: &Claim, answers: &[Answer]) -> Result<(), Refusal> {
    let node = claim.node;
    for Answer { address, response } in answers {
        if response.node == node.get() && response.process != claim.process {
            let address = address.clone();
            return Err(Refusal::RunsElsewhere { node, address });
        }
        let version = DirectoryVersion {
            incarnation: Incarnation(response.incarnation),
            index: response.index,
        };
        // A node without a view may be newer than those that others have.
        let has_view = claim.version > DirectoryVersion::ZERO;
        if has_view && version > claim.version && !response.is_known {
            return Err(Refusal::Removed(node));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(node: u64, process: u64, index: u64, is_known: bool) -> Answer {
        Answer {
            address: "b:1".into(),
            response: ReadIdentityResponse {
                node,
                process,
                incarnation: 1,
                index,
                is_known,
            },
        }
    }

    #[test]
    fn removed_node_and_second_process_are_refused() {
        let node = NodeId::new(3);
        let claim = Claim {
            node,
            process: 7,
            version: DirectoryVersion {
                incarnation: Incarnation::FIRST,
                index: 10,
            },
        };
        let other = |index, is_known| answer(1, 1, index, is_known);
        assert_eq!(
            decide(&claim, &[other(20, true), other(5, false)]),
            Ok(()),
            "an old view says nothing"
        );
        assert_eq!(
            decide(&claim, &[other(20, true), other(21, false)]),
            Err(Refusal::Removed(node))
        );
        assert_eq!(decide(&claim, &[answer(3, 7, 10, true)]), Ok(()), "itself");
        let address = "b:1".to_owned();
        assert_eq!(
            decide(&claim, &[answer(3, 8, 10, true)]),
            Err(Refusal::RunsElsewhere { node, address })
        );
        assert_eq!(decide(&claim, &[]), Ok(()));
    }
}
