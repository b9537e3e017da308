//! Maker of certificates for a cluster: a CA, and certificates of nodes, clients and operators, with their files.
//!
//! `stead-tls` has the meaning of names, and checks them.

mod authority;
mod files;
mod folder;

pub use authority::{Authority, BACKDATE, CertError, Issued, LIFETIME, LIFETIME_CA, NewCertificate, Validity};
pub use files::{FileError, Overwrite, PairFiles, write_certificate, write_pair};
pub use folder::{CertificateFolder, FolderError};
