//! Plan of a bulk move: which tenants it includes, and where each goes. Pure; used by the log and by dry runs alike.

use std::collections::BTreeMap;

use stead_types::{GroupId, NodeId, RegionName, TenantName, TenantNumber};

use super::{
    BulkMoveRequest, DirectoryChange, DirectoryView, Followers, ItemMove, MoveFailure, NamedMove, Region, Rejection,
    Selection, SourceAfterMove, Tenant, TenantMove, TenantState, moves, ownership::MovePlan, placement,
};

/// Planner of the next moves of a bulk move.
pub(super) struct Planner<'a> {
    view: &'a DirectoryView,
    unreachable: &'a [NodeId],
    source: SourceAfterMove,
    time: u64,
    /// Homes that groups gain or lose by the moves that it has planned.
    gained: BTreeMap<GroupId, i64>,
}

/// Where a tenant goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal<'a> {
    /// Out of a region, to wherever it fits best.
    OutOf(&'a RegionName),
    /// Into a region.
    Into(&'a RegionName),
    /// Back to a group, from which a drain has moved it.
    BackTo(ItemMove),
    /// To the group of its region that is home to the fewest tenants.
    Beside,
}

/// Outcome of a plan: the tenant's new record and its move.
pub(super) type Planned = (Tenant, TenantMove);

impl<'a> Planner<'a> {
    /// Returns a planner that has planned nothing.
    pub(super) fn new(view: &'a DirectoryView, source: SourceAfterMove, unreachable: &'a [NodeId], time: u64) -> Self {
        Self {
            view,
            unreachable,
            source,
            time,
            gained: BTreeMap::new(),
        }
    }

    /// Returns where a selection takes a tenant, or `None` if it does not include the tenant as it is now. Selections of
    /// named and of returning tenants are not told from the tenant alone.
    pub(super) fn goal<'s>(&self, selection: &'s Selection, tenant: &Tenant) -> Option<Goal<'s>> {
        if tenant.state == TenantState::Deleting {
            return None;
        }
        let home = self.view.region_of(tenant.home).map(|region| &region.name);
        match selection {
            Selection::Drain { region, to } => (home == Some(region)).then_some(match to {
                Some(to) => Goal::Into(to),
                None => Goal::OutOf(region),
            }),
            Selection::Label { key, value, to } => {
                let label = tenant.labels.as_ref().and_then(|labels| labels.get(key));
                (label == Some(value) && home != Some(to)).then_some(Goal::Into(to))
            }
            Selection::Spread { region } => {
                let is_surplus = || self.homes(tenant.home) > self.share(region);
                (home == Some(region) && is_surplus()).then_some(Goal::Beside)
            }
            Selection::Named | Selection::Undrain { .. } | Selection::Failback { .. } | Selection::Rehearse { .. } => {
                None
            }
        }
    }

    /// Returns the region of a group.
    pub(super) fn region_of(&self, group: GroupId) -> Option<RegionName> {
        self.view.region_of(group).map(|region| region.name.clone())
    }

    /// Returns the number of tenants of which a group is home once the planned moves are done.
    fn homes(&self, group: GroupId) -> u64 {
        let gained = self.gained.get(&group).copied().unwrap_or(0);
        self.view.load(group).homes.saturating_add_signed(gained)
    }

    /// Returns how many tenants each group of a region is home to where they are spread evenly, rounded up.
    fn share(&self, region: &RegionName) -> u64 {
        let groups = self.view.formed_groups_of(region);
        let (count, homes) = groups.fold((0, 0), |(count, homes), group| {
            (count + 1, homes + self.view.load(group.number).homes)
        });
        homes.div_ceil(std::cmp::max(count, 1))
    }

    /// Plans the move of a tenant, and counts it.
    pub(super) fn plan(&mut self, tenant: &Tenant, goal: Goal<'_>) -> Result<Planned, Rejection> {
        let mut tenant = tenant.clone();
        let from = tenant.home;
        let plan = MovePlan {
            to: self.target(&tenant, goal)?,
            source: self.source_after(&tenant, goal),
            time: self.time,
        };
        let planned = moves::plan(self.view, &mut tenant, plan, self.unreachable)?;
        *self.gained.entry(from).or_default() -= 1;
        *self.gained.entry(planned.to).or_default() += 1;
        Ok((tenant, planned))
    }

    fn target(&self, tenant: &Tenant, goal: Goal<'_>) -> Result<GroupId, Rejection> {
        match goal {
            Goal::OutOf(region) => self.best_outside(tenant, region),
            Goal::Into(region) => {
                let home = self.view.region_of(tenant.home);
                if home.is_some_and(|home| home.name == *region) {
                    return Err(Rejection::AlreadyHome(tenant.name.clone()));
                }
                placement::target_by(self.view, tenant, region, |group| {
                    (!self.answers(group), self.homes(group))
                })
            }
            Goal::BackTo(moved) => Ok(moved.from),
            Goal::Beside => {
                let home = self.view.region_of(tenant.home).map(|region| &region.name);
                placement::beside(self.view, tenant, |group| (!self.answers(group), self.homes(group)))
                    .ok_or_else(|| home.map_or(Rejection::OperationOver, |home| Rejection::OnlyGroup(home.clone())))
            }
        }
    }

    /// Returns the best group for a tenant outside its region: a follower before another group, then the one that is home
    /// to the fewest tenants.
    fn best_outside(&self, tenant: &Tenant, left: &RegionName) -> Result<GroupId, Rejection> {
        let open = self
            .view
            .regions()
            .filter(|region| region.name != *left && !region.is_draining() && tenant.admits(&region.jurisdiction));
        let groups = open.flat_map(|region| self.view.formed_groups_of(&region.name));
        let leaves = |group: GroupId| tenant.member(group).is_some_and(|member| !member.state.stays());
        groups
            .map(|group| group.number)
            .filter(|group| !leaves(*group))
            .min_by_key(|group| (!self.answers(*group), !tenant.has(*group), self.homes(*group), *group))
            .ok_or_else(|| Rejection::NoOpenRegion(tenant.name.clone()))
    }

    fn answers(&self, group: GroupId) -> bool {
        moves::is_reachable(self.view, group, self.unreachable)
    }

    /// Returns the part of the source: a group that became a member by a drain only leaves when the tenant returns.
    fn source_after(&self, tenant: &Tenant, goal: Goal<'_>) -> SourceAfterMove {
        match goal {
            Goal::Beside => SourceAfterMove::Policy,
            Goal::BackTo(moved) if moved.joined && tenant.followers != Followers::AllAdmitted => SourceAfterMove::Leave,
            Goal::OutOf(_) | Goal::Into(_) | Goal::BackTo(_) => self.source,
        }
    }
}

