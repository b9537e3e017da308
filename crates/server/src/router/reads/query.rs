//! Queries: what a copy answers to a read. Pure.

use std::time::Duration;

use bytes::Bytes;
use stead_api::proto::v1::{
    Answer, BatchGetResponse, BatchGetResult, GetResponse, KeyValue, ResponseHeader, ScanResponse, answer::Response,
};
use stead_state::{
    freshness::gate,
    shard::{
        apply_result::Version,
        read::{ReadError, Scan, ScanPage, TenantReader},
    },
};
use stead_types::{Error, ErrorKind, Revision, limits::RESPONSE_LEN_MAX};

use crate::{
    response::{self, HeaderPosition, Origin},
    router::{
        job::Job,
        request::{Query, Range, ReadRequest},
    },
};

/// Most rows that one page examines, beyond which it ends without a key if it has none: about a second of work.
const PAGE_ROWS_MAX: usize = 500_000;
/// Bytes by which a row that is examined and not returned is charged, beside its key.
const ROW_LEN: u64 = 64;

/// Progress of a page, or of a count, over several steps.
#[derive(Debug, Default)]
pub(super) struct ScanProgress {
    /// Items of the page so far; none of a count.
    items: Vec<KeyValue>,
    /// Bytes of their keys and values.
    len: usize,
    /// Keys that were found so far.
    count: u64,
    /// Rows that were examined so far.
    rows: usize,
    /// Where the next step begins; `None` before the first one.
    next: Option<ScanPosition>,
}

/// Position between two steps.
#[derive(Debug)]
struct ScanPosition {
    /// The last key that was examined.
    after: Bytes,
    /// The revision at which all steps read.
    revision: Revision,
}

/// Reader of the rows of a scan, which knows the group's ranges without a live key.
pub(super) type ReadScan<'a> = &'a dyn Fn(&TenantReader<'_>, &Scan) -> Result<ScanPage, ReadError>;

/// Outcome of a read.
#[expect(
    clippy::large_enum_variant,
    reason = "there is one at a time, and it is nearly always the large one"
)]
pub(super) enum ReadOutcome {
    /// An answer.
    Answer(Answer),
    /// A scan with more steps to go.
    Partial(ScanProgress),
    /// The copy has not reached the revision asked for.
    NotReached,
}

/// Runs a query, or the next step of a scan.
pub(super) fn run(
    reading: &TenantReader<'_>,
    read_scan: ReadScan<'_>,
    job: &Job<ReadRequest>,
    origin: Origin<'_>,
    staleness: Option<Duration>,
    progress: ScanProgress,
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
        Query::Scan(range) => {
            let mut scan = range.scan(job.tenant.number, job.request.at)?;
            prepare(&mut scan, range, &progress);
            let page = match read_scan(reading, &scan) {
                Ok(page) => page,
                Err(refused) => return read_outcome(Err(refused)),
            };
            let revision = page.revision;
            let progress = match add_step(progress, page, &scan, job, range.count_only) {
                Step::More(progress) => return Ok(ReadOutcome::Partial(progress)),
                Step::Last(progress) => progress,
            };
            let token = progress
                .next
                .map(|next| Range::token(job.tenant.number, &scan, revision, next.after));
            Ok(Response::Scan(ScanResponse {
                header: header(revision),
                count: progress.count,
                items: progress.items,
                next_page_token: token.unwrap_or_default(),
            }))
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

/// Limits the next step of a scan to what the page may still have.
fn prepare(scan: &mut Scan, range: &Range, progress: &ScanProgress) {
    if range.count_only {
        (scan.keys_max, scan.len_max) = (usize::MAX, usize::MAX);
    } else {
        scan.keys_max = scan.keys_max.saturating_sub(progress.items.len());
        scan.len_max = scan.len_max.saturating_sub(progress.len);
    }
    if let Some(next) = &progress.next {
        (scan.after, scan.at) = (Some(next.after.clone()), Some(next.revision));
    }
}

/// A page after one more step.
enum Step {
    /// It has room, and there is more to examine.
    More(ScanProgress),
    /// It is complete.
    Last(ScanProgress),
}

/// Adds a step to a page, and charges the tenant for the rows that are not returned.
fn add_step(mut progress: ScanProgress, page: ScanPage, scan: &Scan, job: &Job<ReadRequest>, counts: bool) -> Step {
    let found = page.entries.len();
    let len = |(key, version): &(Bytes, Version)| key.len() + version.value.bytes.len();
    let found_len: usize = page.entries.iter().map(len).sum();
    let mut unreturned = page.skipped_len + page.examined.saturating_sub(found) as u64 * ROW_LEN;
    if counts {
        unreturned += found_len as u64 + found as u64 * ROW_LEN;
    } else {
        let items = page.entries.into_iter();
        progress
            .items
            .extend(items.map(|(key, version)| response::key_value(key, version)));
    }
    job.call.responder.charge_work(unreturned);
    progress.count += found as u64;
    progress.len += found_len;
    progress.rows += page.examined;
    let revision = page.revision;
    progress.next = page.next.map(|after| ScanPosition { after, revision });
    let has_room = found < scan.keys_max && found_len < scan.len_max && (counts || progress.rows < PAGE_ROWS_MAX);
    match progress.next {
        Some(_) if has_room => Step::More(progress),
        Some(_) | None => Step::Last(progress),
    }
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
