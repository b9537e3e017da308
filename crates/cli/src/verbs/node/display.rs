//! Output of nodes.

use serde_json::{Value, json};
use stead_client::NodeInfo;

use crate::output::{OutputTable, list, size};

/// Returns a table of nodes.
pub(crate) fn table(nodes: &[NodeInfo]) -> OutputTable {
    let columns = &[
        "NODE", "NAME", "REGION", "CLIENT", "READY", "LEADS", "ENGINE", "PEER", "HTTP", "GROUPS", "MEMORY", "DISK",
        "VERSION",
    ];
    let mut table = OutputTable::new(columns, 7);
    for node in nodes {
        let status = node.status.as_ref();
        let cells = vec![
            node.number.to_string(),
            node.name.clone(),
            node.region.clone(),
            node.client_address.clone(),
            status
                .map_or("no answer", |status| if status.ready { "yes" } else { "no" })
                .to_owned(),
            status.map_or_else(String::new, |status| list(&status.leads)),
            status.map_or_else(String::new, |status| status.engine.clone()),
            node.peer_address.clone(),
            node.http_address.clone(),
            list(&node.groups),
            status.map_or_else(String::new, |status| size(status.memory)),
            status.map_or_else(String::new, |status| size(status.disk_used)),
            status.map_or_else(String::new, |status| status.version.clone()),
        ];
        table.push(cells, value(node));
    }
    table
}

/// Returns a node as JSON.
pub(crate) fn value(node: &NodeInfo) -> Value {
    let status = node.status.as_ref().map(|status| {
        json!({
            "version": status.version,
            "startTime": status.started.map(|time| humantime::format_rfc3339_millis(time).to_string()),
            "ready": status.ready,
            "leads": status.leads,
            "viewVersion": status.directory_view.map(|view| view.to_string()),
            "engine": status.engine,
            "diskUsedBytes": status.disk_used.to_string(),
            "diskFreeBytes": status.disk_free.to_string(),
            "memoryBytes": status.memory.to_string(),
            "warnings": status.warnings,
        })
    });
    json!({
        "number": node.number.to_string(),
        "name": node.name,
        "region": node.region,
        "clientAddress": node.client_address,
        "peerAddress": node.peer_address,
        "httpAddress": node.http_address,
        "witness": node.witness,
        "groups": node.groups,
        "status": status,
    })
}
