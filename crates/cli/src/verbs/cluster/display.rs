//! Output of the cluster's settings.

use serde_json::{Value, json};
use stead_client::ClusterInfo;

use crate::output::OutputTable;

/// Returns a table of the settings.
pub(super) fn table(cluster: &ClusterInfo) -> OutputTable {
    let mut table = OutputTable::new(&["LEASE TTL", "FEATURE LEVEL", "SUPPORTED"], 3);
    let cells = vec![
        humantime::format_duration(cluster.lease_ttl).to_string(),
        cluster.feature_level.to_string(),
        cluster.feature_level_supported.to_string(),
    ];
    table.push(cells, value(cluster));
    table
}

fn value(cluster: &ClusterInfo) -> Value {
    json!({
        "leaseTtl": format!("{:.3}s", cluster.lease_ttl.as_secs_f64()),
        "featureLevel": cluster.feature_level,
        "featureLevelSupported": cluster.feature_level_supported,
    })
}
