//! Way into a listener: plain text or TLS, who is at the other end, and how much strangers may cost.

use std::{io, pin::Pin, sync::Arc};

use stead_api::{net::Io, peer_identity::PeerIdentity};
use stead_tls::{Accepted, Credentials, HandshakeFailure, PlainText, Subject, accept_client, accept_peer, failure_of};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::{
    HandshakeLimits,
    handshake_gate::HandshakeGate,
    metrics::{ConnectionCount, TlsMetrics, Transport},
    peers::Peers,
    refusal::{Refusal, answer_to_plain_text},
};
use crate::{certificate_identity::CertificateIdentity, environment::Inbound, preface::Opened};

/// First byte of a TLS connection: a record with a handshake.
const TLS_HANDSHAKE: u8 = 0x16;

/// One of a node's listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum ListenerKind {
    /// For services and operators.
    Client,
    /// For other nodes.
    Peer,
    /// For health, metrics and routes.
    Http,
}

impl ListenerKind {
    /// Returns the label in metrics.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Peer => "peer",
            Self::Http => "http",
        }
    }
}

/// Connection that may send requests.
pub(crate) struct Entered {
    /// Its bytes, decrypted.
    pub(crate) io: Pin<Box<dyn Io>>,
    /// Identity in the certificate of the other end.
    pub(crate) identity: Option<CertificateIdentity>,
    /// Node at the other end of a connection between nodes.
    pub(crate) peer: Option<PeerIdentity>,
    /// Its place in the metric of connections.
    pub(crate) count: ConnectionCount,
}

/// Way into one listener.
#[derive(Clone)]
pub struct ConnectionEntry {
    kind: ListenerKind,
    credentials: Option<Credentials>,
    plain: PlainText,
    limits: HandshakeLimits,
    gate: Arc<HandshakeGate>,
    peers: Option<Arc<Peers>>,
    metrics: Arc<TlsMetrics>,
}

/// Treatment of a connection, by its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Treatment {
    Tls,
    Plain,
    Refuse,
}

fn treatment(first: u8, plain: PlainText) -> Treatment {
    match (first, plain) {
        (TLS_HANDSHAKE, _) => Treatment::Tls,
        (_, PlainText::Allowed) => Treatment::Plain,
        (_, PlainText::Refused) => Treatment::Refuse,
    }
}

impl ConnectionEntry {
    /// Returns the way into a listener.
    pub(crate) fn new(
        kind: ListenerKind,
        credentials: Option<Credentials>,
        plain: PlainText,
        limits: HandshakeLimits,
    ) -> Self {
        Self {
            kind,
            credentials,
            plain,
            limits,
            gate: Arc::new(HandshakeGate::new(limits)),
            peers: None,
            metrics: Arc::default(),
        }
    }

    /// Returns the way into a listener that speaks plain text only, as the simulation has it.
    pub fn plain_text() -> Self {
        let limits = HandshakeLimits {
            in_flight_max: 1,
            per_second_max: 1,
            timeout: std::time::Duration::from_secs(1),
        };
        Self::new(ListenerKind::Client, None, PlainText::Allowed, limits)
    }

    /// Sets the nodes that may connect to a peer listener.
    #[must_use]
    pub(crate) fn with_peers(mut self, peers: Arc<Peers>) -> Self {
        self.peers = Some(peers);
        self
    }

    /// Sets the metrics.
    #[must_use]
    pub(crate) fn with_metrics(mut self, metrics: Arc<TlsMetrics>) -> Self {
        self.metrics = metrics;
        self
    }

    /// Lets a connection in, or refuses it.
    pub(crate) async fn enter(&self, inbound: Inbound) -> Result<Entered, Refusal> {
        let Some(credentials) = &self.credentials else {
            return Ok(self.plain(inbound.io));
        };
        let entered = match timeout(self.limits.timeout, self.enter_within(credentials, inbound)).await {
            Ok(entered) => entered,
            Err(_) => Err(refusal(HandshakeFailure::Timeout)),
        };
        if let Err(refused) = &entered {
            self.metrics.count_refusal(self.kind, refused.reason);
        }
        entered
    }

