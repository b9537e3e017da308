//! What a client needs to know before it starts.

use std::{collections::BTreeMap, fmt, io, pin::Pin, sync::Arc, time::Duration};

use stead_api::net::{Connect, Io};
use stead_types::{Error, RegionName};
use tokio::net::TcpStream;

/// How a client finds its cluster and how long it tries.
#[derive(Clone)]
pub struct Config {
    /// Nodes to begin with, `host:port`; the others are learnt from them. Of any region.
    pub endpoints: Vec<String>,
    /// Where the client stands; absent: the region that answers soonest.
    pub region: Option<RegionName>,
    /// Ask the nearest nodes only and let them find the home: for clients that reach no other region.
    pub nearby: bool,
    /// How long a call may take, retries and all, unless it says so itself.
    pub timeout: Duration,
    /// How long [`crate::Client::connect`] looks for a first node that answers.
    pub connect_timeout: Duration,
    /// How connections are made.
    pub connect: Connect,
    /// What random choices are drawn from, in simulations that must do the same again; absent: the system's entropy.
    ///
    /// Two clients of one seed have the same client id: to the store the writes of one are repeats of the other's.
    #[doc(hidden)]
    pub seed: Option<u64>,
}

impl Config {
    /// How long a call may take if nobody says.
    pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

    /// Returns the configuration of a client that dials what nodes advertise.
    pub fn new(endpoints: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            region: None,
            nearby: false,
            timeout: Self::TIMEOUT_DEFAULT,
            connect_timeout: Self::TIMEOUT_DEFAULT,
            connect: dial(BTreeMap::new()),
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
        self.endpoints.iter().map(|endpoint| address(endpoint)).collect()
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            endpoints,
            region,
            nearby,
            timeout,
            connect_timeout,
            connect: _,
            seed,
        } = self;
        let mut shown = f.debug_struct("Config");
        shown
            .field("endpoints", endpoints)
            .field("region", region)
            .field("nearby", nearby)
            .field("timeout", timeout)
            .field("connect_timeout", connect_timeout);
        shown.field("seed", seed).finish_non_exhaustive()
    }
}

/// Returns how to dial over TCP, where an address of the map is dialled as what it maps to.
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

fn address(endpoint: &str) -> Result<String, Error> {
    let invalid = |what: String| Error::invalid("endpoints", format!("endpoints: {endpoint:?} {what}"));
    if endpoint.starts_with("https://") {
        return Err(invalid(
            "asks for TLS, which nodes of this version do not speak; use http:// or host:port".into(),
        ));
    }
    let address = endpoint
        .strip_prefix("http://")
        .unwrap_or(endpoint)
        .trim_end_matches('/');
    match address.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(address.to_owned()),
        Some(_) | None => Err(invalid("is no host:port".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_host_and_port_and_anything_else_is_explained() {
        let addresses = |endpoint: &str| Config::new([endpoint]).addresses();
        assert_eq!(addresses("127.0.0.1:7401").unwrap(), ["127.0.0.1:7401"]);
        assert_eq!(addresses("http://node:7401/").unwrap(), ["node:7401"]);
        let refused = |endpoint: &str| addresses(endpoint).unwrap_err().message;
        assert!(refused("https://node:7401").contains("asks for TLS"));
        assert!(refused("node").contains("is no host:port"));
        assert!(refused("node:http").contains("is no host:port"));
        assert!(Config::new(Vec::<String>::new()).addresses().is_err());
    }
}
