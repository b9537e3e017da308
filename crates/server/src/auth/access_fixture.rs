//! Contexts of access for tests.

use std::sync::Arc;

use stead_replication::SharedDirectoryView;
use stead_state::{
    authorization::Caller,
    directory::{DirectoryChange, DirectoryView, RoleBinding},
};

use super::{
    access::{Access, AccessContext, Credential},
    call_log::CallLog,
    config::AuthMode,
};
use crate::{config::NodeConfig, metrics::Metrics};

/// Returns the context of a node that asks for no credentials.
pub(crate) fn open() -> Arc<AccessContext> {
    context(AuthMode::Open)
}

/// Returns the context of a node that asks for credentials; its clock stands at zero.
pub(crate) fn required() -> Arc<AccessContext> {
    context(AuthMode::Required)
}

fn context(mode: AuthMode) -> Arc<AccessContext> {
    let node = NodeConfig {
        id: stead_types::NodeId::new(1),
        name: "n1".into(),
        region: "eu-west".parse().unwrap(),
        client: "127.0.0.1:1".into(),
        peer: "127.0.0.1:2".into(),
        http: "127.0.0.1:3".into(),
        witness: false,
        engine: String::new(),
    };
    Arc::new(AccessContext {
        mode,
        view: SharedDirectoryView::new(DirectoryView::default()),
        wall: Arc::new(|| 0),
        calls: CallLog::default(),
        metrics: Arc::new(Metrics::of(&node, Arc::default())),
    })
}

/// Returns the access of a service with these roles, given by its credential.
pub(crate) fn access(context: &Arc<AccessContext>, roles: &[&str]) -> Access {
    let caller = Caller {
        subject: "client/test".parse().unwrap(),
        roles: roles.iter().map(|role| role.parse().unwrap()).collect(),
        is_emergency: false,
    };
    let credential = Credential {
        caller: Some(caller),
        expires_ms: Some(1_000),
    };
    Access::of_caller(Arc::new(credential), context.clone())
}

/// Binds roles to the service of [`access`].
pub(crate) fn bind(context: &AccessContext, roles: &[&str]) {
    let binding = RoleBinding {
        subject: "client/test".parse().unwrap(),
        roles: roles.iter().map(|role| role.parse().unwrap()).collect(),
    };
    let version = context.view.version();
    context
        .view
        .apply(false, vec![DirectoryChange::Roles(binding)], version);
}
