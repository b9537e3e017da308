//! Output of routes.

use serde_json::{Value, json};
use stead_client::Route;

use crate::output::list;

/// Columns of a route, and the number of them in the short table.
pub(super) const COLUMNS: (&[&str], usize) = (&["TENANT", "HOME", "EPOCH", "FOLLOWERS", "NUMBER", "GROUP"], 4);

/// Returns a route as table cells.
pub(super) fn cells(route: &Route) -> Vec<String> {
    vec![
        route.tenant.to_string(),
        route.home_region.to_string(),
        route.epoch.to_string(),
        list(&route.followers),
        route.number.get().to_string(),
        route.home_group.to_string(),
    ]
}

/// Returns a route as JSON.
pub(super) fn value(route: &Route) -> Value {
    json!({
        "tenant": route.tenant.as_str(),
        "tenantNumber": route.number.get().to_string(),
        "homeRegion": route.home_region.as_str(),
        "homeGroup": route.home_group,
        "epoch": route.epoch.get(),
        "followerRegions": route.followers,
    })
}
