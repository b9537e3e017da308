//! Session tokens of several tenants.

use std::{collections::BTreeMap, fmt, str::FromStr};

use super::{InvalidTokenText, SessionToken, text};
use crate::{Revision, TenantNumber};

/// Set of session tokens, one per tenant: for a service's cookie or header. Of two tokens of one tenant the higher
/// one counts, so that sets can be merged in any order and repeatedly.
///
/// Shown and parsed as the concatenation of the tokens' texts; 64 of them have 1,536 characters. The text of one
/// token is a set's, too. The text is checked against being cut or mistyped, and not against forgery: a forged token
/// only waits for what does not exist, or reads older data than necessary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionTokens(BTreeMap<TenantNumber, Revision>);

/// Error of a set that would exceed its number of tenants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a set has session tokens of at most {max} tenants: carry those of each request's own tenants", max = SessionTokens::LEN_MAX)]
pub struct TooManyTokens;

impl SessionTokens {
    /// Most tenants of a set: what one request may carry.
    pub const LEN_MAX: usize = 64;

    /// Adds a token.
    pub fn add(&mut self, token: SessionToken) -> Result<(), TooManyTokens> {
        if self.0.len() >= Self::LEN_MAX && !self.0.contains_key(&token.tenant) {
            return Err(TooManyTokens);
        }
        let kept = self.0.entry(token.tenant).or_insert(token.revision);
        *kept = token.revision.max(*kept);
        Ok(())
    }

    /// Adds all tokens of another set; none if they do not all fit.
    pub fn merge(&mut self, other: &Self) -> Result<(), TooManyTokens> {
        let mut merged = self.clone();
        other.iter().try_for_each(|token| merged.add(token))?;
        *self = merged;
        Ok(())
    }

    /// Replaces a revision that a promotion has cut by the last one that it has kept, whichever tenant's it is.
    pub fn replace_cut(&mut self, cut: Revision, kept: Revision) {
        for revision in self.0.values_mut().filter(|revision| **revision == cut) {
            *revision = kept;
        }
    }

    /// Returns the token of a tenant.
    pub fn of(&self, tenant: TenantNumber) -> Option<SessionToken> {
        let revision = *self.0.get(&tenant)?;
        Some(SessionToken { tenant, revision })
    }

    /// Returns the tokens, in the order of the tenants' numbers.
    pub fn iter(&self) -> impl Iterator<Item = SessionToken> {
        let token = |(tenant, revision): (&TenantNumber, &Revision)| SessionToken {
            tenant: *tenant,
            revision: *revision,
        };
        self.0.iter().map(token)
    }

    /// Returns the number of tokens.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Tells whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for SessionTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.iter()
            .try_for_each(|token| f.write_str(&text::encode(&token.to_bytes())))
    }
}

impl FromStr for SessionTokens {
    type Err = InvalidTokenText;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut tokens = Self::default();
        let read = text::decode(text)?;
        let of = read.len();
        for token in read {
            tokens
                .add(token)
                .map_err(|TooManyTokens| InvalidTokenText::TooMany(of))?;
        }
        Ok(tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(tenant: u64, revision: u64) -> SessionToken {
        SessionToken {
            tenant: TenantNumber::new(tenant),
            revision: Revision::from_u64(revision),
        }
    }

    fn tokens(count: u64) -> SessionTokens {
        let mut tokens = SessionTokens::default();
        for tenant in 1..=count {
            tokens.add(token(tenant, tenant << 40 | 5)).unwrap();
        }
        tokens
    }

    #[test]
    fn token_set_round_trips_and_fits_cookie() {
        for count in [0, 1, 2, 64] {
            let (tokens, text) = (tokens(count), tokens(count).to_string());
            assert_eq!(text.parse(), Ok(tokens), "{count}");
            assert!(text.len() < 2_000, "{count}");
        }
        assert_eq!(token(7, 9).to_string().parse::<SessionTokens>().unwrap().len(), 1);
        // As any other base64 would write it.
        assert_eq!(token(7, 0x0200_0000_0003).to_string(), "AQAAAAAAAAAHAAACAAAAAAPx");
    }

    #[test]
    fn higher_token_wins_and_full_set_rejects_tenant() {
        let mut set = tokens(64);
        set.add(token(3, 1)).unwrap();
        assert_eq!(set, tokens(64), "lower than what was seen");
        set.add(token(3, u64::MAX)).unwrap();
        assert_eq!(set.of(TenantNumber::new(3)), Some(token(3, u64::MAX)));
        let (before, mut other) = (set.clone(), tokens(2));
        other.add(token(65, 1)).unwrap();
        assert_eq!(
            (set.add(token(65, 1)), set.merge(&other)),
            (Err(TooManyTokens), Err(TooManyTokens))
        );
        assert_eq!(set, before);
        other.merge(&tokens(3)).unwrap();
        assert_eq!(other.len(), 4);
    }

    #[test]
    fn damaged_text_error_names_position() {
        let text = tokens(3).to_string();
        let (start, end) = text.split_at(30);
        let error = |text: String| text.parse::<SessionTokens>().unwrap_err();
        assert_eq!(error(text[1..].to_owned()), InvalidTokenText::Length(71));
        assert_eq!(
            error(format!("{start}=={}", &end[2..])),
            InvalidTokenText::Character { character: '=', at: 31 }
        );
        let other = if end.starts_with('B') { 'C' } else { 'B' };
        assert_eq!(
            error(format!("{start}{other}{}", &end[1..])),
            InvalidTokenText::Token { at: 2, of: 3 }
        );
        assert_eq!(text.parse::<SessionToken>(), Err(InvalidTokenText::Several(3)));
        assert_eq!("".parse::<SessionToken>(), Err(InvalidTokenText::Several(0)));
        assert_eq!(error(text.repeat(30)), InvalidTokenText::TooMany(90));
    }
}
