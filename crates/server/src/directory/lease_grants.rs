//! Leases that this node's voter of the directory grants while it leads; `stead_state::lease` decides.

use std::{collections::BTreeMap, time::Duration};

use parking_lot::Mutex;
use stead_raft::Clocks;
use stead_state::{
    lease::{
        LeaseAnswer, Renewal,
        grantor::{AppliedFence, DirectoryReading, GrantRefusal, LeaseGrantor},
        waiter::{FenceWait, PossibleOwners, WaitState},
    },
    serving::BootTime,
};
use stead_types::{Error, ErrorKind, GroupId, NodeId};

use super::local_voter::{LocalVoter, VoterError};
use crate::host::storage_unavailable;

/// Least time for which a node's report of its feature level is taken as current. A node reports with each renewal, every
/// quarter of the ttl: half a ttl where that is longer.
const REPORT_LIFETIME: Duration = Duration::from_secs(60);

/// Grants of this node, timed by its boot clock.
pub(crate) struct LeaseGrants {
    clocks: Clocks,
    grantor: Mutex<LeaseGrantor>,
    /// Feature level that each node supports, and when it said so.
    supported: Mutex<BTreeMap<NodeId, SupportReport>>,
}

struct SupportReport {
    level: u32,
    at: BootTime,
}

impl LeaseGrants {
    /// Returns the grants of a node that has granted nothing.
    pub(super) fn new(clocks: Clocks) -> Self {
        Self {
            clocks,
            grantor: Mutex::default(),
            supported: Mutex::default(),
        }
    }

    /// Records the feature level that a node supports.
    fn record_support(&self, node: NodeId, level: u32) {
        let at = self.now();
        self.supported.lock().insert(node, SupportReport { level, at });
    }

    /// Returns the nodes that have said lately, by the ttl in force, that they support a feature level.
    pub(crate) fn supporting(&self, level: u32, ttl: Duration) -> Vec<NodeId> {
        let lifetime = REPORT_LIFETIME.max(ttl / 2);
        let now = self.now();
        let supported = self.supported.lock();
        let current = supported
            .iter()
            .filter(|(_, report)| report.level >= level && now.since(report.at) < lifetime);
        current.map(|(node, _)| *node).collect()
    }

    fn now(&self) -> BootTime {
        BootTime::new((self.clocks.boot)())
    }
}

impl LocalVoter {
    /// Returns the nodes that have told this voter lately that they support a feature level.
    pub(crate) fn supporting(&self, level: u32, ttl: Duration) -> Vec<NodeId> {
        self.grants.supporting(level, ttl)
    }

    /// Grants a lease as of a version at a read index whose round begins after this call.
    pub(crate) async fn grant_lease(
        &self,
        node: NodeId,
        feature_level: u32,
        renewal: &Renewal,
    ) -> Result<LeaseAnswer, VoterError> {
        let leadership = self.group.leadership();
        if !leadership.is_here {
            return Err(VoterError::NotLeader);
        }
        self.grants.record_support(node, feature_level);
        self.confirm_leadership().await?;
        // A fence may be applied between reading and granting. The second reading then shows it.
        match self.grant_now(leadership.term, renewal) {
            Err(GrantError::Refused(GrantRefusal::BelowFence(_))) => self.grant_now(leadership.term, renewal),
            granted => granted,
        }
        .map_err(VoterError::from)
    }

    fn grant_now(&self, term: u64, renewal: &Renewal) -> Result<LeaseAnswer, GrantError> {
        let groups: Vec<GroupId> = renewal.groups.iter().copied().collect();
        let reading = self.machine.read(|directory| {
            let view = directory.view();
            let fences = directory.fence_changes_since(renewal.view, &groups);
            DirectoryReading {
                version: view.version(),
                ttl: Duration::from_millis(view.settings().lease_ttl_ms),
                fences: fences.map(|fences| fences.into_iter().collect()),
            }
        });
        let reading = reading.map_err(|incomplete| GrantError::Storage(storage_unavailable(&incomplete)))?;
        let mut grantor = self.grants.grantor.lock();
        let now = self.take_note_of_term(&mut grantor);
        grantor.grant(now, term, renewal, reading).map_err(GrantError::Refused)
    }

    /// Begins the wait after a fence that is applied here; `None` if this node does not lead. Once for each fence and
    /// term.
    pub(crate) fn begin_fence_wait(&self, fence: &AppliedFence) -> Option<FenceWait> {
        let mut grantor = self.grants.grantor.lock();
        let now = self.take_note_of_term(&mut grantor);
        grantor.begin_wait(now, fence)
    }

    /// Returns the state of a wait that this node has begun.
    pub(crate) fn fence_wait_state(&self, wait: &FenceWait) -> WaitState {
        let mut grantor = self.grants.grantor.lock();
        let now = self.take_note_of_term(&mut grantor);
        grantor.wait_state(now, wait)
    }

    /// Returns how long ago a voter of each of these groups has renewed its lease, or since when this node leads; `None` if it
    /// does not lead.
    pub(crate) fn since_renewals(&self, groups: &[GroupId]) -> Option<Vec<Duration>> {
        let mut grantor = self.grants.grantor.lock();
        let now = self.take_note_of_term(&mut grantor);
        groups
            .iter()
            .map(|group| grantor.since_last_grant(now, *group))
            .collect()
    }

    /// Returns how long ago voters of groups have renewed their leases, of those groups whose renewals this node has seen
    /// since it leads.
    pub(crate) fn since_seen_renewals(&self, owners: &PossibleOwners) -> Vec<(GroupId, Duration)> {
        let mut grantor = self.grants.grantor.lock();
        let now = self.take_note_of_term(&mut grantor);
        grantor.since_seen_grants(now, owners)
    }

    /// Tells the grantor whether this node leads, and in which term; returns the boot clock.
    fn take_note_of_term(&self, grantor: &mut LeaseGrantor) -> BootTime {
        let leadership = self.group.leadership();
        let now = self.grants.now();
        if leadership.is_here {
            grantor.lead(now, leadership.term);
        } else {
            grantor.follow();
        }
        now
    }
}

enum GrantError {
    Refused(GrantRefusal),
    Storage(Error),
}

impl From<GrantError> for VoterError {
    fn from(error: GrantError) -> Self {
        match error {
            GrantError::Refused(GrantRefusal::NotLeader) => Self::NotLeader,
            GrantError::Refused(refusal @ GrantRefusal::Groups(_)) => {
                Self::Failed(Error::invalid("groups", refusal.to_string()))
            }
            GrantError::Refused(refusal @ (GrantRefusal::BelowFence(_) | GrantRefusal::TooManyGroups)) => {
                Self::Failed(Error::new(ErrorKind::Unavailable, refusal.to_string()))
            }
            GrantError::Storage(error) => Self::Failed(error),
        }
    }
}
