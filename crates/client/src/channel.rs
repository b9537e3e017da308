//! Channels to nodes, whose calls carry the client's token.

use stead_api::net::Connect;
use tonic::service::interceptor::InterceptedService;

use crate::TokenSource;

/// Channel to a node.
pub(crate) type Channel = InterceptedService<tonic::transport::Channel, TokenSource>;

/// How channels to nodes are opened.
#[derive(Clone)]
pub(crate) struct Transport {
    /// Dials an address.
    pub(crate) connect: Connect,
    /// Source of the token of every call.
    pub(crate) token: TokenSource,
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transport")
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}
