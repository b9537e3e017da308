//! Scheduling classes of replication's proposals in a group's proposal queue, which gives each class its turn. The classes
//! of callers' writes are the numbers of their tenants, far below.

/// Feed proposals: of the feed of a home, this and the home's number.
pub(crate) const FEED: u64 = 1 << 63;
/// Seeds: of the seeds of a home, this and the home's number.
pub(crate) const SEED: u64 = FEED + (1 << 32);
/// Remote watermarks of tenants that the group owns.
pub(crate) const REMOTE_WATERMARK: u64 = FEED + (1 << 58);
/// Changes that a promotion takes over from another group.
pub(crate) const PULL: u64 = FEED + (1 << 59);
/// Class of an owner's notes about serving without a lease.
pub(crate) const LEASE_LOSS: u64 = FEED + (1 << 60);
/// Steps of the reconciler.
pub(crate) const RECONCILE: u64 = FEED + (1 << 61);
/// Moves of retention floors.
pub(crate) const RETENTION: u64 = FEED + (1 << 62);
