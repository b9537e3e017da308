//! Chunks for a copy that another group builds anew.

use std::ops::Bound;

use stead_types::{ClientId, Revision, Sequence};

use super::{Reading, Refused};
use crate::{
    rows::{Order, change},
    shard::{append::current, command::Part},
};

/// Most rows that one chunk looks at.
const ROWS_MAX: usize = 20_000;

impl Reading<'_> {
    /// Returns the next chunk of changes behind `after`, up to the seed's first revision, of about `len_max` bytes. It
    /// is read at the copy's own revision.
    pub fn chunk_of_changes(&self, after: Sequence, seed: Revision, len_max: usize) -> Result<Part, Refused> {
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
                // Of an old change any of its effects may be gone, the first one too.
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
        Ok(Part::Changes { after, up_to, changes })
    }

    /// Returns the next chunk of client windows behind `after`, of about `len_max` bytes. It is read at the copy's own
    /// revision and must reach the other group before any later change.
    pub fn chunk_of_clients(&self, after: Option<ClientId>, len_max: usize) -> Part {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut windows = Vec::new();
        let mut up_to = ClientId(u128::MAX);
        let mut len = 0;
        for (id, window) in self.clients.windows().range((start, Bound::Unbounded)) {
            if len >= len_max {
                up_to = windows.last().map_or(up_to, |(id, _)| *id);
                break;
            }
            len += 32 + window.len() * 16;
            windows.push((*id, window.clone()));
        }
        Part::Clients {
            after,
            up_to,
            time: self.state().time,
            edge: self.state().edge,
            windows,
        }
    }
}
