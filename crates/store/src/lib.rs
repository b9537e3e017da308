//! Rows on disk behind one small trait, and the Raft log of all groups of a node.

pub mod background;
pub mod chunks;
pub mod digests;
pub mod dir;
pub mod directory;
pub mod engine;
pub mod group_rows;
pub mod health;
pub mod log;
pub mod machine;
mod open;
mod power;
pub mod shard;
pub mod table;
pub mod view;

pub use open::{Config, Disk, Error, Place, Store, open};
