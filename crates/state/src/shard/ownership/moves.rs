//! Transitions of a planned move: `Heir` and `CancelHeir` at the target, `Relinquish` and `Refuse` at the source, then
//! `Accept`, the baton, at the target.
//!
//! ```text
//!   source   Owner{e} ── Relinquish ──> Relinquished ── Follow{e'} ──> Follower{e'}
//!                  │ Refuse: stays             │ baton, at F
//!   target   Follower{e} ── Heir ──> Heir ── Accept ──> Owner{e'}
//! ```
//!
//! The source's log is the only arbiter: once it holds `Refuse` the move cannot happen, once it holds `Relinquish` it
//! has.

use stead_types::GroupId;

use super::{EntryStamp, become_owner, check_follows, check_owner, check_view, epoch_failure, position_failure};
use crate::shard::{
    apply_result::GuardFailure,
    command::{Accept, Baton, CancelHeir, Heir, Refuse, Relinquish},
    record::{Handover, Role, TenantRecord},
};

/// Makes this follower the heir of a move: a promise of readiness, no condition of safety.
pub fn heir(record: &mut TenantRecord, me: GroupId, entry: &Heir) -> Result<(), GuardFailure> {
    let Role::Follower { home } = record.role else {
        return Err(GuardFailure::NotFollower);
    };
    if entry.to != me {
        return Err(GuardFailure::NotTarget);
    }
    check_view(record, entry.version)?;
    check_follows(record, home, entry.recorded_epoch)?;
    if entry.epoch <= record.promised {
        return Err(epoch_failure(record));
    }
    check_complete(record)?;
    let is_attached = |session| session_fits(record, session);
    if !record.session.is_some_and(is_attached) {
        return Err(GuardFailure::Session);
    }
    record.role = Role::Heir {
        home,
        operation: entry.operation,
        epoch: entry.epoch,
    };
    record.view_version = entry.version;
    Ok(())
}

/// Makes the heir of a move that is over a follower again.
pub fn cancel_heir(record: &mut TenantRecord, entry: &CancelHeir) -> Result<(), GuardFailure> {
    let Role::Heir { home, operation, .. } = record.role else {
        return Err(GuardFailure::OtherOperation);
    };
    check_view(record, entry.version)?;
    // A view that does not know the move yet cannot show that it is over.
    if operation != entry.operation || operation > entry.last_operation {
        return Err(GuardFailure::OtherOperation);
    }
    record.role = Role::Follower { home };
    record.view_version = entry.version;
    Ok(())
}

/// Hands the tenant over: the owner's last change and tenant time are fixed, and the baton exists.
pub fn relinquish(
    record: &mut TenantRecord,
    me: GroupId,
    entry: &Relinquish,
    stamp: EntryStamp,
) -> Result<(), GuardFailure> {
    let owned = check_owner(record)?;
    check_view(record, entry.version)?;
    if entry.to == me {
        return Err(GuardFailure::NotTarget);
    }
    if owned != entry.recorded_epoch || entry.epoch <= record.promised {
        return Err(epoch_failure(record));
    }
    if entry.operation <= record.refused_up_to {
        return Err(GuardFailure::OtherOperation);
    }
    record.role = Role::Relinquished {
        operation: entry.operation,
        to: entry.to,
        epoch: entry.epoch,
        last: record.live.revision,
    };
    record.promised = entry.epoch;
    record.view_version = entry.version;
    // The time since the last change has passed for the tenant too.
    record.live.move_time(stamp.time);
    Ok(())
}

/// Refuses a move that the directory aborts: a later `Relinquish` for it is void.
pub fn refuse(record: &mut TenantRecord, entry: &Refuse) -> Result<(), GuardFailure> {
    check_owner(record)?;
    check_view(record, entry.version)?;
    record.refused_up_to = record.refused_up_to.max(entry.operation);
    record.view_version = entry.version;
    Ok(())
}

/// Returns the baton of a tenant that this group has handed over. The feed offers it until the target is known to own
/// its epoch or a later one.
pub fn baton(record: &TenantRecord) -> Option<Baton> {
    let Role::Relinquished {
        operation,
        to,
        epoch,
        last,
    } = record.role
    else {
        return None;
    };
    let live = &record.live;
    Some(Baton {
        operation,
        to,
        from_epoch: record.epoch,
        epoch,
        last,
        digests: live.digests,
        policy: record.policy,
        time: live.time,
        retention_floor: live.retention_floor,
        uncounted: record.uncounted.clone(),
    })
}

/// Takes the tenant over by the baton. With other digests than the source's the copy becomes suspect.
pub fn accept(record: &mut TenantRecord, me: GroupId, entry: &Accept, stamp: EntryStamp) -> Result<(), GuardFailure> {
    let Accept {
        head,
        incarnation,
        baton,
    } = entry;
    if baton.to != me {
        return Err(GuardFailure::NotTarget);
    }
    check_follows(record, head.home, head.epoch)?;
    check_view(record, head.version)?;
    if baton.from_epoch != head.epoch || baton.epoch <= record.promised {
        return Err(epoch_failure(record));
    }
    let session = record.session_of(head.home, head.attach);
    if !session.is_some_and(|session| session_fits(record, session) && session.incarnation == *incarnation) {
        return Err(GuardFailure::Session);
    }
    check_complete(record)?;
    if record.live.revision != baton.last {
        return Err(position_failure(record));
    }
    if let Some(differs) = record.live.digests.mismatch(&baton.digests) {
        record.suspect = true;
        record.session = None;
        return Err(GuardFailure::DigestMismatch(differs));
    }
    become_owner(record, baton.epoch);
    record.lineage.record_move(baton.epoch);
    record.policy = baton.policy;
    record.uncounted.clone_from(&baton.uncounted);
    record.uncounted.retain(|group| *group != me);
    record.accepted = Some(Handover {
        revision: baton.last,
        digests: baton.digests,
    });
    let live = &mut record.live;
    // The index of the last change belongs to the source's log; answers depend on this entry instead.
    live.index = stamp.index;
    live.continue_time(baton.time, stamp.time);
    live.retention_floor = live.retention_floor.max(baton.retention_floor.min(baton.last));
    Ok(())
}

/// Checks that the live copy is all that an owner needs.
fn check_complete(record: &TenantRecord) -> Result<(), GuardFailure> {
    if record.suspect {
        return Err(GuardFailure::Suspect);
    }
    if record.shadow.is_some() {
        return Err(GuardFailure::Seed);
    }
    if record.live.rewound {
        return Err(GuardFailure::IncompleteWindows);
    }
    Ok(())
}

/// Tells whether the session is attached to the home and in the epoch that the record follows.
fn session_fits(record: &TenantRecord, session: crate::shard::record::AttachSession) -> bool {
    session.attached && record.home() == Some(session.home) && session.epoch == record.epoch
}
