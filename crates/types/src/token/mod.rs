//! Session tokens: what a session has seen, which it presents to the next replica that it asks.

mod text;
mod tokens;

use std::{fmt, str::FromStr};

pub use text::InvalidTokenText;
pub use tokens::{SessionTokens, TooManyTokens};

use crate::{Revision, TenantNumber};

/// Highest revision of one tenant that a session has written or read.
///
/// Shown and parsed as 24 characters of `A-Z`, `a-z`, `0-9`, `-` and `_` (URL-safe base64 without padding), which any
/// cookie, header or address can carry as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionToken {
    /// Tenant of the revision; a client drops tokens of another number.
    pub tenant: TenantNumber,
    /// Revision that a replica must have before it may serve the session.
    pub revision: Revision,
}

/// Error of bytes that are no session token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("session_token is not valid: send back the bytes of a response's header unchanged")]
pub struct InvalidSessionToken;

/// Format byte, the first of a token.
const FORMAT: u8 = 1;
const LEN: usize = 18;

impl SessionToken {
    /// Returns the token as opaque bytes: format, tenant number, revision, one check byte.
    pub fn to_bytes(self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[0] = FORMAT;
        bytes[1..9].copy_from_slice(&self.tenant.get().to_be_bytes());
        bytes[9..17].copy_from_slice(&self.revision.to_u64().to_be_bytes());
        bytes[17] = check(&bytes[..17]);
        bytes
    }

    /// Reads what [`SessionToken::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidSessionToken> {
        let bytes: &[u8; LEN] = bytes.try_into().map_err(|_| InvalidSessionToken)?;
        if bytes[0] != FORMAT || bytes[17] != check(&bytes[..17]) {
            return Err(InvalidSessionToken);
        }
        let number = |at: usize| {
            let mut eight = [0; 8];
            eight.copy_from_slice(&bytes[at..at + 8]);
            u64::from_be_bytes(eight)
        };
        Ok(Self {
            tenant: TenantNumber::new(number(1)),
            revision: Revision::from_u64(number(9)),
        })
    }
}

impl fmt::Display for SessionToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&text::encode(&self.to_bytes()))
    }
}

impl FromStr for SessionToken {
    type Err = InvalidTokenText;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let tokens = text::decode(text)?;
        match tokens.as_slice() {
            [token] => Ok(*token),
            tokens => Err(InvalidTokenText::Several(tokens.len())),
        }
    }
}

/// Returns the check byte, which detects tokens that were cut or mistyped; it protects against nothing else.
fn check(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0x5a, |sum: u8, byte| sum.rotate_left(1) ^ byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_round_trips_and_changed_bytes_are_rejected() {
        let token = SessionToken {
            tenant: TenantNumber::new(7),
            revision: "3.99".parse().unwrap(),
        };
        let bytes = token.to_bytes();
        assert_eq!(SessionToken::from_bytes(&bytes), Ok(token));
        for at in 0..bytes.len() {
            let mut changed = bytes;
            changed[at] ^= 1;
            assert_eq!(
                SessionToken::from_bytes(&changed),
                Err(InvalidSessionToken),
                "byte {at}"
            );
        }
        assert_eq!(SessionToken::from_bytes(&bytes[..17]), Err(InvalidSessionToken));
        assert_eq!(token.to_string().parse(), Ok(token));
    }
}
