//! Leases that this node's voter of the directory grants while it leads; `stead_state::lease` decides.

use std::time::Duration;

use parking_lot::Mutex;
use stead_raft::Clocks;
use stead_state::{
    lease::{
        LeaseAnswer, Renewal,
        grantor::{DirectoryReading, GrantRefusal, LeaseGrantor},
    },
    serving::BootTime,
};
use stead_types::{Error, ErrorKind};

use super::local_voter::{LocalVoter, VoterError};
use crate::host::storage_unavailable;

/// Time for which leases are granted. The directory has no setting of it yet, and keeps no fence changes: a lease counts
/// by its holder's view alone.
const TTL: Duration = Duration::from_secs(60);

/// Grants of this node, timed by its boot clock.
pub(crate) struct LeaseGrants {
    clocks: Clocks,
    grantor: Mutex<LeaseGrantor>,
}

impl LeaseGrants {
    /// Returns the grants of a node that has granted nothing.
    pub(super) fn new(clocks: Clocks) -> Self {
        Self {
            clocks,
            grantor: Mutex::default(),
        }
    }

    fn now(&self) -> BootTime {
        BootTime::new((self.clocks.boot)())
    }
}

impl LocalVoter {
    /// Grants a lease as of a version at a read index whose round begins after this call.
    pub(crate) async fn grant_lease(&self, renewal: &Renewal) -> Result<LeaseAnswer, VoterError> {
        let leadership = self.group.leadership();
        if !leadership.is_here {
            return Err(VoterError::NotLeader);
        }
        self.confirm_leadership().await?;
        // A fence may be applied between reading and granting. The second reading then shows it.
        match self.grant_now(leadership.term, renewal) {
            Err(GrantError::Refused(GrantRefusal::BelowFence(_))) => self.grant_now(leadership.term, renewal),
            granted => granted,
        }
        .map_err(VoterError::from)
    }

    fn grant_now(&self, term: u64, renewal: &Renewal) -> Result<LeaseAnswer, GrantError> {
        let version = self.machine.read(|directory| directory.view().version());
        let reading = DirectoryReading {
            version: version.map_err(|incomplete| GrantError::Storage(storage_unavailable(&incomplete)))?,
            ttl: TTL,
            fences: None,
        };
        let mut grantor = self.grants.grantor.lock();
        let leadership = self.group.leadership();
        let now = self.grants.now();
        if leadership.is_here {
            grantor.lead(now, leadership.term);
        } else {
            grantor.follow();
        }
        grantor.grant(now, term, renewal, reading).map_err(GrantError::Refused)
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
