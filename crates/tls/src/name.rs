//! Name of a node, a client or an operator, as its certificate carries it.

use std::{fmt, str::FromStr};

/// Scheme of the URI.
const SCHEME: &str = "stead://";

/// Name that a certificate carries as a URI: `stead://CLUSTER/node/REGION/NAME`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CertificateName {
    /// Name of the cluster.
    pub cluster: String,
    /// Bearer of the certificate.
    pub subject: Subject,
}

/// Bearer of a certificate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// Node.
    Node {
        /// Name of its region.
        region: String,
        /// Name of the node.
        name: String,
    },
    /// Service that uses the store.
    Client {
        /// Name of the service.
        name: String,
    },
    /// Person or tool that operates the cluster.
    Operator {
        /// Name of the operator.
        name: String,
    },
}

/// Error of a URI that is no such name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no name of a certificate: use stead://CLUSTER/node/REGION/NAME, stead://CLUSTER/client/NAME or \
     stead://CLUSTER/operator/NAME"
)]
pub struct InvalidCertificateName(String);

impl CertificateName {
    /// Tells whether a URI has the scheme of these names; other URIs in a certificate are ignored.
    pub fn has_scheme(uri: &str) -> bool {
        uri.starts_with(SCHEME)
    }
}

impl fmt::Display for CertificateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", encode(&self.cluster))?;
        match &self.subject {
            Subject::Node { region, name } => write!(f, "/node/{}/{}", encode(region), encode(name)),
            Subject::Client { name } => write!(f, "/client/{}", encode(name)),
            Subject::Operator { name } => write!(f, "/operator/{}", encode(name)),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node { region, name } => write!(f, "node {name} of {region}"),
            Self::Client { name } => write!(f, "client {name}"),
            Self::Operator { name } => write!(f, "operator {name}"),
        }
    }
}

impl FromStr for CertificateName {
    type Err = InvalidCertificateName;

    fn from_str(uri: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidCertificateName(uri.to_owned());
        let path = uri.strip_prefix(SCHEME).ok_or_else(invalid)?;
        let parts: Option<Vec<String>> = path.split('/').map(decode).collect();
        let mut parts = parts.ok_or_else(invalid)?.into_iter();
        let cluster = parts.next().ok_or_else(invalid)?;
        let subject = match (parts.next().as_deref(), parts.next(), parts.next(), parts.next()) {
            (Some("node"), Some(region), Some(name), None) => Subject::Node { region, name },
            (Some("client"), Some(name), None, None) => Subject::Client { name },
            (Some("operator"), Some(name), None, None) => Subject::Operator { name },
            _ => return Err(invalid()),
        };
        Ok(Self { cluster, subject })
    }
}

/// Escapes all but letters, digits and `-._~` of ASCII, so that a name cannot contain the separator.
fn encode(part: &str) -> String {
    let mut encoded = String::new();
    for byte in part.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// Returns the part that this text encodes; `None` for an empty one and for an invalid escape.
fn decode(part: &str) -> Option<String> {
    let mut bytes = part.bytes();
    let mut decoded = Vec::new();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let high = char::from(bytes.next()?).to_digit(16)?;
            let low = char::from(bytes.next()?).to_digit(16)?;
            decoded.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8(decoded).ok().filter(|part| !part.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificate_name_round_trips() {
        let node = |name: &str| Subject::Node {
            region: "eu-west".into(),
            name: name.into(),
        };
        let odd = "a/b %\u{fc}";
        for (subject, uri) in [
            (node("eu-west-1"), "stead://prod/node/eu-west/eu-west-1"),
            (node(odd), "stead://prod/node/eu-west/a%2Fb%20%25%C3%BC"),
            (Subject::Client { name: "shop".into() }, "stead://prod/client/shop"),
            (Subject::Operator { name: "ada".into() }, "stead://prod/operator/ada"),
        ] {
            let name = CertificateName {
                cluster: "prod".into(),
                subject,
            };
            assert_eq!(name.to_string(), uri);
            assert_eq!(uri.parse::<CertificateName>().unwrap(), name);
        }
    }

    #[test]
    fn certificate_name_of_other_form_is_refused() {
        for uri in [
            "",
            "stead://",
            "stead://prod",
            "stead://prod/node/eu-west",
            "stead://prod/node//a",
            "stead://prod/node/eu-west/a/b",
            "stead://prod/client/a/b",
            "stead://prod/root/a",
            "stead:///client/a",
            "stead://prod/client/%2",
            "stead://prod/client/%FF",
            "spiffe://prod/client/a",
        ] {
            assert!(uri.parse::<CertificateName>().is_err(), "{uri}");
        }
    }
}
