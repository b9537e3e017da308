//! Applies one change to one copy: the only place where data rows, digests and counters change.

use bytes::Bytes;

use super::{digest, record::CopyState};
use crate::rows::{
    CopyPrefix, RowsMut, Unreadable,
    chain::VersionChain,
    change::{self, Change},
    current::{self, CurrentVersion, LiveVersion},
    expiry,
};

/// Reads the current version of a key.
pub(super) fn current(
    rows: &dyn crate::rows::Rows,
    copy: CopyPrefix,
    key: &[u8],
) -> Result<Option<CurrentVersion>, Unreadable> {
    let row = rows.get(&current::key(copy, key))?;
    Ok(row.map(current::decode).transpose()?)
}

/// Makes a change the current version of its key. `before` is the current version until then; the change's `previous`
/// and `chain` are set from it. The caller sets revision and time of the copy.
pub(super) fn append(
    rows: &mut dyn RowsMut,
    copy: CopyPrefix,
    state: &mut CopyState,
    before: Option<CurrentVersion>,
    mut change: Change,
) {
    change.previous = before.map(|before| (before.revision, before.effect));
    change.chain = match before {
        Some(before) => before
            .chain
            .next((before.revision, before.effect), state.retention_floor),
        None => VersionChain::default(),
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

/// Undoes a change that is the current version of its key: `before`, the version that it replaced, is current again. The
/// caller moves the change's row, and sets revision and windows of the copy.
pub(super) fn undo(
    rows: &mut dyn RowsMut,
    copy: CopyPrefix,
    state: &mut CopyState,
    change: &Change,
    before: Option<&Change>,
) {
    let key = &change.key;
    if let Some(live) = current_after(change).live {
        state.digests.remove_key(live.hash);
        state.keys -= 1;
        state.len -= key.len() as u64 + u64::from(live.len);
        if let Some(expires) = live.expires {
            rows.delete(expiry::key(copy, expires, key));
        }
    }
    let Some(before) = before.map(current_after) else {
        rows.delete(current::key(copy, key));
        return;
    };
    if let Some(live) = before.live {
        state.digests.add_key(live.hash);
        state.keys += 1;
        state.len += key.len() as u64 + u64::from(live.len);
        if let Some(expires) = live.expires {
            rows.put(expiry::key(copy, expires, key), Bytes::new());
        }
    }
    rows.put(current::key(copy, key), current::encode(&before));
}

/// Returns the current version of a change's key after the change.
pub fn current_after(change: &Change) -> CurrentVersion {
    CurrentVersion {
        revision: change.revision,
        effect: change.effect,
        chain: change.chain,
        live: change.value.as_ref().map(|value| LiveVersion {
            create: value.create,
            version: value.version,
            len: value.bytes.len() as u32,
            hash: digest::of_key(&change.key, value, change.revision),
            expires: value.expires,
        }),
    }
}
