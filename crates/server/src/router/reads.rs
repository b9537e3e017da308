//! Linearizable reads at home: concurrent reads of a group share one read index.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, future::join_all, stream::FuturesUnordered};
use stead_api::proto::v1::{
    Answer, BatchGetResponse, BatchGetResult, GetResponse, ResponseHeader, Role, ScanResponse, answer::Response,
};
use stead_raft::ReadIndexError;
use stead_state::shard::{
    apply_result::Version,
    read::{ReadError, TenantReader},
};
use stead_types::{
    Error, ErrorKind, GroupId, Revision,
    limits::{PAGE_KEYS_MAX, RESPONSE_LEN_MAX},
};
use tokio::time::{Instant, timeout_at};

use super::{
    Job, READY_WAIT, ReadRequest, Router,
    call::cancelled_error,
    deadline_exceeded,
    expired_keys::ExpiryError,
    group_by_deadline,
    request::{Query, Range},
    write_response::forked,
};
use crate::{
    host::HostedGroup,
    metrics::ServedFrom,
    response::{self, HeaderPosition, Origin},
};

/// Progress of a count over several pages.
pub(super) struct CountProgress {
    /// Keys counted so far.
    count: u64,
    /// The last key that was counted.
    after: Bytes,
    /// The revision at which all pages are read.
    revision: Revision,
}

/// Outcome of a read.
#[expect(
    clippy::large_enum_variant,
    reason = "there is one at a time, and it is nearly always the large one"
)]
pub(super) enum ReadOutcome {
    /// An answer.
    Answer(Answer),
    /// A count with more pages to go.
    PartialCount(CountProgress),
    /// The copy has not reached the revision asked for.
    NotReached,
}

impl Router {
    /// Serves linearizable reads of one group. Each is answered at about its own deadline at the latest, however long
    /// others that came with it would wait.
    pub(super) async fn serve_linearizable_reads(self: &Arc<Self>, group: GroupId, jobs: Vec<Job<ReadRequest>>) {
        let Some(hosted) = self.host.groups.get(&group).cloned() else {
            return;
        };
        let parts = group_by_deadline(self.reject_inactive(jobs), |job| job.call.deadline).into_iter();
        join_all(parts.map(|jobs| self.read_after_index(&hosted, group, jobs))).await;
    }

    async fn read_after_index(self: &Arc<Self>, hosted: &HostedGroup, group: GroupId, jobs: Vec<Job<ReadRequest>>) {
        let deadline = jobs
            .iter()
            .map(|job| job.call.deadline)
            .max()
            .unwrap_or_else(Instant::now);
        match timeout_at(deadline, hosted.raft.read_index()).await {
            Ok(Ok(_)) => {
                let mut reading: FuturesUnordered<_> =
                    jobs.into_iter().map(|job| self.read_at_home(hosted, job)).collect();
                while reading.next().await.is_some() {}
            }
            Ok(Err(ReadIndexError::NotLeader { leader })) => {
                jobs.into_iter()
                    .for_each(|job| self.forward_to_leader(job, group, leader));
            }
            Ok(Err(ReadIndexError::NoQuorum)) => jobs.into_iter().for_each(|job| self.reject_no_leader(job)),
            Ok(Err(error @ (ReadIndexError::Overloaded | ReadIndexError::Stopped))) => {
                let error = Error::new(ErrorKind::Unavailable, format!("{error}: try again"));
                jobs.into_iter().for_each(|job| self.reject(job.call, &error));
            }
            Err(_) => jobs
                .into_iter()
                .for_each(|job| self.reject(job.call, &deadline_exceeded())),
        }
    }

    /// Serves one read after a read index was confirmed, then makes the serving check.
    async fn read_at_home(&self, hosted: &HostedGroup, job: Job<ReadRequest>) {
        let number = job.tenant.number;
        let until = job.call.deadline.min(Instant::now() + READY_WAIT);
        if !hosted.owns(number) && !self.wait_until_owner(hosted, number, until).await {
            let message = "the tenant's home is not ready to serve it yet: try again";
            return self.reject(job.call, &Error::new(ErrorKind::TenantMoving, message));
        }
        if let Err(error) = check_active(&job) {
            return self.reject(job.call, &error);
        }
        match self.remove_expired(hosted, &job).await {
            Ok(()) => {}
            Err(ExpiryError::NotLeader(leader)) => {
                let home = job.tenant.home;
                return self.forward_to_leader(job, home, leader);
            }
            Err(ExpiryError::Failed(error)) => return self.reject(job.call, &error),
        }
        let found = self.execute_read(hosted, &job, Role::Home, Some(Duration::ZERO)).await;
        match (found, self.check_serving(hosted, number)) {
            (Ok(Some(answer)), Ok(())) => {
                self.host.metrics.request(super::op_label(&job.call), ServedFrom::Home);
                job.call.responder.send(answer);
            }
            (Ok(None), Ok(())) => {
                let message = "revision: the tenant has not reached it: use one that a response has returned";
                self.reject(job.call, &Error::invalid("revision", message));
            }
            (Err(error), _) | (Ok(_), Err(error)) => self.reject(job.call, &error),
        }
    }

