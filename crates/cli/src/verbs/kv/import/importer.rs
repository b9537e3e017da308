//! Course of an import: reads, forms batches, sends many at once, and keeps its progress.

use std::{
    collections::BTreeMap,
    io::{self, BufRead},
    time::Duration,
};

use stead_client::Error;
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    columns::Columns,
    display::Display,
    homes::Tenants,
    progress::{Counts, Progress, ProgressFile},
    records::{Position, Record, Records},
    rejects::{RECORD_SHOWN_MAX, Rejects},
    window::{Batch, Step, Window},
    writer::{self, RowOutcome, WriteMode},
};
use crate::exit::{Code, CommandError};

/// Records that are read between two looks at what has ended.
const LOOK_INTERVAL: u64 = 256;
/// Time between two writes of the progress.
const STORE_INTERVAL: Duration = Duration::from_secs(1);
/// Records beyond the last one sent that the stored progress allows to be sent.
const SENT_AHEAD: u64 = 16_384;

/// Import under way.
pub(super) struct Importer {
    pub(super) columns: Columns,
    pub(super) tenants: Tenants,
    pub(super) window: Window,
    /// Place before which every record is in the window, or has its outcome: an interruption may come after a record was
    /// read and before it is taken in.
    pub(super) taken: Position,
    pub(super) rejects: Rejects,
    pub(super) progress: Progress,
    /// Absent for standard input, which cannot be read again.
    pub(super) file: Option<ProgressFile>,
    pub(super) display: Display,
    /// Most batches that are sent at once.
    pub(super) batches_in_flight_max: usize,
    pub(super) patience: Duration,
    /// Number of the first record that no earlier attempt has sent.
    pub(super) resumed_below: u64,
    pub(super) in_flight: JoinSet<Ended>,
    /// Outcomes of records at or beyond the first that is not finished.
    pub(super) outcomes: BTreeMap<u64, Outcome>,
    pub(super) stored: Instant,
    pub(super) stop: CancellationToken,
}

/// Batch that has ended.
pub(super) struct Ended {
    batch: Batch,
    result: Result<Vec<RowOutcome>, Error>,
}

/// Outcome of a record, until everything before it is finished.
pub(super) enum Outcome {
    Row(RowOutcome, u64),
    /// The record itself is none.
    Invalid {
        line: u64,
        reason: String,
        record: Vec<u8>,
    },
}

impl Importer {
    /// Imports the rest of the input; returns the counts of the whole.
    ///
    /// # Errors
    ///
    /// What ended the import early: its progress is kept.
    pub(super) async fn run<R: BufRead>(&mut self, records: &mut Records<R>) -> Result<Counts, CommandError> {
        let result = self.import(records).await;
        // Batches on their way are waited for: what they did is known then.
        while let Some(ended) = self.in_flight.join_next().await {
            let _ = self.note(ended);
        }
        self.advance()?;
        self.store()?;
        self.display.finish();
        result?;
        if let Some(file) = &self.file {
            file.remove().map_err(|error| self.unwritable(&error))?;
        }
        Ok(self.progress.counts)
    }

    async fn import<R: BufRead>(&mut self, records: &mut Records<R>) -> Result<(), CommandError> {
        while let Some(record) = records.next().map_err(unreadable)? {
            self.take(&record).await?;
            self.taken = records.position();
            if record.position.record % LOOK_INTERVAL == 0 {
                self.look().await?;
            }
        }
        self.taken = records.position();
        while let Some(batch) = self.window.flush() {
            self.send(batch).await?;
        }
        while !self.in_flight.is_empty() {
            self.wait().await?;
            self.look().await?;
        }
        Ok(())
    }

    async fn take(&mut self, record: &Record) -> Result<(), CommandError> {
        let position = record.position;
        let row = match self.columns.row(record) {
            Ok(row) => row,
            Err(reason) => {
                self.enter(|window| window.pass(position)).await?;
                let shown = record.raw[..record.raw.len().min(RECORD_SHOWN_MAX)].to_vec();
                let invalid = Outcome::Invalid {
                    line: position.line + 1,
                    reason,
                    record: shown,
                };
                self.outcomes.insert(position.record, invalid);
                return Ok(());
            }
        };
        self.enter(|window| window.offer(position, &row)).await
    }

