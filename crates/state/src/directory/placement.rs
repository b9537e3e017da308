//! Placement of tenants on groups: by load, not by hash, so that groups of a region fill evenly.

use stead_types::{Durability, GroupId, Jurisdiction, RegionName};

use super::{DirectoryView, Followers, MemberState, Rejection, ReplicaSetMember, Tenant, TopologyRejection};

/// Checks that a region exists and takes tenants.
pub(super) fn open(view: &DirectoryView, region: &RegionName) -> Result<(), Rejection> {
    let found = view.region(region);
    let found = found.ok_or_else(|| Rejection::RegionUnknown(region.clone()))?;
    if found.leaving {
        return Err(TopologyRejection::RegionLeaving(region.clone()).into());
    }
    if found.is_draining() {
        return Err(Rejection::RegionDraining(region.clone()));
    }
    Ok(())
}

/// Returns the group of a region that is home to the fewest tenants.
pub(super) fn home(view: &DirectoryView, region: &RegionName) -> Result<GroupId, Rejection> {
    open(view, region)?;
    let groups = view.formed_groups_of(region).map(|group| group.number);
    groups
        .min_by_key(|group| (view.load(*group).homes, *group))
        .ok_or_else(|| Rejection::RegionEmpty(region.clone()))
}

/// Checks a tenant's policy against the existing regions.
pub(super) fn check(view: &DirectoryView, tenant: &Tenant) -> Result<(), Rejection> {
    let home = view
        .region_of(tenant.home)
        .expect("a tenant's home is a group of a region");
    admitted(view, &tenant.residency, &home.name)?;
    if let Followers::Named(regions) = &tenant.followers {
        if regions.contains(&home.name) {
            return Err(Rejection::HomeFollows(home.name.clone()));
        }
        for region in regions {
            admitted(view, &tenant.residency, region)?;
        }
    }
    Ok(())
}

/// Checks that a residency admits an existing region.
pub(super) fn admitted(view: &DirectoryView, residency: &[Jurisdiction], region: &RegionName) -> Result<(), Rejection> {
    let found = view
        .region(region)
        .ok_or_else(|| Rejection::RegionUnknown(region.clone()))?;
    if residency.is_empty() || residency.contains(&found.jurisdiction) {
        return Ok(());
    }
    Err(Rejection::Residency {
        allowed: residency.to_vec(),
        region: found.name.clone(),
        jurisdiction: found.jurisdiction.clone(),
    })
}

/// Returns the members that a tenant should have: its home, the targets of its operations, and one group in each region
/// that its policy names. A current member that fits stays; one that does not fit is leaving. A group that erases the
/// tenant is not chosen again before it has reported that, so that an erase under way never meets a new copy.
pub(super) fn members(view: &DirectoryView, tenant: &Tenant) -> Box<[ReplicaSetMember]> {
    let home = view.region_of(tenant.home).map(|region| &region.name);
    let mut stay: Vec<GroupId> = tenant.needed_groups().collect();
    for region in view.regions().filter(|region| Some(&region.name) != home) {
        let wanted = match &tenant.followers {
            Followers::AllAdmitted => tenant.admits(&region.jurisdiction),
            Followers::Named(regions) => regions.contains(&region.name),
        };
        if wanted && !region.leaving {
            stay.extend(follower(view, tenant, &region.name));
        }
    }
    stay.sort_unstable();
    stay.dedup();
    let left = tenant.members.iter().filter(|member| !stay.contains(&member.group));
    let mut members: Vec<ReplicaSetMember> = left
        .map(|member| ReplicaSetMember {
            state: leaving(view, member.state),
            ..*member
        })
        .collect();
    members.extend(stay.iter().map(|group| match tenant.member(*group) {
        Some(member) => ReplicaSetMember {
            state: staying(member.state),
            ..member
        },
        None => ReplicaSetMember::staying(*group),
    }));
    members.sort_unstable_by_key(|member| member.group);
    members.into()
}

/// Returns the state of a member that no longer fits. Before feature level 2, which not every node reads, it is not
/// consulted any more.
fn leaving(view: &DirectoryView, state: MemberState) -> MemberState {
    match state {
        MemberState::Staying | MemberState::Returning if view.settings().has_moves() => MemberState::Leaving,
        MemberState::Staying | MemberState::Returning => MemberState::Erasing,
        MemberState::Leaving | MemberState::Erasing => state,
    }
}

