//! Panics that nobody catches.
//!
//! A part of the node that panics is caught by whoever runs it, who knows what it was doing and stops the node. What is
//! left are threads and tasks of libraries, which would end in silence while the node goes on: for them there is the
//! hook of the process. A request that panics is caught by its listener, and ends alone: if it stopped the node, one
//! caller could stop one node after the other.

use std::panic::PanicHookInfo;

use stead_store::health::{Failure, Health, Panicked, is_caught};
use tracing::error;

/// A panic, and where it happened.
#[derive(Debug, thiserror::Error)]
#[error("{panicked} in thread {thread} at {place}")]
struct Uncaught {
    panicked: Panicked,
    thread: String,
    place: String,
}

/// Returns the panic hook of a process that runs one node: it tells of every panic, and stops the node for one that nobody
/// catches.
pub fn hook(health: Health) -> impl Fn(&PanicHookInfo<'_>) + Send + Sync + 'static {
    move |info| {
        let uncaught = Uncaught {
            panicked: Panicked::of(info),
            thread: std::thread::current().name().unwrap_or("without a name").to_owned(),
            place: info
                .location()
                .map_or_else(|| "an unknown place".to_owned(), ToString::to_string),
        };
        error!(panic = %uncaught, "panic");
        if !is_caught() {
            health.fail(Failure::of_node("running a library", uncaught));
        }
    }
}
