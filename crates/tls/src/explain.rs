//! Reasons of failed handshakes, for metrics, and sentences that say what to do about them.

use std::{error::Error, fmt, io};

use rustls::{AlertDescription, CertificateError};

use crate::verify::NameRefusal;

/// Text of the error of a dialled end that does not speak TLS.
pub const PLAIN_TEXT_PEER: &str =
    "the other end does not speak TLS: it is reached without a CA, or it needs certificates";

/// Reason of a failed handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HandshakeFailure {
    /// The other end spoke plain text where TLS is required.
    PlainText,
    /// The other end took too long.
    Timeout,
    /// There were too many handshakes at once or a second.
    Busy,
    /// No certificate where one is required.
    NoCertificate,
    /// A certificate that no trusted CA has issued.
    UnknownCa,
    /// A certificate that has expired.
    Expired,
    /// A certificate that is not valid yet.
    NotYetValid,
    /// A certificate of another cluster.
    OtherCluster,
    /// A certificate that names somebody else than may be here.
    OtherName,
    /// A certificate that cannot be used for other reasons.
    BadCertificate,
    /// The other end refused this side's certificate, or ended the handshake.
    RefusedByPeer,
    /// Bytes that are no TLS, or a broken connection.
    Protocol,
}

impl HandshakeFailure {
    /// All reasons.
    pub const ALL: [Self; 12] = [
        Self::PlainText,
        Self::Timeout,
        Self::Busy,
        Self::NoCertificate,
        Self::UnknownCa,
        Self::Expired,
        Self::NotYetValid,
        Self::OtherCluster,
        Self::OtherName,
        Self::BadCertificate,
        Self::RefusedByPeer,
        Self::Protocol,
    ];

    /// Returns the label of the reason in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::PlainText => "plain_text",
            Self::Timeout => "timeout",
            Self::Busy => "busy",
            Self::NoCertificate => "no_certificate",
            Self::UnknownCa => "unknown_ca",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::OtherCluster => "other_cluster",
            Self::OtherName => "other_name",
            Self::BadCertificate => "bad_certificate",
            Self::RefusedByPeer => "refused_by_peer",
            Self::Protocol => "protocol",
        }
    }
}

impl fmt::Display for HandshakeFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PlainText => "it speaks plain text, and this port requires TLS: name a CA on that side",
            Self::Timeout => "it did not complete the handshake in time",
            Self::Busy => "there are too many handshakes at once",
            Self::NoCertificate => "it showed no certificate, and this port requires one: name certificate and key there",
            Self::UnknownCa => {
                "no CA that is trusted here has issued its certificate: during a roll-over both CAs belong into the file \
                 of CAs"
            }
            Self::Expired => "its certificate has expired: run `stead cert rotate` there, and look at both clocks",
            Self::NotYetValid => "its certificate is not valid yet: look at both clocks",
            Self::OtherCluster => "its certificate is of another cluster",
            Self::OtherName => "its certificate names somebody else than may be here",
            Self::BadCertificate => "its certificate cannot be used for this purpose: make it with `stead cert`",
            Self::RefusedByPeer => {
                "it refused the certificate of this side, or ended the handshake: its own log and metric say why"
            }
            Self::Protocol => "it does not speak TLS, or the connection broke",
        })
    }
}

/// Returns the reason of a failed handshake.
pub fn failure_of(error: &io::Error) -> HandshakeFailure {
    if error.kind() == io::ErrorKind::TimedOut {
        return HandshakeFailure::Timeout;
    }
    match tls_error(error) {
        Some(error) => of_tls_error(error),
        None => HandshakeFailure::Protocol,
    }
}

/// Returns the TLS library's error in an IO error, if there is one.
pub(crate) fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