fn staying(state: MemberState) -> MemberState {
    match state {
        MemberState::Leaving => MemberState::Returning,
        MemberState::Staying | MemberState::Returning | MemberState::Erasing => state,
    }
}

/// Returns the group of a region that follows a tenant: a member before another group, and one that is a member for
/// itself before the target of a move.
fn follower(view: &DirectoryView, tenant: &Tenant, region: &RegionName) -> Option<GroupId> {
    let groups = || view.formed_groups_of(region).map(|group| group.number);
    let is_target = |group: GroupId| {
        let moving = tenant.moving.as_deref();
        moving.is_some_and(|moving| moving.joined && moving.to == group)
    };
    let leaves = |group: &GroupId| {
        let member = tenant.member(*group);
        member.is_some_and(|member| member.state == MemberState::Leaving)
    };
    groups()
        .find(|group| tenant.has(*group) && !is_target(*group))
        .or_else(|| groups().find(|group| tenant.has(*group)))
        .or_else(|| groups().find(leaves))
        .or_else(|| {
            groups()
                .filter(|group| tenant.member(*group).is_none())
                .min_by_key(|group| (view.load(*group).members, *group))
        })
}

/// Returns the group of a region to which a tenant moves: one that follows it, else the one that is home to the fewest
/// tenants.
pub(super) fn target(view: &DirectoryView, tenant: &Tenant, region: &RegionName) -> Result<GroupId, Rejection> {
    target_by(view, tenant, region, |group| view.load(group).homes)
}

/// Returns the group of a region to which a tenant moves: one that follows it, else the one of the lowest rank.
pub(super) fn target_by<K: Ord>(
    view: &DirectoryView,
    tenant: &Tenant,
    region: &RegionName,
    rank: impl Fn(GroupId) -> K,
) -> Result<GroupId, Rejection> {
    open(view, region)?;
    let groups = || view.formed_groups_of(region).map(|group| group.number);
    if let Some(follower) = groups().find(|group| tenant.has(*group)) {
        return Ok(follower);
    }
    let lowest = groups().min_by_key(|group| (tenant.member(*group).is_some(), rank(*group), *group));
    lowest.ok_or_else(|| Rejection::RegionEmpty(region.clone()))
}

/// Returns the other group of the home's region to which a tenant moves: the one of the lowest rank.
pub(super) fn beside<K: Ord>(view: &DirectoryView, tenant: &Tenant, rank: impl Fn(GroupId) -> K) -> Option<GroupId> {
    let region = &view.region_of(tenant.home)?.name;
    let groups = view.formed_groups_of(region).map(|group| group.number);
    groups
        .filter(|group| *group != tenant.home)
        .min_by_key(|group| (tenant.member(*group).is_some(), rank(*group), *group))
}

/// Checks that a tenant with durability `REMOTE` has a follower outside the home's region: one inside does not count.
pub(super) fn check_durability(view: &DirectoryView, tenant: &Tenant) -> Result<(), Rejection> {
    if tenant.durability == Durability::Remote && !has_other_region(view, tenant) {
        return Err(Rejection::RemoteAlone);
    }
    Ok(())
}

/// Tells whether a follower of a tenant, that stays, is in another region than the home.
pub(super) fn has_other_region(view: &DirectoryView, tenant: &Tenant) -> bool {
    let region = |group: GroupId| view.region_of(group).map(|region| &region.name);
    let home = region(tenant.home);
    tenant.follower_groups().any(|group| region(group) != home)
}

/// Tells whether a tenant with durability `REMOTE` keeps a follower in another region when a region is removed.
pub(super) fn has_remote_without(view: &DirectoryView, tenant: &Tenant, removed: &RegionName) -> bool {
    let region = |group: GroupId| view.region_of(group).map(|region| &region.name);
    let home = region(tenant.home);
    let mut others = tenant.follower_groups().map(region);
    tenant.durability != Durability::Remote || others.any(|other| other != home && other != Some(removed))
}
