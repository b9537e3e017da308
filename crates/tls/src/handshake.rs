//! Server side of a handshake.

use std::{fmt, io};

use rustls::ServerConfig;
use std::sync::Arc;
use stead_api::net::Io;
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{credentials::Credentials, name::CertificateName, verify::name_in};

/// Connection after its handshake.
pub struct Accepted<I> {
    /// Decrypted bytes.
    pub stream: TlsStream<I>,
    /// Name in the other end's certificate; a client may have none.
    pub name: Option<CertificateName>,
}

impl<I> fmt::Debug for Accepted<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accepted")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Accepts a connection of a client, with or without a certificate.
///
/// # Errors
///
/// A failed handshake; [`crate::failure_of`] returns the reason.
pub async fn accept_client<I: Io>(credentials: &Credentials, stream: I) -> io::Result<Accepted<I>> {
    accept(credentials.material().for_clients(), stream).await
}

/// Accepts a connection of another node of the cluster.
///
/// # Errors
///
/// A failed handshake; [`crate::failure_of`] returns the reason.
pub async fn accept_peer<I: Io>(credentials: &Credentials, stream: I) -> io::Result<Accepted<I>> {
    accept(credentials.material().for_nodes(), stream).await
}

async fn accept<I: Io>(config: Option<Arc<ServerConfig>>, stream: I) -> io::Result<Accepted<I>> {
    let config = config.ok_or_else(|| io::Error::other("this side has no certificate"))?;
    let stream = TlsAcceptor::from(config).accept(stream).await?;
    let certificates = stream.get_ref().1.peer_certificates();
    let name = match certificates.and_then(<[_]>::first) {
        None => None,
        Some(certificate) => name_in(certificate).map_err(io::Error::other)?,
    };
    Ok(Accepted { stream, name })
}
