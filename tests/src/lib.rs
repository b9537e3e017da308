//! Support library of the cross-crate tests: histories of clients, consistency checkers, power cuts, real processes.
//!
//! ```text
//! client calls -> history::Recorder -> History (one tenant) -> checker::check -> Vec<Violation>
//! ```
//!
//! The checkers know nothing of servers, clocks or simulations: the seeded simulation, the clusters of processes and
//! the tests of clients use them alike.

pub mod checker;
pub mod history;
#[cfg(target_os = "linux")]
pub mod powercut;
pub mod process;
