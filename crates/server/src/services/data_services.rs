//! Handlers of data requests, as the services of both listeners share them.

use std::sync::Arc;

use stead_api::net::Connect;

use crate::{host::Host, router::Router, supervisor::Spawner, watch::Watches};

/// The handlers of data requests: router and watches.
#[derive(Clone)]
pub(crate) struct DataServices {
    /// Router of operations.
    pub(crate) router: Arc<Router>,
    /// Handler of watches.
    pub(crate) watches: Arc<Watches>,
}

impl DataServices {
    /// Returns the data handlers of a node.
    pub(crate) fn new(host: &Arc<Host>, connect: Connect, spawner: &Spawner) -> Self {
        let router = Arc::new(Router::new(host.clone(), connect, spawner.clone()));
        let watches = Arc::new(Watches::new(router.clone(), spawner.clone()));
        Self { router, watches }
    }
}