    /// Sends and waits until the window has taken a record in.
    async fn enter(&mut self, offer: impl Fn(&mut Window) -> Step) -> Result<(), CommandError> {
        loop {
            match offer(&mut self.window) {
                Step::Taken => return Ok(()),
                Step::Send(batch) => self.send(batch).await?,
                Step::Wait => self.wait().await?,
            }
        }
    }

    async fn send(&mut self, batch: Batch) -> Result<(), CommandError> {
        while self.in_flight.len() >= self.batches_in_flight_max {
            self.wait().await?;
        }
        let last = batch.rows.last().map_or(0, |(position, _)| position.record);
        if last >= self.progress.sent_below {
            self.progress.sent_below = last + 1 + SENT_AHEAD;
            self.store()?;
        }
        let mode = WriteMode {
            may_be_there: batch.first().record < self.resumed_below,
            patience: self.patience,
            stop: self.stop.clone(),
        };
        let lookup = self.tenants.get(&batch.tenant);
        self.in_flight.spawn(async move {
            let result = writer::write(&lookup, &batch, mode).await;
            Ended { batch, result }
        });
        Ok(())
    }

    /// Waits until a batch has ended.
    async fn wait(&mut self) -> Result<(), CommandError> {
        tokio::select! {
            Some(ended) = self.in_flight.join_next() => self.note(ended),
            () = self.stop.cancelled() => Err(interrupted()),
        }
    }

    /// Takes in what has ended, and shows and stores the progress now and then.
    async fn look(&mut self) -> Result<(), CommandError> {
        // Tasks run on this thread, too.
        tokio::task::yield_now().await;
        if self.stop.is_cancelled() {
            return Err(interrupted());
        }
        while let Some(ended) = self.in_flight.try_join_next() {
            self.note(ended)?;
        }
        self.advance()?;
        if self.stored.elapsed() >= STORE_INTERVAL {
            self.store()?;
        }
        Ok(())
    }

    fn note(&mut self, ended: Result<Ended, tokio::task::JoinError>) -> Result<(), CommandError> {
        let ended = ended.map_err(|error| CommandError::new(Code::Failed, format!("a batch was not sent: {error}")))?;
        // A batch that has failed stays unfinished: the next attempt begins with it.
        let outcomes = ended.result.map_err(CommandError::from)?;
        for ((position, _), outcome) in ended.batch.rows.iter().zip(outcomes) {
            let outcome = Outcome::Row(outcome, position.line + 1);
            self.outcomes.insert(position.record, outcome);
        }
        self.window.finish(&ended.batch);
        Ok(())
    }

    /// Counts the records that are finished, and reports those that were rejected.
    fn advance(&mut self) -> Result<(), CommandError> {
        let finished = self.window.finished(self.taken);
        let later = self.outcomes.split_off(&finished.record);
        for outcome in std::mem::replace(&mut self.outcomes, later).into_values() {
            let counts = &mut self.progress.counts;
            let (line, reason, record) = match outcome {
                Outcome::Row(RowOutcome::Written, _) => {
                    counts.written += 1;
                    continue;
                }
                Outcome::Row(RowOutcome::Unchanged, _) => {
                    counts.unchanged += 1;
                    continue;
                }
                Outcome::Row(RowOutcome::Rejected(reason), line) => (line, reason, Vec::new()),
                Outcome::Invalid { line, reason, record } => (line, reason, record),
            };
            counts.rejected += 1;
            self.rejects
                .push(line, &reason, &record)
                .map_err(|error| self.unwritable(&error))?;
        }
        self.progress.finished = finished;
        self.display.show(&self.progress);
        Ok(())
    }

    fn store(&mut self) -> Result<(), CommandError> {
        self.stored = Instant::now();
        self.progress.rejects_len = self.rejects.sync().map_err(|error| self.unwritable(&error))?;
        let Some(file) = &self.file else {
            return Ok(());
        };
        file.store(&self.progress).map_err(|error| self.unwritable(&error))
    }

    fn unwritable(&self, error: &io::Error) -> CommandError {
        let progress = self.file.as_ref().map(|file| file.path().display().to_string());
        let files = progress.unwrap_or_default();
        let rejects = self.rejects.path().display();
        CommandError::new(Code::Failed, format!("{rejects} or {files} cannot be written: {error}"))
            .hint("--progress and --rejects name other places")
    }
}

fn unreadable(error: io::Error) -> CommandError {
    CommandError::new(Code::Failed, format!("the input cannot be read: {error}"))
}

fn interrupted() -> CommandError {
    CommandError::new(Code::Interrupted, "interrupted")
}
