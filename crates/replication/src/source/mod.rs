//! The home's end of a stream: committed changes of the tenants that this group owns, for one follower group.
//!
//! ```text
//!   applied ──> FEED rows ──> sessions ──> change records ──> batch, compressed ──> stream
//!                                 ^                                                   │
//!      attach, view (residency) ──┘          acknowledgements: what is in flight <────┘
//! ```
//!
//! A stream is pulled by its transport: nothing is read before there is room for it, and nothing waits for more.
//!
//! # Invariants
//!
//! 1. Only tenants that this group owns, and whose policy admits the follower's region in this node's view, are put on
//!    the stream.
//! 2. What is in flight and not acknowledged stays below [`IN_FLIGHT_BYTES_MAX`] and what one batch is longer.
//! 3. Batches have ascending offsets; a batch that only catches up has the offset of the one before.

pub(crate) mod acknowledged;
mod batch;
mod open;
pub(crate) mod pings;
mod produce;
pub(crate) mod seed;
pub(crate) mod sessions;
mod stream;

pub(crate) use open::open;
use stead_state::rows::change::{EFFECTS_MAX, HEAD_LEN_MAX};
use stead_types::limits::CHANGE_LEN_MAX;

use crate::{payload::RAW_LEN_MAX, wire::MESSAGE_LEN_MAX};

/// Bytes of batches, before compression, that may be on their way.
pub(crate) const IN_FLIGHT_BYTES_MAX: usize = 8 << 20;
/// Batches of a stream are at least this far apart: alone a change travels at once, under load those of some
/// milliseconds are one message, and one entry of the follower's log with its three syncs.
pub(crate) const PACE: std::time::Duration = std::time::Duration::from_millis(10);
/// A batch is closed once it has this many bytes before compression.
pub(crate) const BATCH_BYTES_MAX: usize = 256 << 10;
/// What entries changed is sent in pieces of about so many bytes: an entry of small commands can change a lot, where
/// each appends to a long value. One change goes whole, so a piece may have [`CHANGE_LEN_MAX`] bytes more.
pub(crate) const PIECE_BYTES_MAX: usize = 4 << 20;
/// A batch covers no more entries once it has changes of so many tenants: each of them is a command of the follower's.
pub(crate) const BATCH_TENANTS_MAX: usize = 4096;
/// Most parts of a batch: those of the entries before its last one, and those of that.
pub(crate) const BATCH_PARTS_MAX: usize = 2 * BATCH_TENANTS_MAX;
/// Longest batch before compression: a piece, and the change that made it one.
pub(crate) const BATCH_LEN_MAX: usize = PIECE_BYTES_MAX + CHANGE_LEN_MAX + EFFECTS_MAX * HEAD_LEN_MAX + AROUND_LEN_MAX;
/// What the last command of a batch has around its changes.
const AROUND_LEN_MAX: usize = 4 << 10;

const _: () = assert!(
    BATCH_LEN_MAX <= RAW_LEN_MAX && RAW_LEN_MAX + RAW_LEN_MAX / 4 <= MESSAGE_LEN_MAX,
    "a batch would not reach its follower"
);

/// How long entries that had nothing for the follower leave its offset behind.
pub(crate) const KEEP_UP_INTERVAL: std::time::Duration = std::time::Duration::from_secs(10);
/// Most entries of the home that one batch covers.
pub(crate) const BATCH_ENTRIES_MAX: usize = 1024;
