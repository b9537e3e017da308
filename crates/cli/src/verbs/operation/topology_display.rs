//! Output of changes of nodes and regions.

use serde_json::{Value, json};
use stead_client::TopologyProgress;

use crate::output::list;

/// Returns what a change in flight waits for.
pub(super) fn waiting(topology: &TopologyProgress, is_cancelled: bool) -> String {
    if is_cancelled {
        return "groups go back to the voters that they had".to_owned();
    }
    if !topology.awaited.is_empty() {
        return format!("{} to join", list(&topology.awaited));
    }
    let (done, all) = (topology.voter_changes_done, topology.voter_changes);
    match topology.waits.is_empty() {
        true => format!("voters of groups, {done} of {all} changed"),
        false => format!(
            "voters of groups, {done} of {all} changed; {}",
            topology.waits.join("; ")
        ),
    }
}

/// Returns the progress as JSON.
pub(super) fn value(topology: &TopologyProgress) -> Value {
    json!({
        "summary": topology.summary,
        "awaited": topology.awaited,
        "voterChanges": topology.voter_changes,
        "voterChangesDone": topology.voter_changes_done,
        "waits": topology.waits,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_names_nodes_then_groups() {
        let mut topology = TopologyProgress {
            summary: "add node a to region eu".into(),
            awaited: vec!["a".into()],
            voter_changes: 0,
            voter_changes_done: 0,
            waits: Vec::new(),
        };
        assert_eq!(waiting(&topology, false), "a to join");
        topology.awaited.clear();
        (topology.voter_changes, topology.waits) = (2, vec!["group 1: 4 does not answer".into()]);
        assert_eq!(
            waiting(&topology, false),
            "voters of groups, 0 of 2 changed; group 1: 4 does not answer"
        );
        assert!(waiting(&topology, true).starts_with("groups go back"));
    }
}
