//! Messages of the directory view: routes, regions, versions.

use stead_api::{
    convert,
    proto::v1::{DirectoryVersion, Endpoint, Region, Route},
};
use stead_state::directory::{self, DirectoryView, Tenant};

/// Converts a tenant's route into a message.
pub(super) fn route(view: &DirectoryView, tenant: &Tenant) -> Route {
    let region = |group| view.region_of(group).map(|region| region.name.to_string());
    let home = region(tenant.home);
    // The target of a move within the region is a follower there, for the length of the move.
    let followers = tenant.follower_groups().filter_map(region);
    Route {
        tenant: tenant.name.to_string(),
        tenant_number: tenant.number.get(),
        follower_regions: followers.filter(|region| Some(region) != home.as_ref()).collect(),
        home_region: home.unwrap_or_default(),
        home_group: tenant.home.get(),
        epoch: tenant.epoch.get(),
    }
}

/// Converts all regions, and how to reach their nodes, into messages.
pub(super) fn regions(view: &DirectoryView) -> Vec<Region> {
    let endpoint = |node: &directory::Node| Endpoint {
        node: node.number.get(),
        client_address: node.addresses.client.clone(),
        http_address: node.addresses.http.clone(),
        groups: view
            .groups()
            .filter(|g| g.voters.contains(&node.number))
            .map(|g| g.number.get())
            .collect(),
    };
    let region = |region: &directory::Region| Region {
        name: region.name.to_string(),
        jurisdiction: region.jurisdiction.to_string(),
        endpoints: view
            .nodes()
            .filter(|node| node.region == region.name && !node.witness && node.has_joined())
            .map(endpoint)
            .collect(),
    };
    view.regions().map(region).collect()
}

/// Converts the version of a view into a message.
pub(super) fn version(view: &DirectoryView) -> Option<DirectoryVersion> {
    Some(convert::id::from_directory_version(view.version()))
}
