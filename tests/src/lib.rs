//! Helpers of the tests: what clients saw, and whether a correct store could have shown it to them.
//!
//! ```text
//! client calls -> history::Recorder -> History (one tenant) -> checker::check -> Vec<Violation>
//! ```
//!
//! The checkers know nothing of servers, clocks or simulations: the seeded simulation, the clusters of processes and
//! the tests of clients hand them histories alike.

pub mod checker;
pub mod history;
#[cfg(target_os = "linux")]
pub mod powercut;
pub mod process;
