//! Listeners of a node, and how many connections each may have.
//!
//! # Invariants
//!
//! 1. Connections never take the descriptors that data files need: a node that cannot open its log stops.

use std::io;

use crate::{
    config::ValidatedConfig,
    environment::{Environment, Incoming},
    listener::Listener,
    node::Error,
    tls::{ListenerKind, NodeTls},
};

/// Most connections of one listener, however many descriptors there are.
const CONNECTIONS_MAX: usize = 8_192;
/// Descriptors for data files, the Raft log and connections to other nodes.
const RESERVE: u64 = 512;
/// Least limit of descriptors at which a node starts.
pub(crate) const DESCRIPTORS_MIN: u64 = 1_024;

/// Most connections of each listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConnectionLimits {
    /// Of clients.
    pub(crate) client: usize,
    /// Of other nodes.
    pub(crate) peer: usize,
    /// Of HTTP.
    pub(crate) http: usize,
}

/// Limit of descriptors that is too low for a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this process may open {0} files, a node needs {DESCRIPTORS_MIN} at least and 65536 for many clients: raise `ulimit -n`, \
     or LimitNOFILE of the systemd unit"
)]
pub struct TooFewDescriptors(u64);

impl ConnectionLimits {
    /// Returns the limits of a process that may have so many descriptors: three quarters of what the reserve leaves are for
    /// clients.
    pub(crate) fn of(descriptors: u64) -> Result<Self, TooFewDescriptors> {
        if descriptors < DESCRIPTORS_MIN {
            return Err(TooFewDescriptors(descriptors));
        }
        let free = usize::try_from(descriptors - RESERVE).unwrap_or(usize::MAX);
        let share = |part: usize| part.min(CONNECTIONS_MAX);
        Ok(Self {
            client: share(free / 4 * 3),
            peer: share(free / 8),
            http: share(free / 8),
        })
    }
}

/// The listeners, bound before any work begins.
pub(crate) struct BoundListeners {
    pub(crate) client: Incoming,
    pub(crate) peer: Incoming,
    pub(crate) http: Incoming,
}

impl BoundListeners {
    /// Binds the listeners of a node.
    ///
    /// # Errors
    ///
    /// An address that cannot be bound.
    pub(crate) async fn bind(config: &ValidatedConfig, environment: &Environment) -> Result<Self, Error> {
        let bind = async |what, address: &str| {
            let bound: io::Result<Incoming> = (environment.bind)(address.to_owned()).await;
            bound.map_err(|source| Error::Bind {
                what,
                address: address.to_owned(),
                source,
            })
        };
        Ok(Self {
            client: bind("client", &config.client.listen).await?,
            peer: bind("peer", &config.peer.listen).await?,
            http: bind("HTTP", &config.http.listen).await?,
        })
    }

    /// Returns the listeners with what they serve: clients, nodes and HTTP.
    pub(crate) fn listeners(
        self,
        tls: &NodeTls,
        limits: ConnectionLimits,
        [client, peer, http]: [axum::Router; 3],
    ) -> [Listener; 3] {
        let listener = |kind, incoming, router, connections_max| Listener {
            incoming,
            router,
            entry: tls.entry(kind),
            connections_max,
        };
        [
            listener(ListenerKind::Client, self.client, client, limits.client),
            listener(ListenerKind::Peer, self.peer, peer, limits.peer),
            listener(ListenerKind::Http, self.http, http, limits.http),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_for_files() {
        for descriptors in [DESCRIPTORS_MIN, 4_096, 65_536, u64::MAX] {
            let limits = ConnectionLimits::of(descriptors).unwrap();
            let all = (limits.client + limits.peer + limits.http) as u64;
            assert!(all + RESERVE <= descriptors, "{descriptors}: {limits:?}");
            assert!(limits.peer >= 64 && limits.http >= 64, "{limits:?}");
        }
        let refused = ConnectionLimits::of(DESCRIPTORS_MIN - 1).unwrap_err().to_string();
        assert!(
            refused.contains("may open 1023 files") && refused.contains("ulimit -n"),
            "{refused}"
        );
    }
}
