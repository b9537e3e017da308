//! Session tokens that a client has imported from other clients.

use parking_lot::Mutex;
use stead_types::{Error, Revision, SessionToken, SessionTokens, TooManyTokens};

/// Session tokens that came from other clients. They name tenants by number; a client learns which of its tenants has
/// which number with the first response.
#[derive(Debug, Default)]
pub(crate) struct ImportedTokens(Mutex<SessionTokens>);

impl ImportedTokens {
    /// Returns the tokens that a read of a session must carry: all imported ones while the tenant's number is not
    /// known.
    pub(crate) fn required(&self, own: Option<SessionToken>) -> Vec<SessionToken> {
        let imported = self.0.lock();
        let Some(own) = own else {
            return imported.iter().collect();
        };
        vec![newest(&imported, own)]
    }

    /// Returns the newer of a session's own token and the imported one of the same tenant.
    pub(crate) fn newest(&self, own: SessionToken) -> SessionToken {
        newest(&self.0.lock(), own)
    }

    pub(crate) fn add(&self, token: SessionToken) -> Result<(), Error> {
        self.0.lock().add(token).map_err(too_many)
    }

    /// Adds all these tokens, or none.
    pub(crate) fn merge(&self, tokens: &SessionTokens) -> Result<(), Error> {
        self.0.lock().merge(tokens).map_err(too_many)
    }

    /// Brings a token that a promotion has cut to the last revision that it has kept.
    pub(crate) fn replace_cut(&self, cut: Revision, kept: Revision) {
        self.0.lock().replace_cut(cut, kept);
    }

    /// Returns the imported tokens together with a client's own.
    pub(crate) fn with(&self, mut own: impl Iterator<Item = SessionToken>) -> Result<SessionTokens, Error> {
        let mut tokens = self.0.lock().clone();
        own.try_for_each(|token| tokens.add(token)).map_err(too_many)?;
        Ok(tokens)
    }
}

fn newest(imported: &SessionTokens, own: SessionToken) -> SessionToken {
    let came = imported.of(own.tenant).filter(|came| came.revision > own.revision);
    came.unwrap_or(own)
}

fn too_many(error: TooManyTokens) -> Error {
    Error::invalid("tokens", format!("tokens: {error}"))
}
