//! What a log on disk holds when it is opened.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use stead_types::GroupId;

use super::view::View;
use super::write::{self, COMMITTED, END, PURGED, VOTE, split_index};
use super::writer::{Engine, Group};
use crate::log::Purged;

/// Returns the groups that have a log.
pub(super) fn groups(engine: &Engine) -> io::Result<BTreeMap<GroupId, Arc<Group>>> {
    let ids = engine.raft_groups().into_iter().filter_map(write::group);
    ids.map(|id| {
        let view = Mutex::new(view(engine, write::region(id))?);
        Ok((id, Arc::new(Group { id, view })))
    })
    .collect()
}

fn view(engine: &Engine, region: u64) -> io::Result<View> {
    let key = |key| engine.get(region, key).map(Bytes::from);
    let corrupt = || io::Error::new(io::ErrorKind::InvalidData, "a position in the log cannot be read");
    let purged = match key(PURGED) {
        None => None,
        Some(value) => {
            let (index, meta) = split_index(&value).ok_or_else(corrupt)?;
            let meta = Bytes::copy_from_slice(meta);
            Some(Purged { index, meta })
        }
    };
    let end = match key(END).filter(|value| !value.is_empty()) {
        None => None,
        Some(value) => Some(split_index(&value).ok_or_else(corrupt)?.0),
    };
    let first = match &purged {
        Some(purged) => purged.index + 1,
        None => engine.first_index(region).unwrap_or(0),
    };
    let after_last = engine.last_index(region).map_or(first, |last| last + 1);
    let next = end.map_or(after_last, |end| end.min(after_last)).max(first);
    let mut view = View::recovered(first..next, purged, end.is_some());
    (view.vote, view.committed) = (key(VOTE), key(COMMITTED));
    Ok(view)
}