/// Preview of a bulk move as of one view.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BulkMovePreview {
    /// Moves that can begin.
    pub moves: Vec<PreviewedMove>,
    /// Tenants that would stay, each with the reason.
    pub refused: Vec<MoveFailure>,
}

/// Move of one tenant that can begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreviewedMove {
    /// The tenant.
    pub tenant: TenantNumber,
    /// Its name.
    pub name: TenantName,
    /// The home before.
    pub from: GroupId,
    /// The home afterwards.
    pub to: GroupId,
    /// Whether the target needs a copy first.
    pub joined: bool,
}

impl BulkMovePreview {
    /// Evaluates a request on a view, without the bound on waves. `returning` are the tenants that return.
    ///
    /// # Errors
    ///
    /// As for the command that begins it.
    pub fn of(
        view: &DirectoryView,
        request: &BulkMoveRequest,
        returning: &[(TenantNumber, ItemMove)],
        unreachable: &[NodeId],
    ) -> Result<Self, Rejection> {
        view.settings().check_moves()?;
        check_selection(view, &request.selection)?;
        if let Selection::Undrain { region, .. } = &request.selection {
            return Ok(Self::of_return(view, region, request, returning, unreachable));
        }
        if matches!(request.selection, Selection::Failback { .. }) && returning.is_empty() {
            return Err(Rejection::NothingToMove);
        }
        let mut planner = Planner::new(view, request.source, unreachable, 0);
        let mut preview = Self::default();
        match &request.selection {
            Selection::Named => {
                for (tenant, named) in named_tenants(view, &request.named)? {
                    preview.add(&mut planner, tenant, Goal::Into(&named.to));
                }
            }
            Selection::Failback { .. } => {
                for (number, back) in returning {
                    if let Some(tenant) = returns_now(view, *number, back) {
                        preview.add(&mut planner, tenant, Goal::BackTo(*back));
                    }
                }
            }
            selection @ (Selection::Drain { .. }
            | Selection::Undrain { .. }
            | Selection::Label { .. }
            | Selection::Rehearse { .. }
            | Selection::Spread { .. }) => {
                for tenant in view.tenants_from(TenantNumber::new(0)) {
                    if let Some(goal) = planner.goal(selection, tenant) {
                        preview.add(&mut planner, tenant, goal);
                    }
                }
            }
        }
        Ok(preview)
    }

