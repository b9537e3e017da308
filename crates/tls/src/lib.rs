//! TLS between nodes and to clients: certificates from files, the names in them, reload, and handshakes.
//!
//! Who may connect is decided by names in verified certificates, `stead://CLUSTER/node/REGION/NAME` and the like, never
//! by DNS between nodes. What a name may do is decided elsewhere.
//!
//! # Invariants
//!
//! 1. Material that does not load never replaces material that works.
//! 2. A secret is in no error, log line or `Debug` output.
//! 3. A side that has required TLS never speaks plain text, whatever the other end does.

mod certificate;
mod credentials;
mod dial;
mod error;
mod explain;
mod files;
mod handshake;
mod material;
mod name;
mod verify;

/// Makes ring the cryptography of TLS for libraries that take the process's default.
pub fn install_default_provider() {
    // Whoever was first has installed the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

pub use certificate::{Certificate, InvalidCertificate, read as read_certificates};
pub use credentials::{Credentials, Reload};
pub use dial::{Expect, ExpectedPeer, PlainText, dial};
pub use error::TlsError;
pub use explain::{HandshakeFailure, PLAIN_TEXT_PEER, explain, failure_of};
pub use files::TlsFiles;
pub use handshake::{Accepted, accept_client, accept_peer};
pub use name::{CertificateName, InvalidCertificateName, Subject};
