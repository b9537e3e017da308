//! Cache of tokens that have been verified: a signature costs as much as several operations.

use std::{collections::BTreeMap, sync::Arc};

use ring::digest::{SHA256, digest};

use super::access::Credential;

/// Most tokens that are cached; beyond, all are forgotten, and verified again.
const TOKENS_MAX: usize = 10_000;

/// Verified tokens, by their SHA-256 digest: the tokens themselves are not kept.
#[derive(Default)]
pub(super) struct TokenCache {
    tokens: BTreeMap<TokenDigest, Arc<Credential>>,
}

/// Digest of a token.
pub(super) type TokenDigest = [u8; 32];

/// Returns the digest of a token.
pub(super) fn token_digest(token: &str) -> TokenDigest {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    bytes
}

impl TokenCache {
    /// Returns the credential of a token that counts at this time.
    pub(super) fn get(&self, token: &TokenDigest, now_ms: u64) -> Option<Arc<Credential>> {
        self.tokens.get(token).filter(|known| known.counts_at(now_ms)).cloned()
    }

    /// Keeps the credential of a verified token.
    pub(super) fn put(&mut self, token: TokenDigest, credential: Arc<Credential>) {
        if self.tokens.len() >= TOKENS_MAX {
            self.tokens.clear();
        }
        self.tokens.insert(token, credential);
    }

    /// Forgets all tokens: the keys have changed.
    pub(super) fn clear(&mut self) {
        self.tokens.clear();
    }
}
