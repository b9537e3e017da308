//! Changes of the cluster's nodes and regions, begun and carried on by the directory.
//!
//! ```text
//!   Begin: rows of new nodes ──> they join ──> groups get new voters ──> the directory gets new voters ──> rows removed
//!                                               │        ^                   │        ^
//!                                  Group::change└ leader ┘ConfirmVoters      └ leader ┘
//! ```
//!
//! What is next follows from the directory alone, so that a new leader goes on where the last one was. The voters of a group
//! are changed by its leader (`crate::membership`), which confirms what its log has committed.
//!
//! # Invariants
//!
//! 1. Numbers of nodes and groups are never used twice.
//! 2. One change of a group's voters is in flight at a time.
//! 3. A node's row is removed only once no group has it as a voter, by the group's own log.
//! 4. Copies of a region that is taken for lost are given up only once their homes count them no longer, and while none of its
//!    nodes answers.

use stead_types::{GroupId, Incarnation, NodeId, RegionName, TenantNumber};

use super::{
    ApplyContext, ConfirmVoters, Directory, DirectoryChange, DirectoryOutcome, DirectoryResult, Group, MemberState,
    Operation, OperationKind, OperationResult, Rejection, StepName, Tenant, TopologyAction, TopologyChange,
    TopologyCommand, TopologyRejection, VoterChange,
    command::REFRESH_MEMBERS_MAX,
    voters::{self, Leaving},
};

/// Next step of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Next {
    /// Waits for nodes, groups or tenants.
    Wait,
    /// Records that all announced nodes have joined.
    Joined,
    /// Makes the groups of a new region, or a further one.
    MakeGroups,
    /// Gives up copies in groups whose nodes are lost, which the homes count no longer.
    GiveUp(Vec<(TenantNumber, GroupId)>),
    /// Begins changes of voters.
    Change(Vec<(GroupId, Vec<NodeId>)>),
    /// Removes the rows of what goes, and ends.
    End,
}

/// Apply.
impl Directory {
    pub(super) fn topology(&mut self, context: &mut ApplyContext, command: TopologyCommand) -> DirectoryResult {
        match command {
            TopologyCommand::Begin(by, request) => self.begin_topology_change(context, by, request),
            TopologyCommand::Advance(id, unreachable) => Ok(self.advance_topology_change(context, id, &unreachable)),
            TopologyCommand::ConfirmVoters(confirmed) => self.confirm_voters(context, &confirmed),
        }
    }

    fn advance_topology_change(
        &mut self,
        context: &mut ApplyContext,
        id: u64,
        unreachable: &[NodeId],
    ) -> DirectoryOutcome {
        let Some(mut change) = self.topology_in_flight(id).cloned() else {
            return DirectoryOutcome::Done;
        };
        match self.next(id, &change, unreachable) {
            Next::Wait => return DirectoryOutcome::Done,
            Next::Joined => {
                change.have_joined = true;
                self.operations.record(id, context.step(StepName::NodesJoined));
            }
            Next::MakeGroups => {
                self.make_groups(context, id, &mut change, unreachable);
                self.operations.record(id, context.step(StepName::GroupsMade));
            }
            Next::GiveUp(copies) => {
                for (tenant, group) in copies {
                    if let Some(tenant) = self.view.tenant(tenant) {
                        self.give_up_member(context, Tenant::clone(tenant), group);
                    }
                }
                return DirectoryOutcome::Done;
            }
            Next::Change(groups) => {
                change.begun += u32::try_from(groups.len()).unwrap_or(0);
                for (group, voters) in groups {
                    self.begin_voter_change(context, id, group, voters);
                }
            }
            Next::End => return self.end_topology_change(context, id, &change),
        }
        self.put_topology_change(context, id, change);
        DirectoryOutcome::Done
    }

    /// Takes over the voters that a group's log has committed.
    fn confirm_voters(&mut self, context: &mut ApplyContext, confirmed: &ConfirmVoters) -> DirectoryResult {
        let number = confirmed.group;
        let group = self.view.group(number).ok_or(Rejection::GroupUnknown(number))?;
        if group.incarnation != confirmed.incarnation {
            return Err(Rejection::StaleIncarnation);
        }
        let Some(change) = &group.change else {
            return Ok(DirectoryOutcome::Done);
        };
        let is_undone = change.withdrawn && same(&group.voters, &confirmed.voters);
        if !same(&change.voters, &confirmed.voters) && !is_undone {
            return Err(Rejection::StaleReport);
        }
        let id = change.operation;
        let group = Group {
            voters: confirmed.voters.clone(),
            change: None,
            ..group.clone()
        };
        context.push(&mut self.view, DirectoryChange::Group(group));
        if let Some(mut change) = self.topology_in_flight(id).cloned()
            && !is_undone
        {
            change.changed += 1;
            self.operations.record(id, context.step(StepName::VotersChanged));
            self.put_topology_change(context, id, change);
        }
        Ok(DirectoryOutcome::Done)
    }

