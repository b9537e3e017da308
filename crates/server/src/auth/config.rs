//! Valid settings of `[auth]`.

use std::{path::PathBuf, time::Duration};

/// Settings of authentication.
#[derive(Clone, Debug)]
pub struct AuthConfig {
    /// Whether callers need a credential.
    pub(crate) mode: AuthMode,
    /// Issuers of tokens.
    pub(crate) issuers: Vec<IssuerConfig>,
    /// Longest difference of clocks that a token's times allow for.
    pub(crate) clock_leeway: Duration,
    /// Longest time between a token's issue and its end.
    pub(crate) token_lifetime_max: Duration,
    /// HTTP paths that answer without a credential, beside those of health.
    pub(crate) http_open: Vec<String>,
}

/// Whether callers need a credential.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AuthMode {
    /// Everybody may do everything. A credential that is given must count all the same.
    #[default]
    Open,
    /// Nothing but health answers without a credential, and what is not allowed is denied.
    Required,
}

/// Issuer of tokens.
#[derive(Clone, Debug)]
pub struct IssuerConfig {
    /// Its name, the claim `iss` of its tokens.
    pub(crate) name: String,
    /// File with its public keys, in PEM; read again when it changes.
    pub(crate) public_key_file: PathBuf,
    /// Whether its tokens may give roles, by the claim `stead_roles`.
    pub(crate) grants_roles: bool,
    /// Whether its tokens are for emergencies: they may be of long life and give roles, and their use raises an alarm.
    pub(crate) is_emergency: bool,
}
