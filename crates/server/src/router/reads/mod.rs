//! Reads, at each level of consistency.
//!
//! ```text
//! executor ─┬─ linearizable ─> read index ─ expired_keys ─ query ─ serving check ─> answer
//!           └─ any other ────> replica_gate ─┬─ query ─> answer
//!                                            └─ back to the router, for the home
//! ```

mod executor;
mod expired_keys;
mod query;
mod replica_gate;
mod revision_waits;
mod slots;

pub(super) use executor::ReadExecutor;
pub(crate) use query::read_error;
pub(crate) use revision_waits::RevisionWaits;
