//! Where a watch begins, and whether it can begin at a copy.

use stead_state::{
    directory::Tenant,
    freshness::gate,
    shard::{
        Shard,
        read::{Reading, Refused},
        record::Record,
    },
};
use stead_types::{Error, ErrorKind, GroupId, Revision, Sequence};
use tokio::time::{Duration, Instant, timeout, timeout_at};

use super::{Opening, ask::Ask};
use crate::{host::Hosted, router::refused};

/// How long a watch waits for a copy to reach where it begins, before it is sent home.
const REACH_WAIT: Duration = Duration::from_secs(1);
/// How long it waits at home for its tenant to be ready: just created, or just moved.
const READY_WAIT: Duration = Duration::from_secs(3);

/// How a copy stands to where a watch begins.
#[derive(Debug, PartialEq)]
pub(super) enum Reach {
    /// It has all that is behind this revision.
    At(Revision),
    /// It may come so far.
    NotYet {
        /// There is a copy to read.
        is_there: bool,
    },
    /// It never will: what it lacks, the home may have.
    AtHome,
}

/// Waits until a watch can begin at a copy; `NotYet` if that takes too long.
///
/// # Errors
///
/// What another copy would say too.
pub(super) async fn wait(hosted: &Hosted, opening: &Opening, group: GroupId) -> Result<Reach, Error> {
    let now = Instant::now();
    let mut applied = hosted.raft.applied();
    loop {
        applied.borrow_and_update();
        let begin = look(hosted, opening)?;
        let until = match begin {
            Reach::NotYet { is_there: false } if opening.tenant.home == group => now + READY_WAIT,
            Reach::NotYet { .. } => now + REACH_WAIT,
            Reach::At(_) | Reach::AtHome => return Ok(begin),
        };
        if !matches!(timeout_at(until, applied.changed()).await, Ok(Ok(()))) {
            return Ok(begin);
        }
    }
}

/// Looks again at a home that has not reached where a watch begins, once its leader knows that it still leads: only
/// then is the revision one that the tenant has not reached.
///
/// # Errors
///
/// That the tenant has not reached it; or that a majority does not confirm the leader.
pub(super) async fn confirmed(hosted: &Hosted, opening: &Opening) -> Result<Revision, Error> {
    if !matches!(timeout(REACH_WAIT, hosted.raft.read_index()).await, Ok(Ok(_))) {
        let message = "the tenant has not reached where the watch begins, and the home's majority does not answer";
        return Err(Error::new(ErrorKind::NoLeader, format!("{message}: try again")));
    }
    match look(hosted, opening)? {
        Reach::At(position) => Ok(position),
        Reach::NotYet { is_there: true } => {
            let field = opening.ask.begin_field();
            let message = format!("{field}: the tenant has not reached it: watch from what an answer has shown");
            Err(Error::invalid(field, message))
        }
        Reach::NotYet { is_there: false } | Reach::AtHome => Err(super::not_ready()),
    }
}

fn look(hosted: &Hosted, opening: &Opening) -> Result<Reach, Error> {
    hosted.reading(opening.tenant.number, |reading| {
        begin(reading, &opening.tenant, &opening.ask)
    })?
}

pub(super) fn begin(reading: Option<Reading<'_>>, tenant: &Tenant, ask: &Ask) -> Result<Reach, Error> {
    // Where a watch begins is a place on the lineage as the directory has it, which a copy may not have heard of yet.
    if let Some(after) = ask.after() {
        gate::check(after, tenant)?;
    }
    let Some(reading) = reading else {
        return Ok(Reach::NotYet { is_there: false });
    };
    let record = reading.record();
    if !Shard::is_readable(record) || gate::is_cut(record.live.revision, tenant) {
        return Ok(Reach::AtHome);
    }
    if !is_filled(record) {
        return Ok(Reach::NotYet { is_there: false });
    }
    match reading.resolve(ask.after()) {
        Ok(position) => Ok(Reach::At(position)),
        Err(Refused::NotReached { .. }) => Ok(Reach::NotYet { is_there: true }),
        // A copy that was seeded has history from then on only.
        Err(Refused::Compacted { .. }) if record.owned().is_none() => Ok(Reach::AtHome),
        Err(why @ (Refused::Compacted { .. } | Refused::Forked { .. } | Refused::Unreadable(_))) => {
            Err(refused(why, ask.begin_field()))
        }
    }
}

/// Tells whether a copy has what the home had at some time: one that nothing was ever fed to, and that no seed has
/// filled yet, is empty for another reason than its home.
fn is_filled(record: &Record) -> bool {
    let is_attached = record.session.is_some_and(|session| session.attached);
    record.owned().is_some() || is_attached || record.live.revision.sequence() > Sequence::ZERO
}
