//! Transitions of a promotion: `Freeze` at every member, `Pull` and `Activate` at the group that is chosen.

use stead_types::{Epoch, GroupId, Revision, Sequence, TenantTime};

use super::{
    Cut, EntryStamp, RevisionAt, become_owner, check_view,
    copies::{cut_live, drop_shadow_off},
    epoch_failure, position_failure,
};
use crate::{
    lineage::{Lineage, RevisionStatus},
    shard::{
        apply_result::GuardFailure,
        command::{Activate, Freeze, PullHeader},
        record::{Fork, OperationId, PreviousRole, Role, TenantRecord},
    },
};

/// Report of a frozen group to the directory: from its record, never from a position seen before.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FreezeReport {
    /// Number of the promotion.
    pub operation: OperationId,
    /// Epoch that the group is frozen for.
    pub epoch: Epoch,
    /// Role before the promotion.
    pub previous: PreviousRole,
    /// Epoch that the group owned or followed.
    pub followed: Epoch,
    /// Last change of the live copy.
    pub revision: Revision,
    /// Lineage of the live copy.
    pub lineage: Lineage,
    /// Retention floor of the live copy.
    pub retention_floor: Revision,
    /// Tenant time of the live copy.
    pub time: TenantTime,
    /// Whether a digest differed from the home's: the copy counts as not consulted.
    pub suspect: bool,
    /// Last sequence on its lineage that the group holds in a fork only, because its copy became one as a whole and has
    /// not been seeded since: the live copy's position alone would say that it never held it. A group is not chosen
    /// without loss if its history does not reach this.
    pub forked_up_to: Sequence,
}

/// Effects of an activation that go beyond the record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Activation {
    /// Changes that were cut above the position taken over.
    pub cut: Cut,
    /// Time that the lower edge of every idempotency window is raised to, where windows may lack outcomes.
    pub raised_edge: Option<TenantTime>,
}

/// Freezes this group for a promotion, in any role; what it holds off the recorded lineage is cut. Epochs above the
/// recorded one are moves that the directory does not know yet, and are kept.
pub fn freeze(
    record: &mut TenantRecord,
    entry: &Freeze,
    stamp: EntryStamp,
    revision_at: RevisionAt<'_>,
) -> Result<Cut, GuardFailure> {
    check_view(record, entry.version)?;
    if entry.epoch <= record.promised {
        return Err(epoch_failure(record));
    }
    if record.role == Role::Owner {
        // The time since the last change has passed for the tenant too.
        record.live.move_time(stamp.time);
    }
    let recorded = entry.lineage.epoch();
    let point = record.lineage.fork_point(&entry.lineage);
    let last = record.live.revision;
    let is_off = last.epoch() <= recorded && last.sequence() > point;
    let mut cut = if is_off {
        cut_live(record, point, revision_at)
    } else {
        Cut::default()
    };
    if record.live.number == 0 {
        record.live.number = record.next_copy();
    }
    if is_off || record.lineage.epoch() < recorded {
        record.lineage = entry.lineage.clone();
    }
    let lineage = record.lineage.clone();
    cut.shadow = drop_shadow_off(record, &lineage);
    record.role = Role::Frozen {
        operation: entry.operation,
        epoch: entry.epoch,
        previous: previous_role(record.role),
    };
    record.promised = entry.epoch;
    record.view_version = entry.version;
    record.session = None;
    Ok(cut)
}

/// Returns what a frozen group reports.
pub fn freeze_report(record: &TenantRecord) -> Option<FreezeReport> {
    let Role::Frozen {
        operation,
        epoch,
        previous,
    } = record.role
    else {
        return None;
    };
    let live = &record.live;
    Some(FreezeReport {
        operation,
        epoch,
        previous,
        followed: record.epoch,
        revision: live.revision,
        lineage: record.lineage.clone(),
        retention_floor: live.retention_floor,
        time: live.time,
        suspect: record.suspect,
        forked_up_to: forked_up_to(record),
    })
}

/// Returns the last sequence on the record's lineage that one of its forks holds.
pub fn forked_up_to(record: &TenantRecord) -> Sequence {
    let on_lineage = |fork: &Fork| fork.point.min(fork.lineage.fork_point(&record.lineage));
    record.forks.iter().map(on_lineage).max().unwrap_or_default()
}

