//! State of a node that its services share, and what they report of it.
//!
//! [`Host`] is the context: configuration, directory view, groups, metrics. Each other file does one thing with it:
//! readiness checks, status messages for operators, the text of the metrics, the drain of a node that stops.

mod context;
mod drain;
mod hosted_group;
mod metrics;
mod readiness;
mod status;

pub(crate) use context::Host;
pub(crate) use drain::drain;
pub(crate) use hosted_group::{HostedGroup, HostedGroups, READY_WAIT, storage_unavailable};
pub(crate) use metrics::metrics_text;
pub(crate) use readiness::{Readiness, ReadinessSubjects};
pub(crate) use status::{follower_lags, group_status, node_status, seeds_to};