    async fn enter_within(&self, credentials: &Credentials, inbound: Inbound) -> Result<Entered, Refusal> {
        let Inbound { mut io, from } = inbound;
        // A connection that ends without a byte is a probe of whether the port is open, and no failed handshake.
        let Ok(first) = io.read_u8().await else {
            return Err(refusal(HandshakeFailure::Protocol));
        };
        match treatment(first, self.plain) {
            Treatment::Plain => Ok(self.plain(Box::pin(Opened::after(&[first], io)))),
            Treatment::Refuse => {
                // The other end may be gone already.
                let _ = io.write_all(answer_to_plain_text(first)).await;
                let _ = io.shutdown().await;
                Err(refusal(HandshakeFailure::PlainText))
            }
            Treatment::Tls => {
                let Some(turn) = self.gate.enter(from).await else {
                    return Err(refusal(HandshakeFailure::Busy));
                };
                let entered = self.handshake(credentials, Opened::after(&[first], io)).await;
                drop(turn);
                entered
            }
        }
    }

    async fn handshake(&self, credentials: &Credentials, io: Opened<Pin<Box<dyn Io>>>) -> Result<Entered, Refusal> {
        let accepted = match self.kind {
            ListenerKind::Peer => accept_peer(credentials, io).await,
            ListenerKind::Client | ListenerKind::Http => accept_client(credentials, io).await,
        };
        let Accepted { stream, name } = accepted.map_err(|error| failed(&error))?;
        let peer = match (self.kind, &name) {
            (ListenerKind::Peer, Some(name)) => Some(self.peer(&name.subject)?),
            (ListenerKind::Peer | ListenerKind::Client | ListenerKind::Http, _) => None,
        };
        self.metrics.count_handshake(self.kind);
        Ok(Entered {
            io: Box::pin(stream),
            identity: name.map(|name| name.subject.into()),
            peer,
            count: self.metrics.count_connection(self.kind, Transport::Tls),
        })
    }

    /// Returns the node with the name in a certificate.
    fn peer(&self, subject: &Subject) -> Result<PeerIdentity, Refusal> {
        let known = match subject {
            Subject::Node { region, name } => self.peers.as_ref().and_then(|peers| peers.named(region, name)),
            Subject::Client { .. } | Subject::Operator { .. } => None,
        };
        known.ok_or_else(|| Refusal {
            reason: HandshakeFailure::OtherName,
            detail: format!("its certificate names {subject}, which is no node of the directory or of cluster.initial"),
        })
    }

    fn plain(&self, io: Pin<Box<dyn Io>>) -> Entered {
        Entered {
            io,
            identity: None,
            peer: None,
            count: self.metrics.count_connection(self.kind, Transport::Plain),
        }
    }

    /// Returns the name of the listener.
    pub(crate) fn label(&self) -> &'static str {
        self.kind.label()
    }
}

fn refusal(reason: HandshakeFailure) -> Refusal {
    Refusal {
        reason,
        detail: reason.to_string(),
    }
}

fn failed(error: &io::Error) -> Refusal {
    Refusal {
        reason: failure_of(error),
        detail: stead_tls::explain(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_is_refused_once_tls_is_required() {
        // Invariant 2 of the module.
        for first in [b'P', b'G', 0, 0x15] {
            assert_eq!(treatment(first, PlainText::Refused), Treatment::Refuse);
            assert_eq!(treatment(first, PlainText::Allowed), Treatment::Plain);
        }
        assert_eq!(treatment(TLS_HANDSHAKE, PlainText::Refused), Treatment::Tls);
        assert_eq!(treatment(TLS_HANDSHAKE, PlainText::Allowed), Treatment::Tls);
    }
}