/// Checks that changes of another frozen group continue this group's copy.
pub fn check_pull(record: &TenantRecord, entry: &PullHeader) -> Result<(), GuardFailure> {
    check_frozen(record, entry.operation, entry.epoch)?;
    check_view(record, entry.version)?;
    if record.suspect {
        return Err(GuardFailure::Suspect);
    }
    if record.live.revision != entry.after || entry.last < entry.after {
        return Err(position_failure(record));
    }
    if record.live.revision.sequence() > record.lineage.fork_point(&entry.lineage) {
        return Err(GuardFailure::Diverged);
    }
    Ok(())
}

/// Takes position and lineage over from another frozen group, whose changes the caller appends.
pub fn pull(record: &mut TenantRecord, entry: &PullHeader) -> Result<(), GuardFailure> {
    check_pull(record, entry)?;
    pulled(record, entry);
    Ok(())
}

/// Effect of a pull whose guard holds.
pub(in crate::shard) fn pulled(record: &mut TenantRecord, entry: &PullHeader) {
    record.live.revision = entry.last;
    record.lineage = entry.lineage.clone();
    record.view_version = entry.version;
}

/// Makes this frozen group the owner from the position taken over on.
pub fn activate(
    record: &mut TenantRecord,
    me: GroupId,
    entry: &Activate,
    stamp: EntryStamp,
    revision_at: RevisionAt<'_>,
) -> Result<Activation, GuardFailure> {
    let Role::Frozen { operation, epoch, .. } = record.role else {
        return Err(GuardFailure::NotFrozen);
    };
    check_frozen(record, operation, entry.epoch)?;
    check_view(record, entry.version)?;
    if entry.home != me {
        return Err(GuardFailure::NotTarget);
    }
    let kept = entry.kept.sequence();
    let has_more = record.live.revision.sequence() > kept;
    let is_held = if has_more {
        // An empty copy cannot own: the rewind has to be possible.
        kept.get() == 0 || revision_at(kept) == Some(entry.kept)
    } else {
        record.live.revision == entry.kept
    };
    if !is_held || record.lineage.status_of(entry.kept) != RevisionStatus::OnLineage {
        return Err(position_failure(record));
    }
    let mut cut = if has_more {
        cut_live(record, kept, revision_at)
    } else {
        Cut::default()
    };
    cut.shadow = record.shadow.take().map(|shadow| shadow.state);
    become_owner(record, epoch);
    record.lineage.record_promotion(epoch, kept);
    record.view_version = entry.version;
    record.policy = entry.policy;
    record.uncounted.clone_from(&entry.uncounted);
    record.uncounted.sort_unstable();
    record.uncounted.retain(|group| *group != me);
    record.accepted = None;
    let live = &mut record.live;
    live.index = stamp.index;
    live.continue_time(entry.time, stamp.time);
    let raised_edge = std::mem::take(&mut live.rewound).then_some(live.time);
    live.edge = live.edge.max(raised_edge.unwrap_or_default());
    Ok(Activation { cut, raised_edge })
}

fn check_frozen(record: &TenantRecord, operation: OperationId, epoch: Epoch) -> Result<(), GuardFailure> {
    let Role::Frozen {
        operation: frozen_by,
        epoch: frozen_for,
        ..
    } = record.role
    else {
        return Err(GuardFailure::NotFrozen);
    };
    if frozen_by != operation || frozen_for != epoch || record.promised != epoch {
        return Err(GuardFailure::NotFrozen);
    }
    Ok(())
}

/// Returns the role that the directory is told: for a group that was frozen before, that before the first freeze.
fn previous_role(role: Role) -> PreviousRole {
    match role {
        Role::Owner => PreviousRole::Owner,
        Role::Follower { .. } | Role::Heir { .. } => PreviousRole::Follower,
        Role::Relinquished { to, .. } => PreviousRole::Relinquished(to),
        Role::Frozen { previous, .. } => previous,
        Role::Erased => PreviousRole::None,
    }
}
