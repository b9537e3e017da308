//! Serving check: whether a group may answer as the home of a tenant.
//!
//! It is made after commit and apply for a write, after the state was read for a read, never before: a check covers
//! only what was read before it. A pause between the check and sending the response is harmless, because the check
//! lies between call and response.
//!
//! # Invariants
//!
//! * **L1** Once the wait after fence f has passed, no group serves the tenant below f: every lease whose version is
//!   below the fence's has run out by then, and one at or above it counts only with a view that shows the fence.

use std::time::Duration;

use stead_types::{DirectoryVersion, Epoch, GroupId};

use crate::shard::record::{Role, TenantRecord};

/// Reading of the node's boot clock, in milliseconds. It runs through suspend, and is meaningless on another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootTime(pub u64);

impl BootTime {
    /// Returns the reading of a clock, rounded down.
    pub fn new(reading: Duration) -> Self {
        Self(millis(reading))
    }

    /// Returns the reading this much later, rounded down.
    #[must_use]
    pub fn after(self, time: Duration) -> Self {
        Self(self.0.saturating_add(millis(time)))
    }

    /// Returns the time since an earlier reading; zero since a later one.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A node's permission to serve the groups that it leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lease {
    /// Never expires; used while the directory grants no leases.
    Unbounded,
    /// There is none: the directory has granted none since the node started, or none that counts for the group.
    Absent,
    /// Expires, and is valid as of one directory version.
    Until {
        /// Expiry by this node's boot clock.
        expiry: BootTime,
        /// Directory version that it was granted as of: it is valid once the view has reached it.
        version: DirectoryVersion,
    },
}

/// Inputs of the serving check beside the tenant's record.
#[derive(Clone, Copy, Debug)]
pub struct ServingState {
    /// Whether Raft leadership was confirmed since the request arrived: for a write by the commit of its own entry in
    /// this term, for a read by the read index.
    pub leader_confirmed: bool,
    /// The node's lease.
    pub lease: Lease,
    /// Directory version that the view has reached, fences in the lease response included.
    pub view_version: DirectoryVersion,
    /// Current boot clock.
    pub now: BootTime,
    /// Fence of the directory view: no group may serve the tenant below this epoch.
    pub fence_epoch: Epoch,
}

/// Reason why a group may not answer as the home. For a committed write it means: outcome unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotServing {
    /// The group is not the owner; `to` is, if this group handed the tenant over.
    #[error("this group does not own the tenant{}", handed_over(*.to))]
    NotOwner {
        /// The heir that the tenant was handed over to.
        to: Option<GroupId>,
    },
    /// Leadership was not confirmed.
    #[error("leadership of the group is not confirmed")]
    NotLeader,
    /// There is no lease.
    #[error("this node has no lease from the directory")]
    NoLease,
    /// The lease is as of a directory version that the view has not reached.
    #[error("the lease is pending until the directory view reaches version {0}")]
    LeasePending(DirectoryVersion),
    /// The lease has expired.
    #[error("the lease has expired")]
    LeaseExpired,
    /// The directory has fenced the owned epoch.
    #[error("the tenant is fenced at epoch {0}")]
    Fenced(Epoch),
}

/// Checks whether a group with this record may answer as the tenant's home now.
pub fn check(record: &TenantRecord, standing: &ServingState) -> Result<Epoch, NotServing> {
    let epoch = record.owned().ok_or_else(|| not_owner(record))?;
    may_answer(epoch, standing)
}

fn not_owner(record: &TenantRecord) -> NotServing {
    NotServing::NotOwner {
        to: record.handed_over_to(),
    }
}

fn handed_over(to: Option<GroupId>) -> String {
    to.map_or_else(String::new, |to| format!(": it was handed over to group {to}"))
}

/// Checks whether a committed write may be acknowledged: also one at or below the last change of the epoch by a group
/// that has relinquished the tenant since.
pub fn check_committed(
    record: &TenantRecord,
    revision: stead_types::Revision,
    standing: &ServingState,
) -> Result<Epoch, NotServing> {
    match record.role {
        Role::Owner => may_answer(record.epoch, standing),
        Role::Relinquished { last, .. } if revision <= last => may_answer(record.epoch, standing),
        Role::Relinquished { .. } | Role::Follower { .. } | Role::Heir { .. } | Role::Frozen { .. } | Role::Erased => {
            Err(not_owner(record))
        }
    }
}

fn may_answer(epoch: Epoch, standing: &ServingState) -> Result<Epoch, NotServing> {
    if !standing.leader_confirmed {
        return Err(NotServing::NotLeader);
    }
    match standing.lease {
        Lease::Unbounded => {}
        Lease::Absent => return Err(NotServing::NoLease),
        // A lease of another incarnation of the directory does not count, older or newer.
        Lease::Until { version, .. }
            if standing.view_version < version || standing.view_version.incarnation != version.incarnation =>
        {
            return Err(NotServing::LeasePending(version));
        }
        Lease::Until { expiry, .. } if standing.now >= expiry => return Err(NotServing::LeaseExpired),
        Lease::Until { .. } => {}
    }
    if standing.fence_epoch > epoch {
        return Err(NotServing::Fenced(standing.fence_epoch));
    }
    Ok(epoch)
}

