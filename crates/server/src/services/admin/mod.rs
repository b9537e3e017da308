//! Services for operators.

pub(crate) mod audit;
pub(super) mod authorize;
pub(crate) mod bulk_move;
mod bulk_move_figures;
mod bulk_move_message;
mod bulk_move_request;
pub(crate) mod cluster;
mod drain_forks;
pub(crate) mod fork;
mod fork_message;
mod fork_reads;
mod fork_replay;
pub(crate) mod group;
pub(crate) mod group_leader;
pub(crate) mod node;
pub(crate) mod operation;
pub(crate) mod promotion;
mod promotion_homes;
mod promotion_message;
mod promotion_options;
mod promotion_plan;
mod promotion_request;
mod promotion_wait;
mod readiness;
pub(crate) mod readiness_check;
pub(crate) mod region;
pub(crate) mod region_loss_check;
mod region_loss_message;
mod region_seeds;
mod residency;
pub(crate) mod role;
mod target_check;
pub(crate) mod tenant;
mod tenant_loads;
mod tenant_message;
mod tenant_move;
#[cfg(test)]
mod tenant_move_test;
mod tenant_verify;
pub(crate) mod topology;
mod topology_progress;

use stead_api::{convert, proto::admin::v1 as admin, status};
use stead_state::{
    authorization::Subject,
    directory::{AuditContext, DirectoryView},
};
use stead_types::{DirectoryVersion, Error, GroupId};
use tonic::{Request, Status};

use super::call_metadata::access;
use crate::auth::Access;

/// Default page size.
pub(crate) const PAGE_DEFAULT: u32 = 100;
/// Largest page size.
pub(crate) const PAGE_MAX: u32 = 1_000;

/// Metadata with the identity of the caller.
const WHO: &str = "x-stead-who";

/// Returns the caller for the audit: the identity that its credential proves. Without one, a node tells for whom it asks;
/// and where no credentials are needed a caller may claim an identity, but none that looks proved.
pub(crate) fn by<T>(request: &Request<T>, reason: &str) -> AuditContext {
    let claimed = request.metadata().get(WHO).and_then(|who| who.to_str().ok());
    let access = access(request).ok();
    let who = match access.as_ref().and_then(Access::caller) {
        Some(caller) => caller.subject.to_string(),
        None => match claimed {
            Some(claimed) if is_proved(claimed) && !access.is_some_and(|access| access.is_node()) => {
                format!("unproved/{claimed}")
            }
            Some(claimed) => claimed.to_owned(),
            None => "unauthenticated".to_owned(),
        },
    };
    AuditContext {
        who,
        reason: reason.to_owned(),
    }
}

/// Tells whether an author in the audit log is one whose identity a credential has proved.
pub(crate) fn is_proved(who: &str) -> bool {
    who.parse::<Subject>().is_ok()
}

/// Converts an error into a status.
pub(crate) fn to_status(error: &Error) -> Status {
    status::to_status(error)
}

/// Returns the name of a group's region, empty if there is none.
fn region_name(view: &DirectoryView, group: GroupId) -> String {
    let region = view.region_of(group);
    region.map(|region| region.name.to_string()).unwrap_or_default()
}

/// Converts a group into a message, with its region.
fn place(view: &DirectoryView, group: GroupId) -> admin::Place {
    admin::Place {
        region: region_name(view, group),
        group: group.get(),
    }
}

/// Converts milliseconds since 1970 into a message.
fn time(ms: u64) -> prost_types::Timestamp {
    convert::read::timestamp_ms(ms)
}

/// Formats the version of a record as its etag.
pub(crate) fn etag(version: DirectoryVersion) -> String {
    version.to_string()
}

/// Parses an [`etag`]; an empty one is `None`.
pub(crate) fn parse_etag(text: &str) -> Result<Option<DirectoryVersion>, Error> {
    if text.is_empty() {
        return Ok(None);
    }
    let parsed = text.split_once('/').and_then(|(incarnation, index)| {
        let incarnation = stead_types::Incarnation(incarnation.parse().ok()?);
        Some(DirectoryVersion {
            incarnation,
            index: index.parse().ok()?,
        })
    });
    let invalid = || {
        Error::invalid(
            "etag",
            format!("etag: {text:?} was not made by this store: send back what was read"),
        )
    };
    parsed.map(Some).ok_or_else(invalid)
}
