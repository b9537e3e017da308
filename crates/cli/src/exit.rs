//! Exit codes, and what a failure prints: for people two lines, what is wrong and what to do; for programs JSON.

use std::{io::Write, process::ExitCode};

use serde_json::{Value, json};
use stead_api::status::{operation_retry_after, to_operation_error};
use stead_types::{Error, ErrorKind};

use crate::output::Output;

/// Documented: scripts depend on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Code {
    Failed = 1,
    Usage = 2,
    Connect = 3,
    NotFound = 4,
    Conflict = 5,
    NotAllowed = 6,
    Unknown = 7,
    Unhealthy = 8,
    Interrupted = 130,
}

/// What `stead help exit-codes` says.
pub(crate) const TABLE: &str = "\
Exit codes:
    0  done
    1  failed
    2  the command or what it asks for is wrong as written
    3  cannot connect, or nobody who can answer is there
    4  not found: tenant, key, region, node, group
    5  conflict: a precondition, an etag, a name in use, a revision that is gone
    6  not allowed: residency, a quota, a rate limit
    7  outcome unknown, or the deadline passed
    8  what was looked at is unhealthy
  130  interrupted";

/// A verb that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    code: Code,
    what: String,
    todo: Option<String>,
    /// What a node or the client has told, if it is theirs.
    error: Option<Box<Error>>,
}

impl Failure {
    pub(crate) fn new(code: Code, what: impl Into<String>) -> Self {
        Self {
            code,
            what: what.into(),
            todo: None,
            error: None,
        }
    }

    /// Says what to do about it.
    pub(crate) fn hint(mut self, todo: impl Into<String>) -> Self {
        self.todo = Some(todo.into());
        self
    }

    /// Says how to find out what has become of a change whose outcome is unknown.
    pub(crate) fn if_unknown(self, todo: &str) -> Self {
        let error = self.error.as_ref().map(|error| &error.kind);
        if matches!(error, Some(ErrorKind::OutcomeUnknown { .. })) {
            self.hint(todo)
        } else {
            self
        }
    }

    /// Returns what is wrong.
    pub(crate) fn text(&self) -> &str {
        &self.what
    }

    /// Returns how the process ends.
    pub(crate) fn code(&self) -> Code {
        self.code
    }

    /// Says the same in other words.
    pub(crate) fn reworded(mut self, words: impl FnOnce(String) -> String) -> Self {
        self.what = words(self.what);
        self
    }

    /// Prints what is wrong and what to do, as the output's form asks for, and returns the code.
    pub(crate) fn report(self, output: Output) -> ExitCode {
        let mut stderr = std::io::stderr().lock();
        // Nobody is there to be told that standard error is gone.
        if output == Output::Json {
            let _ = writeln!(stderr, "{}", self.json());
        } else {
            let _ = writeln!(stderr, "error: {}", self.what);
            if let Some(todo) = self.todo {
                let _ = writeln!(stderr, "  try: {todo}");
            }
        }
        ExitCode::from(self.code as u8)
    }

    /// Returns it for programs. The reason is a node's where one has spoken, else it stands for the exit code.
    fn json(&self) -> Value {
        let told = self.error.as_deref().map(to_operation_error).unwrap_or_default();
        let reason = match (told.reason.as_str(), self.code) {
            ("", Code::Failed) => "FAILED",
            ("", Code::Usage) => "INVALID",
            ("", Code::Connect) => "UNAVAILABLE",
            ("", Code::NotFound) => "NOT_FOUND",
            ("", Code::Conflict) => "CONFLICT",
            ("", Code::NotAllowed) => "NOT_ALLOWED",
            ("", Code::Unknown) => "OUTCOME_UNKNOWN",
            ("", Code::Unhealthy) => "UNHEALTHY",
            ("", Code::Interrupted) => "INTERRUPTED",
            (reason, _) => reason,
        };
        let retry_after = operation_retry_after(&told).map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        json!({
            "error": {
                "reason": reason,
                "message": self.what,
                "metadata": told.metadata,
                "retryAfterMs": retry_after,
            }
        })
    }
}

