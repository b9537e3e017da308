//! Whether a replica may answer a read: `(token | bound, revision, freshness, lineage) -> Serve | WaitFor | Forward |
//! Forked`.
//!
//! # Invariants
//!
//! 1. A token is served if and only if the replica's own data holds its revision: on the view's lineage, and at or below
//!    the replica's revision on the replica's own lineage.
//! 2. An epoch above the view's recorded one may be an unrecorded move: not reached, never forked.
//! 3. A replica whose own newest revision was cut, as its view knows, shows nothing of the tenant.
//! 4. A bound is served only by a staleness that was measured, and is within it.

use std::time::Duration;

use stead_types::{
    Error, ErrorKind, Revision, Sequence,
    planted::{self, Bug},
};

use crate::directory::Tenant;
use crate::lineage::{Lineage, Standing};

/// How fresh a read must be, for a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// At or past what the session has seen.
    Session(Revision),
    /// At most this far behind.
    Bounded(Duration),
    /// Whatever is here.
    Local,
}

/// What a replica holds.
#[derive(Clone, Copy, Debug)]
pub struct Replica<'a> {
    /// Its last revision.
    pub revision: Revision,
    /// The revisions that its own history belongs to.
    pub lineage: &'a Lineage,
    /// How far it can be behind, if that is known.
    pub staleness: Option<Duration>,
}

/// What to do with a read.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Answer it from the replica.
    Serve,
    /// Answer it once the replica has reached this revision, which stays the same; forward it if that takes too long.
    WaitFor(Revision),
    /// Send it home.
    Forward,
    /// Answer with this error: the revision was cut, or is too old to tell.
    Refuse(Error),
}

/// Decides about a read of a tenant, as the view says the tenant is; `at` is the older revision that it names, if any.
pub fn read(level: Level, at: Option<Revision>, tenant: &Tenant, replica: Replica<'_>) -> Verdict {
    if is_cut(replica.revision, tenant) {
        return Verdict::Forward;
    }
    if let Some(Err(error)) = at.map(|at| check(at, tenant)) {
        return Verdict::Refuse(error);
    }
    match level {
        Level::Local => Verdict::Serve,
        Level::Bounded(bound) => match replica.staleness {
            Some(staleness) if staleness <= bound || planted::is(Bug::BoundIgnored) => Verdict::Serve,
            Some(_) | None => Verdict::Forward,
        },
        Level::Session(token) => session(token, tenant, replica),
    }
}

fn session(token: Revision, tenant: &Tenant, replica: Replica<'_>) -> Verdict {
    if let Err(error) = check(token, tenant) {
        return Verdict::Refuse(error);
    }
    let mut reached = replica.revision;
    if planted::is(Bug::SessionGateEarly) {
        reached = Revision::from_u64(reached.to_u64() + 1);
    }
    let held = token <= reached && replica.lineage.standing(token) == Standing::On;
    if held { Verdict::Serve } else { Verdict::WaitFor(token) }
}

/// Checks a revision that a caller has seen against the tenant's lineage: a token, a condition, the start of a watch, a
/// page's revision, a read at an older revision.
///
/// # Errors
///
/// `FORKED` if it was cut, `COMPACTED` if it is too old to tell.
pub fn check(revision: Revision, tenant: &Tenant) -> Result<(), Error> {
    match standing(revision, tenant) {
        Standing::On => Ok(()),
        Standing::Cut { kept } => {
            let epoch = revision.epoch();
            let first = Revision::new(epoch, kept.next().unwrap_or(Sequence::MAX));
            let message = format!(
                "revisions {first} to {revision} of tenant {} were cut by a promotion",
                tenant.name
            );
            let last = revision;
            Err(Error::new(ErrorKind::Forked { epoch, first, last }, message))
        }
        Standing::Closed => {
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

/// Invariant 2: what is above the recorded epoch is not looked up.
fn standing(revision: Revision, tenant: &Tenant) -> Standing {
    if revision.epoch() > tenant.epoch {
        Standing::On
    } else {
        tenant.lineage.standing(revision)
    }
}

/// Tells whether a replica's own newest revision was cut: it shows nothing of the tenant then (invariant 3).
pub fn is_cut(newest: Revision, tenant: &Tenant) -> bool {
    matches!(standing(newest, tenant), Standing::Cut { .. })
}
