//! Idempotency window of a client: the outcomes of its latest writes.
//!
//! Outcomes are in the order of their revisions, in pages of [`PAGE_OUTCOMES`]: a page is a row, so that a checkpoint
//! writes what was added, and an eviction does not rewrite its page. A window never evicts by itself: the owner
//! decides the evictions, and they are part of the change, so that followers evict the same.
//!
//! An outcome takes about 60 bytes of memory: 32 of its own, the rest in the index by sequence.
//!
//! # Invariants
//!
//! 1. `edge` is the latest tenant time of any outcome that was evicted.
//! 2. No outcome younger than [`IDEMPOTENCY_MS_MIN`] is evicted, at whatever rate its client writes. So a tenant's
//!    time is above each of its edges, and a stamp at the tenant's time can be told from one at an edge.
//! 3. Older ones are kept for [`IDEMPOTENCY_MS_MAX`], up to [`OUTCOMES_MAX`] of a client.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    ops::Range,
};

use stead_types::{
    Revision, TenantTime,
    planted::{self, Bug},
};

/// Shortest time that an outcome is kept, in tenant time.
pub const IDEMPOTENCY_MS_MIN: u64 = 60_000;
/// Longest time that an outcome is kept, in tenant time.
pub const IDEMPOTENCY_MS_MAX: u64 = 10 * 60 * 1000;
/// Most outcomes of one client that are kept for longer than [`IDEMPOTENCY_MS_MIN`].
pub const OUTCOMES_MAX: usize = 4096;
/// Most outcomes that one write evicts for their age or their number: more than the one that it adds, so that
/// evictions do not fall behind.
pub const EVICTED_MAX: usize = 8;
/// Most outcomes of idle clients that one write evicts to make room for its own client.
pub const CLIENT_EVICTED_MAX: usize = 1024;
/// Most idle clients that one write evicts.
pub const CLIENTS_EVICTED_MAX: usize = 2;
/// Most clients, beside the one that writes, that one write evicts outcomes of.
pub const OTHERS_MAX: usize = 6;
/// Number of outcomes of one page.
pub const PAGE_OUTCOMES: u64 = 256;

/// Idempotency record: the outcome of one write with an idempotency key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IdempotencyRecord {
    /// Sequence of the write in the client's idempotency key.
    pub sequence: u64,
    /// Revision of the write.
    pub revision: Revision,
    /// Hash of the request; with [`IdempotencyRecord::ELSE_BRANCH`] if it was a transaction whose conditions did not
    /// hold.
    pub request: u64,
    /// Tenant time of the change.
    pub time: TenantTime,
}

impl IdempotencyRecord {
    /// Bit of `request` that is not part of the hash.
    pub const ELSE_BRANCH: u64 = 1;

    /// Tells whether it is the record of a request with this hash.
    pub fn is_of(&self, request: u64) -> bool {
        self.request & !Self::ELSE_BRANCH == request & !Self::ELSE_BRANCH
    }

    /// Tells whether the transaction's conditions held.
    pub fn succeeded(&self) -> bool {
        self.request & Self::ELSE_BRANCH == 0
    }
}

/// Idempotency window of one client.
#[derive(Clone, Default)]
pub struct IdempotencyWindow {
    edge: TenantTime,
    /// Pages; all but the last are full, and the first one may begin with evicted outcomes.
    pages: VecDeque<Vec<IdempotencyRecord>>,
    /// Position of the oldest outcome. Positions count up from outcome to outcome; a page holds those of
    /// `PAGE_OUTCOMES`.
    first: u64,
    len: u64,
    /// Lower half of an outcome's position, by its sequence: the latest outcome counts for a sequence that was used
    /// again after eviction.
    by_sequence: BTreeMap<u64, u32>,
    /// Positions whose pages are in rows.
    stored: Range<u64>,
    /// Position from which on the rows of pages are out of date, because outcomes were removed; one after the last
    /// where none was.
    removed_from: Option<u64>,
}

/// Windows are equal if their lookups give the same results, wherever their pages begin.
impl PartialEq for IdempotencyWindow {
    fn eq(&self, other: &Self) -> bool {
        self.edge == other.edge && self.len == other.len && self.outcomes().eq(other.outcomes())
    }
}

