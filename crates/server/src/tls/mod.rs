//! TLS of a node: who may connect to its listeners and whom it dials.
//!
//! # Invariants
//!
//! 1. A connection to the peer listener is of a node that the directory or `cluster.initial` knows by the name in its
//!    certificate; over TLS nobody else is served there.
//! 2. Without `tls.plaintext = "allow"` a node with a certificate neither serves nor dials plain text.
//! 3. Handshakes of clients never use the budget of those of nodes.

mod entry;
mod handshake_gate;
mod metrics;
mod names;
mod peers;
mod refusal;
mod reload;

pub use entry::ConnectionEntry;
pub(crate) use entry::ListenerKind;
pub(crate) use metrics::TlsMetrics;
pub(crate) use peers::Peers;
pub(crate) use refusal::Refusal;

use std::{sync::Arc, time::Duration};

use stead_api::net::Connect;
use stead_replication::SharedDirectoryView;
use stead_tls::{CertificateName, Credentials, ExpectedPeer, PlainText, Subject, TlsError, TlsFiles};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{ConfigError, Tls, TlsConfig, ValidatedConfig},
    environment::Environment,
    health::HealthChecks,
    supervisor::Supervisor,
};

/// Function that returns the wall clock, in milliseconds since 1970.
type Wall = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Error of a dialler that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// A setting of TLS is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file cannot be used.
    #[error("TLS cannot be used")]
    Tls(#[from] TlsError),
}

/// Returns the dialler of a node that knows no other node yet: the certificate at the other end must have the dialled host
/// among its names.
pub(crate) fn dial_hosts(settings: &Tls, connect: Connect) -> Result<Connect, DialError> {
    let config = settings.validate()?;
    let Some(files) = config.files else {
        return Ok(connect);
    };
    let credentials = Credentials::load(files, None)?;
    let expect = Arc::new(|_: &str| ExpectedPeer::Host);
    Ok(stead_tls::dial(connect, credentials, expect, config.plaintext))
}

/// Limits of handshakes on one listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandshakeLimits {
    /// Most handshakes at once.
    pub in_flight_max: u32,
    /// Most handshakes a second.
    pub per_second_max: u32,
    /// Longest time of a handshake.
    pub timeout: Duration,
}

/// TLS of one node.
#[derive(Clone)]
pub(crate) struct NodeTls {
    config: TlsConfig,
    /// Absent: the node has no certificate, and speaks plain text.
    credentials: Option<Credentials>,
    peers: Arc<Peers>,
    pub(crate) metrics: Arc<TlsMetrics>,
}

impl NodeTls {
    /// Loads the certificates of a node, which knows the nodes of `cluster.initial` so far.
    ///
    /// # Errors
    ///
    /// A file that cannot be used, and what to do.
    pub(crate) fn load(config: &ValidatedConfig) -> Result<Self, TlsError> {
        let expected = CertificateName {
            cluster: config.cluster.clone(),
            subject: Subject::Node {
                region: config.node.region.to_string(),
                name: config.node.name.clone(),
            },
        };
        let load = |files: &TlsFiles| Credentials::load(files.clone(), Some(expected));
        let credentials = config.tls.files.as_ref().map(load).transpose()?;
        Ok(Self {
            config: config.tls.clone(),
            credentials,
            peers: Arc::new(Peers::initial(&config.members)),
            metrics: Arc::default(),
        })
    }

    /// Adds the nodes of the directory view.
    #[must_use]
    pub(crate) fn with_view(mut self, directory_view: SharedDirectoryView) -> Self {
        self.peers = Arc::new(self.peers.as_ref().clone().with_view(directory_view));
        self
    }

    /// Returns the environment with a dialler that speaks TLS to other nodes, if this node has a certificate.
    pub(crate) fn over(&self, mut environment: Environment) -> Environment {
        if let Some(credentials) = &self.credentials {
            let peers = self.peers.clone();
            let expect = Arc::new(move |address: &str| peers.at(address));
            environment.connect =
                stead_tls::dial(environment.connect, credentials.clone(), expect, self.config.plaintext);
        }
        environment
    }

    /// Returns the way into a listener.
    pub(crate) fn entry(&self, kind: ListenerKind) -> ConnectionEntry {
        let plain = match kind {
            ListenerKind::Http if self.config.http_plain => PlainText::Allowed,
            ListenerKind::Http | ListenerKind::Client | ListenerKind::Peer => self.config.plaintext,
        };
        ConnectionEntry::new(kind, self.credentials.clone(), plain, self.config.handshakes)
            .with_peers(self.peers.clone())
            .with_metrics(self.metrics.clone())
    }

    /// Adds the check that everything is encrypted, and spawns the task that follows the files.
    pub(crate) fn start(&self, checks: &HealthChecks, wall: Wall, supervisor: &mut Supervisor) {
        let (metrics, has_certificate) = (self.metrics.clone(), self.credentials.is_some());
        let allowed = self.config.plaintext == PlainText::Allowed;
        checks.add_warning("tls", move || metrics.check(has_certificate, allowed));
        if let Some(credentials) = self.credentials.clone() {
            let (checked, clock) = (credentials.clone(), wall.clone());
            checks.add_warning("certificates", move || reload::check_expiry(&checked, clock()));
            let metrics = self.metrics.clone();
            let follow = |stop: CancellationToken| reload::follow(credentials, metrics, wall, stop);
            supervisor.spawn("certificates", follow);
        }
    }

    /// Updates the metrics of certificates.
    pub(crate) fn sample(&self, now_ms: u64) {
        if let Some(credentials) = &self.credentials {
            self.metrics.set_certificates(credentials, now_ms);
        }
    }
}
