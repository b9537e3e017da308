//! Shard machine of a data group: `state::shard` over a group's rows.
//!
//! ```text
//!   raft ── apply ──> ShardMachine ── Shard::apply ──> table ── checkpoint ──> engine
//!   services, feed ── read(|view| ..) ──┘                └── snapshot ──> chunks ──> install on another node
//! ```
//!
//! # Invariants
//!
//! 1. Rows, the shard's memory and the applied state agree whenever the lock is free.
//! 2. The shard's memory is written to rows before each checkpoint.
//! 3. While a snapshot is read nothing is removed: versions and copies that it still has to read stay.
//! 4. An install writes under a number that no row has or ever had; the switch is one row, and rows of other installs
//!    are removed in bounded steps, which start again after a restart.
//! 5. A thread reads a machine once at a time.
//! 6. A snapshot is consistent with its cut, however long it is read: changes and the feed's rows stay meanwhile, though a
//!    rewind may move changes to a fork, which is noted for it; and the preimages of overwritten rows are saved for it.
//!    Under one lock it reads a bounded page.
//! 7. A snapshot has rows of the copies that records name, and of no others.

mod dead_range_table;
mod install;
mod machine;
mod read_view;
#[cfg(debug_assertions)]
mod reentrancy_check;
mod snapshot;
mod snapshot_cuts;
mod stale_installs;

pub use machine::ShardMachine;
pub use read_view::ReadView;

#[cfg(test)]
mod tests;
