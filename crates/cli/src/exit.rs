//! Exit codes and error output: for people two lines, the error and a hint; for programs JSON.

use std::{io::Write, process::ExitCode};

use serde_json::{Value, json};
use stead_api::status::{operation_retry_after, to_operation_error};
use stead_types::{Error, ErrorKind};

use crate::output::Output;

/// Exit code. Documented: scripts depend on them.
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

/// Text of `stead help exit-codes`.
pub(crate) const TABLE: &str = "\
Exit codes:
    0  done
    1  failed
    2  the command or what it asks for is wrong as written
    3  cannot connect, or nobody who can answer is there
    4  not found: tenant, key, region, node, group, operation
    5  conflict: a precondition, an etag, a name in use, a revision that is gone,
       an operation in flight or cancelled
    6  not allowed: no credential, no role, residency, a quota, a rate limit
    7  outcome unknown, or the deadline passed
    8  what was looked at is unhealthy
  130  interrupted";

/// Error of a command, with its exit code.
#[derive(Debug)]
pub(crate) struct CommandError {
    code: Code,
    message: String,
    hint: Option<String>,
    /// Error of a node or the client, if it is theirs.
    error: Option<Box<Error>>,
}

impl CommandError {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: None,
            error: None,
        }
    }

    /// Adds a hint about what to do.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds a hint about how to look up a change whose outcome is unknown.
    pub(crate) fn if_unknown(self, hint: &str) -> Self {
        let error = self.error.as_ref().map(|error| &error.kind);
        if matches!(error, Some(ErrorKind::OutcomeUnknown { .. })) {
            self.hint(hint)
        } else {
            self
        }
    }

    /// Returns the error message.
    pub(crate) fn text(&self) -> &str {
        &self.message
    }

    /// Returns the exit code.
    pub(crate) fn code(&self) -> Code {
        self.code
    }

    /// Replaces the error message by a function of it.
    pub(crate) fn map_message(mut self, map: impl FnOnce(String) -> String) -> Self {
        self.message = map(self.message);
        self
    }

    /// Prints error and hint in the output format, and returns the exit code.
    pub(crate) fn report(self, output: Output) -> ExitCode {
        let mut stderr = std::io::stderr().lock();
        // There is nowhere to report that standard error is closed.
        if output == Output::Json {
            let _ = writeln!(stderr, "{}", self.json());
        } else {
            let _ = writeln!(stderr, "error: {}", self.message);
            if let Some(hint) = self.hint {
                let _ = writeln!(stderr, "  try: {hint}");
            }
        }
        ExitCode::from(self.code as u8)
    }

    /// Returns the error as JSON. The reason is the node's where there is one, otherwise it stands for the exit code.
    fn json(&self) -> Value {
        let details = self.error.as_deref().map(to_operation_error).unwrap_or_default();
        let reason = match (details.reason.as_str(), self.code) {
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
        let retry_after =
            operation_retry_after(&details).map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        json!({
            "error": {
                "reason": reason,
                "message": self.message,
                "metadata": details.metadata,
                "retryAfterMs": retry_after,
            }
        })
    }
}

impl From<clap::Error> for CommandError {
    fn from(error: clap::Error) -> Self {
        let text = error.render().to_string();
        let message = text.strip_prefix("error: ").unwrap_or(&text);
        Self::new(Code::Usage, message.trim_end())
    }
}

impl From<Error> for CommandError {
    fn from(error: Error) -> Self {
        let (code, hint) = classify(&error.kind);
        let hint = if let ErrorKind::OutcomeUnknown { key: Some(key) } = &error.kind {
            let again = format!("the same command with --idempotency-key {key}");
            Some(format!("{again}: it is done once at most, and its outcome is shown"))
        } else {
            hint.map(Into::into)
        };
        Self {
            code,
            message: error.message.clone(),
            hint,
            error: Some(Box::new(error)),
        }
    }
}

impl From<anyhow::Error> for CommandError {
    fn from(error: anyhow::Error) -> Self {
        Self::new(Code::Failed, format!("{error:#}"))
    }
}

impl From<std::io::Error> for CommandError {
    fn from(error: std::io::Error) -> Self {
        Self::new(Code::Failed, error.to_string())
    }
}

