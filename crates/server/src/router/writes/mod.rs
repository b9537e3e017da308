//! Writes at home: the writes of one message for one tenant go into few entries of the group's log.
//!
//! ```text
//! executor ─ command: what is proposed ─> Raft ─> results ─ serving check ─ response: what is answered
//! ```

mod command;
mod deletion_step;
mod executor;
mod refusals;
mod response;

pub(super) use executor::WriteExecutor;
