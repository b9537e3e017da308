//! Callers: identities that credentials prove.

use std::{fmt, str::FromStr, sync::Arc};

use super::AccessRole;

/// Longest subject, in bytes.
pub const SUBJECT_LEN_MAX: usize = 256;

/// Identity of a caller as text: `client/NAME`, `operator/NAME` or `token/ISSUER/SUBJECT`. Roles are bound to it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject(Arc<str>);

/// Error of a text that is no subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a subject is client/NAME, operator/NAME or token/ISSUER/SUBJECT, of at most {SUBJECT_LEN_MAX} printable ASCII \
     characters without spaces"
)]
pub struct InvalidSubject;

/// Caller of a request: who asks, and the roles that the credential gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Its identity.
    pub subject: Subject,
    /// Roles that the credential gives, beside those that are bound to the identity.
    pub roles: Vec<AccessRole>,
    /// Whether the credential is one for emergencies, whose use raises an alarm.
    pub is_emergency: bool,
}

impl Subject {
    /// Returns the subject of a service with a certificate.
    pub fn client(name: &str) -> Result<Self, InvalidSubject> {
        format!("client/{name}").parse()
    }

    /// Returns the subject of an operator with a certificate.
    pub fn operator(name: &str) -> Result<Self, InvalidSubject> {
        format!("operator/{name}").parse()
    }

    /// Returns the subject of a token.
    pub fn token(issuer: &str, subject: &str) -> Result<Self, InvalidSubject> {
        format!("token/{issuer}/{subject}").parse()
    }

    /// Returns the subject as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Subject {
    type Err = InvalidSubject;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let has_name = match text.split_once('/') {
            Some(("client" | "operator", name)) => !name.is_empty(),
            Some(("token", name)) => name
                .split_once('/')
                .is_some_and(|(issuer, subject)| !issuer.is_empty() && !subject.is_empty()),
            Some(_) | None => false,
        };
        let is_short = text.len() <= SUBJECT_LEN_MAX;
        if has_name && is_short && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Ok(Self(text.into()));
        }
        Err(InvalidSubject)
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subject_has_kind_and_name() {
        for valid in ["client/billing", "operator/ada", "token/corp/https://x/y"] {
            assert_eq!(valid.parse::<Subject>().unwrap().as_str(), valid);
        }
        let long = format!("client/{}", "a".repeat(SUBJECT_LEN_MAX));
        for invalid in [
            "",
            "ada",
            "client/",
            "token/corp",
            "token/corp/",
            "node/a",
            "client/a b",
            "client/é",
            &long,
        ] {
            assert_eq!(invalid.parse::<Subject>(), Err(InvalidSubject), "{invalid}");
        }
    }
}
