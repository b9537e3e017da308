//! Diagnosis of an address that does not answer as a node: the error says what speaks there, because a gRPC status does
//! not tell.

use std::time::Duration;

use futures::future::join_all;
use stead_types::{Error, ErrorKind};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{sleep, timeout},
};

use crate::{cluster_map::NodePreference, state::ClientState};

/// First bytes of an HTTP/2 client: preface and empty settings.
const CLIENT_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);
const SETTINGS: u8 = 4;

/// Delay before addresses that have not answered are diagnosed.
const SUSPECT_AFTER: Duration = Duration::from_millis(300);

/// Returns an error as soon as every address is known to speak another protocol, and never otherwise: a node that is
/// being started is waited for.
pub(crate) async fn find_wrong_protocol(state: &ClientState) -> Error {
    sleep(SUSPECT_AFTER).await;
    let nodes = state.map.load().known();
    let found = join_all(nodes.iter().map(|node| protocol_at(state, &node.address))).await;
    if let Some(Some(first)) = found.first()
        && found.iter().all(Option::is_some)
    {
        let address = &nodes[0].address;
        return Error::new(ErrorKind::Unavailable, format!("{address} {first}"));
    }
    std::future::pending().await
}

/// Adds the diagnosis of the first address to an error; an address that speaks gRPC adds nothing.
pub(crate) async fn explain_error(state: &ClientState, mut error: Error) -> Error {
    let Some(node) = state.map.load().pick(NodePreference::Nearest, &[]) else {
        return error;
    };
    let address = &node.address;
    if error.kind == ErrorKind::Unimplemented {
        // The process that answered speaks gRPC, or HTTP/2 at least.
        error.message = format!(
            "{address} is no node's client port: perhaps it is the node's peer or HTTP port; name its client port"
        );
    } else if let Some(what) = protocol_at(state, address).await {
        error.message = format!("{address} {what}");
    }
    error
}

/// Returns the description of a wrong protocol at an address; `None` for HTTP/2, and where nothing answers.
async fn protocol_at(state: &ClientState, address: &str) -> Option<&'static str> {
    let mut first = [0; 9];
    let handshake = async {
        let mut stream = (state.config.connect)(address.to_owned()).await?;
        stream.write_all(CLIENT_PREFACE).await?;
        let mut read = 0;
        while read < first.len() {
            match stream.read(&mut first[read..]).await? {
                0 => break,
                more => read += more,
            }
        }
        Ok::<usize, std::io::Error>(read)
    };
    let Ok(Ok(read)) = timeout(RESPONSE_TIMEOUT, handshake).await else {
        return None;
    };
    identify_protocol(&first[..read])
}

fn identify_protocol(first: &[u8]) -> Option<&'static str> {
    match first {
        [0x15, 3, ..] => {
            Some("speaks TLS: name the file of the cluster's CA, with --ca or as `tls` of the client's configuration")
        }
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
    fn protocol_is_identified_by_first_bytes() {
        assert!(
            identify_protocol(b"\x15\x03\x01\0\x02\x02\x46")
                .unwrap()
                .contains("TLS")
        );
        assert!(identify_protocol(b"HTTP/1.1 400").unwrap().contains("HTTP/1"));
        assert!(identify_protocol(b"SSH-2.0-Op").unwrap().contains("something else"));
        assert!(identify_protocol(b"").unwrap().contains("something else"));
        assert_eq!(identify_protocol(b"\0\0\x06\x04\0\0\0\0\0"), None);
    }
}
