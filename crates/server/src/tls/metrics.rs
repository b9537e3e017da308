//! Metrics of connections, handshakes and certificates.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use stead_tls::{Credentials, HandshakeFailure};

use super::entry::ListenerKind;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ListenerLabels {
    listener: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabels {
    listener: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConnectionLabels {
    listener: &'static str,
    transport: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CertificateLabels {
    certificate: &'static str,
    serial: String,
}

/// Protection of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// Encrypted.
    Tls,
    /// Plain text.
    Plain,
}

impl Transport {
    fn label(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Plain => "plain",
        }
    }
}

/// Metrics of TLS.
#[derive(Debug, Default)]
pub(crate) struct TlsMetrics {
    connections: Family<ConnectionLabels, Gauge>,
    handshakes: Family<ListenerLabels, Counter>,
    refused: Family<RefusalLabels, Counter>,
    expiry: Family<CertificateLabels, Gauge<f64, AtomicU64>>,
    reloads: Counter,
    reload_failures: Counter,
    /// Connections of clients and nodes in plain text.
    plain: Arc<AtomicU64>,
}

/// Connection that is counted until this is dropped.
#[derive(Debug)]
pub(crate) struct ConnectionCount {
    gauge: Gauge,
    plain: Option<Arc<AtomicU64>>,
}

impl Drop for ConnectionCount {
    fn drop(&mut self) {
        self.gauge.dec();
        if let Some(plain) = &self.plain {
            plain.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl TlsMetrics {
    /// Registers the metrics.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let help = "Open connections, by listener and by whether they are encrypted";
        registry.register("connections", help, self.connections.clone());
        let help = "Handshakes of TLS that were completed, by listener";
        registry.register("tls_handshakes", help, self.handshakes.clone());
        let help = "Connections that were refused before their first request, by listener and reason";
        registry.register("tls_refused", help, self.refused.clone());
        let help = "Time until a certificate expires, negative afterwards, by what it is and its serial number";
        registry.register("tls_certificate_expiry_seconds", help, self.expiry.clone());
        let help = "Changes of certificates, keys or CAs that are in use without a restart";
        registry.register("tls_reloads", help, self.reloads.clone());
        let help = "Changes of certificates, keys or CAs that did not load: the old ones are used on";
        registry.register("tls_reload_failures", help, self.reload_failures.clone());
    }

    pub(crate) fn count_connection(&self, kind: ListenerKind, transport: Transport) -> ConnectionCount {
        let gauge = self
            .connections
            .get_or_create(&ConnectionLabels {
                listener: kind.label(),
                transport: transport.label(),
            })
            .clone();
        gauge.inc();
        let is_counted = transport == Transport::Plain && kind != ListenerKind::Http;
        let plain = is_counted.then(|| self.plain.clone());
        if let Some(plain) = &plain {
            plain.fetch_add(1, Ordering::Relaxed);
        }
        ConnectionCount { gauge, plain }
    }

    pub(crate) fn count_handshake(&self, kind: ListenerKind) {
        self.handshakes
            .get_or_create(&ListenerLabels { listener: kind.label() })
            .inc();
    }

    pub(crate) fn count_refusal(&self, kind: ListenerKind, reason: HandshakeFailure) {
        self.refused
            .get_or_create(&RefusalLabels {
                listener: kind.label(),
                reason: reason.label(),
            })
            .inc();
    }

    pub(crate) fn count_reload(&self) {
        self.reloads.inc();
    }

    pub(crate) fn count_reload_failure(&self) {
        self.reload_failures.inc();
    }

    /// Sets the time until each certificate in use expires.
    pub(crate) fn set_certificates(&self, credentials: &Credentials, now_ms: u64) {
        self.expiry.clear();
        let own = credentials.own().into_iter().map(|certificate| ("node", certificate));
        let ca = credentials.ca().into_iter().map(|certificate| ("ca", certificate));
        for (label, certificate) in own.chain(ca) {
            let labels = CertificateLabels {
                certificate: label,
                serial: certificate.serial,
            };
            let left = seconds_left(certificate.not_after, now_ms);
            self.expiry.get_or_create(&labels).set(left);
        }
    }

    /// Gives every metric a value, for the comparison of their names with the document.
    #[cfg(test)]
    pub(crate) fn use_all(&self) {
        drop(self.count_connection(ListenerKind::Peer, Transport::Tls));
        self.count_handshake(ListenerKind::Peer);
        self.count_refusal(ListenerKind::Client, HandshakeFailure::Busy);
        let labels = CertificateLabels {
            certificate: "node",
            serial: "01".into(),
        };
        self.expiry.get_or_create(&labels).set(1.0);
    }

    /// Tells whether all connections of clients and nodes are encrypted, and whether they have to be.
    pub(crate) fn check(&self, has_certificate: bool, plain_allowed: bool) -> Result<String, String> {
        let plain = self.plain.load(Ordering::Relaxed);
        match (has_certificate, plain_allowed) {
            (true, false) => Ok("required of clients and nodes".into()),
            (false, false) => Ok("off: plain text, on loopback only".into()),
            (false, true) => {
                Err("off: this node serves plain text beyond this machine, by tls.plaintext = \"allow\"".into())
            }
            (true, true) if plain == 0 => Err(
                "plain text is allowed and nothing uses it here: once no node says otherwise, remove tls.plaintext"
                    .into(),
            ),
            (true, true) => Err(format!(
                "plain text is allowed, and {plain} connections use it: they have not gone over to TLS yet"
            )),
        }
    }
}

/// Returns the seconds until a time, in seconds since 1970.
#[expect(clippy::cast_precision_loss, reason = "a difference of times far below 2^52 seconds")]
pub(crate) fn seconds_left(until: i64, now_ms: u64) -> f64 {
    let now = i64::try_from(now_ms / 1000).unwrap_or(i64::MAX);
    until.saturating_sub(now) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_says_when_nothing_is_plain_any_more() {
        let metrics = TlsMetrics::default();
        let http = metrics.count_connection(ListenerKind::Http, Transport::Plain);
        assert!(metrics.check(true, true).unwrap_err().contains("nothing uses it"));
        let open = metrics.count_connection(ListenerKind::Client, Transport::Plain);
        let said = metrics.check(true, true).unwrap_err();
        assert!(said.contains("1 connections use it"), "{said}");
        drop((open, http));
        assert!(metrics.check(true, true).unwrap_err().contains("nothing uses it"));
        assert!(metrics.check(true, false).is_ok());
    }
}
