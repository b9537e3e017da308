//! Which groups hold a tenant: by load, not by hash, so that groups of a region fill evenly.

use stead_types::{GroupId, Jurisdiction, RegionName};

use super::{Followers, Member, Rejection, Tenant, View};

/// Returns the group of a region that is home to the fewest tenants.
pub(super) fn home(view: &View, region: &RegionName) -> Result<GroupId, Rejection> {
    view.region(region)
        .ok_or_else(|| Rejection::RegionUnknown(region.clone()))?;
    let groups = view.groups_of(region).map(|group| group.number);
    groups
        .min_by_key(|group| (view.load(*group).homes, *group))
        .ok_or_else(|| Rejection::RegionEmpty(region.clone()))
}

/// Checks a tenant's policy against the regions there are.
pub(super) fn check(view: &View, tenant: &Tenant) -> Result<(), Rejection> {
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

fn admitted(view: &View, residency: &[Jurisdiction], region: &RegionName) -> Result<(), Rejection> {
    let found = view
        .region(region)
        .ok_or_else(|| Rejection::RegionUnknown(region.clone()))?;
    if residency.is_empty() || residency.contains(&found.jurisdiction) {
        return Ok(());
    }
    Err(Rejection::Residency {
        wanted: residency.to_vec(),
        region: found.name.clone(),
        jurisdiction: found.jurisdiction.clone(),
    })
}

/// Returns the members that a tenant should have: its home, and one group in each region that its policy wants. A
/// member that fits stays; one that does not is leaving. A group that is leaving is not taken again before it has
/// reported that it has erased the tenant, so that an erase under way never meets a new copy.
pub(super) fn members(view: &View, tenant: &Tenant) -> Box<[Member]> {
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
    let mut members: Vec<Member> = leaving
        .map(|member| Member {
            leaving: true,
            ..*member
        })
        .collect();
    members.extend(stay.iter().map(|group| Member {
        group: *group,
        leaving: false,
    }));
    members.sort_unstable_by_key(|member| member.group);
    members.into()
}

fn follower(view: &View, tenant: &Tenant, region: &RegionName) -> Option<GroupId> {
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
