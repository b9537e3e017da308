//! Commands about regions and nodes.

use stead_types::{GroupId, Incarnation, NodeId, TenantNumber};

use super::{Addresses, Answer, Change, Directory, Group, Initial, NewNode, Node, Outcome, Region, Rejection, Turn};

impl Directory {
    /// The cluster begins, once: the same list again changes nothing, another one is refused.
    pub(super) fn bootstrap(&mut self, turn: &mut Turn, initial: Initial) -> Answer {
        if let Some(known) = &self.initial {
            return if *known == initial {
                Ok(Outcome::Done)
            } else {
                Err(Rejection::OtherCluster)
            };
        }
        for region in initial.regions() {
            turn.push(&mut self.view, Change::Region(region));
        }
        for node in initial.nodes() {
            self.next_node = self.next_node.max(node.number.get() + 1);
            turn.push(&mut self.view, Change::Node(node));
        }
        for group in initial.groups() {
            self.next_group = self.next_group.max(group.number.get() + 1);
            turn.push(&mut self.view, Change::Group(group));
        }
        self.initial = Some(initial);
        Ok(Outcome::Done)
    }

    pub(super) fn create_region(&mut self, turn: &mut Turn, region: Region) -> Answer {
        match self.view.region(&region.name) {
            Some(known) if *known == region => return Ok(Outcome::Done),
            Some(_) => return Err(Rejection::RegionExists(region.name)),
            None => {}
        }
        turn.push(&mut self.view, Change::Region(region));
        Ok(Outcome::Done)
    }

    pub(super) fn join(&mut self, turn: &mut Turn, new: NewNode) -> Answer {
        let region = new.region.clone();
        self.view
            .region(&region)
            .ok_or_else(|| Rejection::RegionUnknown(region.clone()))?;
        if let Some(known) = self.view.nodes().find(|node| node.name == new.name) {
            return if known.token == new.token && new.token != 0 {
                Ok(Outcome::Node(known.number))
            } else {
                Err(Rejection::NodeExists(new.name))
            };
        }
        let number = NodeId::new(self.next_node);
        self.next_node += 1;
        let (witness, first) = (new.witness, self.view.groups_of(&region).next().is_none());
        let node = Node {
            number,
            name: new.name,
            region: new.region,
            addresses: new.addresses,
            witness,
            token: new.token,
        };
        turn.push(&mut self.view, Change::Node(node));
        if first && !witness {
            let group = Group {
                number: GroupId::new(self.next_group),
                region: Some(region),
                voters: vec![number],
                incarnation: Incarnation::FIRST,
            };
            self.next_group += 1;
            turn.push(&mut self.view, Change::Group(group));
            self.settle_from = Some(TenantNumber::new(0));
        }
        Ok(Outcome::Node(number))
    }

    pub(super) fn update_addresses(&mut self, turn: &mut Turn, number: NodeId, addresses: Addresses) -> Answer {
        let node = self.view.node(number).ok_or(Rejection::NodeUnknown(number))?;
        if node.addresses != addresses {
            let node = Node {
                addresses,
                ..node.clone()
            };
            turn.push(&mut self.view, Change::Node(node));
        }
        Ok(Outcome::Done)
    }
}