    /// Executes a read; `None` if the replica has not reached the requested revision.
    pub(super) async fn execute_read(
        &self,
        hosted: &HostedGroup,
        job: &Job<ReadRequest>,
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
        let mut counted: Option<CountProgress> = None;
        loop {
            let reading = |reading: Option<TenantReader<'_>>| {
                let gone = || Error::new(ErrorKind::TenantMoving, "this node no longer has the tenant: try again");
                let reading = reading.ok_or_else(gone)?;
                run_query(&reading, job, origin, staleness, counted.take())
            };
            match hosted.read_if_readable(job.tenant.number, reading)?? {
                ReadOutcome::Answer(answer) => return Ok(Some(answer)),
                ReadOutcome::NotReached => return Ok(None),
                ReadOutcome::PartialCount(progress) => {
                    check_active(job)?;
                    counted = Some(progress);
                    tokio::task::yield_now().await;
                }
            }
        }
    }
}

/// Fails if the call was cancelled or has exceeded its deadline.
pub(super) fn check_active(job: &Job<ReadRequest>) -> Result<(), Error> {
    if job.call.responder.is_abandoned() {
        return Err(cancelled_error());
    }
    if job.call.deadline <= Instant::now() {
        return Err(deadline_exceeded());
    }
    Ok(())
}

fn run_query(
    reading: &TenantReader<'_>,
    job: &Job<ReadRequest>,
    origin: Origin<'_>,
    staleness: Option<Duration>,
    counted: Option<CountProgress>,
) -> Result<ReadOutcome, Error> {
    let at = reading.evaluation_point();
    let tenant_position = |revision| HeaderPosition {
        tenant: job.tenant.number,
        revision,
        at,
        staleness,
    };
    let header = |revision| Some(response::header(origin, tenant_position(revision)));
    let found = match &job.request.query {
        Query::Get(key) => reading.get(key, job.request.at).map(|version| {
            let item = version.map(|version| response::key_value(key.clone(), version));
            Response::Get(GetResponse {
                header: header(job.request.at.unwrap_or(at.revision)),
                item,
            })
        }),
        Query::BatchGet(keys) => match reading.batch_get(keys, job.request.at, RESPONSE_LEN_MAX) {
            Ok(None) => return Err(batch_too_large()),
            Ok(Some(batch)) => Ok(batch_get(keys, header(batch.revision), batch.versions)),
            Err(refused) => Err(refused),
        },
        Query::Scan(range) if range.count_only => return count_page(reading, job, range, counted, &header),
        Query::Scan(range) => {
            let scan = range.scan(job.tenant.number, job.request.at)?;
            reading.scan(&scan).map(|page| {
                let next = page
                    .next
                    .map(|after| Range::token(job.tenant.number, &scan, page.revision, after));
                let items: Vec<_> = page
                    .entries
                    .into_iter()
                    .map(|(key, v)| response::key_value(key, v))
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
    read_outcome(found)
}

fn batch_get(keys: &[Bytes], header: Option<ResponseHeader>, versions: Vec<Option<Version>>) -> Response {
    let item = |(key, version): (&Bytes, Option<Version>)| BatchGetResult {
        item: version.map(|version| response::key_value(key.clone(), version)),
    };
    let results = keys.iter().zip(versions).map(item).collect();
    Response::BatchGet(BatchGetResponse { header, results })
}

fn batch_too_large() -> Error {
    let message =
        format!("keys: their values have more than {RESPONSE_LEN_MAX} bytes together; read fewer keys at a time");
    Error::invalid("keys", message)
}

/// Counts one more page.
fn count_page(
    reading: &TenantReader<'_>,
    job: &Job<ReadRequest>,
    range: &Range,
    counted: Option<CountProgress>,
    header: &dyn Fn(Revision) -> Option<ResponseHeader>,
) -> Result<ReadOutcome, Error> {
    let mut scan = range.scan(job.tenant.number, job.request.at)?;
    scan.keys_max = PAGE_KEYS_MAX as usize;
    let mut before = 0;
    if let Some(progress) = counted {
        (before, scan.after, scan.at) = (progress.count, Some(progress.after), Some(progress.revision));
    }
    let page = match reading.scan(&scan) {
        Ok(page) => page,
        Err(refused) => return read_outcome(Err(refused)),
    };
    let count = before + page.entries.len() as u64;
    Ok(match page.next {
        Some(after) => ReadOutcome::PartialCount(CountProgress {
            count,
            after,
            revision: page.revision,
        }),
        None => {
            let scan = ScanResponse {
                header: header(page.revision),
                count,
                ..ScanResponse::default()
            };
            ReadOutcome::Answer(response::answer(Response::Scan(scan)))
        }
    })
}

fn read_outcome(found: Result<Response, ReadError>) -> Result<ReadOutcome, Error> {
    match found {
        Ok(response) => Ok(ReadOutcome::Answer(response::answer(response))),
        Err(ReadError::NotReached { .. }) => Ok(ReadOutcome::NotReached),
        Err(other) => Err(read_error(other, "revision")),
    }
}

/// Converts the error of a read; `field` names the request field that has the revision.
pub(crate) fn read_error(why: ReadError, field: &str) -> Error {
    match why {
        ReadError::NotReached { reached } => {
            let message =
                format!("{field}: the tenant has reached only {reached}: use a revision that a response has returned");
            Error::invalid(field, message)
        }
        ReadError::Forked { epoch, kept } => forked(epoch, kept),
        ReadError::Compacted { oldest } => {
            let message = format!("{field}: history begins at {oldest}: begin there or later, or at the newest");
            Error::new(ErrorKind::Compacted { oldest }, message)
        }
        ReadError::Unreadable(_) => Error::new(ErrorKind::Internal, "cannot read this node's storage"),
    }
}
