//! Transitions of a new tenant's first home and of a follower: `Create`, `Follow`, `BeginAttach`, `Attach`, `Detach`,
//! and the guard of `Data`.

use stead_types::{
    Epoch, GroupId,
    planted::{self, Bug},
};

use super::{
    Cut, RevisionAt, become_owner, check_view,
    copies::{cut_live, drop_shadow_off},
    epoch_failure, position_failure,
};
use crate::{
    lineage::Lineage,
    shard::{
        apply_result::GuardFailure,
        command::{Attach, BeginAttach, Create, DataHeader, Detach, Follow},
        record::{AttachSession, Role, TenantRecord},
    },
};

/// Makes this group the first home of a tenant that it has never held.
pub fn create(record: &mut TenantRecord, entry: &Create) -> Result<(), GuardFailure> {
    if !record.is_unknown() {
        return Err(GuardFailure::HasRecord);
    }
    record.view_version = entry.version;
    record.lineage = Lineage::starting(Epoch::FIRST);
    record.policy = entry.policy;
    record.live.number = record.next_copy();
    become_owner(record, Epoch::FIRST);
    Ok(())
}

/// Makes this group a follower of the recorded home; what its copies hold off the recorded lineage is cut.
pub fn follow(
    record: &mut TenantRecord,
    me: GroupId,
    entry: &Follow,
    revision_at: RevisionAt<'_>,
) -> Result<Cut, GuardFailure> {
    if entry.home == me {
        return Err(GuardFailure::NotFollower);
    }
    check_view(record, entry.version)?;
    // For a frozen group `promised` is the epoch it is frozen for.
    if entry.epoch <= record.epoch || entry.epoch < record.promised {
        return Err(epoch_failure(record));
    }
    let point = record.lineage.fork_point(&entry.lineage);
    let mut cut = if record.live.revision.sequence() > point {
        cut_live(record, point, revision_at)
    } else {
        Cut::default()
    };
    if record.live.number == 0 {
        record.live.number = record.next_copy();
    }
    record.role = Role::Follower { home: entry.home };
    record.epoch = entry.epoch;
    record.promised = entry.epoch;
    record.view_version = entry.version;
    record.accepted = None;
    record.session = None;
    record.uncounted.clear();
    record.remote = 0;
    record.lineage = entry.lineage.clone();
    cut.shadow = drop_shadow_off(record, &entry.lineage);
    Ok(cut)
}

/// Starts an attempt to attach the tenant to its home's feed.
pub fn begin_attach(record: &mut TenantRecord, entry: &BeginAttach) -> Result<(), GuardFailure> {
    check_follows(record, entry.home, entry.epoch)?;
    check_view(record, entry.version)?;
    if entry.number <= record.attach {
        return Err(GuardFailure::Session);
    }
    record.attach = entry.number;
    record.session = Some(AttachSession {
        home: entry.home,
        incarnation: entry.incarnation,
        epoch: entry.epoch,
        number: entry.number,
        attached: false,
    });
    Ok(())
}

/// Attaches the tenant; an attach of the record's attempt that does not fit ends the attempt.
pub fn attach(record: &mut TenantRecord, entry: &Attach) -> Result<(), GuardFailure> {
    let session = record
        .session_of(entry.home, entry.number)
        .ok_or(GuardFailure::Session)?;
    if let Err(failure) = check_attach(record, entry) {
        record.session = None;
        return Err(failure);
    }
    record.lineage = entry.lineage.clone();
    record.session = Some(AttachSession {
        attached: true,
        ..session
    });
    Ok(())
}

/// Ends an attempt to attach, or detaches the tenant.
pub fn detach(record: &mut TenantRecord, entry: &Detach) -> Result<(), GuardFailure> {
    record
        .session_of(entry.home, entry.number)
        .ok_or(GuardFailure::Session)?;
    record.session = None;
    Ok(())
}

/// Decides whether records of the feed may be applied. Those of another attempt are ignored; those that are void for
/// another reason are missing from then on, so they end the session.
pub fn admit_data(record: &mut TenantRecord, head: &DataHeader) -> Result<(), GuardFailure> {
    record.session_of(head.home, head.attach).ok_or(GuardFailure::Session)?;
    let checked = check_follows(record, head.home, head.epoch).and_then(|()| check_view(record, head.version));
    if checked.is_err() {
        record.session = None;
    }
    checked
}

/// Checks the guard of an attach, beyond its session.
fn check_attach(record: &TenantRecord, entry: &Attach) -> Result<(), GuardFailure> {
    check_follows(record, entry.home, entry.epoch)?;
    check_view(record, entry.version)?;
    if record.suspect {
        return Err(GuardFailure::Suspect);
    }
    if record.shadow.is_some() {
        return Err(GuardFailure::Seed);
    }
    if record.live.revision < entry.position {
        return Err(position_failure(record));
    }
    if record.live.revision.sequence() > record.lineage.fork_point(&entry.lineage) {
        return Err(GuardFailure::Diverged);
    }
    Ok(())
}

/// Checks that the record follows this home in this epoch, and has promised no higher one.
pub fn check_follows(record: &TenantRecord, home: GroupId, epoch: Epoch) -> Result<(), GuardFailure> {
    if record.home() != Some(home) {
        return Err(GuardFailure::NotFollower);
    }
    if (epoch != record.epoch || epoch != record.promised) && !planted::is(Bug::EpochNotGuarded) {
        return Err(epoch_failure(record));
    }
    Ok(())
}