fn of_tls_error(error: &rustls::Error) -> HandshakeFailure {
    if let rustls::Error::InvalidCertificate(error) = error {
        return of_certificate_error(error);
    }
    if matches!(error, rustls::Error::NoCertificatesPresented) {
        return HandshakeFailure::NoCertificate;
    }
    if matches!(error, rustls::Error::AlertReceived(_)) {
        return HandshakeFailure::RefusedByPeer;
    }
    HandshakeFailure::Protocol
}

fn of_certificate_error(error: &CertificateError) -> HandshakeFailure {
    if let Some(refusal) = name_refusal(error) {
        return match refusal {
            NameRefusal::OtherCluster { .. } => HandshakeFailure::OtherCluster,
            NameRefusal::Nameless | NameRefusal::NotANode { .. } | NameRefusal::OtherNode { .. } => {
                HandshakeFailure::OtherName
            }
        };
    }
    if matches!(
        error,
        CertificateError::Expired | CertificateError::ExpiredContext { .. }
    ) {
        HandshakeFailure::Expired
    } else if matches!(
        error,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }
    ) {
        HandshakeFailure::NotYetValid
    } else if matches!(error, CertificateError::UnknownIssuer | CertificateError::BadSignature) {
        HandshakeFailure::UnknownCa
    } else if matches!(
        error,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }
    ) {
        HandshakeFailure::OtherName
    } else {
        HandshakeFailure::BadCertificate
    }
}

fn name_refusal(error: &CertificateError) -> Option<&NameRefusal> {
    let CertificateError::Other(other) = error else {
        return None;
    };
    other.0.downcast_ref()
}

/// Returns what is wrong with a connection, and what to do.
pub fn explain(error: &io::Error) -> String {
    let Some(tls) = tls_error(error) else {
        return error.to_string();
    };
    if let rustls::Error::AlertReceived(alert) = tls {
        return explain_alert(*alert).to_owned();
    }
    if matches!(tls, rustls::Error::InvalidMessage(_)) {
        return PLAIN_TEXT_PEER.to_owned();
    }
    let rustls::Error::InvalidCertificate(refused) = tls else {
        return tls.to_string();
    };
    if let Some(refusal) = name_refusal(refused) {
        return refusal.to_string();
    }
    let reason = of_certificate_error(refused);
    let detail = detail(refused).map_or_else(String::new, |detail| format!(" ({detail})"));
    format!("{reason}{detail}")
}

/// Returns the names that a certificate does not have, where that is the reason.
fn detail(error: &CertificateError) -> Option<String> {
    let CertificateError::NotValidForNameContext { expected, presented } = error else {
        return None;
    };
    let (expected, presented) = (expected.to_str(), presented.join(", "));
    Some(format!("{expected} was dialled, the certificate has {presented}"))
}

fn explain_alert(alert: AlertDescription) -> &'static str {
    const CA: [AlertDescription; 3] = [
        AlertDescription::UnknownCA,
        AlertDescription::BadCertificate,
        AlertDescription::DecryptError,
    ];
    const NAME: [AlertDescription; 2] = [AlertDescription::CertificateUnknown, AlertDescription::AccessDenied];
    if alert == AlertDescription::CertificateExpired {
        "the other end says that this side's certificate has expired or is not valid yet: run `stead cert rotate`, or look \
         at both clocks"
    } else if CA.contains(&alert) {
        "the other end does not trust the CA of this side's certificate: use one that a CA of that cluster has issued"
    } else if alert == AlertDescription::CertificateRequired {
        "the other end requires a certificate: name a certificate and its key"
    } else if NAME.contains(&alert) {
        "the other end refuses the name in this side's certificate: it is of another cluster, or of somebody who may not \
         connect to this port"
    } else {
        "the other end has ended the handshake: its log says why"
    }
}

/// Turns the TLS library's error into one that says what to do.
pub(crate) fn explained(error: io::Error) -> io::Error {
    match tls_error(&error) {
        Some(_) => io::Error::new(error.kind(), Explained(explain(&error))),
        None => error,
    }
}

/// Error of a connection, as a sentence that says what to do.
#[derive(Debug)]
pub(crate) struct Explained(String);

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Explained {}
