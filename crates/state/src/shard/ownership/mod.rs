//! Decisions about ownership: the guard and the effect of each log entry of PROTOCOL's table, as pure functions over a
//! tenant's record in one group.
//!
//! ```text
//! command -> guard over the record -> effect on the record -> rows, windows, indexes
//!            └─────────────── here ───────────────┘           └── shard::apply ──┘
//! ```
//!
//! Apply calls one function for each command and then brings rows, idempotency windows and indexes to what the record
//! says; a model of the protocol calls the same functions. They read no rows, no view, no clock and no lease.
//!
//! # Invariants
//!
//! 1. A failed guard changes nothing, but for the end of a feed session whose message is void: an attach or data that
//!    do not fit, and a baton with other digests, which also makes the copy suspect.
//! 2. `promised` and `view_version` never decrease, and the epoch is never above `promised`.
//! 3. A group becomes owner only by `create`, `accept` and `activate`.
//! 4. What is cut becomes a fork: only `erase` and `discard_fork` drop history, and a fork only if it is named.

mod copies;
mod follow;
mod lease_loss;
mod membership;
mod moves;
mod promotion;
mod remote;

#[cfg(test)]
mod guards_test;
#[cfg(test)]
mod promotion_test;
#[cfg(test)]
mod sequences_test;

pub use copies::{Cut, RevisionAt};
pub use follow::{admit_data, attach, begin_attach, check_follows, create, detach, follow};
pub use lease_loss::set_lease_loss_policy;
pub use membership::{count, discard_fork, erase, rejoin, uncount};
pub use moves::{accept, baton, cancel_heir, heir, refuse, relinquish};
pub(super) use promotion::pulled;
pub use promotion::{Activation, FreezeReport, activate, check_pull, forked_up_to, freeze, freeze_report, pull};
pub use remote::confirm_remote;
use stead_types::{DirectoryVersion, Epoch};

use super::{
    apply_result::GuardFailure,
    record::{Role, TenantRecord},
};

/// Log index and logged time of the entry that a command is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryStamp {
    /// Index in the group's log.
    pub index: u64,
    /// Logged time, in milliseconds since 1970.
    pub time: u64,
}

/// Checks that this group owns the tenant: the guard of writes and of expiry. Returns the epoch.
pub fn check_owner(record: &TenantRecord) -> Result<Epoch, GuardFailure> {
    record.owned().ok_or(GuardFailure::NotOwner {
        to: record.handed_over_to(),
    })
}

/// Checks that a command was not derived from an older directory view than the record has seen.
pub fn check_view(record: &TenantRecord, version: DirectoryVersion) -> Result<(), GuardFailure> {
    if version < record.view_version {
        return Err(GuardFailure::OlderView);
    }
    Ok(())
}

fn epoch_failure(record: &TenantRecord) -> GuardFailure {
    GuardFailure::Epoch {
        epoch: record.epoch,
        promised: record.promised,
    }
}

fn position_failure(record: &TenantRecord) -> GuardFailure {
    GuardFailure::Position {
        revision: record.live.revision,
    }
}

/// Makes this group the owner in an epoch: the only way to that role.
fn become_owner(record: &mut TenantRecord, epoch: Epoch) {
    record.role = Role::Owner;
    record.epoch = epoch;
    record.promised = record.promised.max(epoch);
    record.session = None;
    // A new owner begins with nothing that another region is known to have.
    record.remote = 0;
}
