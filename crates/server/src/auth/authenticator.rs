//! Authenticator of callers, by certificate or bearer token.

use std::{convert::Infallible, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use http::HeaderMap;
use parking_lot::Mutex;
use stead_state::authorization::{AccessRole, Caller, Subject};
use stead_types::{Error, ErrorKind};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    access::{AccessContext, Credential},
    config::{AuthConfig, AuthMode},
    issuers::Issuers,
    token_cache::{TokenCache, token_digest},
};
use crate::{certificate_identity::CertificateIdentity, config::ConfigError};

/// Interval at which the files of keys are read again.
const RELOAD_INTERVAL: Duration = Duration::from_secs(5);

/// Authenticator of callers.
pub(crate) struct Authenticator {
    config: AuthConfig,
    cluster: String,
    issuers: ArcSwap<Issuers>,
    tokens: Mutex<TokenCache>,
    context: Arc<AccessContext>,
}

impl Authenticator {
    /// Returns an authenticator with the keys that the files hold.
    ///
    /// # Errors
    ///
    /// The file that cannot be used.
    pub(crate) fn new(config: AuthConfig, cluster: String, context: AccessContext) -> Result<Self, ConfigError> {
        let issuers = Issuers::load(&config).map_err(|(issuer, error)| {
            let file = issuer.public_key_file.display();
            ConfigError::value(
                format!("auth.issuers: {}: public_key_file {file}", issuer.name),
                describe(&error),
            )
        })?;
        match config.mode {
            AuthMode::Open => warn!("auth.mode is open: everybody who reaches this node may do everything"),
            AuthMode::Required => info!(issuers = config.issuers.len(), "callers need a credential"),
        }
        Ok(Self {
            config,
            cluster,
            issuers: ArcSwap::from_pointee(issuers),
            tokens: Mutex::default(),
            context: Arc::new(context),
        })
    }

    /// Returns what decisions need.
    pub(crate) fn context(&self) -> &Arc<AccessContext> {
        &self.context
    }

    /// Tells whether an HTTP path is open by name.
    pub(crate) fn is_open_path(&self, path: &str) -> bool {
        let is_below = |open: &String| {
            let rest = path.strip_prefix(open.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.config.http_open.iter().any(is_below)
    }

    /// Returns the credential of a request: a bearer token, or else the certificate of its connection.
    ///
    /// # Errors
    ///
    /// `UNAUTHENTICATED`, where there is one that does not count.
    pub(crate) fn authenticate(
        &self,
        certificate: Option<&CertificateIdentity>,
        headers: &HeaderMap,
    ) -> Result<Arc<Credential>, Error> {
        if let Some(header) = headers.get(http::header::AUTHORIZATION) {
            let token = header
                .to_str()
                .ok()
                .and_then(bearer)
                .ok_or_else(|| self.refuse("metadata authorization: is not `Bearer` and a token"))?;
            return self.verify(token);
        }
        let credential = match certificate {
            Some(certificate) => Some(of_certificate(certificate).map_err(|why| self.refuse(why))?),
            None => None,
        };
        if credential.is_none() {
            self.context.metrics.auth.anonymous();
        }
        Ok(Arc::new(Credential {
            caller: credential,
            expires_ms: None,
        }))
    }

    fn verify(&self, token: &str) -> Result<Arc<Credential>, Error> {
        let now_ms = (self.context.wall)();
        let digest = token_digest(token);
        if let Some(known) = self.tokens.lock().get(&digest, now_ms) {
            return Ok(known);
        }
        let issuers = self.issuers.load();
        let verified = issuers.verify(token, &self.config, &self.cluster, now_ms);
        let (caller, expires_ms) = verified.map_err(|invalid| self.refuse(&invalid.to_string()))?;
        let credential = Arc::new(Credential {
            caller: Some(caller),
            expires_ms: Some(expires_ms),
        });
        let mut tokens = self.tokens.lock();
        // Keys that were taken away meanwhile must not stay in the cache.
        if Arc::ptr_eq(&issuers, &self.issuers.load()) {
            tokens.put(digest, credential.clone());
        }
        Ok(credential)
    }

    fn refuse(&self, why: &str) -> Error {
        self.context.metrics.auth.unauthenticated();
        Error::new(ErrorKind::Unauthenticated, why)
    }

    /// Reads the files of keys again whenever they change, until the token fires. Keys that cannot be read leave the old
    /// ones in use.
    pub(crate) async fn reload_keys(self: Arc<Self>, stop: CancellationToken) -> Result<(), Infallible> {
        let mut has_failed = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(RELOAD_INTERVAL), if !self.config.issuers.is_empty() => {}
            }
            match Issuers::load(&self.config) {
                Ok(issuers) => {
                    has_failed = false;
                    self.use_issuers(issuers);
                }
                Err((issuer, error)) if !has_failed => {
                    has_failed = true;
                    let file = issuer.public_key_file.display();
                    warn!(issuer = issuer.name, %file, error = describe(&error), "keys not reloaded: the old ones stay");
                }
                Err(_) => {}
            }
        }
    }

    fn use_issuers(&self, issuers: Issuers) {
        if !issuers.is_same(&self.issuers.load()) {
            let mut tokens = self.tokens.lock();
            self.issuers.store(Arc::new(issuers));
            tokens.clear();
            info!("keys of token issuers reloaded");
        }
    }
}

fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Returns the caller that a certificate proves. The authority that has signed an operator's vouches for it.
fn of_certificate(certificate: &CertificateIdentity) -> Result<Caller, &'static str> {
    let invalid = "the name in the client certificate is no identity: use printable ASCII without spaces";
    let (subject, roles) = match certificate {
        CertificateIdentity::Client { name } => (Subject::client(name), Vec::new()),
        CertificateIdentity::Operator { name } => (Subject::operator(name), vec![AccessRole::ClusterOperator]),
        CertificateIdentity::Node { .. } => return Err("a node's certificate is for the peer listener only"),
    };
    Ok(Caller {
        subject: subject.map_err(|_| invalid)?,
        roles,
        is_emergency: false,
    })
}

fn describe(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
#[path = "authenticator_test.rs"]
mod authenticator_test;
