//! Storage of a node: rows behind one small engine trait, and the Raft log of all groups.

pub mod background;
pub mod chunks;
pub mod data_dir;
pub mod digests;
pub mod directory;
pub mod directory_view;
pub mod engine;
pub mod group_rows;
pub mod health;
pub mod latency;
pub mod log;
pub mod machine;
mod open;
mod power;
pub mod room;
pub mod sent_log;
pub mod shard;
#[cfg(test)]
mod small_disk;
pub mod table;

pub use open::{Config, Disk, Error, StorageLocation, Store, open};
