//! Recovery of the log caches when a log on disk is opened.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use stead_types::GroupId;

use super::log_cache::LogCache;
use super::log_write::{self, COMMITTED, END, PURGED, VOTE, split_index};
use super::writer::{CachedGroup, LogEngine};
use crate::log::PurgePoint;

/// Returns the groups that have a log, with their caches.
pub(super) fn groups(engine: &LogEngine) -> io::Result<BTreeMap<GroupId, Arc<CachedGroup>>> {
    let ids = engine.raft_groups().into_iter().filter_map(log_write::group_of);
    ids.map(|id| {
        let cache = Mutex::new(cache(engine, log_write::engine_group_id(id))?);
        Ok((id, Arc::new(CachedGroup { id, cache })))
    })
    .collect()
}

fn cache(engine: &LogEngine, engine_group: u64) -> io::Result<LogCache> {
    let key = |key| engine.get(engine_group, key).map(Bytes::from);
    let corrupt = || io::Error::new(io::ErrorKind::InvalidData, "cannot decode a position in the Raft log");
    let purged = match key(PURGED) {
        None => None,
        Some(value) => {
            let (index, meta) = split_index(&value).ok_or_else(corrupt)?;
            let meta = Bytes::copy_from_slice(meta);
            Some(PurgePoint { index, meta })
        }
    };
    let end = match key(END).filter(|value| !value.is_empty()) {
        None => None,
        Some(value) => Some(split_index(&value).ok_or_else(corrupt)?.0),
    };
    let first = match &purged {
        Some(purged) => purged.index + 1,
        None => engine.first_index(engine_group).unwrap_or(0),
    };
    let after_last = engine.last_index(engine_group).map_or(first, |last| last + 1);
    let next = end.map_or(after_last, |end| end.min(after_last)).max(first);
    let mut cache = LogCache::recovered(first..next, purged, end.is_some());
    (cache.vote, cache.committed) = (key(VOTE), key(COMMITTED));
    Ok(cache)
}
