//! Kind bytes: the first byte of every key. A number is never used for anything else again.

/// Applied position of a group; written by `store`.
pub const GROUP: u8 = 0x01;
/// Highest install number of a group; written by `store`.
pub const INSTALLS: u8 = 0x02;
/// A tenant's record in a group.
pub const TENANT: u8 = 0x10;
/// The current version of a key.
pub const CURRENT: u8 = 0x11;
/// A change: one MVCC version of one key, by revision.
pub const CHANGE: u8 = 0x12;
/// A client's idempotency window.
pub const CLIENT: u8 = 0x13;
/// Tenants that a log entry of a home group changed.
pub const FEED: u8 = 0x14;
/// A follower group's offset in a home group's feed.
pub const STREAM: u8 = 0x15;
/// A discarded copy whose rows are being removed.
pub const GARBAGE: u8 = 0x16;
/// Expiry of a live key, by time.
pub const EXPIRY: u8 = 0x17;
/// Retention floor of the feed.
pub const FEED_FLOOR: u8 = 0x18;
/// An object of the directory, in the directory's own group.
pub const DIRECTORY: u8 = 0x20;
/// An object of the directory, in a node's directory view.
pub const DIRECTORY_VIEW: u8 = 0x21;

/// Kinds that a shard's snapshot replaces: rows under a [`super::GroupPrefix`].
pub const SHARD: [u8; 9] = [
    TENANT, CURRENT, CHANGE, CLIENT, FEED, STREAM, GARBAGE, EXPIRY, FEED_FLOOR,
];