fn classify(kind: &ErrorKind) -> (Code, Option<&'static str>) {
    match kind {
        ErrorKind::Invalid { .. } | ErrorKind::Unimplemented => (Code::Usage, None),
        ErrorKind::Unavailable => (
            Code::Connect,
            Some("check that the node is running, or name another one with --endpoint host:port or --context"),
        ),
        ErrorKind::NoLeader => (
            Code::Connect,
            Some("`stead group status`, which shows the nodes of a group that answer: a majority has to"),
        ),
        ErrorKind::NoLease => (
            Code::Connect,
            Some(
                "`stead region status`, which shows leases: a home that cannot reach the directory for a lease ttl stops",
            ),
        ),
        ErrorKind::TenantMoving => (
            Code::Connect,
            Some("the same again in a moment; `stead tenant where` shows its move or promotion"),
        ),
        ErrorKind::Unauthenticated => (
            Code::NotAllowed,
            Some("name a token with --token-file, or choose a context that has one; `stead auth token` makes one"),
        ),
        ErrorKind::PermissionDenied => (
            Code::NotAllowed,
            Some("`stead auth whoami` shows your roles; a cluster operator grants more with `stead role grant`"),
        ),
        ErrorKind::TenantNotFound => (
            Code::NotFound,
            Some("`stead tenant list`, which shows the names there are"),
        ),
        ErrorKind::NotFound => (
            Code::NotFound,
            Some(
                "`stead region list`, `stead node list`, `stead group list` or `stead operation list`: they show what there is",
            ),
        ),
        ErrorKind::KeyNotFound => (Code::NotFound, None),
        ErrorKind::AlreadyExists => (Code::Conflict, Some("choose another name, or look at the one there is")),
        ErrorKind::ConditionFailed { .. } => (Code::Conflict, Some("read the key again and decide anew")),
        ErrorKind::NotHome { .. }
        | ErrorKind::Conflict
        | ErrorKind::NotCancellable
        | ErrorKind::IdempotencyExpired { .. } => (Code::Conflict, None),
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
            Some(
                "the same with its idempotency key, if you must know that another region has it: it is written at home",
            ),
        ),
        ErrorKind::DeadlineExceeded => (Code::Unknown, Some("allow more time with --timeout")),
        ErrorKind::Internal => (Code::Failed, Some("the node's log, which says more")),
    }
}

#[cfg(test)]
mod tests {
    use stead_types::{ClientId, IdempotencyKey, Revision, TenantTime};

    use super::*;

    #[test]
    fn unknown_outcome_hint_names_idempotency_key() {
        let key = IdempotencyKey {
            client: ClientId(7),
            sequence: 3,
            first_sent: TenantTime(9),
        };
        let unknown = |key| CommandError::from(Error::new(ErrorKind::OutcomeUnknown { key }, "it may have happened"));
        let hint = unknown(Some(key)).hint.unwrap();
        assert!(hint.contains(&format!("--idempotency-key {key}")), "{hint}");
        let hint = unknown(None).if_unknown("`stead tenant get acme`").hint;
        assert_eq!(hint.as_deref(), Some("`stead tenant get acme`"));
        let other = CommandError::from(Error::new(ErrorKind::TenantNotFound, "")).if_unknown("never");
        assert_ne!(other.hint.as_deref(), Some("never"));
    }

    #[test]
    fn json_error_has_reason_and_metadata() {
        let current = Revision::ZERO;
        let failed = CommandError::from(Error::new(ErrorKind::ConditionFailed { current }, "no"));
        let details = json!({
            "error": {
                "reason": "CONDITION_FAILED",
                "message": "no",
                "metadata": { "current_revision": "0.0" },
                "retryAfterMs": null,
            }
        });
        assert_eq!(failed.json(), details);
        let waits = CommandError::from(Error::new(ErrorKind::NoLeader, "")).json();
        assert_eq!(waits["error"]["retryAfterMs"], 100);
        let own = CommandError::new(Code::Unhealthy, "node 3 is not ready").json();
        assert_eq!(own["error"]["reason"], "UNHEALTHY");
    }
}
