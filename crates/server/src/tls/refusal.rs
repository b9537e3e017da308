//! Refusal of a connection, and what the other end is told in its own protocol.

use std::fmt;

use stead_tls::HandshakeFailure;

/// TLS alert `protocol_version`: a client that sees it knows that this port speaks TLS.
const TLS_ALERT: &[u8] = b"\x15\x03\x03\0\x02\x02\x46";
/// Answer to HTTP/1.
const HTTP_ANSWER: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n\
this port speaks TLS: use https, with the CA of the cluster\n";

/// Refusal of a connection before its first request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Reason, for metrics.
    pub(crate) reason: HandshakeFailure,
    /// Sentence for the log.
    pub(crate) detail: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

/// Returns the answer to plain text, by its first byte: HTTP/2 begins with `P`, and so do few requests of HTTP/1.
pub(crate) fn answer_to_plain_text(first: u8) -> &'static [u8] {
    match first {
        b'A'..=b'O' | b'Q'..=b'Z' => HTTP_ANSWER,
        _ => TLS_ALERT,
    }
}