#[cfg(test)]
mod tests {
    use stead_types::Incarnation;

    use super::*;
    use crate::shard::record::{OperationId, PreviousRole};

    fn epoch(number: u32) -> Epoch {
        Epoch::new(number).unwrap()
    }

    fn version(index: u64) -> DirectoryVersion {
        DirectoryVersion {
            incarnation: Incarnation::FIRST,
            index,
        }
    }

    fn owner() -> TenantRecord {
        TenantRecord {
            role: Role::Owner,
            epoch: epoch(3),
            ..TenantRecord::unknown()
        }
    }

    fn standing() -> ServingState {
        ServingState {
            leader_confirmed: true,
            lease: Lease::Until {
                expiry: BootTime(100),
                version: version(7),
            },
            view_version: version(7),
            now: BootTime(99),
            fence_epoch: epoch(3),
        }
    }

    #[test]
    fn owner_with_leadership_and_lease_and_no_fence_serves() {
        assert_eq!(check(&owner(), &standing()), Ok(epoch(3)));
        let unbounded = ServingState {
            lease: Lease::Unbounded,
            view_version: version(0),
            now: BootTime(1_000),
            ..standing()
        };
        assert_eq!(check(&owner(), &unbounded), Ok(epoch(3)));
    }

    #[test]
    fn each_failed_clause_alone_refuses() {
        let other = GroupId::new(2);
        let operation = OperationId(1);
        let roles = [
            Role::Follower { home: other },
            Role::Heir {
                home: other,
                operation,
                epoch: epoch(4),
            },
            Role::Relinquished {
                operation,
                to: other,
                epoch: epoch(4),
                last: "3.9".parse().unwrap(),
            },
            Role::Frozen {
                operation,
                epoch: epoch(4),
                previous: PreviousRole::Owner,
            },
            Role::Erased,
        ];
        for role in roles {
            let to = matches!(role, Role::Relinquished { .. }).then_some(other);
            assert_eq!(
                check(&TenantRecord { role, ..owner() }, &standing()),
                Err(NotServing::NotOwner { to }),
                "{role:?}"
            );
        }
        let deposed = ServingState {
            leader_confirmed: false,
            ..standing()
        };
        assert_eq!(check(&owner(), &deposed), Err(NotServing::NotLeader));
        let behind = ServingState {
            view_version: version(6),
            ..standing()
        };
        assert_eq!(check(&owner(), &behind), Err(NotServing::LeasePending(version(7))));
        let without = ServingState {
            lease: Lease::Absent,
            ..standing()
        };
        assert_eq!(check(&owner(), &without), Err(NotServing::NoLease));
        let late = ServingState {
            now: BootTime(100),
            ..standing()
        };
        assert_eq!(check(&owner(), &late), Err(NotServing::LeaseExpired));
        let fenced = ServingState {
            fence_epoch: epoch(4),
            ..standing()
        };
        assert_eq!(check(&owner(), &fenced), Err(NotServing::Fenced(epoch(4))));
    }

    #[test]
    fn lease_replaces_neither_leadership_nor_incarnation() {
        let deposed = ServingState {
            leader_confirmed: false,
            lease: Lease::Unbounded,
            ..standing()
        };
        assert_eq!(check(&owner(), &deposed), Err(NotServing::NotLeader));
        let newer = DirectoryVersion {
            incarnation: Incarnation(2),
            index: 1,
        };
        let lease = Lease::Until {
            expiry: BootTime(100),
            version: newer,
        };
        assert_eq!(
            check(&owner(), &ServingState { lease, ..standing() }),
            Err(NotServing::LeasePending(newer))
        );
        let ahead = ServingState {
            view_version: newer,
            ..standing()
        };
        assert_eq!(check(&owner(), &ahead), Err(NotServing::LeasePending(version(7))));
    }

    #[test]
    fn write_committed_before_handover_is_acknowledged() {
        let role = Role::Relinquished {
            operation: OperationId(1),
            to: GroupId::new(2),
            epoch: epoch(4),
            last: "3.9".parse().unwrap(),
        };
        let record = TenantRecord { role, ..owner() };
        assert_eq!(
            check_committed(&record, "3.9".parse().unwrap(), &standing()),
            Ok(epoch(3))
        );
        assert_eq!(
            check_committed(&record, "3.10".parse().unwrap(), &standing()),
            Err(NotServing::NotOwner {
                to: Some(GroupId::new(2))
            })
        );
        let fenced = ServingState {
            fence_epoch: epoch(4),
            ..standing()
        };
        assert_eq!(
            check_committed(&record, "3.9".parse().unwrap(), &fenced),
            Err(NotServing::Fenced(epoch(4))),
            "the same check holds"
        );
        assert_eq!(
            check_committed(&owner(), "3.10".parse().unwrap(), &standing()),
            Ok(epoch(3))
        );
    }
}
