//! How fresh a read must be, when a write is acknowledged, and the header of answers.

use std::time::Duration;

use stead_types::{Error, Revision, SessionToken, SessionTokens, TenantNumber};

use super::id;
use crate::proto::v1;

/// How fresh a read must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// The newest state.
    Linearizable,
    /// At least what the session has seen.
    Session(Tokens),
    /// At most this far behind the home.
    Bounded(Duration),
    /// Whatever the asked node holds.
    Local,
}

/// What a session has seen, of one tenant or several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens(Vec<SessionToken>);

impl Tokens {
    /// Returns the highest revision that the session has seen of a tenant; a token of another number does not count.
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

/// Most tokens of one request.
pub const TOKENS_MAX: usize = SessionTokens::LEN_MAX;

/// Reads how fresh a read must be; absent: linearizable.
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
            let bound = bounded.max_staleness.and_then(|bound| Duration::try_from(bound).ok());
            bound
                .map(Consistency::Bounded)
                .ok_or_else(|| Error::invalid(field, format!("{field}: needed, and not negative")))
        }
    }
}

/// Writes how fresh a read must be.
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

/// Writes a duration; what is longer than the message can hold as the longest that it can, so that it is refused as too
/// long and never taken for none.
pub fn duration(duration: Duration) -> prost_types::Duration {
    let longest = prost_types::Duration {
        seconds: i64::MAX,
        nanos: 0,
    };
    duration.try_into().unwrap_or(longest)
}

/// Writes a distance in microseconds, which may be negative.
pub fn distance(micros: i64) -> prost_types::Duration {
    prost_types::Duration {
        seconds: micros / 1_000_000,
        nanos: i32::try_from(micros % 1_000_000 * 1_000).expect("below a second"),
    }
}

/// Reads a distance that may be negative, in whole milliseconds.
pub fn distance_ms(distance: &prost_types::Duration) -> i64 {
    let nanos = i64::from(distance.nanos / 1_000_000);
    distance.seconds.saturating_mul(1_000).saturating_add(nanos)
}

/// Reads the revision that a read is to be made at.
pub fn at_revision(revision: Option<v1::Revision>) -> Result<Option<Revision>, Error> {
    revision.map(|revision| id::revision("revision", revision)).transpose()
}

/// Reads when a write is acknowledged; `None`: the tenant's default.
pub fn durability(field: &str, durability: i32) -> Result<Option<v1::Durability>, Error> {
    match v1::Durability::try_from(durability) {
        Ok(v1::Durability::Unspecified) => Ok(None),
        Ok(known @ (v1::Durability::Region | v1::Durability::Remote)) => Ok(Some(known)),
        Err(_) => Err(Error::invalid(
            field,
            format!("{field}: {durability} is no durability that this node knows"),
        )),
    }
}
