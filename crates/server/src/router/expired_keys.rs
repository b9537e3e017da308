//! Removal of expired keys before a linearizable read. They are removed by a change, so that every later read, on any
//! node, finds them gone as well.

use stead_raft::{Proposal, ProposeError};
use stead_state::{
    directory::Tenant,
    shard::{
        apply_result::ApplyResult,
        command::{Branches, Comparison, EXPIRED_MAX, Expire, REMOVAL_WORK, Txn},
        read::{ReadError, TenantReader},
    },
};
use stead_types::{Condition, Error, ErrorKind, NodeId, TenantTime};
use tokio::time::Instant;

use super::{
    Job, ReadRequest, Router, deadline_exceeded,
    reads::{check_active, read_error},
    request::Query,
};
use crate::host::HostedGroup;

/// Error of removing expired keys before a read.
pub(super) enum ExpiryError {
    /// Another node leads the group.
    NotLeader(Option<NodeId>),
    /// The read fails, and nothing happened.
    Failed(Error),
}

impl From<Error> for ExpiryError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Router {
    /// Removes expired keys that a linearizable read would show: the keys that it names, or, of a range, as many at a
    /// time as one command removes until none is left.
    pub(super) async fn remove_expired(&self, hosted: &HostedGroup, job: &Job<ReadRequest>) -> Result<(), ExpiryError> {
        loop {
            let logged = hosted.raft.logged_time();
            let proposals = hosted.read_if_readable(job.tenant.number, |reading| match reading {
                // An entry created now would have this time, or a later one.
                Some(reading) => removal_proposals(&reading, reading.state().time_at(logged), job),
                None => Ok(Vec::new()),
            })??;
            if proposals.is_empty() {
                return Ok(());
            }
            check_active(job)?;
            let answers = hosted.raft.propose_by(job.tenant.number.get(), proposals).await;
            let answers = answers.map_err(not_proposed)?;
            for answer in answers {
                let answer = answer.ok_or_else(deadline_exceeded)?;
                if matches!(answer, ApplyResult::GuardFailed(_)) {
                    let message = "the tenant's home has just changed: try again";
                    return Err(Error::new(ErrorKind::TenantMoving, message).into());
                }
            }
        }
    }
}

/// Returns the proposals that remove the expired keys of a read.
fn removal_proposals(
    reading: &TenantReader<'_>,
    now: TenantTime,
    job: &Job<ReadRequest>,
) -> Result<Vec<Proposal>, Error> {
    if job.request.at.is_some() {
        return Ok(Vec::new());
    }
    let named = match &job.request.query {
        Query::Get(key) => reading.expired_keys(std::slice::from_ref(key), now),
        Query::BatchGet(keys) => reading.expired_keys(keys, now),
        Query::Scan(range) => {
            let range = range.first_page();
            let may_be = range.map_or(Ok(false), |(start, end)| reading.may_have_expired(start, end, now));
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

/// Returns a proposal that removes the expired keys of a tenant, the earliest expiry first.
fn expire(tenant: &Tenant, deadline: Instant) -> Proposal {
    Proposal {
        command: Expire { tenant: tenant.number }.encode(),
        work: REMOVAL_WORK,
        deadline,
    }
}

/// Returns a transaction that names keys and changes nothing: expired ones are removed before it is evaluated.
fn touch(tenant: &Tenant, keys: &[bytes::Bytes], deadline: Instant) -> Proposal {
    let compare = |key: &bytes::Bytes| Comparison {
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

fn failed(why: ReadError) -> Error {
    read_error(why, "revision")
}

fn not_proposed(error: ProposeError) -> ExpiryError {
    match error {
        ProposeError::NotLeader { leader } => ExpiryError::NotLeader(leader),
        ProposeError::TimedOut => ExpiryError::Failed(deadline_exceeded()),
        ProposeError::Overloaded | ProposeError::Stopped | ProposeError::LeaderChanged | ProposeError::Unknown => {
            let message = "expired keys could not be removed before the read: try again";
            ExpiryError::Failed(Error::new(ErrorKind::Unavailable, message))
        }
    }
}
