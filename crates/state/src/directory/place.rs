//! Regions, nodes and groups: where tenants can be.

use stead_types::{GroupId, Incarnation, Jurisdiction, NodeId, RegionName};

use super::text;
use crate::codec::{Malformed, Reader, Writer};

/// A named place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Its name; never changes.
    pub name: RegionName,
    /// Where its data lies in law; never changes, because tenants rely on it.
    pub jurisdiction: Jurisdiction,
}

/// How a node is reached; each `host:port`, empty where there is no such listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// gRPC of services and operators.
    pub client: String,
    /// gRPC of other nodes.
    pub peer: String,
    /// Health, metrics, routes.
    pub http: String,
}

/// A process that serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Never used twice.
    pub number: NodeId,
    /// For people; unique in the cluster.
    pub name: String,
    /// Where it stands.
    pub region: RegionName,
    /// How it is reached.
    pub addresses: Addresses,
    /// Only votes in the directory.
    pub witness: bool,
    /// What the node drew at random and kept on its disk before it asked to join: asking again with the same is the
    /// same node, an empty disk under an old name is another one. Zero for first nodes.
    pub token: u128,
}

/// A Raft group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Never used twice.
    pub number: GroupId,
    /// Where all its voters are; none for the directory.
    pub region: Option<RegionName>,
    /// Its voters.
    pub voters: Vec<NodeId>,
    /// Counts recoveries from a lost majority.
    pub incarnation: Incarnation,
}

impl Region {
    pub(super) fn encode(&self, writer: &mut Writer) {
        text::write(writer, self.name.as_str());
        text::write(writer, self.jurisdiction.as_str());
    }

    pub(super) fn decode(reader: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            name: text::parse(reader)?,
            jurisdiction: text::parse(reader)?,
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
    pub(super) fn encode(&self, writer: &mut Writer) {
        writer.varint(u64::from(self.number.get()));
        writer.option(self.region.as_ref(), |w, region| text::write(w, region.as_str()));
        writer.list(self.voters.iter(), |w, voter| {
            w.varint(voter.get());
        });
        writer.varint(u64::from(self.incarnation.0));
    }

    pub(super) fn decode(reader: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            number: text::group(reader)?,
            region: reader.option(text::parse)?,
            voters: reader.list(text::node)?,
            incarnation: Incarnation(reader.varint_u32()?),
        })
    }
}
