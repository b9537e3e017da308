//! Copies of tenants that are being made, as operators see them.

use std::time::Duration;

use stead_api::proto::admin::v1::{self, seed_progress::Phase as PhaseMessage};

/// Copy of a tenant that a home makes for a group that does not follow it yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeedProgress {
    /// Name of the tenant.
    pub tenant: String,
    /// Group of the home.
    pub home_group: u32,
    /// Region of the home.
    pub home_region: String,
    /// Group that is seeded.
    pub follower_group: u32,
    /// Region of that group.
    pub follower_region: String,
    /// How far it is.
    pub phase: SeedPhase,
    /// Live keys that the copy has.
    pub keys: u64,
    /// Live keys of the tenant.
    pub keys_total: u64,
    /// Bytes of keys and values that the copy has.
    pub bytes: u64,
    /// Bytes of keys and values of the tenant.
    pub bytes_total: u64,
    /// Bytes of change history that are kept for the copy.
    pub history_bytes: u64,
    /// Bytes that have still to be sent, as far as they are written.
    pub bytes_to_go: u64,
    /// Time until it is complete, at the present rates; absent: at these it never is.
    pub time_to_go: Option<Duration>,
    /// Bytes a second that the copy takes in.
    pub copy_bytes_per_second: u64,
    /// Bytes of change history a second that the tenant's writers make.
    pub write_bytes_per_second: u64,
    /// Rate that the tenant's writers are slowed to, in bytes a second.
    pub writers_slowed_to: Option<u64>,
    /// Why it was given up, and what helps; empty: it was not.
    pub failure: String,
}

/// Phase of a copy that is being made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeedPhase {
    /// Keys are copied.
    Loading,
    /// Changes since the beginning are copied.
    CatchingUp,
    /// It was given up.
    Failed,
    /// A phase of a newer version.
    Other,
}

/// Reads the progress of a copy.
pub(super) fn read(seed: v1::SeedProgress) -> SeedProgress {
    let phase = match seed.phase() {
        PhaseMessage::Loading => SeedPhase::Loading,
        PhaseMessage::CatchingUp => SeedPhase::CatchingUp,
        PhaseMessage::Failed => SeedPhase::Failed,
        PhaseMessage::Unspecified => SeedPhase::Other,
    };
    SeedProgress {
        tenant: seed.tenant,
        home_group: seed.home_group,
        home_region: seed.home_region,
        follower_group: seed.follower_group,
        follower_region: seed.follower_region,
        phase,
        keys: seed.keys,
        keys_total: seed.keys_total,
        bytes: seed.bytes,
        bytes_total: seed.bytes_total,
        history_bytes: seed.history_bytes,
        bytes_to_go: seed.bytes_to_go,
        time_to_go: seed.time_to_go.and_then(|time| time.try_into().ok()),
        copy_bytes_per_second: seed.copy_bytes_per_second,
        write_bytes_per_second: seed.write_bytes_per_second,
        writers_slowed_to: seed.writers_slowed_to,
        failure: seed.failure,
    }
}
