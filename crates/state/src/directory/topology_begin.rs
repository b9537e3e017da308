//! Beginning of changes of nodes and regions, with their checks, and joining of announced nodes.

use stead_types::{GroupId, NodeId, RegionName, TenantNumber};

use super::{
    Addresses, ApplyContext, AuditContext, Directory, DirectoryChange, DirectoryOutcome, DirectoryResult, Followers,
    NewNode, Node, Operation, OperationKind, Region, Rejection, TopologyAction, TopologyChange, TopologyRejection,
    TopologyRequest, placement,
    topology::former_suffix,
    topology_change::{ANNOUNCED_MAX, GROUPS_MAX, NODE_NAME_LEN_MAX},
    voters::{self, Leaving},
};

impl Directory {
    pub(super) fn begin_topology_change(
        &mut self,
        context: &mut ApplyContext,
        by: AuditContext,
        request: TopologyRequest,
    ) -> DirectoryResult {
        request.check_level(self.view.settings())?;
        let pinned = self.pinned();
        if !self.operations.has_room(|id| pinned.contains(&id)) {
            return Err(Rejection::OperationsFull);
        }
        let (action, summary) = self.plan_topology_change(context, request)?;
        let id = self.next_operation;
        self.next_operation += 1;
        let have_joined = action.announced().is_empty();
        self.set_leaving(context, &action, true);
        let change = TopologyChange {
            action,
            summary,
            is_cancelled: false,
            have_joined,
            begun: 0,
            changed: 0,
        };
        self.operations.put(Operation {
            id,
            kind: OperationKind::Topology(Box::new(change)),
            tenants: Vec::new(),
            by,
            created: context.time,
            steps: Vec::new(),
            end: None,
        });
        context.operations.push(id);
        Ok(DirectoryOutcome::Operation(id))
    }

    /// Checks a request, and puts the rows of what is new once nothing can be refused any more.
    fn plan_topology_change(
        &mut self,
        context: &mut ApplyContext,
        request: TopologyRequest,
    ) -> Result<(TopologyAction, String), Rejection> {
        match request {
            TopologyRequest::AddNode { name, region, witness } => {
                self.check_region(&region)?;
                self.check_name(&name)?;
                let summary = format!("add node {name} to region {region}");
                let node = self.announce(context, name, region, witness);
                Ok((TopologyAction::AddNode(node), summary))
            }
            TopologyRequest::ReplaceNode { old, name } => self.plan_replacement(context, old, name),
            TopologyRequest::RemoveNode { node, accept_less } => {
                let summary = self.check_removal(node, accept_less)?;
                Ok((TopologyAction::RemoveNode(node), summary))
            }
            TopologyRequest::AddRegion {
                region,
                jurisdiction,
                nodes,
                witness,
            } => {
                self.check_new_region(&region, &nodes)?;
                let of = if witness { " of witnesses" } else { "" };
                let summary = format!("add region {region}{of} with {}", nodes.join(", "));
                let row = Region::new(region.clone(), jurisdiction);
                context.push(&mut self.view, DirectoryChange::Region(row));
                let announced = nodes.into_iter();
                let nodes = announced
                    .map(|name| self.announce(context, name, region.clone(), witness))
                    .collect();
                Ok((TopologyAction::AddRegion { region, nodes, witness }, summary))
            }
            TopologyRequest::RemoveRegion { region, lost } => {
                self.check_region_removal(&region)?;
                let of = if lost { ", whose nodes are lost" } else { "" };
                let summary = format!("remove region {region}{of}");
                Ok((TopologyAction::RemoveRegion { region, lost }, summary))
            }
            TopologyRequest::RestoreDirectory if self.lacks_directory_voters() => Ok((
                TopologyAction::RestoreDirectory,
                "restore the voters of the directory".to_owned(),
            )),
            TopologyRequest::RestoreDirectory => Err(TopologyRejection::NothingToRestore.into()),
            TopologyRequest::AddGroup(region) => {
                self.check_new_group(&region)?;
                let group = GroupId::new(self.next_group);
                self.next_group += 1;
                let summary = format!("add group {group} to region {region}");
                Ok((TopologyAction::AddGroup { region, group }, summary))
            }
        }
    }

