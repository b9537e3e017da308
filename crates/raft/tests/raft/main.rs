//! Integration tests of groups on one thread and virtual time, over real tonic in memory.

#![expect(unreachable_pub, reason = "a test has no outside")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod basic;
mod clocks;
mod cluster;
mod faults;
mod group_bootstrap;
mod loopback;
mod restore;
mod snapshots;
mod toy;
