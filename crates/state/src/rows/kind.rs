//! The first byte of every key. A number is never used for anything else again.

/// What has been applied, per group; written by `store`.
pub const GROUP: u8 = 0x01;
/// The highest install number given out, per group; written by `store`.
pub const INSTALLS: u8 = 0x02;
/// A tenant's record in a group.
pub const TENANT: u8 = 0x10;
/// The current version of a key.
pub const CURRENT: u8 = 0x11;
/// A change: one version of one key, by revision.
pub const CHANGE: u8 = 0x12;
/// A client's window of remembered outcomes.
pub const CLIENT: u8 = 0x13;
/// Which tenants an entry of a home group touched.
pub const FEED: u8 = 0x14;
/// How far a follower group has a home group's stream.
pub const STREAM: u8 = 0x15;
/// A copy that nothing reads any more, being erased.
pub const GARBAGE: u8 = 0x16;
/// When a live key expires, by time.
pub const EXPIRY: u8 = 0x17;
/// Up to which entry the feed is forgotten.
pub const FEED_FLOOR: u8 = 0x18;
/// A thing of the directory, in the directory's own group.
pub const DIRECTORY: u8 = 0x20;
/// A thing of the directory, in a node's view.
pub const VIEW: u8 = 0x21;

/// The kinds that a shard's snapshot replaces: rows under a [`super::Place`].
pub const SHARD: [u8; 9] = [
    TENANT, CURRENT, CHANGE, CLIENT, FEED, STREAM, GARBAGE, EXPIRY, FEED_FLOOR,
];
