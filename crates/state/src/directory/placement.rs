//! Placement of tenants on groups: by load, not by hash, so that groups of a region fill evenly.

use stead_types::{GroupId, Jurisdiction, RegionName};

use super::{DirectoryView, Followers, Rejection, ReplicaSetMember, Tenant};

/// Returns the group of a region that is home to the fewest tenants.
pub(super) fn home(view: &DirectoryView, region: &RegionName) -> Result<GroupId, Rejection> {
    view.region(region)
        .ok_or_else(|| Rejection::RegionUnknown(region.clone()))?;
    let groups = view.groups_of(region).map(|group| group.number);
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

fn admitted(view: &DirectoryView, residency: &[Jurisdiction], region: &RegionName) -> Result<(), Rejection> {
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

/// Returns the members that a tenant should have: its home, and one group in each region that its policy names. A
/// current member that fits stays; one that does not fit is leaving. A leaving group is not chosen again before it
/// has reported that it has erased the tenant, so that an erase under way never meets a new copy.
pub(super) fn members(view: &DirectoryView, tenant: &Tenant) -> Box<[ReplicaSetMember]> {
    let home = view.region_of(tenant.home).map(|region| &region.name);
    let mut stay = vec![tenant.home];
    for region in view.regions().filter(|region| Some(&region.name) != home) {
        let wanted = match &tenant.followers {
            Followers::AllAdmitted => tenant.admits(&region.jurisdiction),
            Followers::Named(regions) => regions.contains(&region.name),
        };
        if wanted {
            stay.extend(follower(view, tenant, &region.name));
        }
    }
    let leaving = tenant.members.iter().filter(|member| !stay.contains(&member.group));
    let mut members: Vec<ReplicaSetMember> = leaving
        .map(|member| ReplicaSetMember {
            leaving: true,
            ..*member
        })
        .collect();
    members.extend(stay.iter().map(|group| ReplicaSetMember {
        group: *group,
        leaving: false,
    }));
    members.sort_unstable_by_key(|member| member.group);
    members.into()
}

fn follower(view: &DirectoryView, tenant: &Tenant, region: &RegionName) -> Option<GroupId> {
    let groups = || view.groups_of(region).map(|group| group.number);
    let leaving = |group: &GroupId| {
        tenant
            .members
            .iter()
            .any(|member| member.group == *group && member.leaving)
    };
    groups().find(|group| tenant.has(*group)).or_else(|| {
        groups()
            .filter(|group| !leaving(group))
            .min_by_key(|group| (view.load(*group).members, *group))
    })
}
