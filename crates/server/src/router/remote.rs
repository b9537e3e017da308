//! Durability `REMOTE`: which operations wait for another region, until when, and what is answered where none confirms.
//! Pure.

use stead_api::convert::read::Consistency;
use stead_replication::RemoteWait;
use stead_state::{
    directory::{DirectoryView, MemberState, Tenant},
    shard::record::{PreviousRole, Role, TenantRecord},
};
use stead_types::{Durability, Error, ErrorKind, GroupId, IdempotencyKey, Revision};
use tokio::time::Instant;

use super::{
    job::Job,
    request::{ReadRequest, WriteRequest},
};

/// Share of its deadline that an operation may wait for another region; the rest is for its response, which says what has
/// happened.
const REMOTE_TIME_SHARE: f64 = 0.9;

/// Tells whether a write is answered once another region has it: the stronger of what it asks for and the tenant's default.
pub(super) fn is_remote_write(job: &Job<WriteRequest>) -> bool {
    job.request.is_remote || job.tenant.durability == Durability::Remote
}

/// Tells whether a read shows only what another region has, too.
pub(super) fn is_remote_read(job: &Job<ReadRequest>) -> bool {
    job.tenant.durability == Durability::Remote && !matches!(job.request.consistency, Consistency::Local)
}

/// Returns the time up to which an operation with a deadline waits for another region.
pub(super) fn wait_until(deadline: Instant, now: Instant) -> Instant {
    now + deadline.saturating_duration_since(now).mul_f64(REMOTE_TIME_SHARE)
}

/// Tells whether a copy that does not own a tenant with durability `REMOTE` shows only what a loss of the home's region
/// leaves: a follower in another region is in the replica set, so that a promotion asks it, and what it shows it holds. One
/// that is detached holds what it had. These do not, and their reads go to the home:
///
/// - a follower in the home's region is lost with it;
/// - a leaving member is not asked any more once the home no longer counts it;
/// - a former owner has changes that it made itself, which no other region need have.
pub(crate) fn shows_only_remote(view: &DirectoryView, tenant: &Tenant, group: GroupId, record: &TenantRecord) -> bool {
    let home = match record.role {
        Role::Follower { home } | Role::Heir { home, .. } => home,
        Role::Frozen {
            previous: PreviousRole::Follower,
            ..
        } => tenant.home,
        Role::Owner | Role::Relinquished { .. } | Role::Frozen { .. } | Role::Erased => return false,
    };
    let region = |group| view.region_of(group).map(|region| &region.name);
    let stays = tenant
        .member(group)
        .is_some_and(|member| matches!(member.state, MemberState::Staying | MemberState::Returning));
    stays && region(home).is_some() && region(home) != region(group)
}

/// Returns the error of a write that was committed at a revision and is not known to be in another region.
pub(super) fn unconfirmed_write(revision: Revision, key: Option<IdempotencyKey>, wait: RemoteWait) -> Error {
    match wait {
        RemoteWait::TimedOut | RemoteWait::Confirmed => {
            let (epoch, sequence) = (revision.epoch(), revision.sequence());
            let message = format!(
                "committed in its home region at epoch {epoch}, sequence {sequence} ({revision}), not confirmed in another \
                 region in time: it happened, and counts as REGION; send it again with the same idempotency key to wait on"
            );
            Error::new(ErrorKind::DurabilityUnmet { revision }, message)
        }
        RemoteWait::LeaderChanged | RemoteWait::NotOwner => {
            let why = reason(wait);
            let message =
                format!("{why} before another region confirmed the write: send it again with the same idempotency key");
            Error::new(ErrorKind::OutcomeUnknown { key }, message)
        }
    }
}

/// Returns the error of an operation that changed nothing, and whose answer depends on changes that are not known to be in
/// another region.
pub(super) fn unconfirmed_state(wait: RemoteWait) -> Error {
    match wait {
        RemoteWait::TimedOut | RemoteWait::Confirmed => {
            let message = "no other region has confirmed in time the tenant's last changes, which the answer depends on: \
                           nothing was changed; try again, allow more time, or read with consistency LOCAL";
            Error::new(ErrorKind::DeadlineExceeded, message)
        }
        RemoteWait::LeaderChanged | RemoteWait::NotOwner => {
            let message = format!("{}: nothing was changed; try again", reason(wait));
            Error::new(ErrorKind::TenantMoving, message)
        }
    }
}

fn reason(wait: RemoteWait) -> &'static str {
    match wait {
        RemoteWait::LeaderChanged => "the home's leader changed",
        RemoteWait::NotOwner => "the tenant's home changed",
        RemoteWait::TimedOut | RemoteWait::Confirmed => "the deadline passed",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn wait_leaves_time_for_the_answer() {
        let now = Instant::now();
        assert_eq!(
            wait_until(now + Duration::from_secs(10), now),
            now + Duration::from_secs(9)
        );
        assert_eq!(wait_until(now - Duration::from_secs(1), now), now);
    }

    #[test]
    fn unconfirmed_write_says_what_is_known() {
        let revision: Revision = "2.7".parse().unwrap();
        let unmet = unconfirmed_write(revision, None, RemoteWait::TimedOut);
        assert_eq!(unmet.kind, ErrorKind::DurabilityUnmet { revision });
        assert!(unmet.message.contains("epoch 2, sequence 7"), "{unmet}");
        assert!(!unmet.has_no_effect());
        for wait in [RemoteWait::LeaderChanged, RemoteWait::NotOwner] {
            let unknown = unconfirmed_write(revision, None, wait);
            assert_eq!(unknown.kind, ErrorKind::OutcomeUnknown { key: None });
            assert!(unconfirmed_state(wait).has_no_effect());
        }
        assert!(unconfirmed_state(RemoteWait::TimedOut).has_no_effect());
    }
}
