//! Calls on their way into the audit log: counted here, so that callers who repeat them cost the directory little.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};

use parking_lot::Mutex;
use stead_replication::SharedDirectoryView;
use stead_state::{
    authorization::Caller,
    directory::{CALL_RECORDS_MAX, CallRecord, Command, RecordedOutcome},
};
use tokio_util::sync::CancellationToken;

use crate::directory::DirectoryClient;

/// Interval at which counts go to the directory.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);
/// Most different calls that are counted until the next report; the metrics count all.
const CALLS_MAX: usize = 256;

/// CallCounts of calls since the last report.
#[derive(Clone, Default)]
pub(crate) struct CallLog(Arc<Mutex<CallCounts>>);

/// CallCounts by outcome, caller, method and reason.
type CallCounts = BTreeMap<Key, u64>;

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    outcome: RecordedOutcome,
    who: String,
    method: &'static str,
    reason: String,
}

impl CallLog {
    /// CallCounts a call.
    pub(crate) fn record(&self, outcome: RecordedOutcome, caller: &Caller, method: &'static str, reason: &str) {
        let key = Key {
            outcome,
            who: caller.subject.to_string(),
            method,
            reason: reason.to_owned(),
        };
        let mut counts = self.0.lock();
        if counts.len() < CALLS_MAX || counts.contains_key(&key) {
            *counts.entry(key).or_default() += 1;
        }
    }

    /// Takes the counts as records of a node: those of emergencies first, then the most frequent ones.
    fn take(&self, node: &str) -> Vec<CallRecord> {
        let counts = std::mem::take(&mut *self.0.lock());
        let mut records: Vec<CallRecord> = counts
            .into_iter()
            .map(|(key, count)| CallRecord {
                who: key.who,
                method: key.method.to_owned(),
                reason: key.reason,
                node: node.to_owned(),
                count,
                outcome: key.outcome,
            })
            .collect();
        records.sort_by_key(|record| (std::cmp::Reverse(record.outcome), std::cmp::Reverse(record.count)));
        records.truncate(CALL_RECORDS_MAX);
        records
    }

    /// Reports the counts to the directory, until the token fires. What the directory does not take is lost here, and in
    /// the metrics and logs all the same.
    pub(crate) async fn report(
        self,
        node: String,
        directory: Arc<DirectoryClient>,
        view: SharedDirectoryView,
        stop: CancellationToken,
    ) -> Result<(), Infallible> {
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(REPORT_INTERVAL) => {}
            }
            let records = self.take(&node);
            // Older voters cannot read the command.
            if records.is_empty() || !view.read(|view| view.settings().has_roles()) {
                continue;
            }
            if let Err(error) = directory.propose(&Command::RecordCalls(records)).await {
                tracing::warn!(%error, "records of calls did not reach the audit log");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_calls_are_one_record_and_records_are_bounded() {
        let log = CallLog::default();
        let caller = |name: &str| Caller {
            subject: format!("client/{name}").parse().unwrap(),
            roles: Vec::new(),
            is_emergency: false,
        };
        for _ in 0..1_000 {
            log.record(RecordedOutcome::Refused, &caller("loud"), "a/B", "needs a role");
        }
        for number in 0..1_000 {
            log.record(
                RecordedOutcome::Refused,
                &caller(&number.to_string()),
                "a/B",
                "needs a role",
            );
        }
        log.record(RecordedOutcome::Refused, &caller("loud"), "a/B", "needs a role");
        assert_eq!(log.0.lock().len(), CALLS_MAX);
        let records = log.take("n1");
        assert_eq!(records.len(), CALL_RECORDS_MAX);
        assert_eq!((records[0].who.as_str(), records[0].count), ("client/loud", 1_001));
        assert!(log.take("n1").is_empty());
    }
}
