//! What answers at an address that does not answer as a node: told in the error, because a status does not tell.

use std::time::Duration;

use futures::future::join_all;
use stead_types::{Error, ErrorKind};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{sleep, timeout},
};

use crate::{client::Inner, map::Want};

/// What an HTTP/2 client says first: preface and empty settings.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
const SETTINGS: u8 = 4;

/// How long nodes have to answer before they are suspected to be none.
const SUSPECT_AFTER: Duration = Duration::from_millis(300);

/// Returns an error as soon as every address is known to speak something else, and never otherwise: a node that is
/// being started is waited for.
pub(crate) async fn suspect(inner: &Inner) -> Error {
    sleep(SUSPECT_AFTER).await;
    let nodes = inner.map.load().known();
    let found = join_all(nodes.iter().map(|node| at(inner, &node.address))).await;
    if let Some(Some(first)) = found.first()
        && found.iter().all(Option::is_some)
    {
        let address = &nodes[0].address;
        return Error::new(ErrorKind::Unavailable, format!("{address} {first}"));
    }
    std::future::pending().await
}

/// Adds to an error what is known of the first address; an address that speaks gRPC adds nothing.
pub(crate) async fn explain(inner: &Inner, mut error: Error) -> Error {
    let Some(node) = inner.map.load().pick(Want::Nearest, &[]) else {
        return error;
    };
    let address = &node.address;
    if error.kind == ErrorKind::Unimplemented {
        // Whoever answered speaks gRPC, or HTTP/2 at least.
        error.message = format!(
            "{address} is no node's client port: perhaps it is the node's peer or HTTP port; name its client port"
        );
    } else if let Some(what) = at(inner, address).await {
        error.message = format!("{address} {what}");
    }
    error
}

/// Says what an address speaks; `None` for HTTP/2, and where nobody answers.
async fn at(inner: &Inner, address: &str) -> Option<&'static str> {
    let mut first = [0; 9];
    let hello = async {
        let mut stream = (inner.config.connect)(address.to_owned()).await?;
        stream.write_all(HELLO).await?;
        let mut read = 0;
        while read < first.len() {
            match stream.read(&mut first[read..]).await? {
                0 => break,
                more => read += more,
            }
        }
        Ok::<usize, std::io::Error>(read)
    };
    let Ok(Ok(read)) = timeout(ANSWER_WITHIN, hello).await else {
        return None;
    };
    speaks(&first[..read])
}

fn speaks(first: &[u8]) -> Option<&'static str> {
    match first {
        [0x15, 3, ..] => Some("speaks TLS, which clients of this version do not; name a plain-text port"),
        [b'H', b'T', b'T', b'P', b'/', ..] => {
            Some("speaks HTTP/1, not gRPC: perhaps it is a node's HTTP port; name its client port")
        }
        [_, _, _, SETTINGS, ..] => None,
        _ => Some("speaks something else than gRPC; name a node's client port"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell_what_is_spoken() {
        assert!(speaks(b"\x15\x03\x01\0\x02\x02\x46").unwrap().contains("TLS"));
        assert!(speaks(b"HTTP/1.1 400").unwrap().contains("HTTP/1"));
        assert!(speaks(b"SSH-2.0-Op").unwrap().contains("something else"));
        assert!(speaks(b"").unwrap().contains("something else"));
        assert_eq!(speaks(b"\0\0\x06\x04\0\0\0\0\0"), None);
    }
}
