//! Plan of a promotion: which tenants it includes, where each may go, and what stands against it. Pure; used by the log and
//! by dry runs alike.

use stead_types::{Durability, GroupId, TenantName, TenantNumber};

use super::{
    DirectoryView, NAMED_MOVES_MAX, PromotionRejection, PromotionRequest, PromotionSelection, Rejection, Tenant,
    TenantState,
};
use crate::shard::record::LeaseLossPolicy;

/// Preview of a promotion as of one view: before any group has said what it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PromotionPreview {
    /// The tenants, by number.
    pub tenants: Vec<PreviewedPromotion>,
    /// Tenants that are left out because they are being erased.
    pub skipped: u64,
}

/// Forecast of a promotion for one tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreviewedPromotion {
    /// The tenant.
    pub tenant: TenantNumber,
    /// Its name.
    pub name: TenantName,
    /// Its home.
    pub home: GroupId,
    /// Groups that may be the new home: of two with equal histories the first one is chosen. Empty: it cannot be promoted.
    pub targets: Vec<GroupId>,
    /// The operation that promotes it already: [`PromotionRequest::replace`] is needed.
    pub in_flight: Option<u64>,
    /// Whether [`PromotionRequest::durability`] is needed: no other region would be left to follow.
    pub needs_durability: bool,
    /// Whether [`PromotionRequest::is_down`] is needed: the home goes on without a lease.
    pub needs_word: bool,
}

impl PromotionPreview {
    /// Evaluates a request on a view.
    ///
    /// # Errors
    ///
    /// A region, a group or a tenant is unknown, too many tenants are named, one is named twice, or there is none.
    pub fn of(view: &DirectoryView, request: &PromotionRequest) -> Result<Self, Rejection> {
        check_places(view, request)?;
        let mut preview = Self::default();
        match &request.selection {
            PromotionSelection::Tenants(names) => {
                for name in names {
                    let tenant = view.tenant_named(name);
                    let tenant = tenant.ok_or_else(|| Rejection::TenantUnknown(name.clone()))?;
                    preview.tenants.push(PreviewedPromotion::of(view, request, tenant));
                }
                preview.tenants.sort_by_key(|previewed| previewed.tenant);
                let twice = preview.tenants.windows(2).find(|pair| pair[0].tenant == pair[1].tenant);
                if let Some(twice) = twice {
                    return Err(Rejection::NamedTwice(twice[0].name.clone()));
                }
            }
            PromotionSelection::Region(_) | PromotionSelection::Group(_) => {
                for tenant in view.tenants_from(TenantNumber::new(0)) {
                    if !is_selected(view, &request.selection, tenant) {
                        continue;
                    }
                    if tenant.state == TenantState::Deleting {
                        preview.skipped += 1;
                        continue;
                    }
                    preview.tenants.push(PreviewedPromotion::of(view, request, tenant));
                }
            }
        }
        if preview.tenants.is_empty() {
            return Err(PromotionRejection::Nothing.into());
        }
        Ok(preview)
    }

    /// Evaluates a request of all tenants.
    pub(super) fn of_all(view: &DirectoryView, request: &PromotionRequest) -> Self {
        let mut preview = Self::default();
        for tenant in view.tenants_from(TenantNumber::new(0)) {
            if tenant.state == TenantState::Deleting {
                preview.skipped += 1;
            } else {
                preview.tenants.push(PreviewedPromotion::of(view, request, tenant));
            }
        }
        preview
    }

    /// Checks that the request permits what its tenants need.
    ///
    /// # Errors
    ///
    /// Some need a permission that the request does not give, or none can be promoted.
    pub fn check(&self, request: &PromotionRequest) -> Result<(), Rejection> {
        let first = |needs: fn(&PreviewedPromotion) -> bool| {
            let mut found = self.tenants.iter().filter(move |tenant| needs(tenant));
            let first = found.next()?;
            Some((first, 1 + found.count() as u64))
        };
        if let Some((found, count)) = first(|tenant| tenant.in_flight.is_some())
            && !request.replace
        {
            return Err(PromotionRejection::InFlight {
                count,
                tenant: found.name.clone(),
                operation: found.in_flight.unwrap_or_default(),
            }
            .into());
        }
        if let Some((found, count)) = first(|tenant| tenant.needs_durability) {
            let tenant = found.name.clone();
            return Err(PromotionRejection::Alone { count, tenant }.into());
        }
        if let Some((found, count)) = first(|tenant| tenant.needs_word) {
            let tenant = found.name.clone();
            return Err(PromotionRejection::HomeGoesOn { count, tenant }.into());
        }
        let is_named = matches!(request.selection, PromotionSelection::Tenants(_));
        match first(|tenant| tenant.targets.is_empty()) {
            Some((found, count)) if is_named || count == self.tenants.len() as u64 => {
                Err(PromotionRejection::NoTarget(found.name.clone()).into())
            }
            Some(_) | None => Ok(()),
        }
    }
}

