//! The machine of a data group: `state::shard` over a group's rows.
//!
//! ```text
//!   raft ── apply ──> ShardMachine ── Shard::apply ──> table ── checkpoint ──> engine
//!   services, feed ── read(|view| ..) ──┘                └── snapshot ──> chunks ──> install on another node
//! ```
//!
//! # Invariants
//!
//! 1. Rows, the shard's memory and what was applied agree whenever the lock is free.
//! 2. What the shard holds in memory is in rows before each checkpoint.
//! 3. While a snapshot is read nothing is removed: versions and copies that it still has to read stay.
//! 4. An install writes under a number that no row bears or has ever borne; the swap is one row, and rows of other
//!    installs are removed in bounded steps, which start anew after a restart.
//! 5. A thread reads a machine once at a time.
//! 6. A snapshot holds what was there at its cut, however long it is read: changes and the feed's rows stay meanwhile,
//!    and of what is overwritten the old rows are kept for it. Under one lock it reads a bounded page.
//! 7. A snapshot has rows of the copies that records name, and of no others.

mod cuts;
mod install;
mod machine;
#[cfg(debug_assertions)]
mod once;
mod snapshot;
mod sweep;
mod view;

pub use machine::ShardMachine;
pub use view::View;

#[cfg(test)]
mod commands;
#[cfg(test)]
mod engines_test;
#[cfg(test)]
mod shard_test;
