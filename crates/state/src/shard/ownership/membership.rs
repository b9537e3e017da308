//! Transitions of members that leave and return: `Uncount` and `Count` at the owner, `Rejoin` and `Erase` at the
//! member.

use stead_types::Epoch;

use super::{check_owner, check_view, epoch_failure};
use crate::{
    lineage::Lineage,
    shard::{
        apply_result::GuardFailure,
        command::{Count, DiscardFork, Erase, Rejoin, Uncount},
        record::{CopyState, Role, TenantRecord},
    },
};

/// Stops counting the acknowledgements of a member. Repeated, it changes nothing.
pub fn uncount(record: &mut TenantRecord, entry: &Uncount) -> Result<(), GuardFailure> {
    check_owner(record)?;
    check_view(record, entry.version)?;
    if let Err(place) = record.uncounted.binary_search(&entry.group) {
        record.uncounted.insert(place, entry.group);
    }
    record.view_version = entry.version;
    Ok(())
}

/// Counts the acknowledgements of a member again. Repeated, it changes nothing.
pub fn count(record: &mut TenantRecord, entry: &Count) -> Result<(), GuardFailure> {
    check_owner(record)?;
    check_view(record, entry.version)?;
    record.uncounted.retain(|group| *group != entry.group);
    record.view_version = entry.version;
    Ok(())
}

/// Keeps the tenant in this group after all: makes an `Erase` from an older view void.
pub fn rejoin(record: &mut TenantRecord, entry: &Rejoin) -> Result<(), GuardFailure> {
    if record.is_unknown() {
        return Err(GuardFailure::NoRecord);
    }
    check_view(record, entry.version)?;
    record.view_version = entry.version;
    Ok(())
}

/// Drops a fork that is named. Returns the copy to discard.
pub fn discard_fork(record: &mut TenantRecord, entry: &DiscardFork) -> Result<CopyState, GuardFailure> {
    let place = record.forks.iter().position(|fork| fork.copy.number == entry.fork);
    let place = place.ok_or(GuardFailure::UnknownFork)?;
    Ok(record.forks.remove(place).copy)
}

/// Erases the tenant from this group. Returns the copies to discard.
pub fn erase(record: &mut TenantRecord, entry: &Erase) -> Result<Vec<CopyState>, GuardFailure> {
    if record.is_unknown() {
        return Err(GuardFailure::NoRecord);
    }
    check_view(record, entry.version)?;
    if record.role == Role::Owner && !entry.deleted {
        return Err(GuardFailure::NotFollower);
    }
    // What was cut of it must be in a fork first.
    if entry.recorded.is_some_and(|recorded| recorded != record.epoch) {
        return Err(epoch_failure(record));
    }
    if record.forks.iter().any(|fork| !entry.forks.contains(&fork.copy.number)) {
        return Err(GuardFailure::HoldsForks);
    }
    let mut copies: Vec<CopyState> = vec![std::mem::take(&mut record.live)];
    copies.extend(record.shadow.take().map(|shadow| shadow.state));
    copies.extend(std::mem::take(&mut record.forks).into_iter().map(|fork| fork.copy));
    // `promised`, `copies` and the view version are kept for a later `Follow`.
    record.role = Role::Erased;
    record.epoch = Epoch::NONE;
    record.view_version = entry.version;
    record.lineage = Lineage::default();
    record.accepted = None;
    record.session = None;
    record.suspect = false;
    Ok(copies)
}
