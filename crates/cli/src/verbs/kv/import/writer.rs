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
pub(super) enum Class {
    /// It passes by itself.
    Transient,
    /// It is the row's or the tenant's.
    OfRow,
    /// It would meet every row.
    Fatal,
}

/// Action after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// The batch is tried again after a pause.
    Again { one_by_one: bool },
    /// Its rows are written one by one, at once.
    OneByOne,
    /// No row of it can be written.
    Reject,
    /// The import ends.
    End,
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
        match next(&error, one_by_one) {
            Next::Again { .. } if Instant::now() >= until || mode.stop.is_cancelled() => return Err(error),
            Next::Again { one_by_one: compared } => {
                one_by_one = compared;
                let _ = timeout(RETRY_PAUSE, mode.stop.cancelled()).await;
            }
            Next::OneByOne => one_by_one = true,
            Next::Reject => return Ok(vec![RowOutcome::Rejected(error.to_string()); batch.rows.len()]),
            Next::End => return Err(error),
        }
    }
}

/// Returns what follows an error of a batch that was written whole, or row by row.
fn next(error: &Error, one_by_one: bool) -> Next {
    match class(&error.kind) {
        // Rows that may have been written are compared; a home that is too busy would have each row as an operation more.
        Class::Transient => Next::Again {
            one_by_one: one_by_one || !error.has_no_effect(),
        },
        Class::Fatal => Next::End,
        // Whose fault it is shows when the rows are written one by one; there each has its own outcome.
        Class::OfRow if one_by_one || is_of_tenant(&error.kind) => Next::Reject,
        Class::OfRow => Next::OneByOne,
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

pub(super) fn class(kind: &ErrorKind) -> Class {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn after(kind: ErrorKind, one_by_one: bool) -> Next {
        next(&Error::new(kind, "sent"), one_by_one)
    }

    #[test]
    fn batch_that_had_no_effect_is_sent_again_as_it_is() {
        let whole = Next::Again { one_by_one: false };
        assert_eq!(after(ErrorKind::NoLeader, false), whole);
        let busy = ErrorKind::RateLimited {
            limit: "operations-per-second".into(),
            wait: Duration::from_secs(1),
        };
        assert_eq!(after(busy, false), whole);
    }

    #[test]
    fn rows_that_may_have_been_written_are_compared_from_then_on() {
        let compared = Next::Again { one_by_one: true };
        let unknown = ErrorKind::OutcomeUnknown { key: None };
        assert_eq!(after(unknown, false), compared);
        assert_eq!(after(ErrorKind::NoLeader, true), compared);
    }

    #[test]
    fn fault_of_a_row_is_found_row_by_row() {
        let invalid = || ErrorKind::Invalid { field: "key".into() };
        assert_eq!(after(invalid(), false), Next::OneByOne);
        assert_eq!(after(invalid(), true), Next::Reject);
        assert_eq!(after(ErrorKind::TenantNotFound, false), Next::Reject);
        assert_eq!(after(ErrorKind::Unauthenticated, false), Next::End);
    }
}
