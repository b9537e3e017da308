//! Errors of material that cannot be used: which file, why, and what to do.

use std::{io, path::PathBuf};

use crate::name::CertificateName;

/// Error of material that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{} cannot be read: {source}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A key that others may read.
    #[error(
        "{} has the permissions {mode:04o}: others may read or change this key; run `chmod 600 {}`",
        file.display(),
        file.display()
    )]
    OpenKey {
        /// The file.
        file: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A file without what it should hold.
    #[error("{} has no {what} in PEM: `stead cert` makes such files", file.display())]
    Missing {
        /// The file.
        file: PathBuf,
        /// Wanted content of the file.
        what: &'static str,
    },
    /// A certificate that cannot be parsed.
    #[error("{} has a certificate that cannot be parsed: make it again", file.display())]
    Malformed {
        /// The file.
        file: PathBuf,
    },
    /// A certificate without its key, or the reverse.
    #[error("name both a certificate and its key, or neither of them")]
    Unpaired,
    /// A key that is not the certificate's.
    #[error("{} is not the key of {}: name the two files that were made together", key.display(), certificate.display())]
    OtherKey {
        /// File of the key.
        key: PathBuf,
        /// File of the certificate.
        certificate: PathBuf,
    },
    /// A certificate that has expired.
    #[error("{} has expired at {at}: make a new one with `stead cert rotate`", file.display())]
    Expired {
        /// The file.
        file: PathBuf,
        /// End of its validity.
        at: String,
    },
    /// A certificate that is not valid yet.
    #[error("{} is valid from {at} only: look at the clock of this machine, or make a new one", file.display())]
    NotYetValid {
        /// The file.
        file: PathBuf,
        /// Begin of its validity.
        at: String,
    },
    /// A certificate of a CA that is not trusted.
    #[error("{} is not issued by a CA of {}: name the CA that has issued it", certificate.display(), ca.display())]
    OtherCa {
        /// File of the certificate.
        certificate: PathBuf,
        /// File of the CAs.
        ca: PathBuf,
    },
    /// A certificate without a name, or with several.
    #[error("{} has no single name such as stead://CLUSTER/node/REGION/NAME: make it with `stead cert`", file.display())]
    Nameless {
        /// The file.
        file: PathBuf,
    },
    /// A certificate with another name than that of this node.
    #[error("{} names {found}, but this is {expected}: make its own with `stead cert node`", file.display())]
    OtherName {
        /// The file.
        file: PathBuf,
        /// Name in the certificate.
        found: Box<CertificateName>,
        /// Name that it should have.
        expected: Box<CertificateName>,
    },
    /// A configuration that the TLS library refuses.
    #[error("{} cannot be used for TLS: {reason}", file.display())]
    Refused {
        /// The file.
        file: PathBuf,
        /// The library's reason.
        reason: String,
    },
}
