//! How groups are shown.

use serde_json::{Value, json};
use stead_client::Group;

use crate::output::{Sheet, list};

/// Returns groups as rows.
pub(crate) fn sheet(groups: &[Group]) -> Sheet {
    let columns = &[
        "GROUP",
        "REGION",
        "LEADER",
        "VOTERS",
        "HOME TENANTS",
        "TERM",
        "APPLIED",
        "DURABLE",
        "INCARNATION",
    ];
    let mut sheet = Sheet::new(columns, 5);
    for group in groups {
        let status = group.status.as_ref();
        let number = |number: Option<u64>| number.map_or_else(String::new, |number| number.to_string());
        let leader = match status {
            None => "no answer".into(),
            Some(status) => status.leader.map_or_else(|| "none".into(), |leader| leader.to_string()),
        };
        let cells = vec![
            group.number.to_string(),
            if group.region.is_empty() {
                "(directory)".into()
            } else {
                group.region.clone()
            },
            leader,
            list(&group.voters),
            group.home_tenants.to_string(),
            number(status.map(|status| status.term)),
            number(status.map(|status| status.applied)),
            number(status.map(|status| status.durable)),
            group.incarnation.to_string(),
        ];
        sheet.push(cells, value(group));
    }
    sheet
}

/// Returns a group as JSON.
pub(crate) fn value(group: &Group) -> Value {
    let text = |number: u64| number.to_string();
    let voter =
        |(node, matched): &(u64, Option<u64>)| json!({ "node": text(*node), "matchedIndex": matched.map(text) });
    let status = group.status.as_ref().map(|status| {
        json!({
            "leader": status.leader.map(text),
            "term": text(status.term),
            "appliedIndex": text(status.applied),
            "durableIndex": text(status.durable),
            "voters": status.matched.iter().map(voter).collect::<Vec<_>>(),
        })
    });
    json!({
        "number": group.number,
        "region": group.region,
        "incarnation": group.incarnation,
        "voters": group.voters.iter().copied().map(text).collect::<Vec<_>>(),
        "homeTenants": text(group.home_tenants),
        "status": status,
    })
}
