//! Reads of how long ago groups have renewed their leases, on any node: from the directory's leader.

use std::time::Duration;

use stead_api::proto::internal::v1::ReadRenewalsRequest;
use stead_types::GroupId;
use tokio::time::timeout;

use super::client::DirectoryClient;

/// Longest time for the answer of one voter.
const ANSWER_MAX: Duration = Duration::from_millis(500);

impl DirectoryClient {
    /// Returns how long ago a voter of each of these groups has renewed its lease, as the directory's leader has noted; `None`
    /// if the leader does not answer.
    pub(crate) async fn since_renewals(&self, groups: &[GroupId]) -> Option<Vec<Duration>> {
        if let Some(own) = self.local_voter().and_then(|voter| voter.since_renewals(groups)) {
            return Some(own);
        }
        for at in self.voter_order() {
            let request = ReadRenewalsRequest {
                groups: groups.iter().map(|group| group.get()).collect(),
            };
            let mut voter = self.voter_at(at)?;
            // One that does not lead, or runs an earlier version, refuses.
            let Ok(Ok(answer)) = timeout(ANSWER_MAX, voter.read_renewals(request)).await else {
                continue;
            };
            let since = answer.into_inner().since_ms;
            if since.len() == groups.len() {
                return Some(since.into_iter().map(Duration::from_millis).collect());
            }
        }
        None
    }
}
