//! Linearizable reads at home: one read index for all that came together.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, future::join_all, stream::FuturesUnordered};
use stead_api::proto::v1::{
    Answer, BatchGetResponse, BatchGetResult, GetResponse, ResponseHeader, Role, ScanResponse, answer::Response,
};
use stead_raft::ReadIndexError;
use stead_state::shard::{
    answer::Version,
    read::{Reading, Refused},
};
use stead_types::{
    Error, ErrorKind, GroupId, Revision,
    limits::{ANSWER_LEN_MAX, PAGE_KEYS_MAX},
};
use tokio::time::{Instant, timeout_at};

use super::{
    Job, READY_WAIT, Read, Router, by_deadline,
    call::cancelled,
    ended::NotRemoved,
    request::{Query, Range},
    too_late,
    written::forked,
};
use crate::{
    host::Hosted,
    metrics::ServedFrom,
    reply::{self, Origin, Seen},
};

/// What a read came to.
#[expect(
    clippy::large_enum_variant,
    reason = "there is one at a time, and it is nearly always the large one"
)]
pub(super) enum Found {
    /// An answer.
    Answer(Answer),
    /// More pages must be counted: so many so far, behind this key, all at this revision.
    Count(u64, Bytes, Revision),
    /// The copy has not reached the revision asked for.
    NotReached,
}

impl Router {
    /// Serves linearizable reads of one group, and answers each: at about its own deadline at the latest, however long
    /// others that came with it would wait.
    pub(super) async fn read(self: &Arc<Self>, group: GroupId, jobs: Vec<Job<Read>>) {
        let Some(hosted) = self.host.groups.get(&group).cloned() else {
            return;
        };
        let parts = by_deadline(self.wanted(jobs), |job| job.call.deadline).into_iter();
        join_all(parts.map(|jobs| self.read_part(&hosted, group, jobs))).await;
    }

    async fn read_part(self: &Arc<Self>, hosted: &Hosted, group: GroupId, jobs: Vec<Job<Read>>) {
        let deadline = jobs
            .iter()
            .map(|job| job.call.deadline)
            .max()
            .unwrap_or_else(Instant::now);
        match timeout_at(deadline, hosted.raft.read_index()).await {
            Ok(Ok(_)) => {
                let mut reading: FuturesUnordered<_> = jobs.into_iter().map(|job| self.read_one(hosted, job)).collect();
                while reading.next().await.is_some() {}
            }
            Ok(Err(ReadIndexError::NotLeader { leader })) => {
                jobs.into_iter()
                    .for_each(|job| self.forward_to_leader(job, group, leader));
            }
            Ok(Err(ReadIndexError::NoQuorum)) => jobs.into_iter().for_each(|job| self.no_leader(job)),
            Ok(Err(error @ (ReadIndexError::Overloaded | ReadIndexError::Stopped))) => {
                let error = Error::new(ErrorKind::Unavailable, format!("{error}: try again"));
                jobs.into_iter().for_each(|job| self.refuse(job.call, &error));
            }
            Err(_) => jobs.into_iter().for_each(|job| self.refuse(job.call, &too_late())),
        }
    }

    /// Reads after a read index, then makes the serving check.
    async fn read_one(&self, hosted: &Hosted, job: Job<Read>) {
        let number = job.tenant.number;
        let until = job.call.deadline.min(Instant::now() + READY_WAIT);
        if !hosted.owns(number) && !self.owned(hosted, number, until).await {
            let message = "the tenant's home is not ready to serve it yet: try again";
            return self.refuse(job.call, &Error::new(ErrorKind::TenantMoving, message));
        }
        if let Err(error) = check_wanted(&job) {
            return self.refuse(job.call, &error);
        }
        match self.remove_ended(hosted, &job).await {
            Ok(()) => {}
            Err(NotRemoved::NotLeader(leader)) => {
                let home = job.tenant.home;
                return self.forward_to_leader(job, home, leader);
            }
            Err(NotRemoved::Failed(error)) => return self.refuse(job.call, &error),
        }
        let found = self.find(hosted, &job, Role::Home, Some(Duration::ZERO)).await;
        match (found, self.serves(hosted, number)) {
            (Ok(Some(answer)), Ok(())) => {
                self.host.counts.request(super::op(&job.call), ServedFrom::Home);
                job.call.reply.send(answer);
            }
            (Ok(None), Ok(())) => {
                let message = "revision: the tenant has not reached it: ask for one that an answer has shown";
                self.refuse(job.call, &Error::invalid("revision", message));
            }
            (Err(error), _) | (Ok(_), Err(error)) => self.refuse(job.call, &error),
        }
    }

    /// Reads; `None` if the copy has not reached the revision asked for.
    pub(super) async fn find(
        &self,
        hosted: &Hosted,
        job: &Job<Read>,
        role: Role,
        staleness: Option<Duration>,
    ) -> Result<Option<Answer>, Error> {
        let node = &self.host.config.node;
        let forwarded = job.call.forwarded.is_some();
        let origin = Origin {
            region: &node.region,
            node: node.id,
            role,
            forwarded,
        };
        let mut counted: Option<(u64, Bytes, Revision)> = None;
        loop {
            let reading = |reading: Option<Reading<'_>>| {
                let gone = || {
                    Error::new(
                        ErrorKind::TenantMoving,
                        "the tenant is not held here any more: try again",
                    )
                };
                let reading = reading.ok_or_else(gone)?;
                query(&reading, job, origin, staleness, counted.take())
            };
            match hosted.readable(job.tenant.number, reading)?? {
                Found::Answer(answer) => return Ok(Some(answer)),
                Found::NotReached => return Ok(None),
                Found::Count(count, after, revision) => {
                    check_wanted(job)?;
                    counted = Some((count, after, revision));
                    tokio::task::yield_now().await;
                }
            }
        }
    }
}