impl Eq for IdempotencyWindow {}

impl fmt::Debug for IdempotencyWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcomes: Vec<_> = self.outcomes().collect();
        f.debug_struct("IdempotencyWindow")
            .field("edge", &self.edge)
            .field("outcomes", &outcomes)
            .finish_non_exhaustive()
    }
}

impl IdempotencyWindow {
    /// Builds a window from its outcomes, oldest first.
    pub fn from_parts(edge: TenantTime, outcomes: Vec<IdempotencyRecord>) -> Self {
        let mut window = Self {
            edge,
            ..Self::default()
        };
        outcomes.into_iter().for_each(|outcome| window.add(outcome));
        window
    }

    /// Returns the window that is stored in rows, before its pages are loaded: the outcomes begin at the position
    /// `first`.
    pub(crate) fn stored(edge: TenantTime, first: u64) -> Self {
        Self {
            edge,
            first,
            stored: first..first,
            ..Self::default()
        }
    }

    /// Loads the next page of a stored window, whose first outcome has this position. Returns false if it is not the
    /// next one.
    pub(crate) fn load(&mut self, at: u64, outcomes: Vec<IdempotencyRecord>) -> bool {
        let end = self.stored.end;
        let page = end / PAGE_OUTCOMES;
        let last = at + outcomes.len() as u64;
        let is_next = at <= end && at / PAGE_OUTCOMES == page && end <= last && last <= (page + 1) * PAGE_OUTCOMES;
        if is_next {
            let new = outcomes.into_iter().skip((end - at) as usize);
            new.for_each(|outcome| self.add(outcome));
            self.stored.end = last;
        }
        is_next
    }

    /// Returns the lower edge: the latest tenant time of an outcome that was evicted, or zero.
    pub fn edge(&self) -> TenantTime {
        self.edge
    }

