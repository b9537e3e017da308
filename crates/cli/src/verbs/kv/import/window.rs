//! Rows that were read and are not yet acknowledged: which batches they form, and from where an interrupted import goes
//! on. Pure.
//!
//! # Invariants
//!
//! 1. Every row before [`Window::finished`] is acknowledged or rejected.
//! 2. Two rows of one key are never on their way at once: the later one wins, as in the file.
//! 3. At most [`ROWS_MAX`] records and [`BYTES_MAX`] bytes lie between `finished` and the last record that was read.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use stead_types::TenantName;

use super::{columns::Row, records::Position};

/// Most records that were read beyond the first row that is not acknowledged.
const ROWS_MAX: u64 = 32_768;
/// Rows after which a batch is sent as it is: the progress cannot pass a batch that waits for more rows of its tenant.
const ROWS_GROWING_MAX: u64 = 8_192;
/// Most bytes of keys and values that are not acknowledged.
const BYTES_MAX: usize = 64 << 20;
/// Most bytes of keys and values of a batch.
const BATCH_BYTES_MAX: usize = 512 << 10;

/// Rows of one tenant that are written as one change.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) tenant: TenantName,
    /// Rows in the order of the file, each with its place.
    pub(super) rows: Vec<(Position, Row)>,
    bytes: usize,
}

impl Batch {
    /// Returns the place of its first row.
    pub(super) fn first(&self) -> Position {
        self.rows[0].0
    }
}

/// Next step before a record can be taken in.
#[derive(Debug)]
pub(super) enum Step {
    /// The record is taken in.
    Taken,
    /// This batch has to be sent.
    Send(Batch),
    /// A batch on its way has to end.
    Wait,
}

/// Rows between the first that is not acknowledged and the last that was read.
#[derive(Debug)]
pub(super) struct Window {
    batch_rows_max: usize,
    /// Batches that grow.
    growing: HashMap<TenantName, Batch>,
    /// Keys of rows that are not acknowledged.
    keys: HashSet<(TenantName, Bytes)>,
    /// Places of the first rows of batches that are not acknowledged, by record.
    unfinished: BTreeMap<u64, Position>,
    /// Tenants of growing batches by the record of their first row.
    growing_by_age: BTreeMap<u64, TenantName>,
    bytes: usize,
}

impl Window {
    pub(super) fn new(batch_rows_max: usize) -> Self {
        Self {
            batch_rows_max,
            growing: HashMap::new(),
            keys: HashSet::new(),
            unfinished: BTreeMap::new(),
            growing_by_age: BTreeMap::new(),
            bytes: 0,
        }
    }

    /// Takes a row in, or says what has to happen first; then it is offered again.
    pub(super) fn offer(&mut self, position: Position, row: &Row) -> Step {
        let len = row.key.len() + row.value.len();
        match self.make_room(position, len) {
            Step::Taken => {}
            step @ (Step::Send(_) | Step::Wait) => return step,
        }
        let tenant = &row.tenant;
        let growing = self.growing.get(tenant);
        let is_key_used = self.keys.contains(&(tenant.clone(), row.key.clone()));
        let has_no_room =
            growing.is_some_and(|batch| batch.rows.len() >= self.batch_rows_max || batch.bytes + len > BATCH_BYTES_MAX);
        if is_key_used && growing.is_none() {
            return Step::Wait;
        }
        if (is_key_used || has_no_room)
            && let Some(batch) = self.take(&tenant.clone())
        {
            return Step::Send(batch);
        }
        self.push(position, row, len);
        Step::Taken
    }

    /// Passes a record that is no row, or says what has to happen first: its outcome is kept until everything before it is
    /// finished, so that it counts as a row does (invariant 3).
    pub(super) fn pass(&mut self, position: Position) -> Step {
        self.make_room(position, 0)
    }

    /// Returns the oldest batch that grows, as it is; `None`: none is left.
    pub(super) fn flush(&mut self) -> Option<Batch> {
        let (_, tenant) = self.growing_by_age.first_key_value()?;
        self.take(&tenant.clone())
    }

    /// Notes that a batch was acknowledged or rejected.
    pub(super) fn finish(&mut self, batch: &Batch) {
        self.unfinished.remove(&batch.first().record);
        self.bytes -= batch.bytes;
        for (_, row) in &batch.rows {
            self.keys.remove(&(row.tenant.clone(), row.key.clone()));
        }
    }

    /// Returns the place before which everything is acknowledged or rejected, when everything before `taken` was taken in.
    pub(super) fn finished(&self, taken: Position) -> Position {
        self.unfinished.values().next().copied().unwrap_or(taken)
    }

    fn make_room(&mut self, position: Position, len: usize) -> Step {
        let rows = |first: Option<&u64>| first.map_or(0, |first| position.record - first);
        let is_full = rows(self.unfinished.keys().next()) >= ROWS_MAX || self.bytes + len > BYTES_MAX;
        if rows(self.growing_by_age.keys().next()) >= ROWS_GROWING_MAX || is_full && !self.growing.is_empty() {
            return self.flush().map_or(Step::Wait, Step::Send);
        }
        match is_full && !self.unfinished.is_empty() {
            true => Step::Wait,
            false => Step::Taken,
        }
    }

