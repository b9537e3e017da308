//! Material of one side, loaded and checked: the CAs that it trusts, its own chain and key.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use crate::{
    certificate::{Certificate, chain, time_text},
    dial::ExpectedPeer,
    error::TlsError,
    files::{FileContent, TlsFiles},
    name::CertificateName,
    verify::{ConnectedVerifier, DialledVerifier},
};

/// Protocols of HTTP that are offered in handshakes.
const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// Chain and key of one side.
struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    name: Option<CertificateName>,
}

/// Material of one side, ready for handshakes. It has no `Debug`: a key is in it.
pub(crate) struct Material {
    /// Certificates of CAs, in the order of their file.
    pub(crate) ca: Vec<Certificate>,
    /// Own certificate.
    pub(crate) own: Option<Certificate>,
    /// Name of the cluster, from the own certificate.
    cluster: Option<String>,
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
    client: ClientConfig,
    /// Server side for clients and for nodes; a side without a certificate serves nobody.
    servers: Option<Servers>,
}

struct Servers {
    for_clients: Arc<ServerConfig>,
    for_nodes: Arc<ServerConfig>,
}

impl Material {
    /// Checks the content of files, and makes material of it.
    pub(crate) fn new(
        files: &TlsFiles,
        content: &FileContent,
        expected: Option<&CertificateName>,
        now: UnixTime,
    ) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let ca = chain(&content.ca, &files.ca)?;
        let roots = Arc::new(roots(&ca, &files.ca)?);
        let identity = identity(files, content)?;
        if let Some(identity) = &identity {
            let checks = Checks {
                files,
                identity,
                roots: &roots,
                provider: &provider,
            };
            checks.check(expected, now)?;
        }
        let parse = |der: &CertificateDer<'_>, file: &Path| {
            Certificate::parse(der).map_err(|_| TlsError::Malformed { file: file.to_owned() })
        };
        let ca = ca.iter().map(|der| parse(der, &files.ca)).collect::<Result<_, _>>()?;
        let file = own_file(files);
        let own = identity
            .as_ref()
            .map(|identity| parse(&identity.chain[0], file))
            .transpose()?;
        let cluster = identity.as_ref().and_then(|identity| identity.name.as_ref());
        let cluster = cluster.map(|name| name.cluster.clone());
        let builder = Builder {
            file,
            provider: &provider,
            roots: &roots,
        };
        Ok(Self {
            client: builder.client(identity.as_ref())?,
            servers: match (&identity, &cluster) {
                (Some(identity), Some(cluster)) => Some(Servers {
                    for_clients: builder.server(identity, cluster, false)?,
                    for_nodes: builder.server(identity, cluster, true)?,
                }),
                (_, _) => None,
            },
            ca,
            own,
            cluster,
            roots,
            provider,
        })
    }

    /// Returns the client side of a handshake with an expected end.
    pub(crate) fn client(&self, expected: ExpectedPeer) -> Arc<ClientConfig> {
        let mut config = self.client.clone();
        let verifier = DialledVerifier {
            roots: self.roots.clone(),
            provider: self.provider.clone(),
            cluster: self.cluster.clone(),
            expected,
        };
        config.dangerous().set_certificate_verifier(Arc::new(verifier));
        Arc::new(config)
    }

    /// Returns the server side of a handshake with a client.
    pub(crate) fn for_clients(&self) -> Option<Arc<ServerConfig>> {
        self.servers.as_ref().map(|servers| servers.for_clients.clone())
    }

    /// Returns the server side of a handshake with another node.
    pub(crate) fn for_nodes(&self) -> Option<Arc<ServerConfig>> {
        self.servers.as_ref().map(|servers| servers.for_nodes.clone())
    }
}

fn own_file(files: &TlsFiles) -> &Path {
    files.certificate.as_deref().unwrap_or(&files.ca)
}

fn roots(ca: &[CertificateDer<'static>], file: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in ca {
        // The CA's own time of validity does not count: what it has issued has one.
        let anchor = anchor_from_trusted_cert(certificate);
        let anchor = anchor.map_err(|_| TlsError::Malformed { file: file.to_owned() })?;
        roots.roots.push(anchor.to_owned());
    }
    Ok(roots)
}

fn identity(files: &TlsFiles, content: &FileContent) -> Result<Option<Identity>, TlsError> {
    let (certificate, key) = match (&files.certificate, &files.key, &content.certificate, &content.key) {
        (None, None, _, _) => return Ok(None),
        (Some(file), Some(key_file), Some(certificate), Some(key)) => {
            let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| TlsError::Missing {
                file: key_file.clone(),
                what: "key",
            })?;
            (chain(certificate, file)?, key)
        }
        (_, _, _, _) => return Err(TlsError::Unpaired),
    };
    let file = own_file(files);
    let parsed = Certificate::parse(&certificate[0]).map_err(|_| TlsError::Malformed { file: file.to_owned() })?;
    Ok(Some(Identity {
        name: parsed.name(),
        chain: certificate,
        key,
    }))
}

