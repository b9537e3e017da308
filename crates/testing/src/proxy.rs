//! TCP proxy that passes connections over a link.

use std::{io, net::SocketAddr};

use tokio::{
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep_until},
};

use crate::{Flow, Link, pipe};

/// TCP proxy from one address to another, over a link; it ends, with its connections, when dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    task: AbortHandle,
}

impl Proxy {
    /// Listens at an address (port 0: a free one) and proxies to `target`.
    ///
    /// # Errors
    ///
    /// The address cannot be listened at.
    pub async fn start(listen: SocketAddr, target: String, link: Link) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(accept(listener, target, link)).abort_handle();
        Ok(Self { address, task })
    }

    /// Returns the address that it listens at.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, target: String, link: Link) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // An error here is a lack of file descriptors; the next connection may succeed.
                if let Ok((from, _)) = accepted {
                    connections.spawn(pass_on(from, target.clone(), link.clone()));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Proxies one connection. A broken connection is closed on both sides; its error is not reported.
async fn pass_on(from: TcpStream, target: String, link: Link) -> io::Result<()> {
    // The handshake of a real connection takes a round trip, before which nothing is sent.
    let connected = Instant::now() + link.round_trip();
    if link.there.shape().flow == Flow::Refused {
        return Ok(());
    }
    let to = match TcpStream::connect(&target).await {
        Ok(to) => to,
        Err(error) => {
            open(&link).await;
            sleep_until(connected).await;
            return Err(error);
        }
    };
    from.set_nodelay(true)?;
    to.set_nodelay(true)?;
    let (near_read, near_write) = from.into_split();
    let (far_read, far_write) = to.into_split();
    let there = pipe::carry(near_read, far_write, &link.there, connected + link.there.shape().delay);
    let back = pipe::carry(far_read, near_write, &link.back, connected);
    tokio::try_join!(there, back)?;
    Ok(())
}

/// Waits until the refusal of a connection could come back.
async fn open(link: &Link) {
    let mut shapes = link.back.watch();
    // The sender lives as long as the link, which is held here.
    let _ = shapes.wait_for(|shape| shape.flow != Flow::Held).await;
}