    /// Cancels a change as long as no group has changed: voters that join are withdrawn, and announced nodes removed.
    pub(super) fn cancel_topology_change(&mut self, context: &mut ApplyContext, id: u64) -> DirectoryResult {
        let Some(mut change) = self.topology_in_flight(id).cloned() else {
            return Err(Rejection::OperationOver);
        };
        if change.is_cancelled {
            return Ok(DirectoryOutcome::Done);
        }
        let is_leaving = matches!(change.action, TopologyAction::RemoveRegion { .. });
        let is_new = matches!(change.action, TopologyAction::AddRegion { .. }) && change.action.makes_groups();
        if change.changed > 0 || is_new && !self.lacks_groups(&change.action) {
            return Err(TopologyRejection::Begun(id).into());
        }
        change.is_cancelled = true;
        // Nothing was placed in a group that has not formed.
        if let TopologyAction::AddGroup { group, .. } = &change.action
            && self.view.group(*group).is_some()
        {
            context.push(&mut self.view, DirectoryChange::GroupGone(*group));
        }
        let groups: Vec<Group> = self.view.groups().cloned().collect();
        for mut group in groups {
            if let Some(of) = &mut group.change
                && of.operation == id
            {
                of.withdrawn = true;
                context.push(&mut self.view, DirectoryChange::Group(group));
            }
        }
        if is_leaving {
            self.set_leaving(context, &change.action, false);
        }
        self.operations.record(id, context.step(StepName::AbortRequested));
        self.put_topology_change(context, id, change);
        Ok(DirectoryOutcome::Done)
    }
}

/// Decisions.
impl Directory {
    /// Returns a change of the topology that needs [`TopologyCommand::Advance`].
    pub fn due_topology_change(&self, unreachable: &[NodeId]) -> Option<u64> {
        let in_flight = self.topology_changes_in_flight();
        let mut due = in_flight.filter(|(id, change)| self.next(*id, change, unreachable) != Next::Wait);
        due.next().map(|(id, _)| id)
    }

    /// Returns the changes of the topology that are in flight.
    pub fn topology_changes_in_flight(&self) -> impl Iterator<Item = (u64, &TopologyChange)> {
        let in_flight = self.operations.topology_in_flight();
        in_flight.filter_map(|id| Some((id, self.topology_in_flight(id)?)))
    }

    fn next(&self, id: u64, change: &TopologyChange, unreachable: &[NodeId]) -> Next {
        let is_changing = |group: &Group| group.change.as_ref().is_some_and(|of| of.operation == id);
        if change.is_cancelled {
            return if self.view.groups().any(is_changing) {
                Next::Wait
            } else {
                Next::End
            };
        }
        if !change.have_joined {
            let announced = change.action.announced();
            let mut nodes = announced.iter().map(|node| self.view.node(*node));
            let have_joined = nodes.all(|node| node.is_some_and(super::Node::has_joined));
            return if have_joined { Next::Joined } else { Next::Wait };
        }
        if self.lacks_groups(&change.action) {
            return Next::MakeGroups;
        }
        if matches!(change.action, TopologyAction::AddGroup { .. }) {
            // The group's first leader confirms that its voters have formed it.
            return match self.view.groups().any(is_changing) {
                true => Next::Wait,
                false => Next::End,
            };
        }
        if let TopologyAction::RemoveRegion { region, lost } = &change.action
            && self.has_members(region)
        {
            let is_lost = *lost && self.are_all_unreachable(region, unreachable);
            let erasing = if is_lost {
                self.erasing_members(region)
            } else {
                Vec::new()
            };
            return match erasing.is_empty() {
                true => Next::Wait,
                false => Next::GiveUp(erasing),
            };
        }
        let mut wanted = self.wanted_voters(&change.action, unreachable);
        if wanted.is_empty() {
            // The directory is last: it decides about all others.
            wanted.extend(self.wanted_directory_voters(&change.action, unreachable));
        }
        if wanted.is_empty() {
            return Next::End;
        }
        // Invariant 2.
        let is_free = |group: &GroupId| self.view.group(*group).is_some_and(|group| group.change.is_none());
        wanted.retain(|(group, _)| is_free(group));
        if wanted.is_empty() {
            Next::Wait
        } else {
            Next::Change(wanted)
        }
    }

