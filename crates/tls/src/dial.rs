//! Dialler that speaks TLS, over any other dialler.

use std::{
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use rustls_pki_types::ServerName;
use stead_api::net::{Connect, Io};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    credentials::Credentials,
    explain::{explained, tls_error},
    name::Subject,
};

/// End that is expected at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExpectedPeer {
    /// A node whose certificate has the dialled host among its DNS names and addresses.
    Host,
    /// This node, wherever its address is.
    Node(Subject),
    /// Nobody: the address is of no known node.
    Unknown,
}

/// Use of plain text towards an end that does not speak TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlainText {
    /// It is never spoken.
    Refused,
    /// It is spoken to an end that does not speak TLS: while a cluster goes over to TLS.
    Allowed,
}

/// Function that returns who is expected at an address.
pub type Expect = Arc<dyn Fn(&str) -> ExpectedPeer + Send + Sync>;

/// Returns a dialler that speaks TLS over the connections of another one.
pub fn dial(connect: Connect, credentials: Credentials, expect: Expect, plain: PlainText) -> Connect {
    Arc::new(move |address: String| {
        let (connect, credentials, expect) = (connect.clone(), credentials.clone(), expect.clone());
        Box::pin(async move {
            let dialled = handshake(&connect, &credentials, &expect, &address).await;
            match dialled {
                Ok(stream) => Ok(Box::pin(stream) as Pin<Box<dyn Io>>),
                Err(error) if plain == PlainText::Allowed && is_plain_text(&error) => connect(address).await,
                Err(error) => Err(explained(error)),
            }
        })
    })
}

async fn handshake(
    connect: &Connect,
    credentials: &Credentials,
    expect: &Expect,
    address: &str,
) -> io::Result<ExplainedStream> {
    let expected = expect(address);
    if expected == ExpectedPeer::Unknown {
        let problem = format!("{address} is the address of no node in the directory or in cluster.initial");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
    }
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let invalid = |_| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{address} has no host name for TLS"),
        )
    };
    let host = ServerName::try_from(host).map_err(invalid)?;
    let stream = connect(address.to_owned()).await?;
    credentials.reload_if_due();
    let config = credentials.material().client(expected);
    let stream = TlsConnector::from(config).connect(host, stream).await?;
    Ok(ExplainedStream(stream))
}

/// Tells whether a handshake failed because the other end does not speak TLS.
fn is_plain_text(error: &io::Error) -> bool {
    match tls_error(error) {
        Some(error) => matches!(error, rustls::Error::InvalidMessage(_)),
        // A plain listener closes the connection when it sees no HTTP.
        None => matches!(
            error.kind(),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
        ),
    }
}

/// TLS stream whose errors say what to do: a refusal of this side's certificate arrives with the first bytes that are read.
struct ExplainedStream(TlsStream<Pin<Box<dyn Io>>>);

impl fmt::Debug for ExplainedStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ExplainedStream")
    }
}

impl AsyncRead for ExplainedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer).map_err(explained)
    }
}

impl AsyncWrite for ExplainedStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes).map_err(explained)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context).map_err(explained)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0)
            .poll_write_vectored(context, buffers)
            .map_err(explained)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
}
