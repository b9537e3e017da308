//! Takes one change into one copy: the only place where data rows, digest and counters change.

use bytes::Bytes;

use super::{digest, record::CopyState};
use crate::rows::{
    Copy, RowsMut, Unreadable,
    chain::Chain,
    change::{self, Change},
    current::{self, Current, Live},
    expiry,
};

/// Reads what is current at a key.
pub(super) fn current(rows: &dyn crate::rows::Rows, copy: Copy, key: &[u8]) -> Result<Option<Current>, Unreadable> {
    let row = rows.get(&current::key(copy, key))?;
    Ok(row.map(current::decode).transpose()?)
}

/// Makes a change the current version of its key. `before` is what was current; the change's own `previous` and `chain`
/// are set from it. Revision and time of the copy are left to the caller.
pub(super) fn append(
    rows: &mut dyn RowsMut,
    copy: Copy,
    state: &mut CopyState,
    before: Option<Current>,
    mut change: Change,
) {
    change.previous = before.map(|before| (before.revision, before.effect));
    change.chain = match before {
        Some(before) => before.chain.next((before.revision, before.effect), state.floor),
        None => Chain::default(),
    };
    if let Some(live) = before.and_then(|before| before.live) {
        state.digests.remove_key(live.hash);
        state.keys -= 1;
        state.len -= change.key.len() as u64 + u64::from(live.len);
        if let Some(expires) = live.expires {
            rows.delete(expiry::key(copy, expires, &change.key));
        }
    }
    let now = current_after(&change);
    if let Some(live) = now.live {
        state.digests.add_key(live.hash);
        state.keys += 1;
        state.len += change.key.len() as u64 + u64::from(live.len);
        if let Some(expires) = live.expires {
            rows.put(expiry::key(copy, expires, &change.key), Bytes::new());
        }
    }
    rows.put(current::key(copy, &change.key), current::encode(&now));
    rows.put_new(
        change::key(copy, change.revision.sequence(), change.effect),
        change::encode(&change),
    );
}

/// Returns what is current at a change's key from the change on.
pub fn current_after(change: &Change) -> Current {
    Current {
        revision: change.revision,
        effect: change.effect,
        chain: change.chain,
        live: change.value.as_ref().map(|value| Live {
            create: value.create,
            version: value.version,
            len: value.bytes.len() as u32,
            hash: digest::of_key(&change.key, value, change.revision),
            expires: value.expires,
        }),
    }
}
