//! Rows: a method, a message, and who of [`super::CALLERS`] may send it.
//!
//! Messages change nothing that another row needs: they only validate, name what does not exist, or write what is there.

use std::{future::Future, pin::Pin};

use tonic::{Code, transport::Channel};

use super::{keys, operators};

type Call = Box<dyn Fn(Channel, String) -> Pin<Box<dyn Future<Output = Code>>>>;

/// Row of the table.
pub(super) struct Row {
    /// Path of the method.
    pub(super) path: &'static str,
    /// The message, for people.
    pub(super) message: &'static str,
    /// Sends the message.
    pub(super) call: Call,
    /// Letters of the callers that may, in their order.
    pub(super) allowed: &'static str,
}

macro_rules! row {
    ($path:literal, $allowed:literal, $message:expr) => {
        row!($path, $allowed, $message, answered)
    };
    ($path:literal, $allowed:literal, $message:expr, $code_of:expr) => {
        Row {
            path: $path,
            message: stringify!($message),
            allowed: $allowed,
            call: Box::new(move |channel, token| {
                Box::pin(call(
                    (channel, token),
                    $path,
                    $message,
                    MessageCodec::default(),
                    $code_of,
                ))
            }),
        }
    };
}

pub(super) use row;

/// Returns the rows of all methods.
pub(super) fn rows() -> Vec<Row> {
    [
        keys::reads(),
        keys::writes(),
        keys::streams(),
        keys::routes(),
        operators::tenants(),
        operators::regions(),
        operators::cluster(),
        operators::operations(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
