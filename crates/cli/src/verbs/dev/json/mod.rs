//! `stead dev --json`: a cluster for tests in any language. One object a line, events and results to standard output,
//! commands from standard input; it lives as long as standard input is open.
//!
//! ```text
//!   test ──{"command":"cut",…}──▶ stdin ─▶ Command ─▶ Cluster
//!   test ◀─{"event":"answer",…}── stdout ◀─ Event ◀─ ObservedState ◀─ polled every 100 ms
//! ```
//!
//! # Invariants
//!
//! * **J1** Standard output has events and nothing else, each on one line.
//! * **J2** When standard input ends, so does the cluster: no test leaves one behind, however it ends.
//! * **J3** `ready` is the first event, unless the cluster does not become ready; `failed` is the last one then.

mod command;
mod event;
mod observed_state;
mod session;

pub(super) use self::{event::Status, session::run};
