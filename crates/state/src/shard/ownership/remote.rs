//! Transition of an owner's remote watermark: `ConfirmRemote`.

use super::{check_owner, epoch_failure};
use crate::shard::{apply_result::GuardFailure, command::ConfirmRemote, record::TenantRecord};

/// Raises the log index up to which another region has the tenant's changes. What was confirmed stays confirmed, so it
/// needs no view; an owner of another epoch begins with nothing.
pub fn confirm_remote(record: &mut TenantRecord, entry: &ConfirmRemote) -> Result<(), GuardFailure> {
    if check_owner(record)? != entry.epoch {
        return Err(epoch_failure(record));
    }
    if entry.index <= record.remote || record.live.index < entry.index {
        return Err(GuardFailure::Offset);
    }
    record.remote = entry.index;
    Ok(())
}
