//! Freshness gate: whether a replica may answer a read: `(token | bound, revision, freshness, lineage) -> Serve |
//! WaitFor | Forward | Refuse`.
//!
//! # Invariants
//!
//! 1. A token is served if and only if the replica's own data holds its revision: on the view's lineage, and at or
//!    below the replica's revision on the replica's own lineage.
//! 2. An epoch above the view's recorded one may be an unrecorded move: not reached, never forked.
//! 3. A replica whose own newest revision was cut, as its view knows, shows nothing of the tenant.
//! 4. A bound is served only by a staleness that was measured, and is within it.

use std::time::Duration;

use stead_types::{
    Error, ErrorKind, Revision, Sequence,
    planted::{self, Bug},
};

use crate::directory::Tenant;
use crate::lineage::{Lineage, LostRevisions, RevisionStatus};

/// Freshness that a read requires of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FreshnessLevel {
    /// At or past the revision of the session token.
    Session(Revision),
    /// At most this stale.
    Bounded(Duration),
    /// Any: whatever this replica has.
    Local,
}

/// State of the replica that a read is decided for.
#[derive(Clone, Copy, Debug)]
pub struct ReplicaState<'a> {
    /// Its last revision.
    pub revision: Revision,
    /// Lineage of its own history.
    pub lineage: &'a Lineage,
    /// Its staleness bound, if it is known.
    pub staleness: Option<Duration>,
}

/// Decision about a read at a replica.
#[derive(Clone, Debug, PartialEq)]
pub enum ReadDecision {
    /// Answer it from the replica.
    Serve,
    /// Answer it once the replica has reached this revision; forward it if that takes too long.
    WaitFor(Revision),
    /// Forward it to the home.
    Forward,
    /// Answer with this error: the revision was cut, or is too old to tell.
    Refuse(Error),
}

/// Decides about a read of a tenant as the directory view has it; `at` is the older revision that the read names, if
/// any.
pub fn decide(level: FreshnessLevel, at: Option<Revision>, tenant: &Tenant, replica: ReplicaState<'_>) -> ReadDecision {
    if is_cut(replica.revision, tenant) {
        return ReadDecision::Forward;
    }
    if let Some(Err(error)) = at.map(|at| check_revision(at, tenant)) {
        return ReadDecision::Refuse(error);
    }
    match level {
        FreshnessLevel::Local => ReadDecision::Serve,
        FreshnessLevel::Bounded(bound) => match replica.staleness {
            Some(staleness) if staleness <= bound || planted::is(Bug::BoundIgnored) => ReadDecision::Serve,
            Some(_) | None => ReadDecision::Forward,
        },
        FreshnessLevel::Session(token) => session(token, tenant, replica),
    }
}

fn session(token: Revision, tenant: &Tenant, replica: ReplicaState<'_>) -> ReadDecision {
    if let Err(error) = check_revision(token, tenant) {
        return ReadDecision::Refuse(error);
    }
    let mut reached = replica.revision;
    if planted::is(Bug::SessionGateEarly) {
        reached = Revision::from_u64(reached.to_u64() + 1);
    }
    // On one lineage sequences order revisions. Of a token that was brought to what a promotion has kept only the sequence
    // is exact.
    let is_empty = reached.sequence() == Sequence::ZERO;
    let has_epoch = (token.epoch() <= replica.lineage.epoch() && !is_empty) || token <= reached;
    let is_reached = token.sequence() <= reached.sequence() && has_epoch;
    let held = is_reached && replica.lineage.status_of(token) == RevisionStatus::OnLineage;
    if held {
        ReadDecision::Serve
    } else {
        ReadDecision::WaitFor(token)
    }
}

/// Checks a revision that a caller has seen against the tenant's lineage: a token, a condition, the start of a watch, a
/// page's revision, a read at an older revision.
///
/// # Errors
///
/// `FORKED` if it was cut, `COMPACTED` if it is too old to tell.
pub fn check_revision(revision: Revision, tenant: &Tenant) -> Result<(), Error> {
    match status_of(revision, tenant) {
        RevisionStatus::OnLineage => Ok(()),
        RevisionStatus::Cut { .. } => match tenant.lineage.lost(revision) {
            Some(lost) => Err(forked(lost)),
            None => Ok(()),
        },
        RevisionStatus::TooOld => {
            let runs = tenant.lineage.runs();
            let oldest = runs.iter().find(|run| !run.closed).map_or(Revision::ZERO, |run| {
                let before = runs
                    .iter()
                    .rev()
                    .find(|run| run.closed)
                    .map_or(Sequence::ZERO, |closed| closed.end);
                Revision::new(run.first, before.next().unwrap_or(Sequence::MAX))
            });
            let message = format!("revision {revision} is too old to tell whether it was cut; the oldest is {oldest}");
            Err(Error::new(ErrorKind::Compacted { oldest }, message))
        }
    }
}

/// Returns the error of a revision that a promotion cut.
pub fn forked(LostRevisions { first, last, kept }: LostRevisions) -> Error {
    let message = format!(
        "revisions {first} to {last} were cut by a promotion, and what was read up to {kept} still counts: read again before \
         you write"
    );
    let epoch = last.epoch();
    let kind = ErrorKind::Forked {
        epoch,
        first,
        last,
        kept,
    };
    Error::new(kind, message)
}

/// Returns the status of a revision on the tenant's lineage. Invariant 2: an epoch above the recorded one is not
/// looked up.
fn status_of(revision: Revision, tenant: &Tenant) -> RevisionStatus {
    if revision.epoch() > tenant.epoch {
        RevisionStatus::OnLineage
    } else {
        tenant.lineage.status_of(revision)
    }
}

/// Tells whether a promotion cut a replica's own newest revision: it shows nothing of the tenant then (invariant 3).
pub fn is_cut(newest: Revision, tenant: &Tenant) -> bool {
    matches!(status_of(newest, tenant), RevisionStatus::Cut { .. })
}
