//! Queries: what a copy answers to a read. Pure.

use std::time::Duration;

use bytes::Bytes;
use stead_api::proto::v1::{
    Answer, BatchGetResponse, BatchGetResult, GetResponse, ResponseHeader, ScanResponse, answer::Response,
};
use stead_state::{
    freshness::gate,
    shard::{
        apply_result::Version,
        read::{ReadError, TenantReader},
    },
};
use stead_types::{
    Error, ErrorKind, Revision,
    limits::{PAGE_KEYS_MAX, RESPONSE_LEN_MAX},
};

use crate::{
    response::{self, HeaderPosition, Origin},
    router::{
        job::Job,
        request::{Query, Range, ReadRequest},
    },
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

/// Runs a query, or the next page of a count.
pub(super) fn run(
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
        ReadError::Forked(lost) => gate::forked(lost),
        ReadError::Compacted { oldest } => {
            let message = format!("{field}: history begins at {oldest}: begin there or later, or at the newest");
            Error::new(ErrorKind::Compacted { oldest }, message)
        }
        ReadError::Unreadable(_) => Error::new(ErrorKind::Internal, "cannot read this node's storage"),
    }
}
