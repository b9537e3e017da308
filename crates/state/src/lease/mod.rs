//! Leases: a voter's permission to serve the groups that it leads, for a time, as of one directory version.
//!
//! ```text
//!   LeaseHolder (each voter)                          LeaseGrantor (the directory's leader)
//!   begin: notes both clocks ──── Renewal ──────────> read index whose round begins now, applied
//!   answer: expiry = begin + ttl <── LeaseAnswer ──── grant: version, ttl and fences of one state, noted
//!   serving_state ──> serving::check                  fence applied: begin_wait ──> FenceWait ──> over
//! ```
//!
//! A lease is asked for before its version is fixed, and counted from there, so it has run out one ttl after its
//! version was fixed, whatever the network did. Whoever waits for one ttl and a margin after a fence was applied has
//! therefore outwaited every lease whose version is below the fence; one at or above it counts only for a holder that
//! knows the fence. Clocks are never compared, only their rates ([`clock`]).
//!
//! Everything here takes time as an argument. The node asks, the directory's leader confirms its leadership by a read
//! index, and both belong to `server`.
//!
//! # Invariants
//!
//! 1. **L1** Once the wait after fence f has passed, no group serves the tenant below f.
//! 2. A lease counts from when its own attempt was begun, never from its answer or from another attempt.
//! 3. A lease counts only once its holder's view has reached its version, or has all the fence changes up to it.
//! 4. A lease holds only for the groups that its attempt named.
//! 5. A grant is noted before it is answered, and no grant is as of a version below a fence that is being waited for.

pub mod clock;
pub mod grantor;
pub mod holder;
pub mod loss;
mod pair;
pub mod transfer;
pub mod waiter;

#[cfg(test)]
mod grantor_test;
#[cfg(test)]
mod holder_test;
#[cfg(test)]
mod schedule_test;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use stead_types::{DirectoryVersion, Epoch, GroupId, TenantNumber};

/// Most groups of one renewal: a node votes in a few.
pub const GROUPS_MAX: usize = 1_024;

/// Number of an attempt to renew, echoed in its answer. Each attempt of a holder has another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptNumber(pub u64);

/// Request for a lease, for all groups in which a node votes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Renewal {
    /// Number of the attempt.
    pub attempt: AttemptNumber,
    /// Directory version of the holder's view: fence changes after it are wanted.
    pub view: DirectoryVersion,
    /// Groups in which the node votes.
    pub groups: BTreeSet<GroupId>,
}

/// Response of the directory's leader to a [`Renewal`]: all of it is read from one state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LeaseAnswer {
    /// Number of the attempt.
    pub attempt: AttemptNumber,
    /// Directory version as of which the lease is granted: applied, at a read index confirmed after the request.
    pub version: DirectoryVersion,
    /// The ttl in force at that version.
    pub ttl: Duration,
    /// Fences that changed after the holder's version, as of `version`, of every tenant that one of the groups could
    /// serve at any version between; `None` if the directory no longer has them.
    pub fences: Option<BTreeMap<TenantNumber, Epoch>>,
}
