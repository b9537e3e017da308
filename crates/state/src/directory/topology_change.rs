//! Change of the cluster's nodes and regions: what is asked for, the record in its operation, and the commands.

use stead_types::{GroupId, Incarnation, Jurisdiction, NodeId, RegionName};

use super::{ClusterSettings, Rejection, command::AuditContext, text};
use crate::codec::{Malformed, Reader, Writer};

/// Most nodes that one request announces.
pub(super) const ANNOUNCED_MAX: usize = 16;
/// Most groups of a region.
pub(super) const GROUPS_MAX: usize = 16;
/// Longest name of a node, in bytes.
pub(super) const NODE_NAME_LEN_MAX: usize = 64;

/// Request to change the cluster's nodes or regions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopologyRequest {
    /// Announces a node, which then joins under its name.
    AddNode {
        /// Its name.
        name: String,
        /// Its region.
        region: RegionName,
        /// Whether it only votes in the directory.
        witness: bool,
    },
    /// Announces a node that takes the place of another one.
    ReplaceNode {
        /// The node that goes.
        old: NodeId,
        /// Name of the one that comes; that of the old one if empty.
        name: String,
    },
    /// Removes a node.
    RemoveNode {
        /// The node.
        node: NodeId,
        /// Whether its groups may be left able to lose fewer nodes.
        accept_less: bool,
    },
    /// Adds a region with its first nodes.
    AddRegion {
        /// Its name.
        region: RegionName,
        /// Its jurisdiction.
        jurisdiction: Jurisdiction,
        /// Names of its nodes.
        nodes: Vec<String>,
        /// Whether they only vote in the directory: the region has no groups. From feature level 6 on.
        witness: bool,
    },
    /// Removes a region in which no tenant is at home.
    RemoveRegion {
        /// The region.
        region: RegionName,
        /// Whether its nodes are lost: nothing that they hold is erased first. From feature level 6 on.
        lost: bool,
    },
    /// Gives the directory the voters that the nodes allow, for instance after its recovery.
    RestoreDirectory,
    /// Adds a group to a region. From feature level 6 on.
    AddGroup(RegionName),
}

/// Action of a change of the topology.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopologyAction {
    /// A node is added.
    AddNode(NodeId),
    /// A node takes the place of another one.
    ReplaceNode {
        /// The node that goes.
        old: NodeId,
        /// The node that comes.
        new: NodeId,
    },
    /// A node is removed.
    RemoveNode(NodeId),
    /// A region is added, with these nodes.
    AddRegion {
        /// The region.
        region: RegionName,
        /// Its nodes.
        nodes: Vec<NodeId>,
        /// Whether they only vote in the directory.
        witness: bool,
    },
    /// A region is removed.
    RemoveRegion {
        /// The region.
        region: RegionName,
        /// Whether its nodes are lost.
        lost: bool,
    },
    /// The directory gets its voters.
    RestoreDirectory,
    /// A group is added.
    AddGroup {
        /// Its region.
        region: RegionName,
        /// Its number.
        group: GroupId,
    },
}

/// Change of the topology, as its operation records it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopologyChange {
    /// Action.
    pub action: TopologyAction,
    /// Summary for people: names stay readable after their nodes are gone.
    pub summary: String,
    /// Whether it was cancelled: what has begun is undone where that is possible.
    pub is_cancelled: bool,
    /// Whether every node that it announced has joined.
    pub have_joined: bool,
    /// Changes of voters that it has begun.
    pub begun: u32,
    /// Those of them that are done.
    pub changed: u32,
}

/// Command about the topology.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopologyCommand {
    /// Begins a change.
    Begin(AuditContext, TopologyRequest),
    /// Does what a change needs next; proposed by the directory's leader while
    /// [`super::Directory::due_topology_change`] says so. Names the nodes that it has not heard of lately.
    Advance(u64, Vec<NodeId>),
    /// Reports the voters that a group's log has committed, from its leader.
    ConfirmVoters(ConfirmVoters),
}

