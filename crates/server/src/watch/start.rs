//! Start of a watch: checks whether a copy has reached its start point.

use stead_state::{
    directory::Tenant,
    freshness::gate,
    shard::{
        Shard,
        read::{ReadError, TenantReader},
    },
};
use stead_types::{Error, ErrorKind, GroupId, Revision};
use tokio::time::{Duration, Instant, timeout, timeout_at};

use super::{ResolvedWatch, spec::WatchSpec};
use crate::{
    host::{HostedGroup, READY_WAIT},
    router::{ReadNotServed, ServingCheck, read_error},
};

/// Longest wait for a copy to reach the start point, before the watch is forwarded to the home.
const REACH_WAIT: Duration = Duration::from_secs(1);

/// Result of checking a watch's start point against a copy.
#[derive(Debug, PartialEq)]
pub(super) enum StartCheck {
    /// The copy has all changes after this revision.
    Ready(Revision),
    /// The copy has not reached the start point yet.
    NotReached {
        /// Whether there is a copy to read.
        has_copy: bool,
    },
    /// The copy lacks history that the home may have.
    HomeOnly,
}

/// Waits until a watch can start at a copy; `NotReached` if that takes too long.
///
/// # Errors
///
/// An error that every other copy would return too.
pub(super) async fn wait_for_start(
    hosted: &HostedGroup,
    watch: &ResolvedWatch,
    group: GroupId,
) -> Result<StartCheck, Error> {
    let now = Instant::now();
    let mut applied = hosted.raft.applied();
    loop {
        applied.borrow_and_update();
        let start = check(hosted, watch)?;
        let until = match start {
            StartCheck::NotReached { has_copy: false } if watch.tenant.home == group => now + READY_WAIT,
            StartCheck::NotReached { .. } => now + REACH_WAIT,
            StartCheck::Ready(_) | StartCheck::HomeOnly => return Ok(start),
        };
        if !matches!(timeout_at(until, applied.changed()).await, Ok(Ok(()))) {
            return Ok(start);
        }
    }
}

/// Checks the start point again at the home, after its leader has confirmed that it still leads: only then, and while
/// it may serve, it is certain that the tenant has not reached the start point. A home that has handed the tenant over
/// meanwhile has not reached it either.
///
/// # Errors
///
/// That the tenant has not reached it, that a majority does not confirm the leader, or that the home may not serve.
pub(super) async fn confirm_start(
    hosted: &HostedGroup,
    serving: &ServingCheck,
    watch: &ResolvedWatch,
) -> Result<StartCheck, Error> {
    if !matches!(timeout(REACH_WAIT, hosted.raft.read_index()).await, Ok(Ok(_))) {
        let message = "the tenant has not reached the start of the watch, and the home's majority does not respond";
        return Err(Error::new(ErrorKind::NoLeader, format!("{message}: try again")));
    }
    let start = check(hosted, watch)?;
    if start != (StartCheck::NotReached { has_copy: true }) {
        return Ok(start);
    }
    not_reached(serving.check_leased(hosted, watch.tenant.number), &watch.spec).map(|()| start)
}

/// Returns the error of a start that its home has not reached, by the serving check that followed; without one the home
/// is elsewhere.
pub(super) fn not_reached(serving: Result<(), ReadNotServed>, spec: &WatchSpec) -> Result<(), Error> {
    match serving {
        Ok(()) => {
            let field = spec.start_field();
            let message =
                format!("{field}: the tenant has not reached it: use a revision that a response has returned");
            Err(Error::invalid(field, message))
        }
        Err(ReadNotServed::NotOwner) => Ok(()),
        Err(ReadNotServed::Refused(error)) => Err(error),
    }
}

fn check(hosted: &HostedGroup, watch: &ResolvedWatch) -> Result<StartCheck, Error> {
    hosted.read_tenant(watch.tenant.number, |reading| {
        check_start(reading, &watch.tenant, &watch.spec)
    })?
}

pub(super) fn check_start(
    reading: Option<TenantReader<'_>>,
    tenant: &Tenant,
    spec: &WatchSpec,
) -> Result<StartCheck, Error> {
    // The start point is checked against the lineage of the directory, which a copy may not have received yet.
    if let Some(after) = spec.after() {
        gate::check_revision(after, tenant)?;
    }
    let Some(reading) = reading else {
        return Ok(StartCheck::NotReached { has_copy: false });
    };
    let record = reading.record();
    if !Shard::is_readable(record) || gate::is_cut(record.live.revision, tenant) {
        return Ok(StartCheck::HomeOnly);
    }
    if !record.has_data() {
        return Ok(StartCheck::NotReached { has_copy: false });
    }
    match reading.resolve(spec.after()) {
        Ok(position) => Ok(StartCheck::Ready(position)),
        Err(ReadError::NotReached { .. }) => Ok(StartCheck::NotReached { has_copy: true }),
        // A copy that was seeded has history from then on only.
        Err(ReadError::Compacted { .. }) if record.owned().is_none() => Ok(StartCheck::HomeOnly),
        Err(why @ (ReadError::Compacted { .. } | ReadError::Forked(_) | ReadError::Unreadable(_))) => {
            Err(read_error(why, spec.start_field()))
        }
    }
}
