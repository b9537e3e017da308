//! What a linearizable read would show though it is past its end: removed first, as a change, so that whoever reads later,
//! anywhere, finds it gone as well.

use stead_raft::{Proposal, ProposeError};
use stead_state::{
    directory::Tenant,
    shard::{
        answer::Answer as Outcome,
        command::{Branches, Compare, EXPIRED_MAX, Expire, REMOVAL_WORK, Txn},
        read::{Reading, Refused},
    },
};
use stead_types::{Condition, Error, ErrorKind, NodeId, TenantTime};
use tokio::time::Instant;

use super::{
    Job, Read, Router,
    reads::{check_wanted, refused},
    request::Query,
    too_late, writes,
};
use crate::host::Hosted;

/// Why a read cannot be made.
pub(super) enum NotRemoved {
    /// Another node leads the group.
    NotLeader(Option<NodeId>),
    /// The read fails, and nothing happened.
    Failed(Error),
}

impl From<Error> for NotRemoved {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Router {
    /// Removes what a linearizable read would show past its end: the keys that it names, or as many at a time as one command
    /// removes until none of its range is left.
    pub(super) async fn remove_ended(&self, hosted: &Hosted, job: &Job<Read>) -> Result<(), NotRemoved> {
        loop {
            let logged = hosted.raft.logged_time();
            let proposals = hosted.readable(job.tenant.number, |reading| match reading {
                // An entry that were made here now would have this time, or a later one.
                Some(reading) => removals(&reading, reading.state().time_at(logged), job),
                None => Ok(Vec::new()),
            })??;
            if proposals.is_empty() {
                return Ok(());
            }
            check_wanted(job)?;
            let answers = hosted.raft.propose_by(job.tenant.number.get(), proposals).await;
            let answers = answers.map_err(not_proposed)?;
            for answer in answers {
                let answer = answer.ok_or_else(too_late)?;
                if matches!(writes::outcome(answer), Outcome::Void(_)) {
                    let message = "the tenant's home has just changed: try again";
                    return Err(Error::new(ErrorKind::TenantMoving, message).into());
                }
            }
        }
    }
}

/// Returns the commands that remove what a read would show past its end.
fn removals(reading: &Reading<'_>, now: TenantTime, job: &Job<Read>) -> Result<Vec<Proposal>, Error> {
    if job.ask.at.is_some() {
        return Ok(Vec::new());
    }
    let named = match &job.ask.query {
        Query::Get(key) => reading.past_end(std::slice::from_ref(key), now),
        Query::BatchGet(keys) => reading.past_end(keys, now),
        Query::Scan(range) => {
            let range = range.first_page();
            let may_be = range.map_or(Ok(false), |range| reading.may_be_past_end(range, now));
            let remove = |may_be: bool| may_be.then(|| expire(&job.tenant, job.call.deadline));
            return may_be
                .map(|may_be| remove(may_be).into_iter().collect())
                .map_err(failed);
        }
    };
    let parts = named.map_err(failed)?;
    let touch = |keys: &[bytes::Bytes]| touch(&job.tenant, keys, job.call.deadline);
    Ok(parts.chunks(EXPIRED_MAX).map(touch).collect())
}

/// Removes the keys of a tenant that were to end first.
fn expire(tenant: &Tenant, deadline: Instant) -> Proposal {
    Proposal {
        command: Expire { tenant: tenant.number }.encode(),
        work: REMOVAL_WORK,
        deadline,
    }
}

/// Names keys in a transaction that changes nothing: those that are past their end are removed before it is evaluated.
fn touch(tenant: &Tenant, keys: &[bytes::Bytes], deadline: Instant) -> Proposal {
    let compare = |key: &bytes::Bytes| Compare {
        key: key.clone(),
        condition: Condition::Exists,
    };
    let branches = Branches {
        compares: keys.iter().map(compare).collect(),
        ..Branches::default()
    };
    Proposal {
        command: Txn::new(tenant.number, None, branches).encode(),
        work: REMOVAL_WORK,
        deadline,
    }
}

fn failed(why: Refused) -> Error {
    refused(why, "revision")
}

fn not_proposed(error: ProposeError) -> NotRemoved {
    match error {
        ProposeError::NotLeader { leader } => NotRemoved::NotLeader(leader),
        ProposeError::TimedOut => NotRemoved::Failed(too_late()),
        ProposeError::Overloaded | ProposeError::Stopped | ProposeError::LeaderChanged | ProposeError::Unknown => {
            let message = "keys past their end could not be removed before the read: try again";
            NotRemoved::Failed(Error::new(ErrorKind::Unavailable, message))
        }
    }
}
