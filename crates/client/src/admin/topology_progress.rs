//! Progress of changes of nodes and regions.

use stead_api::proto::admin::v1;

/// Progress of a change of nodes or regions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopologyProgress {
    /// Summary, for people.
    pub summary: String,
    /// Names of announced nodes that have not joined yet.
    pub awaited: Vec<String>,
    /// Number of changes of groups' voters that it has begun.
    pub voter_changes: u32,
    /// Number of those that are done.
    pub voter_changes_done: u32,
    /// Waits, as far as the asked node knows.
    pub waits: Vec<String>,
}

/// Reads the progress.
pub(super) fn progress(progress: v1::TopologyProgress) -> TopologyProgress {
    let v1::TopologyProgress {
        summary,
        awaited,
        voter_changes,
        voter_changes_done,
        waits,
    } = progress;
    TopologyProgress {
        summary,
        awaited,
        voter_changes,
        voter_changes_done,
        waits,
    }
}
