//! `stead region list`.

use serde_json::{Value, json};
use stead_client::RegionInfo;

use crate::{
    args::Target,
    context,
    exit::CommandError,
    output::{OutputTable, list},
    verbs::operation::promotion,
};

pub(super) async fn run(target: &Target) -> Result<(), CommandError> {
    let client = context::connect(target).await?;
    let mut table = OutputTable::new(
        &["NAME", "JURISDICTION", "HOME TENANTS", "NODES", "GROUPS", "DRAINED BY"],
        6,
    );
    for region in client.admin().regions().await? {
        let cells = vec![
            region.name.clone(),
            region.jurisdiction.clone(),
            region.home_tenants.to_string(),
            list(&region.nodes),
            list(&region.groups),
            list(&region.drains),
        ];
        table.push(cells, value(&region));
    }
    table.print(target.output)
}

pub(super) fn value(region: &RegionInfo) -> Value {
    let RegionInfo {
        name,
        jurisdiction,
        home_tenants,
        nodes,
        groups,
        drains,
        last_rehearsal,
        rehearsed,
    } = region;
    let nodes: Vec<String> = nodes.iter().map(ToString::to_string).collect();
    json!({
        "name": name,
        "jurisdiction": jurisdiction,
        "homeTenants": home_tenants.to_string(),
        "nodes": nodes,
        "groups": groups,
        "drains": drains,
        "lastRehearsal": last_rehearsal,
        "lastRehearsalTime": rehearsed.map(promotion::clock),
    })
}
