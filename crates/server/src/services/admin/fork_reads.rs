//! Parts that reading, replaying and discarding forks share: the copy that has them, and errors about it.

use std::time::Duration;

use stead_state::{
    directory::{AuditContext, Tenant},
    rows::Unreadable,
};
use stead_store::shard::ReadView;
use stead_types::{Error, ErrorKind};
use tonic::{Request, metadata::MetadataValue};

use super::WHO;
use crate::{
    admin_peers::{name_caller, peer_request},
    auth::Access,
    host::{HostedGroup, storage_unavailable},
};

/// Longest time for the call to a group's leader.
const LEADER_CALL_MAX: Duration = Duration::from_secs(8);

/// Builds a request for the leader of a group, which may read a whole page or wait for two logs.
pub(super) fn to_leader<T>(message: T, access: &Access) -> Request<T> {
    let mut request = peer_request(message);
    name_caller(&mut request, access);
    request.set_timeout(LEADER_CALL_MAX);
    request
}

/// Builds such a request for a caller: the audit log names who asked, not the node that has passed it on.
pub(super) fn to_leader_for<T>(message: T, access: &Access, by: &AuditContext) -> Request<T> {
    let mut request = to_leader(message, access);
    if let Ok(who) = MetadataValue::try_from(&by.who) {
        request.metadata_mut().insert(WHO, who);
    }
    request
}

pub(super) fn read_here<T>(
    hosted: &HostedGroup,
    read: impl FnOnce(ReadView<'_>) -> Result<T, Unreadable>,
) -> Result<T, Error> {
    let found = hosted.machine.read(read);
    let found = found.map_err(|incomplete| storage_unavailable(&incomplete))?;
    found.map_err(|_| Error::new(ErrorKind::Internal, "cannot read this node's storage"))
}

/// Checks that a group has a fork, and that it can be read.
pub(super) fn check_fork(hosted: &HostedGroup, tenant: &Tenant, fork: u32) -> Result<(), Error> {
    let (is_there, is_rewinding) = read_here(hosted, |view| {
        let record = view.record(tenant.number);
        let is_there = record.is_some_and(|record| record.fork(fork).is_some());
        Ok((is_there, record.is_some_and(|record| record.rewind.is_some())))
    })?;
    match (is_there, is_rewinding) {
        (true, false) => Ok(()),
        (true, true) => Err(filling(tenant, fork)),
        (false, _) => Err(no_fork(tenant, hosted, fork)),
    }
}

pub(super) fn no_fork(tenant: &Tenant, hosted: &HostedGroup, fork: u32) -> Error {
    let (name, group) = (&tenant.name, hosted.raft.id().get());
    let message = format!(
        "group {group} has no fork {fork} of tenant {name}: see `stead fork list {name}`; one that was \
         discarded is gone"
    );
    Error::new(ErrorKind::NotFound, message)
}

pub(super) fn filling(tenant: &Tenant, fork: u32) -> Error {
    let message = format!(
        "changes of tenant {} are still being moved to a fork, and fork {fork} cannot be read or discarded until that \
         has ended: try again in a moment",
        tenant.name
    );
    Error::new(ErrorKind::Unavailable, message)
}
