//! Choice of the voters of groups and of the directory, from the nodes that there are.
//!
//! A group has an odd number of voters: a second node makes its loss no more bearable than the first alone, so it waits as
//! a spare until there is a third.

use stead_types::{NodeId, RegionName};

use super::{DirectoryView, Node};

/// Number of voters where there are enough nodes.
const VOTERS: usize = 3;

/// Node that goes, and the one that takes its place, if any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Leaving {
    pub(super) node: Option<NodeId>,
    pub(super) replacement: Option<NodeId>,
}

/// Nodes of a region that may vote in its groups, those that are reachable first.
pub(super) fn data_nodes(
    view: &DirectoryView,
    region: &RegionName,
    leaving: Leaving,
    unreachable: &[NodeId],
) -> Vec<NodeId> {
    let is_usable = |node: &&Node| {
        node.region == *region && !node.witness && node.has_joined() && Some(node.number) != leaving.node
    };
    let mut nodes: Vec<NodeId> = view.nodes().filter(is_usable).map(|node| node.number).collect();
    nodes.sort_by_key(|node| (unreachable.contains(node), *node));
    nodes
}

/// Returns the voters that a group should have: those that stay, the replacement in the place of the node that goes, and
/// spare nodes where they allow the loss of one more.
pub(super) fn of_group(voters: &[NodeId], nodes: &[NodeId], leaving: Leaving) -> Vec<NodeId> {
    let mut wanted = staying(voters, leaving);
    let target = match nodes.len() {
        0..VOTERS => wanted.len().max(1),
        // An even number bears no more losses than one less.
        _ => wanted.len().max(VOTERS) | 1,
    };
    let spare: Vec<NodeId> = nodes.iter().copied().filter(|node| !wanted.contains(node)).collect();
    let missing = target.saturating_sub(wanted.len());
    if spare.len() >= missing {
        wanted.extend(spare.into_iter().take(missing));
    }
    wanted.sort_unstable();
    wanted
}

/// Returns the voters of a further group of a region: nodes that vote in the fewest groups, those that are reachable first.
pub(super) fn of_new_group(view: &DirectoryView, region: &RegionName, unreachable: &[NodeId]) -> Vec<NodeId> {
    let mut nodes = data_nodes(view, region, Leaving::default(), unreachable);
    let groups = |node: &NodeId| view.groups_of(region).filter(|group| group.is_on(*node)).count();
    nodes.sort_by_key(|node| (unreachable.contains(node), groups(node), *node));
    of_group(&[], &nodes, Leaving::default())
}

fn staying(voters: &[NodeId], leaving: Leaving) -> Vec<NodeId> {
    let place = |voter: &NodeId| match leaving.node == Some(*voter) {
        true => leaving.replacement,
        false => Some(*voter),
    };
    voters.iter().filter_map(place).collect()
}

/// Returns the voters that the directory should have: with one region three of its nodes (or one), with two one of each
/// and a witness (or, without one, another node), with more one of each. Voters that fit stay.
pub(super) fn of_directory(
    view: &DirectoryView,
    voters: &[NodeId],
    leaving: Leaving,
    unreachable: &[NodeId],
) -> Vec<NodeId> {
    let current = staying(voters, leaving);
    let remaining = view.regions().filter(|region| !region.leaving);
    let mut regions: Vec<Vec<NodeId>> = remaining
        .map(|region| {
            let mut nodes = data_nodes(view, &region.name, leaving, unreachable);
            nodes.sort_by_key(|node| !current.contains(node));
            nodes
        })
        .filter(|nodes| !nodes.is_empty())
        .collect();
    // The region of the first voter comes first, so that voters change as little as possible.
    regions.sort_by_key(|nodes| !nodes.iter().any(|node| current.first() == Some(node)));
    let mut wanted: Vec<NodeId> = match &regions[..] {
        [] => return current,
        [only] if only.len() >= VOTERS => only[..VOTERS].to_vec(),
        [only] => only[..1].to_vec(),
        [one, other] => {
            let mut third: Vec<NodeId> = witnesses(view, leaving).collect();
            third.extend(one.iter().chain(other).copied());
            third.retain(|node| *node != one[0] && *node != other[0]);
            third.sort_by_key(|node| (!is_witness(view, *node), !current.contains(node)));
            match third.first() {
                Some(third) => vec![one[0], other[0], *third],
                None => one[..1].to_vec(),
            }
        }
        _ => regions.iter().map(|nodes| nodes[0]).collect(),
    };
    wanted.sort_unstable();
    wanted
}

fn is_witness(view: &DirectoryView, node: NodeId) -> bool {
    view.node(node).is_some_and(|node| node.witness)
}

fn witnesses(view: &DirectoryView, leaving: Leaving) -> impl Iterator<Item = NodeId> {
    let stays = |node: &Node| view.region(&node.region).is_some_and(|region| !region.leaving);
    let is_usable =
        move |node: &&Node| node.witness && node.has_joined() && Some(node.number) != leaving.node && stays(node);
    view.nodes().filter(is_usable).map(|node| node.number)
}

/// Returns how many of so many voters may be lost.
pub(super) fn tolerance(voters: usize) -> usize {
    voters.saturating_sub(1) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(numbers: &[u64]) -> Vec<NodeId> {
        numbers.iter().copied().map(NodeId::new).collect()
    }

    #[test]
    fn group_grows_to_odd_numbers_only() {
        let wanted = |voters: &[u64], nodes: &[u64]| of_group(&ids(voters), &ids(nodes), Leaving::default());
        assert_eq!(wanted(&[1], &[1, 2]), ids(&[1]), "two bear no loss");
        assert_eq!(wanted(&[1], &[1, 2, 3]), ids(&[1, 2, 3]));
        assert_eq!(wanted(&[1, 2], &[1, 2]), ids(&[1, 2]));
        assert_eq!(wanted(&[1, 2], &[1, 2, 3]), ids(&[1, 2, 3]));
        assert_eq!(wanted(&[1, 2, 3], &[1, 2, 3, 4]), ids(&[1, 2, 3]));
        assert_eq!(wanted(&[1, 2, 3, 4], &[1, 2, 3, 4]), ids(&[1, 2, 3, 4]));
    }

    #[test]
    fn leaving_voter_is_replaced_by_its_replacement_or_a_spare() {
        let goes = |node, replacement: Option<u64>| Leaving {
            node: Some(NodeId::new(node)),
            replacement: replacement.map(NodeId::new),
        };
        let voters = ids(&[1, 2, 3]);
        assert_eq!(
            of_group(&voters, &ids(&[1, 2, 4, 5]), goes(3, Some(5))),
            ids(&[1, 2, 5])
        );
        assert_eq!(of_group(&voters, &ids(&[1, 2, 4]), goes(3, None)), ids(&[1, 2, 4]));
        assert_eq!(of_group(&voters, &ids(&[1, 2]), goes(3, None)), ids(&[1, 2]));
        assert_eq!(of_group(&ids(&[1]), &ids(&[2]), goes(1, Some(2))), ids(&[2]));
        assert_eq!(of_group(&ids(&[1]), &ids(&[2]), goes(1, None)), ids(&[2]), "the spare");
    }

    #[test]
    fn tolerance_is_less_than_half() {
        assert_eq!([0, 1, 2, 3, 4, 5].map(tolerance), [0, 0, 0, 1, 1, 2]);
    }
}
