//! Directory view: a node's copy of the directory.
//!
//! # Invariants
//!
//! 1. A view that was built from a snapshot at version V and the changes up to W equals the directory's at W.
//! 2. No two tenants that are not being erased have the same name.

use std::{collections::BTreeMap, sync::Arc};

use stead_types::{DirectoryVersion, GroupId, NodeId, RegionName, TenantName, TenantNumber};

use super::{ClusterSettings, DirectoryChange, Group, Node, Region, RoleBindings, Tenant, TenantState};

/// Regions, nodes, groups and tenants as of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryView {
    version: DirectoryVersion,
    regions: BTreeMap<RegionName, Region>,
    nodes: BTreeMap<NodeId, Node>,
    groups: BTreeMap<GroupId, Group>,
    tenants: BTreeMap<TenantNumber, Arc<Tenant>>,
    names: BTreeMap<TenantName, TenantNumber>,
    loads: BTreeMap<GroupId, GroupLoad>,
    /// None until the first change of them.
    settings: Option<ClusterSettings>,
    role_bindings: Arc<RoleBindings>,
}

/// Number of tenants that a group has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupLoad {
    /// Tenants of which it is home, those being erased not included.
    pub homes: u64,
    /// Tenants that it holds, homes included.
    pub members: u64,
}

impl Default for DirectoryView {
    fn default() -> Self {
        Self {
            version: DirectoryVersion::ZERO,
            regions: BTreeMap::new(),
            nodes: BTreeMap::new(),
            groups: BTreeMap::new(),
            tenants: BTreeMap::new(),
            names: BTreeMap::new(),
            loads: BTreeMap::new(),
            settings: None,
            role_bindings: Arc::default(),
        }
    }
}

impl DirectoryView {
    /// Returns the directory version of the view.
    pub fn version(&self) -> DirectoryVersion {
        self.version
    }

    /// Sets the version: all changes up to it have been applied.
    pub fn reach(&mut self, version: DirectoryVersion) {
        self.version = version;
    }

    /// Applies a change. Changes since a version the view has reached may be applied again.
    pub fn apply(&mut self, change: DirectoryChange) {
        match change {
            DirectoryChange::Region(region) => drop(self.regions.insert(region.name.clone(), region)),
            DirectoryChange::Node(node) => drop(self.nodes.insert(node.number, node)),
            DirectoryChange::Group(group) => drop(self.groups.insert(group.number, group)),
            DirectoryChange::Tenant(tenant) => {
                self.take_out(tenant.number);
                self.put_in(*tenant);
            }
            DirectoryChange::TenantGone(number) => self.take_out(number),
            DirectoryChange::Settings(settings) => self.settings = Some(settings),
            DirectoryChange::Roles(binding) => Arc::make_mut(&mut self.role_bindings).put(binding),
            DirectoryChange::NodeGone(number) => drop(self.nodes.remove(&number)),
            DirectoryChange::GroupGone(number) => drop(self.groups.remove(&number)),
            DirectoryChange::RegionGone(name) => drop(self.regions.remove(&name)),
        }
    }

    /// Returns one change for each object: the content of a snapshot.
    pub fn as_changes(&self) -> impl Iterator<Item = DirectoryChange> + '_ {
        let regions = self.regions.values().cloned().map(DirectoryChange::Region);
        let nodes = self.nodes.values().cloned().map(DirectoryChange::Node);
        let groups = self.groups.values().cloned().map(DirectoryChange::Group);
        let tenants = self.tenants.values();
        let tenants = tenants.map(|tenant| DirectoryChange::Tenant(Box::new(Tenant::clone(tenant))));
        let settings = self.settings.map(DirectoryChange::Settings);
        let roles = self.role_bindings.as_changes();
        regions
            .chain(nodes)
            .chain(groups)
            .chain(tenants)
            .chain(settings)
            .chain(roles)
    }

    fn take_out(&mut self, number: TenantNumber) {
        let Some(tenant) = self.tenants.remove(&number) else {
            return;
        };
        if self.names.get(&tenant.name) == Some(&number) {
            self.names.remove(&tenant.name);
        }
        self.count(&tenant, |load, by| *load -= by);
    }

    fn put_in(&mut self, tenant: Tenant) {
        if tenant.state != TenantState::Deleting {
            self.names.insert(tenant.name.clone(), tenant.number);
        }
        self.count(&tenant, |load, by| *load += by);
        self.tenants.insert(tenant.number, Arc::new(tenant));
    }

    fn count(&mut self, tenant: &Tenant, change: impl Fn(&mut u64, u64)) {
        if tenant.state != TenantState::Deleting {
            change(&mut self.loads.entry(tenant.home).or_default().homes, 1);
        }
        for member in &tenant.members {
            change(&mut self.loads.entry(member.group).or_default().members, 1);
        }
        self.loads.retain(|_, load| *load != GroupLoad::default());
    }
}

