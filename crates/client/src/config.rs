//! Configuration of a client.

use std::{collections::BTreeMap, fmt, io, pin::Pin, sync::Arc, time::Duration};

use stead_api::net::{Connect, Io};
use stead_tls::{Credentials, ExpectedPeer, PlainText, TlsFiles};
use stead_types::{Error, RegionName};
use tokio::net::TcpStream;

use crate::TokenSource;

/// Configuration of a client: how it finds its cluster, and its timeouts.
#[derive(Clone)]
pub struct Config {
    /// Addresses of nodes to begin with, `host:port`, of any region; the other nodes are discovered through them.
    pub endpoints: Vec<String>,
    /// Region in which the client runs; absent: the region with the shortest round trip.
    pub region: Option<RegionName>,
    /// Sends calls to the nearest nodes only and leaves the forwarding to the home to them: for clients that reach no
    /// other region.
    pub nearest_only: bool,
    /// Default timeout of a call, retries included.
    pub timeout: Duration,
    /// Timeout of [`crate::Client::connect`].
    pub connect_timeout: Duration,
    /// Connector: how connections are made.
    pub connect: Connect,
    /// CA, certificate and key, as files that are followed; absent: plain text. With a CA alone the client shows no
    /// certificate.
    pub tls: Option<TlsFiles>,
    /// Token that goes with each call; the default is none.
    pub token: TokenSource,
    /// Seed of all random choices, for reproducible simulations; absent: the system's entropy.
    ///
    /// Two clients of one seed have the same client id: to the store the writes of one are repeats of the other's.
    #[doc(hidden)]
    pub seed: Option<u64>,
}

impl Config {
    /// Default of [`Config::timeout`].
    pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

    /// Returns a configuration with defaults that dials the addresses that nodes advertise.
    pub fn new(endpoints: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            region: None,
            nearest_only: false,
            timeout: Self::TIMEOUT_DEFAULT,
            connect_timeout: Self::TIMEOUT_DEFAULT,
            connect: dial(BTreeMap::new()),
            tls: None,
            token: TokenSource::default(),
            seed: None,
        }
    }

    /// Returns the endpoints as `host:port`.
    pub(crate) fn addresses(&self) -> Result<Vec<String>, Error> {
        if self.endpoints.is_empty() {
            return Err(Error::invalid(
                "endpoints",
                "endpoints: name at least one node, host:port",
            ));
        }
        self.endpoints
            .iter()
            .map(|endpoint| address(endpoint, self.tls.is_some()))
            .collect()
    }

    /// Returns the connector, which speaks TLS if there is a CA: for channels of one's own.
    ///
    /// # Errors
    ///
    /// A certificate that cannot be used.
    pub fn connector(&self) -> Result<Connect, Error> {
        let Some(files) = &self.tls else {
            return Ok(self.connect.clone());
        };
        let credentials = Credentials::load(files.clone(), None);
        let credentials = credentials.map_err(|error| Error::invalid("tls", error.to_string()))?;
        let expect = Arc::new(|_: &str| ExpectedPeer::Host);
        Ok(stead_tls::dial(
            self.connect.clone(),
            credentials,
            expect,
            PlainText::Refused,
        ))
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            endpoints,
            region,
            nearest_only,
            timeout,
            connect_timeout,
            connect: _,
            tls,
            token,
            seed,
        } = self;
        let mut shown = f.debug_struct("Config");
        shown
            .field("endpoints", endpoints)
            .field("region", region)
            .field("nearest_only", nearest_only)
            .field("timeout", timeout)
            .field("connect_timeout", connect_timeout)
            .field("tls", tls)
            .field("token", token);
        shown.field("seed", seed).finish_non_exhaustive()
    }
}

/// Returns a TCP connector that dials `map[address]` instead of `address`, where the map has an entry.
pub fn dial(map: BTreeMap<String, String>) -> Connect {
    let map = Arc::new(map);
    Arc::new(move |address| {
        let address = map.get(&address).cloned().unwrap_or(address);
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok::<Pin<Box<dyn Io>>, io::Error>(Box::pin(stream))
        })
    })
}

fn address(endpoint: &str, has_ca: bool) -> Result<String, Error> {
    let invalid = |what: String| Error::invalid("endpoints", format!("endpoints: {endpoint:?} {what}"));
    let address = match (endpoint.strip_prefix("https://"), endpoint.strip_prefix("http://")) {
        (Some(_), _) if !has_ca => {
            return Err(invalid(
                "asks for TLS, and no CA is named: name the file of the cluster's CA".into(),
            ));
        }
        (_, Some(_)) if has_ca => {
            return Err(invalid(
                "asks for plain text, and a CA is named: use https:// or host:port".into(),
            ));
        }
        (Some(address), _) | (_, Some(address)) => address,
        (None, None) => endpoint,
    };
    let address = address.trim_end_matches('/');
    match address.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(address.to_owned()),
        Some(_) | None => Err(invalid("is no host:port".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoint_without_host_and_port_is_rejected() {
        let addresses = |endpoint: &str| Config::new([endpoint]).addresses();
        assert_eq!(address("https://node:7401/", true).unwrap(), "node:7401");
        assert!(
            address("http://node:7401", true)
                .unwrap_err()
                .message
                .contains("asks for plain text")
        );
        assert_eq!(addresses("127.0.0.1:7401").unwrap(), ["127.0.0.1:7401"]);
        assert_eq!(addresses("http://node:7401/").unwrap(), ["node:7401"]);
        let refused = |endpoint: &str| addresses(endpoint).unwrap_err().message;
        assert!(refused("https://node:7401").contains("asks for TLS"));
        assert!(refused("node").contains("is no host:port"));
        assert!(refused("node:http").contains("is no host:port"));
        assert!(Config::new(Vec::<String>::new()).addresses().is_err());
    }
}
