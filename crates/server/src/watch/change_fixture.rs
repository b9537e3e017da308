//! Fixture of changes for the tests of watches.

use bytes::Bytes;
use stead_state::rows::change::{Cause, Change, Value};
use stead_types::TenantTime;

/// Returns a put of a value with this length, or a delete without one.
pub(super) fn change(revision: &str, key: impl Into<Bytes>, len: Option<usize>) -> Change {
    Change {
        revision: revision.parse().unwrap(),
        effect: 0,
        more: false,
        cause: Cause::Write,
        time: TenantTime(1),
        previous: None,
        chain: Default::default(),
        outcome: None,
        operation: None,
        origin: None,
        key: key.into(),
        value: len.map(|len| Value {
            create: revision.parse().unwrap(),
            version: 1,
            expires: None,
            bytes: vec![b'x'; len].into(),
        }),
    }
}
