//! Start of a node's authentication.

use std::sync::Arc;

use stead_replication::SharedDirectoryView;

use super::{access::AccessContext, authenticator::Authenticator, call_log::CallLog};
use crate::{
    config::{ConfigError, ValidatedConfig},
    host::Host,
    metrics::Metrics,
    supervisor::Supervisor,
};

/// Returns the authenticator of a node.
///
/// # Errors
///
/// A file of keys that cannot be used.
pub(crate) fn authenticator(
    config: &ValidatedConfig,
    view: &SharedDirectoryView,
    wall: &Arc<dyn Fn() -> u64 + Send + Sync>,
    metrics: &Arc<Metrics>,
) -> Result<Arc<Authenticator>, ConfigError> {
    let context = AccessContext {
        mode: config.auth.mode,
        view: view.clone(),
        wall: wall.clone(),
        calls: CallLog::default(),
        metrics: metrics.clone(),
    };
    Authenticator::new(config.auth.clone(), config.cluster.clone(), context).map(Arc::new)
}

/// Spawns the tasks of authentication.
pub(crate) fn spawn(host: &Arc<Host>, supervisor: &mut Supervisor) {
    let auth = host.auth.clone();
    supervisor.spawn("keys of token issuers", |stop| auth.reload_keys(stop));
    let (calls, node) = (host.auth.context().calls.clone(), host.config.node.name.clone());
    let (directory, view) = (host.directory.clone(), host.directory_view.clone());
    supervisor.spawn("records of calls", |stop| calls.report(node, directory, view, stop));
}
