//! Calls in the audit log: operators' calls that a node refused, and calls with emergency credentials. They are counted,
//! because a caller could repeat them at will.

use super::{Directory, DirectoryOutcome, DirectoryResult, text};
use crate::codec::{Malformed, Reader, Writer};

/// Most records of one command; a node leaves out what exceeds them.
pub const CALL_RECORDS_MAX: usize = 16;

/// Reason why calls are recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RecordedOutcome {
    /// They were refused.
    Refused,
    /// They were made with an emergency credential.
    Emergency,
}

/// Calls of one method by one caller at one node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallRecord {
    /// Identity of the caller.
    pub who: String,
    /// Method that was called.
    pub method: String,
    /// Role that was missing, if they were refused.
    pub reason: String,
    /// Name of the node.
    pub node: String,
    /// Number of calls.
    pub count: u64,
    /// Why they are recorded.
    pub outcome: RecordedOutcome,
}

impl CallRecord {
    pub(super) fn encode(&self, w: &mut Writer) {
        for part in [&self.who, &self.method, &self.reason, &self.node] {
            text::write(w, part);
        }
        w.varint(self.count).u8(match self.outcome {
            RecordedOutcome::Refused => 0,
            RecordedOutcome::Emergency => 1,
        });
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            who: text::read(r)?,
            method: text::read(r)?,
            reason: text::read(r)?,
            node: text::read(r)?,
            count: r.varint()?,
            outcome: match r.u8()? {
                0 => RecordedOutcome::Refused,
                1 => RecordedOutcome::Emergency,
                2.. => return Err(r.malformed()),
            },
        })
    }

    /// Returns the action of the audit record, whose subject is the method.
    pub(super) fn action(&self) -> String {
        let what = match self.outcome {
            RecordedOutcome::Refused => "refused",
            RecordedOutcome::Emergency => "emergency credential used",
        };
        match self.count {
            1 => format!("{what} at {}", self.node),
            count => format!("{what} {count} times at {}", self.node),
        }
    }
}

impl Directory {
    /// Checks what audit records of calls need; nothing else changes.
    pub(super) fn record_calls(&self) -> DirectoryResult {
        self.view.settings().check_roles()?;
        Ok(DirectoryOutcome::Done)
    }
}
