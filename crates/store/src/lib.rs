//! Rows on disk behind one small trait, and the Raft log of all groups of a node.

pub mod engine;
pub mod health;
pub mod log;
pub mod machine;
pub mod table;