    fn take(&mut self, tenant: &TenantName) -> Option<Batch> {
        let batch = self.growing.remove(tenant)?;
        self.growing_by_age.remove(&batch.first().record);
        Some(batch)
    }

    fn push(&mut self, position: Position, row: &Row, len: usize) {
        let tenant = &row.tenant;
        self.keys.insert((tenant.clone(), row.key.clone()));
        self.bytes += len;
        let batch = self.growing.entry(tenant.clone()).or_insert_with(|| {
            self.unfinished.insert(position.record, position);
            self.growing_by_age.insert(position.record, tenant.clone());
            Batch {
                tenant: tenant.clone(),
                rows: Vec::new(),
                bytes: 0,
            }
        });
        batch.bytes += len;
        batch.rows.push((position, row.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(record: u64) -> Position {
        Position {
            offset: 10 * record,
            line: record,
            record,
        }
    }

    fn row(tenant: &str, key: &str, len: usize) -> Row {
        Row {
            tenant: tenant.parse().unwrap(),
            key: key.as_bytes().to_vec().into(),
            value: vec![0; len].into(),
            ttl: None,
        }
    }

    fn take(window: &mut Window, record: u64, row: &Row) {
        assert!(matches!(window.offer(at(record), row), Step::Taken), "record {record}");
    }

    fn sent(step: Step) -> Batch {
        match step {
            Step::Send(batch) => batch,
            Step::Taken | Step::Wait => panic!("{step:?}"),
        }
    }

    #[test]
    fn batch_is_sent_when_it_is_full() {
        let mut window = Window::new(2);
        take(&mut window, 0, &row("a", "1", 1));
        take(&mut window, 1, &row("a", "2", 1));
        let batch = sent(window.offer(at(2), &row("a", "3", 1)));
        assert_eq!(batch.rows.len(), 2);
        take(&mut window, 2, &row("a", "3", 1));
        let large = row("a", "4", BATCH_BYTES_MAX);
        assert_eq!(sent(window.offer(at(3), &large)).rows.len(), 1);
    }

    #[test]
    fn later_row_of_a_key_waits_for_the_earlier_one() {
        let mut window = Window::new(9);
        take(&mut window, 0, &row("a", "k", 1));
        let earlier = sent(window.offer(at(1), &row("a", "k", 2)));
        assert!(matches!(window.offer(at(1), &row("a", "k", 2)), Step::Wait));
        take(&mut window, 1, &row("b", "k", 2));
        window.finish(&earlier);
        take(&mut window, 2, &row("a", "k", 2));
    }

    #[test]
    fn import_goes_on_from_the_first_row_that_is_not_acknowledged() {
        let mut window = Window::new(1);
        take(&mut window, 0, &row("a", "1", 1));
        let first = sent(window.offer(at(1), &row("a", "2", 1)));
        take(&mut window, 1, &row("a", "2", 1));
        let second = window.flush().unwrap();
        window.finish(&second);
        assert_eq!(window.finished(at(2)), at(0), "the first batch is on its way");
        window.finish(&first);
        assert_eq!(window.finished(at(2)), at(2));
    }

    #[test]
    fn batch_that_waits_for_rows_too_long_is_sent_as_it_is() {
        let mut window = Window::new(9);
        take(&mut window, 0, &row("rare", "1", 1));
        take(&mut window, ROWS_GROWING_MAX - 1, &row("a", "2", 1));
        let oldest = sent(window.offer(at(ROWS_GROWING_MAX), &row("a", "3", 1)));
        assert_eq!(oldest.tenant.to_string(), "rare");
        take(&mut window, ROWS_GROWING_MAX, &row("a", "3", 1));
    }

    #[test]
    fn rows_beyond_the_bound_wait_for_the_oldest_batch() {
        let mut window = Window::new(1);
        take(&mut window, 0, &row("slow", "1", 1));
        let oldest = window.flush().unwrap();
        assert!(matches!(window.offer(at(ROWS_MAX), &row("a", "3", 1)), Step::Wait));
        window.finish(&oldest);
        take(&mut window, ROWS_MAX, &row("a", "3", 1));
    }

    #[test]
    fn records_that_are_no_rows_are_bounded_as_rows_are() {
        let mut window = Window::new(9);
        take(&mut window, 0, &row("a", "1", 1));
        let record = |record, window: &mut Window| window.pass(at(record));
        assert!(matches!(record(ROWS_GROWING_MAX - 1, &mut window), Step::Taken));
        let oldest = sent(record(ROWS_GROWING_MAX, &mut window));
        assert!(matches!(record(ROWS_MAX - 1, &mut window), Step::Taken));
        assert!(matches!(record(ROWS_MAX, &mut window), Step::Wait));
        window.finish(&oldest);
        assert!(matches!(record(ROWS_MAX, &mut window), Step::Taken));
    }

    #[test]
    fn bytes_beyond_the_bound_wait() {
        let mut window = Window::new(1);
        for record in 0..64 {
            let large = row("a", &record.to_string(), 1 << 20);
            while let Step::Send(_) = window.offer(at(record), &large) {}
        }
        assert!(matches!(
            window.offer(at(99), &row("b", "k", 1 << 20)),
            Step::Wait | Step::Send(_)
        ));
    }
}