    /// Returns the position of the oldest outcome.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// Returns the number of outcomes.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Tells whether there is no outcome.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn end(&self) -> u64 {
        self.first + self.len
    }

    fn at(&self, place: u64) -> Option<&IdempotencyRecord> {
        let page = place / PAGE_OUTCOMES - self.first / PAGE_OUTCOMES;
        self.pages.get(page as usize)?.get((place % PAGE_OUTCOMES) as usize)
    }

    /// Returns the outcomes, oldest first.
    pub fn outcomes(&self) -> impl Iterator<Item = &IdempotencyRecord> {
        let gone = (self.first % PAGE_OUTCOMES) as usize;
        self.pages.iter().flatten().skip(gone)
    }

    /// Returns the outcomes after a revision, oldest first.
    pub(crate) fn outcomes_after(&self, revision: Revision) -> impl Iterator<Item = &IdempotencyRecord> {
        let behind = |page: &&Vec<IdempotencyRecord>| page.last().is_some_and(|last| last.revision <= revision);
        let whole = self.pages.iter().take_while(behind).count();
        let gone = if whole == 0 {
            (self.first % PAGE_OUTCOMES) as usize
        } else {
            0
        };
        let pages = self.pages.range(whole..).flatten().skip(gone);
        pages.skip_while(move |outcome| outcome.revision <= revision)
    }

    /// Returns the latest outcome.
    pub fn newest(&self) -> Option<&IdempotencyRecord> {
        self.pages.back()?.last().filter(|_| self.len > 0)
    }

    /// Returns the oldest outcome.
    pub fn oldest(&self) -> Option<&IdempotencyRecord> {
        self.at(self.first)
    }

    /// Raises the edge, and tells whether that changed it.
    pub(crate) fn raise_edge(&mut self, edge: TenantTime) -> bool {
        let raised = edge > self.edge;
        self.edge = self.edge.max(edge);
        raised
    }

    /// Returns the outcome of a write, if it is kept.
    pub fn find(&self, sequence: u64) -> Option<&IdempotencyRecord> {
        let place = *self.by_sequence.get(&sequence)?;
        // A window never holds more outcomes than half a position can count.
        let behind_first = place.wrapping_sub(self.first as u32);
        self.at(self.first + u64::from(behind_first))
    }

    /// Returns how many of the oldest outcomes, up to `most`, are to be evicted at `now`: because they are expired,
    /// or evictable and among the oldest `over`.
    pub(crate) fn evictable(&self, now: TenantTime, most: usize, over: usize) -> usize {
        let oldest = self.outcomes().take(most).enumerate();
        let goes = |(at, outcome): &(usize, &IdempotencyRecord)| {
            is_expired(outcome.time, now) || (*at < over && is_evictable(outcome.time, now))
        };
        oldest.take_while(goes).count()
    }

    /// Evicts the oldest outcome.
    pub(crate) fn evict(&mut self) -> Option<IdempotencyRecord> {
        let oldest = *self.oldest()?;
        if !planted::is(Bug::EdgeNotRaised) {
            self.edge = self.edge.max(oldest.time);
        }
        if self.by_sequence.get(&oldest.sequence) == Some(&(self.first as u32)) {
            self.by_sequence.remove(&oldest.sequence);
        }
        self.first += 1;
        self.len -= 1;
        if self.first.is_multiple_of(PAGE_OUTCOMES) {
            self.pages.pop_front();
        }
        Some(oldest)
    }

    /// Removes the latest outcome, because its change is undone. The edge stays.
    pub(crate) fn remove_newest(&mut self) -> Option<IdempotencyRecord> {
        let newest = *self.newest()?;
        let place = self.end() - 1;
        if self.by_sequence.get(&newest.sequence) == Some(&(place as u32)) {
            self.by_sequence.remove(&newest.sequence);
        }
        let page = self.pages.back_mut()?;
        page.pop();
        if page.is_empty() {
            self.pages.pop_back();
        }
        self.len -= 1;
        // The page of the outcome before it is written again, without this one.
        let last = place.saturating_sub(1);
        self.removed_from = Some(self.removed_from.map_or(last, |from| from.min(last)));
        Some(newest)
    }

    /// Adds an outcome, which is later than all others.
    pub(crate) fn add(&mut self, outcome: IdempotencyRecord) {
        if self.pages.is_empty() && self.stored.end == 0 && self.first == 0 {
            // Page numbers of an earlier window of this client are not reused: it had at most one page for each change.
            self.first = outcome.revision.sequence().get() * PAGE_OUTCOMES;
            self.stored = self.first..self.first;
        }
        let place = self.end();
        let gone = (self.first % PAGE_OUTCOMES) as usize;
        if self.pages.is_empty() {
            self.pages.push_back(vec![IdempotencyRecord::default(); gone]);
        } else if place.is_multiple_of(PAGE_OUTCOMES) {
            self.pages.push_back(Vec::new());
        }
        if let Some(page) = self.pages.back_mut() {
            page.push(outcome);
        }
        self.by_sequence.insert(outcome.sequence, place as u32);
        self.len += 1;
    }

    /// Returns the pages that are not in rows, or not whole: the position of the first outcome of each, and its
    /// outcomes.
    pub(crate) fn unstored(&self) -> impl Iterator<Item = (u64, &[IdempotencyRecord])> {
        let from = self
            .removed_from
            .unwrap_or(u64::MAX)
            .min(self.stored.end)
            .max(self.first);
        let end = if from < self.end() { self.end() } else { 0 };
        let pages = from / PAGE_OUTCOMES..end.div_ceil(PAGE_OUTCOMES);
        pages.filter_map(move |number| {
            let page = self.pages.get((number - self.first / PAGE_OUTCOMES) as usize)?;
            let at = (number * PAGE_OUTCOMES).max(self.first);
            Some((at, page.get((at - number * PAGE_OUTCOMES) as usize..)?))
        })
    }

    /// Returns the numbers of the pages that are in rows.
    pub(crate) fn stored_pages(&self) -> Range<u64> {
        self.stored.start / PAGE_OUTCOMES..self.stored.end.div_ceil(PAGE_OUTCOMES)
    }

    /// Returns the window with no page marked as stored in rows.
    pub(crate) fn unsaved(mut self) -> Self {
        (self.stored, self.removed_from) = (self.first..self.first, None);
        self
    }

    /// Marks all outcomes as stored in rows. Returns the numbers of stored pages without outcomes: those before the oldest
    /// and those after the latest.
    pub(crate) fn set_stored(&mut self) -> [Range<u64>; 2] {
        let before = self.stored_pages();
        self.stored = self.first..self.end();
        self.removed_from = None;
        let after = self.end().div_ceil(PAGE_OUTCOMES).max(before.start);
        [
            before.start..before.end.min(self.first / PAGE_OUTCOMES),
            after..before.end.max(after),
        ]
    }
}

