//! Idempotency keys of writes.

use std::{fmt, str::FromStr};

/// A tenant's logged time, in milliseconds since 1970; it never goes back. Zero means "none seen".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TenantTime(pub u64);

/// Id of one running client library, drawn at random when it starts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u128);

impl ClientId {
    /// Id under which a tenant remembers which changes of forks were replayed. No caller may use it.
    pub const REPLAYS: Self = Self(u128::from_be_bytes(*b"stead/forkreplay"));
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Idempotency key of one write of one client. Sending the same key again returns the first outcome; it never writes
/// twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdempotencyKey {
    /// Client that writes.
    pub client: ClientId,
    /// Sequence of the write; each is used once.
    pub sequence: u64,
    /// Highest tenant time seen in any response when the write was first sent, else zero.
    pub first_sent: TenantTime,
}

impl fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.client, self.sequence, self.first_sent.0)
    }
}

/// Error of a text that is no idempotency key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no idempotency key: 32 hexadecimal digits, a sequence and milliseconds, with / between them")]
pub struct InvalidIdempotencyKey(String);

impl FromStr for IdempotencyKey {
    type Err = InvalidIdempotencyKey;

    /// Parses a key as errors show it.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = || {
            let (client, rest) = text.split_once('/')?;
            let (sequence, first_sent) = rest.split_once('/')?;
            let is_hex = client.len() == 32 && client.bytes().all(|byte| byte.is_ascii_hexdigit());
            Some(Self {
                client: ClientId(u128::from_str_radix(client, 16).ok().filter(|_| is_hex)?),
                sequence: sequence.parse().ok()?,
                first_sent: TenantTime(first_sent.parse().ok()?),
            })
        };
        read().ok_or_else(|| InvalidIdempotencyKey(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idempotency_key_parses_from_display() {
        let key = IdempotencyKey {
            client: ClientId(7),
            sequence: 42,
            first_sent: TenantTime(1_700_000_000_000),
        };
        assert_eq!(key.to_string().parse(), Ok(key));
        let hex = "0".repeat(32);
        for wrong in [
            "",
            "7/42/0",
            &format!("{hex}/1"),
            &format!("{hex}/-1/0"),
            &format!("+{}/1/0", &hex[1..]),
        ] {
            assert!(wrong.parse::<IdempotencyKey>().is_err(), "{wrong}");
        }
    }
}