    fn plan_replacement(
        &mut self,
        context: &mut ApplyContext,
        old: NodeId,
        name: String,
    ) -> Result<(TopologyAction, String), Rejection> {
        let row = self.node_to_change(old)?.clone();
        let name = if name.is_empty() { row.name.clone() } else { name };
        if name == row.name {
            // The replacement takes the name over, so that a machine keeps it with a new disk.
            let renamed = Node {
                name: row.name.clone() + &former_suffix(old),
                ..row.clone()
            };
            if !row.has_joined() {
                return Err(TopologyRejection::NotAnnounced(name).into());
            }
            context.push(&mut self.view, DirectoryChange::Node(renamed));
        } else {
            self.check_name(&name)?;
        }
        let summary = format!("replace node {old} ({}) by {name} in region {}", row.name, row.region);
        let new = self.announce(context, name, row.region, row.witness);
        Ok((TopologyAction::ReplaceNode { old, new }, summary))
    }

    /// Puts the row of a node that is to join, with a number of its own.
    fn announce(&mut self, context: &mut ApplyContext, name: String, region: RegionName, witness: bool) -> NodeId {
        let number = NodeId::new(self.next_node);
        self.next_node += 1;
        let node = Node {
            number,
            name,
            region,
            addresses: Addresses::default(),
            witness,
            token: 0,
        };
        context.push(&mut self.view, DirectoryChange::Node(node));
        number
    }

    /// Lets an announced node join: it has its addresses and its token from here on. `None` if it was not announced.
    pub(super) fn join_announced(&mut self, context: &mut ApplyContext, new: &NewNode) -> Option<DirectoryResult> {
        let known = self.view.nodes().find(|node| node.name == new.name)?.clone();
        if !known.has_joined() {
            let node = Node {
                addresses: new.addresses.clone(),
                token: new.token,
                ..known.clone()
            };
            context.push(&mut self.view, DirectoryChange::Node(node));
            return Some(Ok(DirectoryOutcome::Node(known.number)));
        }
        Some(if known.token == new.token && new.token != 0 {
            Ok(DirectoryOutcome::Node(known.number))
        } else {
            Err(TopologyRejection::JoinedAlready(new.name.clone()).into())
        })
    }
}

/// Checks.
impl Directory {
    fn check_region(&self, region: &RegionName) -> Result<(), Rejection> {
        let found = self.view.region(region);
        let found = found.ok_or_else(|| Rejection::RegionUnknown(region.clone()))?;
        if found.leaving {
            return Err(TopologyRejection::RegionLeaving(region.clone()).into());
        }
        Ok(())
    }

    fn check_name(&self, name: &str) -> Result<(), Rejection> {
        let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || NODE_NAME_LEN_MAX < name.len() || !name.chars().all(is_allowed) {
            return Err(TopologyRejection::Name(name.to_owned()).into());
        }
        if self.view.nodes().any(|node| node.name == name) {
            return Err(Rejection::NodeExists(name.to_owned()));
        }
        Ok(())
    }

    /// Returns the row of a node that no other change is about.
    fn node_to_change(&self, node: NodeId) -> Result<&Node, Rejection> {
        let row = self.view.node(node).ok_or(Rejection::NodeUnknown(node))?;
        let is_about = |action: &TopologyAction| {
            let removed = matches!(action, TopologyAction::RemoveRegion { region, .. } if *region == row.region);
            removed || action.leaving() == Some(node) || action.announced().contains(&node)
        };
        let busy = self
            .topology_changes_in_flight()
            .find(|(_, change)| is_about(&change.action));
        match busy {
            Some((operation, _)) => Err(TopologyRejection::Busy { node, operation }.into()),
            None => Ok(row),
        }
    }

