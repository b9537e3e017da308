//! Exit codes, and the two lines that a failure prints: what is wrong, what to do.

use std::{io::Write, process::ExitCode};

use stead_types::{Error, ErrorKind};

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
}

impl Failure {
    pub(crate) fn new(code: Code, what: impl Into<String>) -> Self {
        Self {
            code,
            what: what.into(),
            todo: None,
        }
    }

    /// Says what to do about it.
    pub(crate) fn hint(mut self, todo: impl Into<String>) -> Self {
        self.todo = Some(todo.into());
        self
    }

    /// Returns what is wrong.
    pub(crate) fn text(&self) -> &str {
        &self.what
    }

    /// Prints the two lines and returns the code.
    pub(crate) fn report(self) -> ExitCode {
        let mut stderr = std::io::stderr().lock();
        // Nobody is there to be told that standard error is gone.
        let _ = writeln!(stderr, "error: {}", self.what);
        if let Some(todo) = self.todo {
            let _ = writeln!(stderr, "  try: {todo}");
        }
        ExitCode::from(self.code as u8)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let (code, todo) = of(&error.kind);
        Self {
            code,
            what: error.message,
            todo: todo.map(Into::into),
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
        ErrorKind::OutcomeUnknown { .. } | ErrorKind::DurabilityUnmet { .. } => {
            (Code::Unknown, Some("read the key to see what has become of it"))
        }
        ErrorKind::DeadlineExceeded => (Code::Unknown, Some("allow more time with --timeout")),
        ErrorKind::Internal => (Code::Failed, Some("the node's log says more")),
    }
}
