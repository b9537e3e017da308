//! Panic hook of the process.
//!
//! A panic in a task of the node is caught by the code that runs the task, which stops the node. Threads and tasks of
//! libraries would end silently while the node goes on: the hook stops the node for them. A panic in a request is
//! caught by its listener and ends that request only: if it stopped the node, one caller could stop one node after the
//! other.

use std::panic::PanicHookInfo;

use stead_store::health::{Health, NodeFailure, PanicError, is_catching_panics};
use tracing::error;

/// A panic that nobody catches, with its thread and location.
#[derive(Debug, thiserror::Error)]
#[error("{panicked} in thread {thread} at {place}")]
struct UncaughtPanic {
    panicked: PanicError,
    thread: String,
    place: String,
}

/// Returns the panic hook of a process that runs one node: it logs every panic, and stops the node for one that nobody
/// catches.
pub fn hook(health: Health) -> impl Fn(&PanicHookInfo<'_>) + Send + Sync + 'static {
    move |info| {
        let uncaught = UncaughtPanic {
            panicked: PanicError::of(info),
            thread: std::thread::current().name().unwrap_or("without a name").to_owned(),
            place: info
                .location()
                .map_or_else(|| "an unknown place".to_owned(), ToString::to_string),
        };
        error!(panic = %uncaught, "panic");
        if !is_catching_panics() {
            health.fail(NodeFailure::of_node("running a library", uncaught));
        }
    }
}
