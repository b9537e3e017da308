//! Output of groups.

use std::time::SystemTime;

use serde_json::{Value, json};
use stead_client::{Group, GroupStatus};

use crate::output::{OutputTable, list};

/// Returns a table of groups.
pub(crate) fn table(groups: &[Group]) -> OutputTable {
    let columns = &[
        "GROUP",
        "REGION",
        "LEADER",
        "VOTERS",
        "HOME TENANTS",
        "LEASE",
        "TERM",
        "APPLIED",
        "DURABLE",
        "INCARNATION",
        "TIME AHEAD",
    ];
    let mut table = OutputTable::new(columns, 6);
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
            status.map_or_else(String::new, lease),
            number(status.map(|status| status.term)),
            number(status.map(|status| status.applied)),
            number(status.map(|status| status.durable)),
            group.incarnation.to_string(),
            status.map_or_else(String::new, |status| distance(status.logged_time_ahead_ms)),
        ];
        table.push(cells, value(group));
    }
    table
}

/// Returns a group as JSON.
pub(crate) fn value(group: &Group) -> Value {
    let text = |number: u64| number.to_string();
    let voter =
        |(node, matched): &(u64, Option<u64>)| json!({ "node": text(*node), "matchedIndex": matched.map(text) });
    let clock = |(node, ahead): &(u64, i64)| json!({ "node": text(*node), "ahead": distance(Some(*ahead)) });
    let status = group.status.as_ref().map(|status| {
        json!({
            "loggedTimeAhead": status.logged_time_ahead_ms.map(|ahead| distance(Some(ahead))),
            "clocks": status.clocks_ahead_ms.iter().map(clock).collect::<Vec<_>>(),
            "leader": status.leader.map(text),
            "term": text(status.term),
            "appliedIndex": text(status.applied),
            "durableIndex": text(status.durable),
            "voters": status.matched.iter().map(voter).collect::<Vec<_>>(),
            "leaseLeft": status.lease_left.map(|left| format!("{:.3}s", left.as_secs_f64())),
            "noLeaseSince": status.no_lease_since.map(time),
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

/// Formats the time that is left of the leader's lease, or since when it has had none.
fn lease(status: &GroupStatus) -> String {
    match (status.lease_left, status.no_lease_since) {
        (Some(left), _) => format!("{} s left", left.as_secs()),
        (None, Some(since)) => format!("none since {}", time(since)),
        (None, None) => "needs none".to_owned(),
    }
}

fn time(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

/// Formats a clock distance in seconds; unknown where there is none.
fn distance(ahead_ms: Option<i64>) -> String {
    let Some(ahead_ms) = ahead_ms else {
        return "unknown".into();
    };
    let (sign, ahead_ms) = (if ahead_ms < 0 { "-" } else { "" }, ahead_ms.unsigned_abs());
    format!("{sign}{}.{:03}s", ahead_ms / 1_000, ahead_ms % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_has_sign() {
        assert_eq!(distance(Some(-12)), "-0.012s");
        assert_eq!(distance(Some(7_200_001)), "7200.001s");
        assert_eq!(distance(None), "unknown");
    }
}
