//! Rows on disk behind one small trait, and the Raft log of all groups of a node.

pub mod background;
pub mod chunks;
pub mod dir;
pub mod engine;
pub mod group_rows;
pub mod health;
pub mod log;
pub mod machine;
mod open;
pub mod table;

pub use open::{Config, Disk, Error, Place, Store, open};