/// Tells whether an outcome of this time has been kept for the guaranteed time.
pub fn is_evictable(time: TenantTime, now: TenantTime) -> bool {
    now.0.saturating_sub(time.0) > IDEMPOTENCY_MS_MIN
}

/// Tells whether an outcome of this time has been kept for the longest time.
pub(crate) fn is_expired(time: TenantTime, now: TenantTime) -> bool {
    now.0.saturating_sub(time.0) > IDEMPOTENCY_MS_MAX
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    fn outcome(number: u64) -> IdempotencyRecord {
        IdempotencyRecord {
            sequence: number * 7 % 1_000,
            revision: Revision::from_u64(number),
            request: number << 1,
            time: TenantTime(number),
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Add(usize),
        Evict(usize),
        /// Removes the latest, as many as there are but for one.
        Undo(usize),
        Store,
    }

    fn steps() -> impl Strategy<Value = Step> {
        prop_oneof![
            (1usize..600).prop_map(Step::Add),
            (1usize..600).prop_map(Step::Evict),
            (1usize..600).prop_map(Step::Undo),
            Just(Step::Store),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// A window equals a queue, in memory and in its pages, whatever is added, evicted and stored.
        #[test]
        fn window_equals_queue_in_memory_and_pages(steps in prop::collection::vec(steps(), 1..30)) {
            let (mut window, mut left, mut number) = (IdempotencyWindow::default(), VecDeque::new(), 40);
            // Here sequences are used again before they are evicted, which no client can; undone, the first is not found.
            let mut is_undone = false;
            let mut pages: BTreeMap<u64, (u64, Vec<IdempotencyRecord>)> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Add(count) => for _ in 0..count {
                        number += 1;
                        window.add(outcome(number));
                        left.push_back(outcome(number));
                    },
                    Step::Evict(count) => for _ in 0..count {
                        prop_assert_eq!(window.evict(), left.pop_front());
                    },
                    Step::Undo(count) => {
                        is_undone = true;
                        for _ in 0..count.min(window.len().saturating_sub(1)) {
                            prop_assert_eq!(window.remove_newest(), left.pop_back());
                        }
                    }
                    // A client that is kept has an outcome.
                    Step::Store if window.is_empty() => {}
                    Step::Store => {
                        for (at, outcomes) in window.unstored() {
                            pages.insert(at / PAGE_OUTCOMES, (at, outcomes.to_vec()));
                        }
                        for gone in window.set_stored().into_iter().flatten() {
                            pages.remove(&gone);
                        }
                        prop_assert!(pages.keys().copied().eq(window.stored_pages()));
                        let mut read = IdempotencyWindow::stored(window.edge(), window.first());
                        for (at, outcomes) in pages.values() {
                            prop_assert!(read.load(*at, outcomes.clone()));
                        }
                        prop_assert_eq!(&read, &window);
                        prop_assert_eq!(read.stored_pages(), window.stored_pages());
                    }
                }
                prop_assert!(window.outcomes().eq(left.iter()));
                prop_assert_eq!((window.oldest(), window.newest()), (left.front(), left.back()));
                let after = Revision::from_u64(number.saturating_sub(300));
                prop_assert!(window.outcomes_after(after).eq(left.iter().filter(|outcome| outcome.revision > after)));
                for sequence in [0, 7, 350, 994].into_iter().filter(|_| !is_undone) {
                    let found = left.iter().rev().find(|outcome| outcome.sequence == sequence);
                    prop_assert_eq!(window.find(sequence), found);
                }
            }
        }
    }
}
