//! Tests of the feed: a home group and a follower group on one thread and virtual time, over real tonic in memory, with
//! a directory that the tests set.

#![expect(unreachable_pub, reason = "a test has no outside")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod attach;
mod damage;
mod handover;
mod moves;
mod promotions;
mod reconcile;
mod reopen;
mod retention;
mod seed;
mod world;
