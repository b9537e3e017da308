//! Shard: the machine of a data group, with the data, ownership records and idempotency windows of its tenants.
//!
//! ```text
//! log entry -> Shard::apply -> rows (CURRENT, CHANGE, EXPIRY, FEED at once; TENANT, CLIENT, STREAM at checkpoints)
//!                    |
//!                    +-> ApplyResults, to the proposers
//! Shard::reading  -> Get, Scan, changes for feed and watch, chunks for seeds
//! ```
//!
//! Records and idempotency windows are held decoded in memory and written as rows by [`Shard::flush`], which a
//! machine calls before each checkpoint: what is not flushed is applied again from the log.
//!
//! # Invariants
//!
//! 1. Apply is pure: entry, rows and this state in; rows, state and results out. What it rejects, every replica
//!    rejects alike; only what cannot be read is an error, and that stops the node.
//! 2. A revision is given out once: sequences grow by one along a tenant's lineage.
//! 3. `digests`, `keys` and `len` of a copy are those of its live keys and idempotency records as of its revision.
//! 4. A record's `promised` and `view_version` never decrease.
//! 5. There is an EXPIRY row for each live key that expires, and no other.

mod append;
mod apply;
pub mod apply_result;
mod changed_tenants;
pub mod client_windows;
pub mod command;
mod counter;
mod detached_index;
pub mod digest;
pub mod feed_validation;
mod handover_index;
pub mod idempotency_window;
mod maintenance;
pub mod ownership;
pub mod range_deletion;
pub mod read;
pub mod record;
pub mod replay;
mod shadow_copy;
#[expect(
    clippy::module_inception,
    reason = "the main type of the module, in a file of its own"
)]
mod shard;
mod tenant;

pub use append::current_after;
pub use apply_result::ApplyResult;
pub use command::Baton;
pub use shard::{MovedChanges, Shard};

#[cfg(test)]
mod tests;
