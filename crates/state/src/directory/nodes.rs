//! Applies commands about regions and nodes.

use stead_types::{GroupId, Incarnation, NodeId, TenantNumber};

use super::{
    Addresses, ApplyContext, Directory, DirectoryChange, DirectoryOutcome, DirectoryResult, Group, InitialCluster,
    NewNode, Node, Region, Rejection, TopologyRejection,
};

impl Directory {
    /// Bootstraps the cluster, once: the same list again changes nothing, another one is rejected.
    pub(super) fn bootstrap(&mut self, context: &mut ApplyContext, initial: InitialCluster) -> DirectoryResult {
        if let Some(known) = &self.initial {
            return if *known == initial {
                Ok(DirectoryOutcome::Done)
            } else {
                Err(Rejection::OtherCluster)
            };
        }
        for region in initial.regions() {
            context.push(&mut self.view, DirectoryChange::Region(region));
        }
        for node in initial.nodes() {
            self.next_node = self.next_node.max(node.number.get() + 1);
            context.push(&mut self.view, DirectoryChange::Node(node));
        }
        for group in initial.groups() {
            self.next_group = self.next_group.max(group.number.get() + 1);
            context.push(&mut self.view, DirectoryChange::Group(group));
        }
        self.initial = Some(initial);
        Ok(DirectoryOutcome::Done)
    }

    pub(super) fn create_region(&mut self, context: &mut ApplyContext, region: Region) -> DirectoryResult {
        match self.view.region(&region.name) {
            Some(known) if known.jurisdiction == region.jurisdiction => return Ok(DirectoryOutcome::Done),
            Some(_) => return Err(Rejection::RegionExists(region.name)),
            None => {}
        }
        let region = Region::new(region.name, region.jurisdiction);
        context.push(&mut self.view, DirectoryChange::Region(region));
        Ok(DirectoryOutcome::Done)
    }

    pub(super) fn join(&mut self, context: &mut ApplyContext, new: NewNode) -> DirectoryResult {
        let region = new.region.clone();
        self.view
            .region(&region)
            .ok_or_else(|| Rejection::RegionUnknown(region.clone()))?;
        if self.view.settings().check_topology().is_ok() {
            let name = new.name.clone();
            let joined = self.join_announced(context, &new);
            return joined.unwrap_or_else(|| Err(TopologyRejection::NotAnnounced(name).into()));
        }
        if let Some(known) = self.view.nodes().find(|node| node.name == new.name) {
            return if known.token == new.token && new.token != 0 {
                Ok(DirectoryOutcome::Node(known.number))
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
        context.push(&mut self.view, DirectoryChange::Node(node));
        if first && !witness {
            let group = Group {
                number: GroupId::new(self.next_group),
                region: Some(region),
                voters: vec![number],
                incarnation: Incarnation::FIRST,
                change: None,
            };
            self.next_group += 1;
            context.push(&mut self.view, DirectoryChange::Group(group));
            self.refresh_members_from = Some(TenantNumber::new(0));
        }
        Ok(DirectoryOutcome::Node(number))
    }

    pub(super) fn update_addresses(
        &mut self,
        context: &mut ApplyContext,
        number: NodeId,
        addresses: Addresses,
    ) -> DirectoryResult {
        let node = self.view.node(number).ok_or(Rejection::NodeUnknown(number))?;
        if node.addresses != addresses {
            let node = Node {
                addresses,
                ..node.clone()
            };
            context.push(&mut self.view, DirectoryChange::Node(node));
        }
        Ok(DirectoryOutcome::Done)
    }
}