impl From<clap::Error> for Failure {
    fn from(wrong: clap::Error) -> Self {
        let text = wrong.render().to_string();
        let what = text.strip_prefix("error: ").unwrap_or(&text);
        Self::new(Code::Usage, what.trim_end())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let (code, todo) = of(&error.kind);
        let todo = if let ErrorKind::OutcomeUnknown { key: Some(key) } = &error.kind {
            let again = format!("the same command with --idempotency-key {key}");
            Some(format!("{again}: it is done once at most, and its outcome is shown"))
        } else {
            todo.map(Into::into)
        };
        Self {
            code,
            what: error.message.clone(),
            todo,
            error: Some(Box::new(error)),
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(Code::Failed, format!("{error:#}"))
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(Code::Failed, error.to_string())
    }
}

fn of(kind: &ErrorKind) -> (Code, Option<&'static str>) {
    match kind {
        ErrorKind::Invalid { .. } | ErrorKind::Unimplemented => (Code::Usage, None),
        ErrorKind::Unavailable | ErrorKind::NoLeader | ErrorKind::NoLease | ErrorKind::TenantMoving => (
            Code::Connect,
            Some("see whether the node runs, or name another one with --endpoint host:port or --context"),
        ),
        ErrorKind::TenantNotFound => (Code::NotFound, Some("`stead tenant list` shows the names there are")),
        ErrorKind::NotFound => (
            Code::NotFound,
            Some("`stead region list`, `stead node list` and `stead group list` show what there is"),
        ),
        ErrorKind::KeyNotFound => (Code::NotFound, None),
        ErrorKind::AlreadyExists => (Code::Conflict, Some("choose another name, or look at the one there is")),
        ErrorKind::ConditionFailed { .. } => (Code::Conflict, Some("read the key again and decide anew")),
        ErrorKind::NotHome { .. } | ErrorKind::Conflict | ErrorKind::IdempotencyExpired { .. } => {
            (Code::Conflict, None)
        }
        ErrorKind::Compacted { .. } | ErrorKind::Forked { .. } => (
            Code::Conflict,
            Some("leave out --revision and --token to read what is there now"),
        ),
        ErrorKind::StaleBeyondBound { .. } => (Code::Conflict, Some("allow more with --max-staleness")),
        ErrorKind::Residency { .. } => (
            Code::NotAllowed,
            Some("choose another region, or change the residency; `stead region list` shows jurisdictions"),
        ),
        ErrorKind::QuotaExceeded { .. } | ErrorKind::RateLimited { .. } => (Code::NotAllowed, None),
        ErrorKind::OutcomeUnknown { .. } | ErrorKind::IdempotencyKeyMissing => {
            (Code::Unknown, Some("look at what there is before you ask again"))
        }
        ErrorKind::DurabilityUnmet { .. } => (
            Code::Unknown,
            Some("nothing: it is written in the home region, and others will have it later"),
        ),
        ErrorKind::DeadlineExceeded => (Code::Unknown, Some("allow more time with --timeout")),
        ErrorKind::Internal => (Code::Failed, Some("the node's log says more")),
    }
}

#[cfg(test)]
mod tests {
    use stead_types::{ClientId, IdempotencyKey, Revision, TenantTime};

    use super::*;

    #[test]
    fn an_unknown_outcome_is_asked_for_again_under_the_key_that_it_names() {
        let key = IdempotencyKey {
            client: ClientId(7),
            sequence: 3,
            first_sent: TenantTime(9),
        };
        let unknown = |key| Failure::from(Error::new(ErrorKind::OutcomeUnknown { key }, "it may have happened"));
        let hint = unknown(Some(key)).todo.unwrap();
        assert!(hint.contains(&format!("--idempotency-key {key}")), "{hint}");
        let hint = unknown(None).if_unknown("`stead tenant get acme`").todo;
        assert_eq!(hint.as_deref(), Some("`stead tenant get acme`"));
        let other = Failure::from(Error::new(ErrorKind::TenantNotFound, "")).if_unknown("never");
        assert_ne!(other.todo.as_deref(), Some("never"));
    }

    #[test]
    fn a_program_is_told_the_reason_and_its_metadata() {
        let current = Revision::ZERO;
        let failed = Failure::from(Error::new(ErrorKind::ConditionFailed { current }, "no"));
        let told = json!({
            "error": {
                "reason": "CONDITION_FAILED",
                "message": "no",
                "metadata": { "current_revision": "0.0" },
                "retryAfterMs": null,
            }
        });
        assert_eq!(failed.json(), told);
        let waits = Failure::from(Error::new(ErrorKind::NoLeader, "")).json();
        assert_eq!(waits["error"]["retryAfterMs"], 100);
        let own = Failure::new(Code::Unhealthy, "node 3 is not ready").json();
        assert_eq!(own["error"]["reason"], "UNHEALTHY");
    }
}