impl PreviewedPromotion {
    fn of(view: &DirectoryView, request: &PromotionRequest, tenant: &Tenant) -> Self {
        let targets = targets(view, request, tenant);
        let may_be_lower = request.durability == Some(Durability::Region);
        let is_remote = tenant.durability == Durability::Remote && !targets.is_empty();
        let may_go_on = tenant.on_lease_loss.possible() == LeaseLossPolicy::Continue;
        Self {
            tenant: tenant.number,
            name: tenant.name.clone(),
            home: tenant.home,
            in_flight: tenant.promoting.as_ref().map(|promotion| promotion.of),
            needs_durability: is_remote && !may_be_lower && !has_other_region(view, request, tenant, &targets),
            needs_word: may_go_on && !request.is_down,
            targets,
        }
    }
}

/// Returns the members that may be the new home of a tenant: of two with equal histories the first one is chosen.
pub(super) fn targets(view: &DirectoryView, request: &PromotionRequest, tenant: &Tenant) -> Vec<GroupId> {
    let may_be = |group: GroupId| {
        let Some(region) = view.region_of(group) else {
            return false;
        };
        let is_named = match &request.to {
            Some(to) => region.name == *to,
            None => !is_lost(view, &request.selection, tenant, group),
        };
        is_named && tenant.consults(group) && tenant.admits(&region.jurisdiction)
    };
    let members = tenant.members.iter().map(|member| member.group);
    let mut targets: Vec<GroupId> = members.filter(|group| may_be(*group)).collect();
    let answering = |group: GroupId| {
        let voters = view.group(group).map(|group| &group.voters[..]).unwrap_or_default();
        let answering = voters.iter().filter(|voter| !request.unreachable.contains(voter));
        answering.count()
    };
    let is_draining = |group: GroupId| view.region_of(group).is_some_and(super::Region::is_draining);
    targets.sort_by_key(|group| (is_draining(*group), std::cmp::Reverse(answering(*group)), *group));
    targets
}

/// Returns the members in the region of a tenant's recorded home, itself among them.
pub(super) fn home_region(view: &DirectoryView, tenant: &Tenant) -> Vec<GroupId> {
    let region = |group: GroupId| view.region_of(group).map(|region| &region.name);
    let members = tenant.members.iter().map(|member| member.group);
    members
        .filter(|group| region(*group) == region(tenant.home) || *group == tenant.home)
        .collect()
}

/// Tells whether a selection includes a tenant: its home or the target of its move is what is lost.
pub(super) fn is_selected(view: &DirectoryView, selection: &PromotionSelection, tenant: &Tenant) -> bool {
    let mut could_own = tenant.needed_groups();
    could_own.any(|group| is_lost(view, selection, tenant, group))
}

/// Tells whether a group is what a promotion takes for lost.
fn is_lost(view: &DirectoryView, selection: &PromotionSelection, tenant: &Tenant, group: GroupId) -> bool {
    match selection {
        PromotionSelection::Region(lost) => view.region_of(group).is_some_and(|region| region.name == *lost),
        PromotionSelection::Group(lost) => group == *lost,
        PromotionSelection::Tenants(_) => group == tenant.home,
    }
}

/// Tells whether a tenant with a new home among the targets would have a member in another region that is not lost.
fn has_other_region(view: &DirectoryView, request: &PromotionRequest, tenant: &Tenant, targets: &[GroupId]) -> bool {
    let region = |group: GroupId| view.region_of(group).map(|region| &region.name);
    // Where the old home's region is named, nothing is lost.
    let returns = targets.contains(&tenant.home);
    let staying = tenant.members.iter().filter(|member| member.state.stays());
    let mut left = staying
        .map(|member| member.group)
        .filter(|group| returns || !is_lost(view, &request.selection, tenant, *group));
    left.any(|group| targets.iter().any(|target| region(*target) != region(group)))
}

fn check_places(view: &DirectoryView, request: &PromotionRequest) -> Result<(), Rejection> {
    let known = |name| {
        let found = view.region(name);
        found.map(drop).ok_or_else(|| Rejection::RegionUnknown(name.clone()))
    };
    request.to.as_ref().map_or(Ok(()), known)?;
    match &request.selection {
        PromotionSelection::Region(region) => known(region),
        PromotionSelection::Group(group) => {
            let region = view.region_of(*group);
            region.map(drop).ok_or(Rejection::GroupUnknown(*group))
        }
        PromotionSelection::Tenants(names) if names.len() > NAMED_MOVES_MAX => {
            Err(Rejection::NamedTooMany(names.len() as u64))
        }
        PromotionSelection::Tenants(_) => Ok(()),
    }
}
