//! The home's end of a stream: committed changes of the tenants that this group owns, for one follower group.
//!
//! ```text
//!   applied ──> FEED rows ──> sessions ──> change records ──> batch, compressed ──> stream
//!                                 ^                                                   │
//!      attach, view (residency) ──┘          acknowledgements: what is in flight <────┘
//! ```
//!
//! A stream is pulled by its transport (backpressure): nothing is read before there is room for it, and no batch waits
//! to be filled.
//!
//! # Invariants
//!
//! 1. Only tenants that this group owns, and whose policy admits the follower's region in this node's view, are put on
//!    the stream.
//! 2. Bytes in flight that are not acknowledged exceed [`limits::IN_FLIGHT_BYTES_MAX`] by at most one batch.
//! 3. Offsets of batches never descend; a batch that only catches up has the offset of the one before, or that of an
//!    entry since then that had no change for the follower.

mod batch;
mod batons;
mod limits;
mod open;
mod pending_entries;
pub(crate) mod pings;
mod produce;
pub(crate) mod pull;
pub(crate) mod seed;
mod sent_batons;
pub(crate) mod sessions;
mod stream;

pub(crate) use limits::{BATCH_LEN_MAX, BATCH_PARTS_MAX};
pub(crate) use open::open;