/// Voters of a group, as its log has committed them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfirmVoters {
    /// The group.
    pub group: GroupId,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// Its voters.
    pub voters: Vec<NodeId>,
}

impl TopologyAction {
    /// Returns the nodes that were announced.
    pub fn announced(&self) -> Vec<NodeId> {
        match self {
            Self::AddNode(node) | Self::ReplaceNode { new: node, .. } => vec![*node],
            Self::AddRegion { nodes, .. } => nodes.clone(),
            Self::RemoveNode(_) | Self::RemoveRegion { .. } | Self::RestoreDirectory | Self::AddGroup { .. } => {
                Vec::new()
            }
        }
    }

    /// Tells whether it makes groups.
    pub(super) fn makes_groups(&self) -> bool {
        matches!(self, Self::AddRegion { witness: false, .. } | Self::AddGroup { .. })
    }

    /// Returns the node that goes.
    pub fn leaving(&self) -> Option<NodeId> {
        match self {
            Self::ReplaceNode { old, .. } => Some(*old),
            Self::RemoveNode(node) => Some(*node),
            Self::AddNode(_)
            | Self::AddRegion { .. }
            | Self::RemoveRegion { .. }
            | Self::RestoreDirectory
            | Self::AddGroup { .. } => None,
        }
    }

    fn encode(&self, w: &mut Writer) {
        match self {
            Self::AddNode(node) => drop(w.u8(0).varint(node.get())),
            Self::ReplaceNode { old, new } => drop(w.u8(1).varint(old.get()).varint(new.get())),
            Self::RemoveNode(node) => drop(w.u8(2).varint(node.get())),
            Self::AddRegion { region, nodes, witness } => {
                text::write(w.u8(if *witness { 6 } else { 3 }), region.as_str());
                write_nodes(w, nodes);
            }
            Self::RemoveRegion { region, lost } => text::write(w.u8(if *lost { 8 } else { 4 }), region.as_str()),
            Self::RestoreDirectory => drop(w.u8(5)),
            Self::AddGroup { region, group } => text::write(w.u8(7).varint(u64::from(group.get())), region.as_str()),
        }
    }

    fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(match r.u8()? {
            0 => Self::AddNode(text::node(r)?),
            1 => Self::ReplaceNode {
                old: text::node(r)?,
                new: text::node(r)?,
            },
            2 => Self::RemoveNode(text::node(r)?),
            tag @ (3 | 6) => Self::AddRegion {
                region: text::parse(r)?,
                nodes: r.list(text::node)?,
                witness: tag == 6,
            },
            tag @ (4 | 8) => Self::RemoveRegion {
                region: text::parse(r)?,
                lost: tag == 8,
            },
            5 => Self::RestoreDirectory,
            7 => {
                let group = text::group(r)?;
                let region = text::parse(r)?;
                Self::AddGroup { region, group }
            }
            9.. => return Err(r.malformed()),
        })
    }
}

impl TopologyChange {
    pub(super) fn encode(&self, w: &mut Writer) {
        self.action.encode(w);
        text::write(w, &self.summary);
        w.bool(self.is_cancelled).bool(self.have_joined);
        w.varint(u64::from(self.begun)).varint(u64::from(self.changed));
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            action: TopologyAction::decode(r)?,
            summary: text::read(r)?,
            is_cancelled: r.bool()?,
            have_joined: r.bool()?,
            begun: r.varint_u32()?,
            changed: r.varint_u32()?,
        })
    }
}

impl TopologyRequest {
    /// Checks that every node of the cluster can read it.
    ///
    /// # Errors
    ///
    /// The feature level is too low.
    pub fn check_level(&self, settings: ClusterSettings) -> Result<(), Rejection> {
        match self {
            Self::AddRegion { witness: true, .. } | Self::AddGroup(_) | Self::RemoveRegion { lost: true, .. } => {
                settings.check_growth()
            }
            Self::AddNode { .. }
            | Self::ReplaceNode { .. }
            | Self::RemoveNode { .. }
            | Self::AddRegion { .. }
            | Self::RemoveRegion { lost: false, .. }
            | Self::RestoreDirectory => settings.check_topology(),
        }
    }