/// Lookups.
impl DirectoryView {
    /// Returns a tenant by name; one that is being erased has no name any more.
    pub fn tenant_named(&self, name: &TenantName) -> Option<&Arc<Tenant>> {
        self.names.get(name).and_then(|number| self.tenants.get(number))
    }

    /// Returns a tenant by number.
    pub fn tenant(&self, number: TenantNumber) -> Option<&Arc<Tenant>> {
        self.tenants.get(&number)
    }

    /// Returns the tenants from a number on, in the order of numbers.
    pub fn tenants_from(&self, number: TenantNumber) -> impl Iterator<Item = &Arc<Tenant>> {
        self.tenants.range(number..).map(|(_, tenant)| tenant)
    }

    /// Returns the tenants after a name, in the order of names.
    pub fn tenants_after(&self, name: Option<&TenantName>) -> impl Iterator<Item = &Arc<Tenant>> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = name.map_or(Unbounded, Excluded);
        let numbers = self.names.range::<TenantName, _>((from, Unbounded));
        numbers.filter_map(|(_, number)| self.tenants.get(number))
    }

    /// Returns how many tenants there are, those being erased included.
    pub fn tenant_count(&self) -> usize {
        self.tenants.len()
    }

    /// Returns a region.
    pub fn region(&self, name: &RegionName) -> Option<&Region> {
        self.regions.get(name)
    }

    /// Returns the regions, by name.
    pub fn regions(&self) -> impl Iterator<Item = &Region> {
        self.regions.values()
    }

    /// Returns a node.
    pub fn node(&self, number: NodeId) -> Option<&Node> {
        self.nodes.get(&number)
    }

    /// Returns the nodes, by number.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// Returns a group.
    pub fn group(&self, number: GroupId) -> Option<&Group> {
        self.groups.get(&number)
    }

    /// Returns the groups, by number, the directory's included.
    pub fn groups(&self) -> impl Iterator<Item = &Group> {
        self.groups.values()
    }

    /// Returns the groups of a region, by number.
    pub fn groups_of<'a>(&'a self, region: &'a RegionName) -> impl Iterator<Item = &'a Group> {
        self.groups
            .values()
            .filter(move |group| group.region.as_ref() == Some(region))
    }

    /// Returns the groups of a region that have formed, in which tenants are placed.
    pub(super) fn formed_groups_of<'a>(&'a self, region: &'a RegionName) -> impl Iterator<Item = &'a Group> {
        self.groups_of(region).filter(|group| !group.is_forming())
    }

    /// Returns the region of a group.
    pub fn region_of(&self, group: GroupId) -> Option<&Region> {
        let name = self.groups.get(&group)?.region.as_ref()?;
        self.regions.get(name)
    }

    /// Returns the settings of the cluster.
    pub fn settings(&self) -> ClusterSettings {
        self.settings.unwrap_or_default()
    }

    /// Returns the roles that are bound to identities.
    pub fn role_bindings(&self) -> &Arc<RoleBindings> {
        &self.role_bindings
    }

    /// Returns how many tenants a group has.
    pub fn load(&self, group: GroupId) -> GroupLoad {
        self.loads.get(&group).copied().unwrap_or_default()
    }
}