    /// Returns the data groups whose voters differ from those that they should have, with these.
    fn wanted_voters(&self, action: &TopologyAction, unreachable: &[NodeId]) -> Vec<(GroupId, Vec<NodeId>)> {
        let of = action.leaving().or(action.announced().first().copied());
        let Some(region) = of.and_then(|node| self.view.node(node)).map(|node| &node.region) else {
            return Vec::new();
        };
        let leaving = leaving(action);
        let nodes = voters::data_nodes(&self.view, region, leaving, unreachable);
        let groups = self.view.groups_of(region);
        let wanted = groups.map(|group| (group, voters::of_group(&group.voters, &nodes, leaving)));
        let wanted = wanted.filter(|(group, wanted)| !same(&group.voters, wanted));
        wanted.map(|(group, wanted)| (group.number, wanted)).collect()
    }

    fn wanted_directory_voters(
        &self,
        action: &TopologyAction,
        unreachable: &[NodeId],
    ) -> Option<(GroupId, Vec<NodeId>)> {
        let current = self.voters();
        let wanted = voters::of_directory(&self.view, current, leaving(action), unreachable);
        (!same(current, &wanted)).then_some((GroupId::DIRECTORY, wanted))
    }

    /// Tells whether the directory lacks voters that the nodes allow.
    pub(super) fn lacks_directory_voters(&self) -> bool {
        self.wanted_directory_voters(&TopologyAction::RestoreDirectory, &[])
            .is_some()
    }

    fn has_members(&self, region: &RegionName) -> bool {
        let mut groups = self.view.groups_of(region);
        groups.any(|group| self.view.load(group.number).members > 0)
    }

    /// Tells whether no node of a region was heard of lately.
    fn are_all_unreachable(&self, region: &RegionName, unreachable: &[NodeId]) -> bool {
        let mut nodes = self.view.nodes().filter(|node| node.region == *region);
        nodes.all(|node| unreachable.contains(&node.number))
    }

    /// Returns copies in a region that are to be erased, some of them if there are many.
    fn erasing_members(&self, region: &RegionName) -> Vec<(TenantNumber, GroupId)> {
        let groups: Vec<GroupId> = self.view.groups_of(region).map(|group| group.number).collect();
        let tenants = self.view.tenants_from(TenantNumber::new(0));
        let erasing = tenants.flat_map(|tenant| {
            let members = tenant.members.iter();
            let members =
                members.filter(|member| member.state == MemberState::Erasing && groups.contains(&member.group));
            members.map(|member| (tenant.number, member.group))
        });
        erasing.take(REFRESH_MEMBERS_MAX).collect()
    }

    /// Tells whether groups are to be made.
    fn lacks_groups(&self, action: &TopologyAction) -> bool {
        match action {
            TopologyAction::AddRegion { region, .. } => {
                action.makes_groups() && self.view.groups_of(region).next().is_none()
            }
            TopologyAction::AddGroup { group, .. } => self.view.group(*group).is_none(),
            TopologyAction::AddNode(_)
            | TopologyAction::ReplaceNode { .. }
            | TopologyAction::RemoveNode(_)
            | TopologyAction::RemoveRegion { .. }
            | TopologyAction::RestoreDirectory => false,
        }
    }

    fn topology_in_flight(&self, id: u64) -> Option<&TopologyChange> {
        let operation: &Operation = self.operations.get(id)?;
        match &operation.kind {
            OperationKind::Topology(change) if operation.end.is_none() => Some(change),
            OperationKind::Topology(_)
            | OperationKind::Move { .. }
            | OperationKind::BulkMove(_)
            | OperationKind::Promotion(_) => None,
        }
    }
}

