//! Limits and progress of the seeds that a home sends.

use std::time::Duration;

use stead_state::seed_pace::{SeedFailure, SeedRates};
use stead_types::{GroupId, TenantNumber};

/// Limits of the seeds that a node sends.
#[derive(Clone, Copy, Debug)]
pub struct SeedLimits {
    /// Bytes of history since a seed's start beyond which the tenant's writers are slowed.
    pub history_max: u64,
    /// Bytes a second that a node sends of all its seeds, before compression.
    pub bytes_per_second_max: u64,
}

impl Default for SeedLimits {
    fn default() -> Self {
        Self {
            history_max: 1 << 30,
            bytes_per_second_max: 32 << 20,
        }
    }
}

/// Phase of a seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeedPhase {
    /// Its chunks are sent.
    Loading,
    /// The history since its start is sent.
    CatchingUp,
    /// It has ended without a copy.
    Failed(SeedFailure),
}

/// Progress of one seed, on the home's leader.
#[derive(Clone, Copy, Debug)]
pub struct SeedProgress {
    /// The tenant.
    pub tenant: TenantNumber,
    /// The group that is seeded.
    pub follower: GroupId,
    /// How far it is.
    pub phase: SeedPhase,
    /// Live keys that the copy has.
    pub keys: u64,
    /// Live keys of the tenant at its start.
    pub keys_total: u64,
    /// Bytes of live keys and values that the copy has.
    pub bytes: u64,
    /// Bytes of live keys and values of the tenant at its start: what is written later is history.
    pub bytes_total: u64,
    /// Bytes of history that are kept for it.
    pub history: u64,
    /// Bytes that it has still to be sent, as far as they are written.
    pub bytes_to_go: u64,
    /// Time until it is complete at the present rates; `None`: unknown, or never.
    pub time_to_go: Option<Duration>,
    /// Its rates.
    pub rates: SeedRates,
    /// Rate that the tenant's writers are slowed to, in bytes of requests a second.
    pub writers_slowed_to: Option<u64>,
}
