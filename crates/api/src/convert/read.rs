//! Conversions of consistency levels, durability and durations.

use std::time::Duration;

use stead_types::{Error, Revision, SessionToken, SessionTokens, TenantNumber};

use super::id;
use crate::proto::v1;

/// Consistency level of a read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// The newest state.
    Linearizable,
    /// At least the revisions of the session's tokens.
    Session(Tokens),
    /// At most this staleness.
    Bounded(Duration),
    /// The state of the node that is asked.
    Local,
}

/// Session tokens of one request, of one tenant or several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens(Vec<SessionToken>);

impl Tokens {
    /// Returns the highest revision of a tenant in the tokens; a token of another tenant number does not count.
    pub fn of(&self, tenant: TenantNumber) -> Option<Revision> {
        let of_tenant = self.0.iter().filter(|token| token.tenant == tenant);
        of_tenant.map(|token| token.revision).max()
    }
}

impl FromIterator<SessionToken> for Tokens {
    fn from_iter<T: IntoIterator<Item = SessionToken>>(tokens: T) -> Self {
        Self(tokens.into_iter().collect())
    }
}

/// Most session tokens of one request.
pub const TOKENS_MAX: usize = SessionTokens::LEN_MAX;

/// Reads a consistency level; absent: linearizable.
pub fn consistency(consistency: Option<v1::Consistency>) -> Result<Consistency, Error> {
    use v1::consistency::Level;
    match consistency.and_then(|consistency| consistency.level) {
        None | Some(Level::Linearizable(_)) => Ok(Consistency::Linearizable),
        Some(Level::Local(_)) => Ok(Consistency::Local),
        Some(Level::Session(session)) => {
            if session.tokens.len() > TOKENS_MAX {
                let field = "consistency.session.tokens";
                let len = session.tokens.len();
                let message = format!("{field}: at most {TOKENS_MAX} tokens a request, not {len}; send the tenant's");
                return Err(Error::invalid(field, message));
            }
            let read = |(at, token): (usize, &bytes::Bytes)| {
                let invalid = |why| Error::invalid(format!("consistency.session.tokens[{at}]"), format!("{why}"));
                SessionToken::from_bytes(token).map_err(invalid)
            };
            let tokens: Result<Tokens, Error> = session.tokens.iter().enumerate().map(read).collect();
            tokens.map(Consistency::Session)
        }
        Some(Level::Bounded(bounded)) => {
            let field = "consistency.bounded.max_staleness";
            let bound = bounded.max_staleness.and_then(to_duration);
            bound
                .map(Consistency::Bounded)
                .ok_or_else(|| Error::invalid(field, format!("{field}: missing or negative")))
        }
    }
}

/// Returns the message of a consistency level.
pub fn from_consistency(consistency: &Consistency) -> v1::Consistency {
    use v1::consistency::{Bounded, Level, Linearizable, Local, Session};
    let level = match consistency {
        Consistency::Linearizable => Level::Linearizable(Linearizable {}),
        Consistency::Local => Level::Local(Local {}),
        Consistency::Session(Tokens(tokens)) => Level::Session(Session {
            tokens: tokens
                .iter()
                .map(|token| bytes::Bytes::copy_from_slice(&token.to_bytes()))
                .collect(),
        }),
        Consistency::Bounded(bound) => Level::Bounded(Bounded {
            max_staleness: Some(duration(*bound)),
        }),
    };
    v1::Consistency { level: Some(level) }
}

/// Reads a duration; `None` if it is negative. The library's own conversion overflows for the lowest numbers, and takes
/// them for high ones where overflow is not checked.
pub fn to_duration(message: prost_types::Duration) -> Option<Duration> {
    let seconds = u64::try_from(message.seconds).ok()?;
    let nanos = u32::try_from(message.nanos).ok()?;
    Duration::from_secs(seconds).checked_add(Duration::from_nanos(nanos.into()))
}

/// Returns the message of a duration. A longer one than the message can hold becomes the longest, so that it is refused
/// as too long and never taken for none.
pub fn duration(duration: Duration) -> prost_types::Duration {
    let longest = prost_types::Duration {
        seconds: i64::MAX,
        nanos: 0,
    };
    duration.try_into().unwrap_or(longest)
}

/// Returns the message of a time in milliseconds since 1970.
pub fn timestamp_ms(ms: u64) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: i64::try_from(ms / 1000).unwrap_or(i64::MAX),
        nanos: i32::try_from((ms % 1000) * 1_000_000).unwrap_or(0),
    }
}

/// Returns the message of a difference in microseconds, which may be negative.
pub fn clock_difference(micros: i64) -> prost_types::Duration {
    prost_types::Duration {
        seconds: micros / 1_000_000,
        nanos: i32::try_from(micros % 1_000_000 * 1_000).expect("below a second"),
    }
}

/// Reads a difference that may be negative, in whole milliseconds.
pub fn clock_difference_ms(difference: &prost_types::Duration) -> i64 {
    let nanos = i64::from(difference.nanos / 1_000_000);
    difference.seconds.saturating_mul(1_000).saturating_add(nanos)
}

/// Reads the revision of a read at a revision.
pub fn at_revision(revision: Option<v1::Revision>) -> Result<Option<Revision>, Error> {
    revision.map(|revision| id::revision("revision", revision)).transpose()
}

/// Reads the durability of a write; `None`: the tenant's default.
pub fn durability(field: &str, durability: i32) -> Result<Option<v1::Durability>, Error> {
    match v1::Durability::try_from(durability) {
        Ok(v1::Durability::Unspecified) => Ok(None),
        Ok(known @ (v1::Durability::Region | v1::Durability::Remote)) => Ok(Some(known)),
        Err(_) => Err(Error::invalid(
            field,
            format!("{field}: unknown durability {durability}"),
        )),
    }
}
