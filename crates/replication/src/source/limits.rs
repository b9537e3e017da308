//! Bounds of a stream: of its batches, and of what is in flight.

use std::time::Duration;

use stead_state::rows::change::{EFFECTS_MAX, HEAD_LEN_MAX};
use stead_types::limits::CHANGE_LEN_MAX;

use crate::{payload::RAW_LEN_MAX, wire::MESSAGE_LEN_MAX};

/// Bytes of batches, before compression, that may be in flight.
pub(crate) const IN_FLIGHT_BYTES_MAX: usize = 8 << 20;
/// Shortest time between two batches of a stream: a single change is sent at once, under load the changes of some
/// milliseconds are one message, and one entry of the follower's log with its three syncs.
pub(crate) const PACE: Duration = Duration::from_millis(10);
/// Bytes before compression at which a batch is closed.
pub(crate) const BATCH_BYTES_MAX: usize = 256 << 10;
/// Bytes at which the changes of entries are split into pieces: an entry of small commands can change a lot, where each
/// appends to a long value. A change is not split, so a piece may have [`CHANGE_LEN_MAX`] bytes more.
pub(crate) const PIECE_BYTES_MAX: usize = 4 << 20;
/// Tenants at which a batch is closed: each of them is a command of the follower's.
pub(crate) const BATCH_TENANTS_MAX: usize = 4096;
/// Most parts of a batch: the tenants of the entries before its last one, and those of its last entry.
pub(crate) const BATCH_PARTS_MAX: usize = 2 * BATCH_TENANTS_MAX;
/// Longest batch before compression: a piece, and the change that made it one.
pub(crate) const BATCH_LEN_MAX: usize = PIECE_BYTES_MAX + CHANGE_LEN_MAX + EFFECTS_MAX * HEAD_LEN_MAX + AROUND_LEN_MAX;
/// Overhead of the last command of a batch around its changes.
const AROUND_LEN_MAX: usize = 4 << 10;

const _: () = assert!(
    BATCH_LEN_MAX <= RAW_LEN_MAX && RAW_LEN_MAX + RAW_LEN_MAX / 4 <= MESSAGE_LEN_MAX,
    "a batch would be longer than a feed message"
);

/// Time after which an empty batch moves the offset past entries that had no change for the follower.
pub(crate) const EMPTY_BATCH_INTERVAL: Duration = Duration::from_secs(10);
/// Most entries of the home that one batch covers.
pub(crate) const BATCH_ENTRIES_MAX: usize = 1024;
