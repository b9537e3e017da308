//! A home group and a follower group on one thread and virtual time, over real tonic in memory, and a directory that is
//! set by hand.

#![expect(unreachable_pub, reason = "a test has no outside")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod attach;
mod damage;
mod floor;
mod net;
mod reconcile;
mod seed;
mod world;
