//! Verification of the other end's certificate: the chain first, then the name.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor, verify_server_name,
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    server::{
        ParsedCertificate,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::{
    dial::ExpectedPeer,
    name::{CertificateName, Subject},
};

/// Refusal of the name in a certificate whose chain is right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NameRefusal {
    /// There is none, or more than one.
    #[error(
        "the certificate of the other end has no single name such as stead://CLUSTER/node/REGION/NAME: make it with \
         `stead cert`"
    )]
    Nameless,
    /// It is of another cluster.
    #[error(
        "the certificate of the other end names {found}, and this is cluster {own}: clusters do not share certificates"
    )]
    OtherCluster {
        /// The name.
        found: CertificateName,
        /// Name of the own cluster.
        own: String,
    },
    /// It is no node's.
    #[error("the certificate of the other end names {found}, and only nodes may be here")]
    NotANode {
        /// The name.
        found: CertificateName,
    },
    /// It is of another node than was dialled.
    #[error(
        "the certificate of the other end names {found}, and {expected} was dialled: look at the addresses of both"
    )]
    OtherNode {
        /// The name.
        found: CertificateName,
        /// Node that was dialled.
        expected: Subject,
    },
}

impl From<NameRefusal> for rustls::Error {
    fn from(refusal: NameRefusal) -> Self {
        CertificateError::Other(OtherError(Arc::new(refusal))).into()
    }
}

/// Returns the name in a certificate.
pub(crate) fn name_in(certificate: &CertificateDer<'_>) -> Result<Option<CertificateName>, NameRefusal> {
    let parsed = webpki::EndEntityCert::try_from(certificate).map_err(|_| NameRefusal::Nameless)?;
    let mut names = parsed.valid_uri_names().filter(|uri| CertificateName::has_scheme(uri));
    let Some(first) = names.next() else {
        return Ok(None);
    };
    if names.next().is_some() {
        return Err(NameRefusal::Nameless);
    }
    first.parse().map(Some).map_err(|_| NameRefusal::Nameless)
}

/// Checks that a name is of the own cluster.
pub(crate) fn check_cluster(found: CertificateName, own: &str) -> Result<CertificateName, NameRefusal> {
    if found.cluster == own {
        return Ok(found);
    }
    let own = own.to_owned();
    Err(NameRefusal::OtherCluster { found, own })
}

/// Checks the name of a connected end that must be a node.
pub(crate) fn check_node(found: CertificateName) -> Result<CertificateName, NameRefusal> {
    match found.subject {
        Subject::Node { .. } => Ok(found),
        Subject::Client { .. } | Subject::Operator { .. } => Err(NameRefusal::NotANode { found }),
    }
}

/// Checks the name of a dialled end. Without a name in it, a certificate is right for a host only.
pub(crate) fn check_dialled(
    found: Option<CertificateName>,
    cluster: Option<&str>,
    expected: &ExpectedPeer,
) -> Result<(), NameRefusal> {
    let found = match (found, expected) {
        (Some(found), _) => found,
        (None, ExpectedPeer::Host) => return Ok(()),
        (None, ExpectedPeer::Node(_) | ExpectedPeer::Unknown) => return Err(NameRefusal::Nameless),
    };
    let found = check_node(match cluster {
        Some(cluster) => check_cluster(found, cluster)?,
        None => found,
    })?;
    match expected {
        ExpectedPeer::Node(expected) if found.subject != *expected => Err(NameRefusal::OtherNode {
            found,
            expected: expected.clone(),
        }),
        ExpectedPeer::Node(_) | ExpectedPeer::Host | ExpectedPeer::Unknown => Ok(()),
    }
}

/// Verifier of the end that was dialled.
#[derive(Debug)]
pub(crate) struct DialledVerifier {
    pub(crate) roots: Arc<RootCertStore>,
    pub(crate) provider: Arc<CryptoProvider>,
    pub(crate) cluster: Option<String>,
    pub(crate) expected: ExpectedPeer,
}

impl ServerCertVerifier for DialledVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, algorithms)?;
        if self.expected == ExpectedPeer::Host {
            verify_server_name(&certificate, server_name)?;
        }
        check_dialled(name_in(end_entity)?, self.cluster.as_deref(), &self.expected)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Verifier of an end that connects: the library's check of the chain, then the name.
#[derive(Debug)]
pub(crate) struct ConnectedVerifier {
    pub(crate) chain: Arc<dyn ClientCertVerifier>,
    pub(crate) cluster: String,
    /// Whether it must be a node.
    pub(crate) nodes_only: bool,
}

impl ClientCertVerifier for ConnectedVerifier {
    fn offer_client_auth(&self) -> bool {
        self.chain.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.chain.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        let name = name_in(end_entity)?.ok_or(NameRefusal::Nameless)?;
        let name = check_cluster(name, &self.cluster)?;
        if self.nodes_only {
            check_node(name)?;
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(uri: &str) -> CertificateName {
        uri.parse().unwrap()
    }

    #[test]
    fn dialled_node_has_expected_name_and_cluster() {
        let eu = Subject::Node {
            region: "eu-west".into(),
            name: "eu-west-1".into(),
        };
        let expected = ExpectedPeer::Node(eu);
        let check = |uri: &str| check_dialled(Some(name(uri)), Some("prod"), &expected);
        assert_eq!(check("stead://prod/node/eu-west/eu-west-1"), Ok(()));
        for other in [
            "stead://prod/node/us-east/eu-west-1",
            "stead://prod/node/eu-west/eu-west-2",
        ] {
            assert!(matches!(check(other), Err(NameRefusal::OtherNode { .. })), "{other}");
        }
        let cluster = check("stead://test/node/eu-west/eu-west-1");
        assert!(matches!(cluster, Err(NameRefusal::OtherCluster { .. })), "{cluster:?}");
        let client = check("stead://prod/client/eu-west-1");
        assert!(matches!(client, Err(NameRefusal::NotANode { .. })), "{client:?}");
        assert_eq!(check_dialled(None, Some("prod"), &expected), Err(NameRefusal::Nameless));
    }

    #[test]
    fn dialled_host_is_a_node_of_any_name() {
        let check = |uri: &str, cluster| check_dialled(Some(name(uri)), cluster, &ExpectedPeer::Host);
        assert_eq!(check("stead://prod/node/eu-west/a", Some("prod")), Ok(()));
        assert_eq!(check("stead://prod/node/eu-west/a", None), Ok(()));
        assert!(check("stead://prod/operator/a", None).is_err());
        assert!(check("stead://test/node/eu-west/a", Some("prod")).is_err());
        assert_eq!(check_dialled(None, Some("prod"), &ExpectedPeer::Host), Ok(()));
    }
}
