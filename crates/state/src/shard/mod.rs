//! The tenants of one group: data, ownership records, idempotency.
//!
//! ```text
//! log entry -> Shard::apply -> rows (CURRENT, CHANGE, EXPIRY, FEED at once; TENANT, CLIENT, STREAM at checkpoints)
//!                    |
//!                    +-> answers, to whoever proposed
//! Shard::reading  -> Get, Scan, changes for feed and watch, chunks for seeds
//! ```
//!
//! Records and client windows are held decoded in memory and written as rows by [`Shard::flush`], which a machine calls
//! before each checkpoint: what is not flushed is applied again from the log.
//!
//! # Invariants
//!
//! 1. Apply is pure: entry, rows and this state in; rows, state and answers out. What it rejects, every replica rejects
//!    alike; only what cannot be read is an error, and that stops the node.
//! 2. A revision is given out once: sequences grow by one along a tenant's lineage.
//! 3. `digests`, `keys` and `len` of a copy are those of its live keys and remembered outcomes as of its revision.
//! 4. A record's `promised` and `view_version` never decrease.
//!
//! 5. An EXPIRY row stands for each live key that expires; one that says something else stands for nothing.
//!
//! Deliberately absent: moves and promotions. Their roles are there.

pub mod answer;
mod append;
mod apply;
pub mod clients;
pub mod command;
mod counter;
pub mod deletion;
mod detached;
pub mod digest;
pub mod incoming;
mod maintain;
pub mod read;
pub mod record;
#[expect(
    clippy::module_inception,
    reason = "the main type of the module, in a file of its own"
)]
mod shard;
mod tenant;
pub mod window;

pub use answer::Answer;
pub use append::current_after;
pub use shard::Shard;

#[cfg(test)]
mod tests;