    fn check_removal(&self, node: NodeId, accept_less: bool) -> Result<String, Rejection> {
        let row = self.node_to_change(node)?;
        let leaving = Leaving {
            node: Some(node),
            replacement: None,
        };
        let nodes = voters::data_nodes(&self.view, &row.region, leaving, &[]);
        if nodes.is_empty() && !row.witness {
            let region = row.region.clone();
            return Err(TopologyRejection::LastNode { node, region }.into());
        }
        for group in self.view.groups().filter(|group| group.voters.contains(&node)) {
            let after = match group.region {
                Some(_) => voters::of_group(&group.voters, &nodes, leaving),
                None => voters::of_directory(&self.view, &group.voters, leaving, &[]),
            };
            let (before, after) = (group.voters.len(), after.len());
            let tolerance = voters::tolerance(after);
            if tolerance < voters::tolerance(before) && !accept_less {
                return Err(TopologyRejection::LessRedundancy {
                    node,
                    group: group.number,
                    left: after as u64,
                    tolerance: tolerance as u64,
                }
                .into());
            }
        }
        Ok(format!("remove node {node} ({}) from region {}", row.name, row.region))
    }

    fn check_new_region(&self, region: &RegionName, nodes: &[String]) -> Result<(), Rejection> {
        if self.view.region(region).is_some() {
            return Err(Rejection::RegionExists(region.clone()));
        }
        if !(1..=ANNOUNCED_MAX).contains(&nodes.len()) {
            return Err(TopologyRejection::NodeCount(nodes.len() as u64).into());
        }
        for (at, name) in nodes.iter().enumerate() {
            self.check_name(name)?;
            if nodes[..at].contains(name) {
                return Err(Rejection::NodeExists(name.clone()));
            }
        }
        Ok(())
    }

    /// Checks that a region may have one group more, those included that are being added.
    fn check_new_group(&self, region: &RegionName) -> Result<(), Rejection> {
        self.check_region(region)?;
        let is_unmade = |action: &TopologyAction| match action {
            TopologyAction::AddGroup { region: of, group } => of == region && self.view.group(*group).is_none(),
            TopologyAction::AddNode(_)
            | TopologyAction::ReplaceNode { .. }
            | TopologyAction::RemoveNode(_)
            | TopologyAction::AddRegion { .. }
            | TopologyAction::RemoveRegion { .. }
            | TopologyAction::RestoreDirectory => false,
        };
        let unmade = self.topology_changes_in_flight();
        let unmade = unmade.filter(|(_, change)| is_unmade(&change.action)).count();
        match self.view.groups_of(region).count() {
            // A new region has its first groups once its nodes have joined.
            0 => Err(Rejection::RegionEmpty(region.clone())),
            made if made + unmade < GROUPS_MAX => Ok(()),
            _ => Err(TopologyRejection::GroupsFull(region.clone()).into()),
        }
    }

    fn check_region_removal(&self, region: &RegionName) -> Result<(), Rejection> {
        self.check_region(region)?;
        let has_groups = |name: &RegionName| self.view.groups_of(name).next().is_some();
        let mut others = self
            .view
            .regions()
            .filter(|other| other.name != *region && !other.leaving);
        if !others.any(|other| has_groups(&other.name)) {
            return Err(TopologyRejection::LastRegion(region.clone()).into());
        }
        for node in self.view.nodes().filter(|node| node.region == *region) {
            self.node_to_change(node.number)?;
        }
        for (operation, change) in self.topology_changes_in_flight() {
            if let TopologyAction::AddGroup { region: of, group } = &change.action
                && of == region
            {
                let group = *group;
                return Err(TopologyRejection::GroupForming { group, operation }.into());
            }
        }
        let homes = self
            .view
            .groups_of(region)
            .map(|group| self.view.load(group.number).homes);
        let count = homes.sum();
        if count > 0 {
            let region = region.clone();
            return Err(TopologyRejection::HasHomes { region, count }.into());
        }
        let is_named =
            |followers: &Followers| matches!(followers, Followers::Named(regions) if regions.contains(region));
        for tenant in self.view.tenants_from(TenantNumber::new(0)) {
            let (region, name) = (region.clone(), tenant.name.clone());
            if is_named(&tenant.followers) {
                return Err(TopologyRejection::Follows { region, tenant: name }.into());
            }
            if !placement::has_remote_without(&self.view, tenant, &region) {
                return Err(TopologyRejection::RemoteNeeds { region, tenant: name }.into());
            }
        }
        Ok(())
    }
}
