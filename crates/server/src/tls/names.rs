//! Names in certificates as identities of connections.

use stead_tls::Subject;

use crate::certificate_identity::CertificateIdentity;

impl From<Subject> for CertificateIdentity {
    fn from(subject: Subject) -> Self {
        match subject {
            Subject::Node { region, name } => Self::Node { region, name },
            Subject::Client { name } => Self::Client { name },
            Subject::Operator { name } => Self::Operator { name },
        }
    }
}
