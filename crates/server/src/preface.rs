//! Beginning of an inbound connection: the first bytes show whether the other end speaks HTTP.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// First bytes of an HTTP/2 connection (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Header of the SETTINGS frame that follows.
const FRAME_HEADER_LEN: usize = 9;

/// Reads until the other end has begun to speak HTTP/1, or has completed the preface of HTTP/2 with the header of its
/// SETTINGS; returns the connection with these bytes still to be read.
///
/// # Errors
///
/// The connection broke, or ended before.
pub(crate) async fn read<I: AsyncRead + Unpin>(mut connection: I) -> io::Result<Opened<I>> {
    let len = PREFACE.len() + FRAME_HEADER_LEN;
    let mut read = BytesMut::with_capacity(len);
    loop {
        let compared = read.len().min(PREFACE.len());
        let is_other = read[..compared] != PREFACE[..compared];
        if is_other || read.len() >= len {
            return Ok(Opened { read, connection });
        }
        let mut rest = (&mut connection).take((len - read.len()) as u64);
        if rest.read_buf(&mut read).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Connection whose first bytes were read already.
pub(crate) struct Opened<I> {
    read: BytesMut,
    connection: I,
}

impl<I> Opened<I> {
    /// Returns a connection of which these bytes were read already.
    pub(crate) fn after(read: &[u8], connection: I) -> Self {
        Self {
            read: BytesMut::from(read),
            connection,
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Opened<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.read.is_empty() {
            let len = self.read.len().min(buffer.remaining());
            buffer.put_slice(&self.read[..len]);
            self.read.advance(len);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.connection).poll_read(context, buffer)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Opened<I> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn bytes_that_were_read_come_again() {
        let http2 = [PREFACE, &[0, 0, 0, 4, 0, 0, 0, 0, 0], b"more"].concat();
        for sent in [&http2[..], b"GET / HTTP/1.1\r\n\r\n", b"P", b"PUT"].map(<[u8]>::to_vec) {
            let (mut near, far) = duplex(64);
            near.write_all(&sent).await.unwrap();
            near.shutdown().await.unwrap();
            let opened = read(far).await;
            if sent == b"P" {
                assert!(opened.is_err(), "it may still become a preface");
                continue;
            }
            let mut all = Vec::new();
            opened.unwrap().read_to_end(&mut all).await.unwrap();
            assert_eq!(all, sent);
        }
    }
}
