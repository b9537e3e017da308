//! Writing of one batch, until every row of it is written or rejected.

use std::time::Duration;

use futures::{StreamExt, stream};
use stead_client::{Condition, Error, ErrorKind, Op, Operand, Relation, Tenant};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::{columns::Row, homes::TenantLookup, window::Batch};

/// Rows of one batch that are written one by one at the same time.
const ROWS_IN_FLIGHT: usize = 16;
/// Pause before a batch is sent again.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Outcome of one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RowOutcome {
    /// It was written.
    Written,
    /// Its key had the value.
    Unchanged,
    /// It cannot be written: why.
    Rejected(String),
}

/// How a batch is written.
#[derive(Clone, Debug)]
pub(super) struct WriteMode {
    /// Whether rows of it may have been written by an earlier attempt: then each is compared first.
    pub(super) may_be_there: bool,
    /// How long to try again while nobody can answer.
    pub(super) patience: Duration,
    /// Ends the patience.
    pub(super) stop: CancellationToken,
}

/// Class of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// It passes by itself.
    Transient,
    /// It is the row's or the tenant's.
    OfRow,
    /// It would meet every row.
    Fatal,
}

/// Writes a batch; returns the outcome of each row in order.
///
/// # Errors
///
/// What ends the import: rows of the batch may have been written.
pub(super) async fn write(lookup: &TenantLookup, batch: &Batch, mode: WriteMode) -> Result<Vec<RowOutcome>, Error> {
    let until = Instant::now() + mode.patience;
    let mut one_by_one = mode.may_be_there;
    loop {
        let error = match attempt(lookup, batch, one_by_one).await {
            Ok(outcomes) => return Ok(outcomes),
            Err(error) => error,
        };
        match class(&error.kind) {
            Class::Transient if Instant::now() < until && !mode.stop.is_cancelled() => {
                let _ = timeout(RETRY_PAUSE, mode.stop.cancelled()).await;
            }
            Class::Transient | Class::Fatal => return Err(error),
            // Whose fault it is shows when the rows are written one by one; there each has its own outcome.
            Class::OfRow if one_by_one || is_of_tenant(&error.kind) => {
                return Ok(vec![RowOutcome::Rejected(error.to_string()); batch.rows.len()]);
            }
            Class::OfRow => {}
        }
        one_by_one = true;
    }
}

async fn attempt(lookup: &TenantLookup, batch: &Batch, one_by_one: bool) -> Result<Vec<RowOutcome>, Error> {
    let tenant = lookup.find().await?.handle;
    if one_by_one {
        let rows: Vec<Row> = batch.rows.iter().map(|(_, row)| row.clone()).collect();
        let rows = stream::iter(rows).map(|row| write_row(tenant.clone(), row));
        let outcomes: Vec<_> = rows.buffered(ROWS_IN_FLIGHT).collect().await;
        return outcomes.into_iter().collect();
    }
    let puts = batch.rows.iter().map(|(_, row)| put(row));
    puts.fold(tenant.txn(), stead_client::Txn::then).send().await?;
    Ok(vec![RowOutcome::Written; batch.rows.len()])
}

/// Writes a row unless its key has the value.
async fn write_row(tenant: Tenant, row: Row) -> Result<RowOutcome, Error> {
    let is_there = Condition::Compared(Relation::Equal, Operand::Value(row.value.clone()));
    let put = put(&row);
    match tenant.txn().when(row.key, is_there).otherwise(put).send().await {
        Ok(done) if done.succeeded => Ok(RowOutcome::Unchanged),
        Ok(_) => Ok(RowOutcome::Written),
        Err(error) if class(&error.kind) == Class::OfRow => Ok(RowOutcome::Rejected(error.to_string())),
        Err(error) => Err(error),
    }
}

fn put(row: &Row) -> Op {
    let (key, value) = (row.key.clone(), row.value.clone());
    match row.ttl {
        Some(ttl) => Op::put_expiring(key, value, ttl),
        None => Op::put(key, value),
    }
}

fn is_of_tenant(kind: &ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::TenantNotFound | ErrorKind::NotFound | ErrorKind::Residency { .. }
    )
}

fn class(kind: &ErrorKind) -> Class {
    match kind {
        ErrorKind::NotHome { .. }
        | ErrorKind::NoLeader
        | ErrorKind::NoLease
        | ErrorKind::TenantMoving
        | ErrorKind::Unavailable
        | ErrorKind::OutcomeUnknown { .. }
        | ErrorKind::StaleBeyondBound { .. }
        | ErrorKind::RateLimited { .. }
        | ErrorKind::DurabilityUnmet { .. }
        | ErrorKind::DeadlineExceeded
        | ErrorKind::Conflict => Class::Transient,
        ErrorKind::Invalid { .. }
        | ErrorKind::TenantNotFound
        | ErrorKind::NotFound
        | ErrorKind::PermissionDenied
        | ErrorKind::QuotaExceeded { .. }
        | ErrorKind::Residency { .. } => Class::OfRow,
        ErrorKind::AlreadyExists
        | ErrorKind::Unauthenticated
        | ErrorKind::KeyNotFound
        | ErrorKind::Forked { .. }
        | ErrorKind::Compacted { .. }
        | ErrorKind::ConditionFailed { .. }
        | ErrorKind::IdempotencyExpired { .. }
        | ErrorKind::IdempotencyKeyMissing
        | ErrorKind::NotCancellable
        | ErrorKind::Unimplemented
        | ErrorKind::Internal => Class::Fatal,
    }
}