/// Tells whether somebody still waits for the answer.
pub(super) fn check_wanted(job: &Job<Read>) -> Result<(), Error> {
    if job.call.reply.is_unwanted() {
        return Err(cancelled());
    }
    if job.call.deadline <= Instant::now() {
        return Err(too_late());
    }
    Ok(())
}

fn query(
    reading: &Reading<'_>,
    job: &Job<Read>,
    origin: Origin<'_>,
    staleness: Option<Duration>,
    counted: Option<(u64, Bytes, Revision)>,
) -> Result<Found, Error> {
    let at = reading.evaluated();
    let seen = |revision| Seen {
        tenant: job.tenant.number,
        revision,
        at,
        staleness,
    };
    let header = |revision| Some(reply::header(origin, seen(revision)));
    let found = match &job.ask.query {
        Query::Get(key) => reading.get(key, job.ask.at).map(|version| {
            let item = version.map(|version| reply::key_value(key.clone(), version));
            Response::Get(GetResponse {
                header: header(job.ask.at.unwrap_or(at.revision)),
                item,
            })
        }),
        Query::BatchGet(keys) => match reading.batch_get(keys, job.ask.at, ANSWER_LEN_MAX) {
            Ok(None) => return Err(too_large()),
            Ok(Some(batch)) => Ok(batch_get(keys, header(batch.revision), batch.versions)),
            Err(refused) => Err(refused),
        },
        Query::Scan(range) if range.count_only => return count(reading, job, range, counted, &header),
        Query::Scan(range) => {
            let scan = range.scan(job.tenant.number, job.ask.at)?;
            reading.scan(&scan).map(|page| {
                let next = page
                    .next
                    .map(|after| Range::token(job.tenant.number, &scan, page.revision, after));
                let items: Vec<_> = page
                    .entries
                    .into_iter()
                    .map(|(key, v)| reply::key_value(key, v))
                    .collect();
                Response::Scan(ScanResponse {
                    header: header(page.revision),
                    count: items.len() as u64,
                    items,
                    next_page_token: next.unwrap_or_default(),
                })
            })
        }
    };
    outcome(found)
}

fn batch_get(keys: &[Bytes], header: Option<ResponseHeader>, versions: Vec<Option<Version>>) -> Response {
    let item = |(key, version): (&Bytes, Option<Version>)| BatchGetResult {
        item: version.map(|version| reply::key_value(key.clone(), version)),
    };
    let results = keys.iter().zip(versions).map(item).collect();
    Response::BatchGet(BatchGetResponse { header, results })
}

fn too_large() -> Error {
    let message = format!("keys: they hold more than {ANSWER_LEN_MAX} bytes together; ask for fewer of them at a time");
    Error::invalid("keys", message)
}

/// Counts one page more.
fn count(
    reading: &Reading<'_>,
    job: &Job<Read>,
    range: &Range,
    counted: Option<(u64, Bytes, Revision)>,
    header: &dyn Fn(Revision) -> Option<ResponseHeader>,
) -> Result<Found, Error> {
    let mut scan = range.scan(job.tenant.number, job.ask.at)?;
    scan.keys_max = PAGE_KEYS_MAX as usize;
    let mut before = 0;
    if let Some((count, after, revision)) = counted {
        (before, scan.after, scan.at) = (count, Some(after), Some(revision));
    }
    let page = match reading.scan(&scan) {
        Ok(page) => page,
        Err(refused) => return outcome(Err(refused)),
    };
    let count = before + page.entries.len() as u64;
    Ok(match page.next {
        Some(after) => Found::Count(count, after, page.revision),
        None => {
            let scan = ScanResponse {
                header: header(page.revision),
                count,
                ..ScanResponse::default()
            };
            Found::Answer(reply::response(Response::Scan(scan)))
        }
    })
}

fn outcome(found: Result<Response, Refused>) -> Result<Found, Error> {
    match found {
        Ok(response) => Ok(Found::Answer(reply::response(response))),
        Err(Refused::NotReached { .. }) => Ok(Found::NotReached),
        Err(other) => Err(refused(other, "revision")),
    }
}

/// The error of a read that was refused; `field` says where its revision stands in the request.
pub(crate) fn refused(why: Refused, field: &str) -> Error {
    match why {
        Refused::NotReached { reached } => {
            let message = format!("{field}: the tenant has reached {reached}: ask for what an answer has shown");
            Error::invalid(field, message)
        }
        Refused::Forked { epoch, kept } => forked(epoch, kept),
        Refused::Compacted { oldest } => {
            let message = format!("{field}: history begins at {oldest}: begin there or later, or at the newest");
            Error::new(ErrorKind::Compacted { oldest }, message)
        }
        Refused::Unreadable(_) => Error::new(ErrorKind::Internal, "this node's storage could not be read"),
    }
}