/// Checks of the own certificate, so that a wrong one is reported where it lies, and not by others who refuse it.
struct Checks<'a> {
    files: &'a TlsFiles,
    identity: &'a Identity,
    roots: &'a RootCertStore,
    provider: &'a CryptoProvider,
}

impl Checks<'_> {
    fn check(&self, expected: Option<&CertificateName>, now: UnixTime) -> Result<(), TlsError> {
        self.check_key()?;
        let file = own_file(self.files).to_owned();
        let own = Certificate::parse(&self.identity.chain[0]);
        let own = own.map_err(|_| TlsError::Malformed { file: file.clone() })?;
        let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        if own.not_after < seconds {
            let at = time_text(own.not_after);
            return Err(TlsError::Expired { file, at });
        }
        if own.not_before > seconds {
            let at = time_text(own.not_before);
            return Err(TlsError::NotYetValid { file, at });
        }
        self.check_chain(now)?;
        let name = self.identity.name.clone();
        match (expected, name) {
            (None, _) => Ok(()),
            (Some(_), None) => Err(TlsError::Nameless { file }),
            (Some(expected), Some(found)) if found != *expected => Err(TlsError::OtherName {
                file,
                found: Box::new(found),
                expected: Box::new(expected.clone()),
            }),
            (Some(_), Some(_)) => Ok(()),
        }
    }

    fn check_key(&self) -> Result<(), TlsError> {
        let other = || TlsError::OtherKey {
            key: self.files.key.clone().unwrap_or_default(),
            certificate: own_file(self.files).to_owned(),
        };
        let key = self
            .provider
            .key_provider
            .load_private_key(self.identity.key.clone_key());
        let key = key.map_err(|error| TlsError::Refused {
            file: self.files.key.clone().unwrap_or_default(),
            reason: error.to_string(),
        })?;
        let pair = CertifiedKey::new(self.identity.chain.clone(), key);
        match pair.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(()),
            Err(_) => Err(other()),
        }
    }

    /// Checks that a trusted CA has issued the certificate. A node's is for both sides of a connection, all others for the
    /// client's.
    fn check_chain(&self, now: UnixTime) -> Result<(), TlsError> {
        let other_ca = || TlsError::OtherCa {
            certificate: own_file(self.files).to_owned(),
            ca: self.files.ca.clone(),
        };
        let own = EndEntityCert::try_from(&self.identity.chain[0]).map_err(|_| other_ca())?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        let (roots, intermediates) = (&self.roots.roots, &self.identity.chain[1..]);
        own.verify_for_usage(
            algorithms,
            roots,
            intermediates,
            now,
            KeyUsage::client_auth(),
            None,
            None,
        )
        .map(drop)
        .map_err(|_| other_ca())
    }
}

/// Builder of both sides' configurations.
struct Builder<'a> {
    file: &'a Path,
    provider: &'a Arc<CryptoProvider>,
    roots: &'a Arc<RootCertStore>,
}

impl Builder<'_> {
    fn refused(&self, error: &dyn std::error::Error) -> TlsError {
        TlsError::Refused {
            file: self.file.to_owned(),
            reason: error.to_string(),
        }
    }

    fn client(&self, identity: Option<&Identity>) -> Result<ClientConfig, TlsError> {
        let verifier = DialledVerifier {
            roots: self.roots.clone(),
            provider: self.provider.clone(),
            cluster: None,
            expected: ExpectedPeer::Unknown,
        };
        let builder = ClientConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| self.refused(&error))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => builder
                .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())
                .map_err(|error| self.refused(&error))?,
        };
        config.alpn_protocols = vec![HTTP2.to_vec()];
        // A resumed session would skip the check of the other end's certificate.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(config)
    }

    /// Returns the server side. Clients may come without a certificate, nodes may not.
    fn server(&self, identity: &Identity, cluster: &str, nodes_only: bool) -> Result<Arc<ServerConfig>, TlsError> {
        let chain = WebPkiClientVerifier::builder_with_provider(self.roots.clone(), self.provider.clone());
        let chain = if nodes_only {
            chain
        } else {
            chain.allow_unauthenticated()
        };
        let verifier = ConnectedVerifier {
            chain: chain.build().map_err(|error| self.refused(&error))?,
            cluster: cluster.to_owned(),
            nodes_only,
        };
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| self.refused(&error))?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_single_cert(identity.chain.clone(), identity.key.clone_key())
            .map_err(|error| self.refused(&error))?;
        config.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }
}
