//! Transition of what an owner does without a lease: `SetLeaseLossPolicy`.

use super::{check_owner, check_view};
use crate::shard::{apply_result::GuardFailure, command::SetLeaseLossPolicy, record::TenantRecord};

/// Changes what the owner does without a lease. Repeated, it changes nothing but the view that the record has seen, which
/// a report carries.
pub fn set_lease_loss_policy(record: &mut TenantRecord, entry: &SetLeaseLossPolicy) -> Result<(), GuardFailure> {
    check_owner(record)?;
    check_view(record, entry.version)?;
    record.policy = entry.policy;
    record.view_version = entry.version;
    Ok(())
}
