//! Authentication: who a caller is, by certificate or bearer token, and how that travels with its requests.
//!
//! ```text
//! client listener: certificate or token -> Authenticator -> Access, in the request's extensions and in each Call
//! peer listener:   the node on the other end says who asked       -> Access
//! services, router: Access::check(need)  -> state::authorization::decide
//! ```
//!
//! # Invariants
//!
//! 1. A credential, or a part of it, is in no error, log or `Debug` output.
//! 2. A request whose method has no row in the table of requirements is refused.
//! 3. Only what comes over the peer listener may say who asked.

mod access;
#[cfg(test)]
pub(crate) mod access_fixture;
mod authenticator;
mod call_log;
mod claims;
mod config;
mod issuers;
mod layer;
#[cfg(test)]
mod methods_test;
mod signing;
mod start;
mod token_cache;

pub(crate) use access::{Access, AccessContext};
pub(crate) use authenticator::Authenticator;
pub use config::{AuthConfig, AuthMode, IssuerConfig};
pub(crate) use layer::{client_access, http_access, peer_access};
pub use signing::{IssuerKeys, SigningError, TokenRequest, check_role, generate_issuer_keys, sign_token};
pub(crate) use start::{authenticator, spawn};
