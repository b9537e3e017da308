//! Regions, nodes and groups of a cluster.

use stead_types::{GroupId, Incarnation, Jurisdiction, NodeId, RegionName};

use super::text;
use crate::codec::{Malformed, Reader, Writer};

/// A region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Its name; never changes.
    pub name: RegionName,
    /// Jurisdiction of its data; never changes, because tenants rely on it.
    pub jurisdiction: Jurisdiction,
    /// Operations that have drained it since it was last undrained. While there is one, no tenant gets its home here.
    /// Nodes of versions before feature level 2 cannot read it, so there is none before.
    pub drains: Box<[u64]>,
    /// The last rehearsal of its loss that has succeeded. From feature level 4 on.
    pub rehearsed: Option<Rehearsed>,
    /// Whether it is being removed: no tenant is placed in it or followed from it. From feature level 5 on.
    pub leaving: bool,
}

/// Rehearsal of the loss of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rehearsed {
    /// Number of its operation, which is kept until the next rehearsal has succeeded.
    pub operation: u64,
    /// Logged time of its end, in milliseconds since 1970.
    pub time: u64,
}

/// Addresses of a node; each `host:port`, empty where there is no such listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// gRPC for services and operators.
    pub client: String,
    /// gRPC for other nodes.
    pub peer: String,
    /// HTTP for health, metrics and routes.
    pub http: String,
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Number of the node; never used twice.
    pub number: NodeId,
    /// Name for people; unique in the cluster.
    pub name: String,
    /// Its region.
    pub region: RegionName,
    /// Its addresses.
    pub addresses: Addresses,
    /// Whether it is a witness, which only votes in the directory.
    pub witness: bool,
    /// Random number that the node drew and stored on its disk before it asked to join: a repeated request with the
    /// same number is from the same node, an empty disk under an old name is another node. Zero for first nodes.
    pub token: u128,
}

impl Node {
    /// Returns the name that the node was given, which its certificate has, also once another node has taken its place and
    /// its name.
    pub fn given_name(&self) -> &str {
        let suffix = former_suffix(self.number);
        self.name.strip_suffix(&suffix).unwrap_or(&self.name)
    }
}

/// Returns what is appended to the name of a node whose name another one has taken.
pub(super) fn former_suffix(number: NodeId) -> String {
    format!("~{number}")
}

/// A Raft group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Number of the group; never used twice.
    pub number: GroupId,
    /// Region of all its voters; none for the directory.
    pub region: Option<RegionName>,
    /// Its voters.
    pub voters: Vec<NodeId>,
    /// Number of recoveries from a lost majority.
    pub incarnation: Incarnation,
    /// Change of its voters that its leader carries out; `None` while they stay. From feature level 5 on.
    pub change: Option<VoterChange>,
}

/// Change of the voters of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VoterChange {
    /// The voters afterwards.
    pub voters: Vec<NodeId>,
    /// Number of the operation that needs it.
    pub operation: u64,
    /// Whether it was given up: the leader undoes it, unless Raft has it already.
    pub withdrawn: bool,
}

impl Region {
    /// Returns a region that takes tenants.
    pub fn new(name: RegionName, jurisdiction: Jurisdiction) -> Self {
        Self {
            name,
            jurisdiction,
            drains: Box::new([]),
            rehearsed: None,
            leaving: false,
        }
    }

    /// Tells whether it is drained, or being drained: no tenant gets its home here.
    pub fn is_draining(&self) -> bool {
        !self.drains.is_empty()
    }

    /// Writes the region, as the last part of its record or command.
    pub(super) fn encode(&self, writer: &mut Writer) {
        text::write(writer, self.name.as_str());
        text::write(writer, self.jurisdiction.as_str());
        if self.is_draining() || self.rehearsed.is_some() || self.leaving {
            writer.list(self.drains.iter(), |w, drain| {
                w.varint(*drain);
            });
        }
        if let Some(rehearsed) = self.rehearsed {
            writer.varint(rehearsed.operation).varint(rehearsed.time);
        } else if self.leaving {
            // No operation has this number.
            writer.varint(0).varint(0);
        }
        if self.leaving {
            writer.bool(true);
        }
    }

    pub(super) fn decode(reader: &mut Reader) -> Result<Self, Malformed> {
        let region = Self::new(text::parse(reader)?, text::parse(reader)?);
        if reader.is_empty() {
            return Ok(region);
        }
        let drains = reader.list(Reader::varint)?.into();
        let rehearsed = match reader.is_empty() {
            true => None,
            false => Some(Rehearsed {
                operation: reader.varint()?,
                time: reader.varint()?,
            }),
        };
        let leaving = !reader.is_empty() && reader.bool()?;
        Ok(Self {
            drains,
            rehearsed: rehearsed.filter(|rehearsed| rehearsed.operation > 0),
            leaving,
            ..region
        })
    }
}

impl Addresses {
    pub(super) fn encode(&self, writer: &mut Writer) {
        text::write(writer, &self.client);
        text::write(writer, &self.peer);
        text::write(writer, &self.http);
    }

    pub(super) fn decode(reader: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            client: text::read(reader)?,
            peer: text::read(reader)?,
            http: text::read(reader)?,
        })
    }
}

impl Node {
    /// Tells whether it has joined: one that was only announced has no addresses.
    pub fn has_joined(&self) -> bool {
        !self.addresses.peer.is_empty()
    }

    pub(super) fn encode(&self, writer: &mut Writer) {
        writer.varint(self.number.get());
        text::write(writer, &self.name);
        text::write(writer, self.region.as_str());
        self.addresses.encode(writer);
        writer.bool(self.witness).u128(self.token);
    }

    pub(super) fn decode(reader: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            number: text::node(reader)?,
            name: text::read(reader)?,
            region: text::parse(reader)?,
            addresses: Addresses::decode(reader)?,
            witness: reader.bool()?,
            token: reader.u128()?,
        })
    }
}

impl Group {
    /// Tells whether a node has a replica of it: it votes, or will.
    pub fn is_on(&self, node: NodeId) -> bool {
        let joins = |change: &VoterChange| change.voters.contains(&node);
        self.voters.contains(&node) || self.change.as_ref().is_some_and(joins)
    }

    /// Tells whether it was added to a region, and no leader of it has said yet that it has formed.
    pub fn is_forming(&self) -> bool {
        self.change.as_ref().is_some_and(|change| change.voters == self.voters)
    }

    pub(super) fn encode(&self, writer: &mut Writer) {
        writer.varint(u64::from(self.number.get()));
        writer.option(self.region.as_ref(), |w, region| text::write(w, region.as_str()));
        writer.list(self.voters.iter(), |w, voter| {
            w.varint(voter.get());
        });
        writer.varint(u64::from(self.incarnation.0));
        // Earlier versions end here.
        if let Some(change) = &self.change {
            writer.list(change.voters.iter(), |w, voter| {
                w.varint(voter.get());
            });
            writer.varint(change.operation).bool(change.withdrawn);
        }
    }

    pub(super) fn decode(reader: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            number: text::group(reader)?,
            region: reader.option(text::parse)?,
            voters: reader.list(text::node)?,
            incarnation: Incarnation(reader.varint_u32()?),
            change: match reader.is_empty() {
                true => None,
                false => Some(VoterChange {
                    voters: reader.list(text::node)?,
                    operation: reader.varint()?,
                    withdrawn: reader.bool()?,
                }),
            },
        })
    }
}
