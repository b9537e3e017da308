//! Reads chunks for a copy that another group seeds.

use std::ops::Bound;

use stead_types::{ClientId, Revision, Sequence};

use super::{ReadError, TenantReader};
use crate::{
    rows::{Order, change},
    shard::{
        append::current,
        command::{ChunkContent, WindowPart},
        record::ClientsLoaded,
    },
};

/// Most rows that one chunk examines.
const ROWS_MAX: usize = 20_000;
/// Approximate bytes of an outcome, and of a window beside its outcomes, in a chunk.
const OUTCOME_LEN: usize = 16;
const WINDOW_LEN: usize = 48;

impl TenantReader<'_> {
    /// Returns the next chunk of changes after `after`, up to the seed's first revision, of about `len_max` bytes. It
    /// is read at the copy's own revision.
    pub fn chunk_of_changes(&self, after: Sequence, seed: Revision, len_max: usize) -> Result<ChunkContent, ReadError> {
        let start = change::key(self.copy, after.next().unwrap_or(Sequence::MAX), 0);
        let end = change::key(self.copy, seed.sequence().next().unwrap_or(Sequence::MAX), 0);
        let mut up_to = seed.sequence();
        let mut changes = Vec::new();
        let mut len = 0;
        if start < end {
            let mut last = after;
            for (seen, row) in self.rows.range(&start..&end, Order::Ascending).enumerate() {
                let (key, value) = row?;
                let (sequence, effect) = change::parse_key(key)?;
                // Any effect of an old change may be removed, the first one too.
                if sequence != last && (len >= len_max || seen >= ROWS_MAX) {
                    up_to = last;
                    break;
                }
                last = sequence;
                let change_len = value.len() + change::FEED_HEAD_LEN_MAX;
                let change = change::decode(sequence, effect, value)?;
                let now = current(self.rows, self.copy, &change.key)?;
                let is_current = now.is_some_and(|now| (now.revision.sequence(), now.effect) == (sequence, effect));
                if is_current && change.value.is_some() {
                    len += change_len;
                    changes.push(change);
                }
            }
        }
        Ok(ChunkContent::Changes { after, up_to, changes })
    }

    /// Returns the next chunk of client windows, of about `len_max` bytes: the rest of the window that is partly
    /// loaded, and those after it. It is read at the copy's own revision and must reach the other group before any
    /// later change.
    pub fn chunk_of_clients(&self, loaded: ClientsLoaded, len_max: usize) -> ChunkContent {
        let after = loaded.whole;
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut windows = Vec::new();
        let mut up_to = Some(ClientId(u128::MAX));
        let mut len = 0;
        for (id, window) in self.clients.windows().range((start, Bound::Unbounded)) {
            let behind = loaded.part.filter(|(client, _)| client == id);
            let behind = behind.map_or(Revision::ZERO, |(_, revision)| revision);
            let room = len_max.saturating_sub(len).div_ceil(OUTCOME_LEN);
            let outcomes: Vec<_> = window.outcomes_after(behind).take(room).copied().collect();
            let last = outcomes.last().map_or(behind, |last| last.revision);
            let is_whole = window.newest().is_none_or(|newest| newest.revision <= last);
            len += WINDOW_LEN + outcomes.len() * OUTCOME_LEN;
            if !outcomes.is_empty() || is_whole {
                windows.push(WindowPart {
                    client: *id,
                    edge: window.edge(),
                    oldest: window.oldest().map_or(Revision::ZERO, |oldest| oldest.revision),
                    outcomes,
                });
            }
            if !is_whole {
                // All windows below it are in this chunk or were in an earlier one.
                up_to = id.0.checked_sub(1).map(ClientId);
                break;
            }
        }
        ChunkContent::Clients {
            after: loaded,
            up_to,
            time: self.state().time,
            edge: self.state().edge,
            windows,
        }
    }
}