    /// Evaluates the return of tenants to a drained region, on the view in which it takes tenants again.
    fn of_return(
        view: &DirectoryView,
        region: &RegionName,
        request: &BulkMoveRequest,
        returning: &[(TenantNumber, ItemMove)],
        unreachable: &[NodeId],
    ) -> Self {
        let mut open = view.clone();
        if let Some(drained) = view.region(region) {
            let region = Region::new(drained.name.clone(), drained.jurisdiction.clone());
            open.apply(DirectoryChange::Region(region));
        }
        let mut planner = Planner::new(&open, request.source, unreachable, 0);
        let mut preview = Self::default();
        for (number, moved) in returning {
            if let Some(tenant) = returns_now(&open, *number, moved) {
                preview.add(&mut planner, tenant, Goal::BackTo(*moved));
            }
        }
        preview
    }

    fn add(&mut self, planner: &mut Planner<'_>, tenant: &Tenant, goal: Goal<'_>) {
        match planner.plan(tenant, goal) {
            Ok((_, planned)) => self.moves.push(PreviewedMove {
                tenant: tenant.number,
                name: tenant.name.clone(),
                from: tenant.home,
                to: planned.to,
                joined: planned.joined,
            }),
            Err(rejection) => self.refused.push(MoveFailure {
                name: tenant.name.clone(),
                reason: rejection.to_string(),
            }),
        }
    }
}

/// Checks the regions of a selection.
pub(super) fn check_selection(view: &DirectoryView, selection: &Selection) -> Result<(), Rejection> {
    let known = |name: &RegionName| view.region(name).ok_or_else(|| Rejection::RegionUnknown(name.clone()));
    match selection {
        Selection::Drain { region, to } => {
            known(region)?;
            if let Some(to) = to {
                placement::open(view, to)?;
                if to == region {
                    return Err(Rejection::DrainIntoItself(region.clone()));
                }
            }
        }
        Selection::Undrain { region, .. } => {
            if !known(region)?.is_draining() {
                return Err(Rejection::NotDraining(region.clone()));
            }
        }
        Selection::Label { to, .. } => placement::open(view, to)?,
        Selection::Spread { region } => drop(known(region)?),
        Selection::Failback { region } => {
            view.settings().check_region_loss()?;
            placement::open(view, region)?;
        }
        Selection::Rehearse { region } => return Err(Rejection::RehearsalWithoutForecast(region.clone())),
        Selection::Named => {}
    }
    Ok(())
}

/// Returns the tenants that a request names and that are not where they go yet.
pub(super) fn named_tenants<'a>(
    view: &'a DirectoryView,
    named: &'a [NamedMove],
) -> Result<Vec<(&'a Tenant, &'a NamedMove)>, Rejection> {
    let mut tenants = BTreeMap::new();
    for one in named {
        placement::open(view, &one.to)?;
        let tenant = view.tenant_named(&one.name);
        let tenant = tenant.ok_or_else(|| Rejection::TenantUnknown(one.name.clone()))?;
        if tenants.insert(tenant.number, (&**tenant, one)).is_some() {
            return Err(Rejection::NamedTwice(one.name.clone()));
        }
    }
    let is_there = |tenant: &Tenant, to: &RegionName| {
        let home = view.region_of(tenant.home);
        home.is_some_and(|home| home.name == *to)
    };
    let tenants = tenants.into_values();
    Ok(tenants.filter(|(tenant, named)| !is_there(tenant, &named.to)).collect())
}

/// Returns a tenant that a drain has moved, if it is still where the drain has put it.
pub(super) fn returns_now<'a>(view: &'a DirectoryView, number: TenantNumber, moved: &ItemMove) -> Option<&'a Tenant> {
    let tenant = view.tenant(number)?;
    (tenant.home == moved.to && tenant.state != TenantState::Deleting).then_some(&**tenant)
}
