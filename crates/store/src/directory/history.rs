//! History of recent directory changes, for views that lag a little; a view that lags more gets a snapshot.

use std::collections::VecDeque;

use bytes::Bytes;

/// Most bytes of changes in the history.
pub(super) const HISTORY_LEN_MAX: usize = 16 << 20;

/// Changes by the index of the entry that made them.
#[derive(Default)]
pub(super) struct ChangeHistory {
    /// Changes of entries above this index are kept.
    after: u64,
    entries: VecDeque<(u64, Vec<Bytes>)>,
    len: usize,
}

impl ChangeHistory {
    /// Creates an empty history after this index.
    pub(super) fn after(index: u64) -> Self {
        Self {
            after: index,
            ..Self::default()
        }
    }

    /// Adds the changes of the next entry.
    pub(super) fn push(&mut self, index: u64, changes: Vec<Bytes>) {
        if changes.is_empty() {
            return;
        }
        self.len += changes.iter().map(Bytes::len).sum::<usize>();
        self.entries.push_back((index, changes));
        while self.len > HISTORY_LEN_MAX {
            let Some((dropped, changes)) = self.entries.pop_front() else {
                return;
            };
            self.len -= changes.iter().map(Bytes::len).sum::<usize>();
            self.after = dropped;
        }
    }

    /// Returns the changes of entries above `index`, whole entries until there are `max` changes, and the last included
    /// index if entries were left out. `None` if the changes are no longer kept.
    pub(super) fn since(&self, index: u64, max: usize) -> Option<(Vec<Bytes>, Option<u64>)> {
        if index < self.after {
            return None;
        }
        let from = self.entries.partition_point(|(at, _)| *at <= index);
        let mut found = Vec::new();
        let mut reached = index;
        for (at, changes) in self.entries.range(from..) {
            if found.len() >= max {
                return Some((found, Some(reached)));
            }
            found.extend(changes.iter().cloned());
            reached = *at;
        }
        Some((found, None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(len: usize) -> Vec<Bytes> {
        vec![vec![0; len].into()]
    }

    #[test]
    fn dropped_history_is_reported_as_missing() {
        let mut history = ChangeHistory::after(4);
        assert_eq!(history.since(3, 9), None);
        assert_eq!(history.since(4, 9), Some((Vec::new(), None)));
        for index in 5..8 {
            history.push(index, change(HISTORY_LEN_MAX / 2));
        }
        assert_eq!(history.since(4, 9), None);
        assert_eq!(history.since(5, 9).map(|(changes, _)| changes.len()), Some(2));
        assert_eq!(history.since(7, 9).map(|(changes, _)| changes.len()), Some(0));
    }

    #[test]
    fn history_page_ends_between_entries() {
        let mut history = ChangeHistory::default();
        history.push(2, [change(1), change(1)].concat());
        history.push(5, change(1));
        assert_eq!(
            history.since(0, 1).map(|(changes, end)| (changes.len(), end)),
            Some((2, Some(2)))
        );
        assert_eq!(
            history.since(2, 1).map(|(changes, end)| (changes.len(), end)),
            Some((1, None))
        );
    }
}
