//! Tests of a shard machine through restarts, power losses, snapshots and maintenance.

mod apply_test;
mod engines_test;
mod follower_test;
mod install_test;
mod node;
mod random_command;
mod rewind_test;
mod scan_test;
mod snapshot_test;
mod state;