/// Effects.
impl Directory {
    fn make_groups(
        &mut self,
        context: &mut ApplyContext,
        id: u64,
        change: &mut TopologyChange,
        unreachable: &[NodeId],
    ) {
        let (region, nodes) = match &change.action {
            TopologyAction::AddRegion { region, nodes, .. } => (region, nodes),
            TopologyAction::AddGroup { region, group } => {
                let voters = voters::of_new_group(&self.view, region, unreachable);
                change.begun += 1;
                let group = Group {
                    number: *group,
                    region: Some(region.clone()),
                    voters: voters.clone(),
                    incarnation: Incarnation::FIRST,
                    change: Some(VoterChange {
                        voters,
                        operation: id,
                        withdrawn: false,
                    }),
                };
                return context.push(&mut self.view, DirectoryChange::Group(group));
            }
            TopologyAction::AddNode(_)
            | TopologyAction::ReplaceNode { .. }
            | TopologyAction::RemoveNode(_)
            | TopologyAction::RemoveRegion { .. }
            | TopologyAction::RestoreDirectory => return,
        };
        let count = self.initial.as_ref().map_or(1, |initial| initial.groups_per_region);
        for _ in 0..count {
            let group = Group {
                number: GroupId::new(self.next_group),
                region: Some(region.clone()),
                voters: nodes.clone(),
                incarnation: Incarnation::FIRST,
                change: None,
            };
            self.next_group += 1;
            context.push(&mut self.view, DirectoryChange::Group(group));
        }
        self.refresh_members_from = Some(TenantNumber::new(0));
    }

    fn begin_voter_change(&mut self, context: &mut ApplyContext, id: u64, group: GroupId, voters: Vec<NodeId>) {
        let Some(group) = self.view.group(group) else { return };
        let change = VoterChange {
            voters,
            operation: id,
            withdrawn: false,
        };
        let group = Group {
            change: Some(change),
            ..group.clone()
        };
        context.push(&mut self.view, DirectoryChange::Group(group));
    }

    fn end_topology_change(
        &mut self,
        context: &mut ApplyContext,
        id: u64,
        change: &TopologyChange,
    ) -> DirectoryOutcome {
        let result = if change.is_cancelled {
            self.remove_nodes(context, &change.action.announced());
            if let TopologyAction::AddRegion { region, .. } = &change.action {
                context.push(&mut self.view, DirectoryChange::RegionGone(region.clone()));
            }
            OperationResult::Cancelled
        } else {
            let leaving: Vec<NodeId> = change.action.leaving().into_iter().collect();
            self.remove_nodes(context, &leaving);
            if let TopologyAction::RemoveRegion { region, .. } = &change.action {
                self.remove_region(context, region);
            }
            OperationResult::Succeeded
        };
        self.operations.finish(id, context.end(result));
        context.operations.push(id);
        DirectoryOutcome::Done
    }

    /// Removes the rows of nodes in which no group votes (invariant 3).
    fn remove_nodes(&mut self, context: &mut ApplyContext, nodes: &[NodeId]) {
        for node in nodes {
            if self.view.node(*node).is_some() && !self.view.groups().any(|group| group.is_on(*node)) {
                context.push(&mut self.view, DirectoryChange::NodeGone(*node));
            }
        }
    }

    fn remove_region(&mut self, context: &mut ApplyContext, region: &RegionName) {
        let groups: Vec<GroupId> = self.view.groups_of(region).map(|group| group.number).collect();
        for group in groups {
            context.push(&mut self.view, DirectoryChange::GroupGone(group));
        }
        let nodes = self.view.nodes().filter(|node| node.region == *region);
        let nodes: Vec<NodeId> = nodes.map(|node| node.number).collect();
        self.remove_nodes(context, &nodes);
        context.push(&mut self.view, DirectoryChange::RegionGone(region.clone()));
    }

    /// Marks a region as one that is being removed, or takes the mark away; its followers leave or come back.
    pub(super) fn set_leaving(&mut self, context: &mut ApplyContext, action: &TopologyAction, leaving: bool) {
        let TopologyAction::RemoveRegion { region: name, .. } = action else {
            return;
        };
        if let Some(region) = self.view.region(name) {
            let region = super::Region {
                leaving,
                ..region.clone()
            };
            context.push(&mut self.view, DirectoryChange::Region(region));
            self.refresh_members_from = Some(TenantNumber::new(0));
        }
    }

    fn put_topology_change(&mut self, context: &mut ApplyContext, id: u64, change: TopologyChange) {
        self.operations.put_topology_change(id, change);
        context.operations.push(id);
    }
}

fn leaving(action: &TopologyAction) -> Leaving {
    Leaving {
        node: action.leaving(),
        replacement: action.leaving().and(action.announced().first().copied()),
    }
}

/// Tells whether two lists name the same nodes.
fn same(one: &[NodeId], other: &[NodeId]) -> bool {
    one.len() == other.len() && one.iter().all(|node| other.contains(node))
}