    /// Returns the action, for the audit log.
    pub(super) fn audit(&self) -> (&'static str, String) {
        match self {
            Self::AddNode { name, .. } => ("add node", name.clone()),
            Self::ReplaceNode { old, .. } => ("replace node", old.to_string()),
            Self::RemoveNode { node, .. } => ("remove node", node.to_string()),
            Self::AddRegion { region, .. } => ("add region", region.to_string()),
            Self::RemoveRegion { region, lost: false } => ("remove region", region.to_string()),
            Self::RemoveRegion { region, lost: true } => ("remove lost region", region.to_string()),
            Self::RestoreDirectory => ("restore voters", "directory".to_owned()),
            Self::AddGroup(region) => ("add group", region.to_string()),
        }
    }

    fn encode(&self, w: &mut Writer) {
        match self {
            Self::AddNode { name, region, witness } => {
                text::write(w.u8(0), name);
                text::write(w, region.as_str());
                w.bool(*witness);
            }
            Self::ReplaceNode { old, name } => text::write(w.u8(1).varint(old.get()), name),
            Self::RemoveNode { node, accept_less } => drop(w.u8(2).varint(node.get()).bool(*accept_less)),
            Self::AddRegion {
                region,
                jurisdiction,
                nodes,
                witness,
            } => {
                text::write(w.u8(if *witness { 6 } else { 3 }), region.as_str());
                text::write(w, jurisdiction.as_str());
                text::write_all(w, nodes.iter());
            }
            Self::RemoveRegion { region, lost } => text::write(w.u8(if *lost { 8 } else { 4 }), region.as_str()),
            Self::RestoreDirectory => drop(w.u8(5)),
            Self::AddGroup(region) => text::write(w.u8(7), region.as_str()),
        }
    }

    fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(match r.u8()? {
            0 => Self::AddNode {
                name: text::read(r)?,
                region: text::parse(r)?,
                witness: r.bool()?,
            },
            1 => Self::ReplaceNode {
                old: text::node(r)?,
                name: text::read(r)?,
            },
            2 => Self::RemoveNode {
                node: text::node(r)?,
                accept_less: r.bool()?,
            },
            tag @ (3 | 6) => Self::AddRegion {
                region: text::parse(r)?,
                jurisdiction: text::parse(r)?,
                nodes: r.list(text::read)?,
                witness: tag == 6,
            },
            tag @ (4 | 8) => Self::RemoveRegion {
                region: text::parse(r)?,
                lost: tag == 8,
            },
            5 => Self::RestoreDirectory,
            7 => Self::AddGroup(text::parse(r)?),
            9.. => return Err(r.malformed()),
        })
    }
}

impl TopologyCommand {
    pub(super) fn encode(&self, w: &mut Writer) {
        match self {
            Self::Begin(by, request) => {
                by.encode(w.u8(0));
                request.encode(w);
            }
            Self::Advance(operation, unreachable) => {
                write_nodes(w.u8(1).varint(*operation), unreachable);
            }
            Self::ConfirmVoters(confirmed) => {
                w.u8(2).varint(u64::from(confirmed.group.get()));
                write_nodes(w.varint(u64::from(confirmed.incarnation.0)), &confirmed.voters);
            }
        }
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(match r.u8()? {
            0 => Self::Begin(AuditContext::decode(r)?, TopologyRequest::decode(r)?),
            1 => Self::Advance(r.varint()?, r.list(text::node)?),
            2 => Self::ConfirmVoters(ConfirmVoters {
                group: text::group(r)?,
                incarnation: Incarnation(r.varint_u32()?),
                voters: r.list(text::node)?,
            }),
            3.. => return Err(r.malformed()),
        })
    }
}

fn write_nodes(w: &mut Writer, nodes: &[NodeId]) {
    w.list(nodes.iter(), |w, node| {
        w.varint(node.get());
    });
}
