//! Idempotency windows of the clients of a copy.
//!
//! # Invariants
//!
//! 1. A window of a client that was removed begins again with the copy's edge: what was evicted with the client stays
//!    rejected.
//! 2. `by_oldest` and `by_newest` have each client once, under the tenant time of its oldest and its newest outcome.
//! 3. A change makes its owner evict at most [`EVICTED_MAX`] outcomes for their age or number, and
//!    [`CLIENT_EVICTED_MAX`] of idle clients to make room for its own.
//! 4. A client that is kept has an outcome.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    ops::{Bound, Range},
};

use stead_types::{
    ClientId, IdempotencyKey, Revision, TenantTime,
    planted::{self, Bug},
};

use super::{
    command::{WindowLimits, WindowPart},
    idempotency_window::{
        CLIENT_EVICTED_MAX, CLIENTS_EVICTED_MAX, EVICTED_MAX, IdempotencyRecord, IdempotencyWindow, OTHERS_MAX,
        OUTCOMES_MAX, PAGE_OUTCOMES, is_evictable,
    },
    record::CopyState,
};
use crate::{
    codec::Malformed,
    rows::{CopyPrefix, Order, Rows, RowsMut, Unreadable, change, client, kind},
};

/// Result of looking up an idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdempotencyCheck {
    /// The write was not executed.
    New,
    /// The write was executed, with this outcome.
    Repeated(IdempotencyRecord),
    /// The key was used for another request.
    Reused,
    /// The write may have been executed and its outcome evicted.
    Expired {
        /// Lower edge of the client's window.
        edge: TenantTime,
    },
}

/// Idempotency windows of one copy, in memory; rows are written at checkpoints.
#[derive(Clone, Debug, Default)]
pub struct ClientWindows {
    windows: BTreeMap<ClientId, IdempotencyWindow>,
    by_oldest: BTreeSet<(TenantTime, ClientId)>,
    by_newest: BTreeSet<(TenantTime, ClientId)>,
    outcomes: usize,
    dirty: BTreeSet<ClientId>,
    /// Clients whose windows were removed, with the pages that their rows still have.
    gone: Vec<(ClientId, Range<u64>)>,
}

impl ClientWindows {
    /// Reads the windows of a copy from its rows.
    pub(crate) fn open(rows: &dyn Rows, copy: CopyPrefix) -> Result<Self, Unreadable> {
        let mut clients = Self::default();
        let range = copy.range(kind::CLIENT);
        let mut open: Option<(ClientId, client::WindowHead, IdempotencyWindow)> = None;
        for row in rows.range(&range.start..&range.end, Order::Ascending) {
            let (key, value) = row?;
            match client::parse_key(key)? {
                (id, None) => {
                    clients.close(open.take())?;
                    let head = client::decode_head(value)?;
                    open = Some((id, head, IdempotencyWindow::stored(head.edge, head.first)));
                }
                (id, Some(_)) => {
                    let (at, outcomes) = client::decode_page(value)?;
                    let window = open.as_mut().filter(|(of, ..)| *of == id);
                    let is_next = window.is_some_and(|(_, _, window)| window.load(at, outcomes));
                    is_next.then_some(()).ok_or(PAGES)?;
                }
            }
        }
        clients.close(open)?;
        Ok(clients)
    }

    fn close(&mut self, open: Option<(ClientId, client::WindowHead, IdempotencyWindow)>) -> Result<(), Malformed> {
        let Some((id, head, window)) = open else { return Ok(()) };
        if window.len() as u64 != head.len {
            return Err(PAGES);
        }
        let Some(ends) = TimeBounds::of(&window) else {
            return Err(PAGES);
        };
        if id != ClientId::REPLAYS {
            self.outcomes += window.len();
            self.by_oldest.insert((ends.oldest, id));
            self.by_newest.insert((ends.newest, id));
        }
        self.windows.insert(id, window);
        Ok(())
    }

    /// Takes over the windows of another copy in place of these, whose rows go with the next flush.
    pub(crate) fn replace(&mut self, new: Self) {
        let old = std::mem::take(self);
        let pages = old.windows.iter().map(|(id, window)| (*id, window.stored_pages()));
        let mut gone: Vec<_> = old.gone.into_iter().chain(pages).collect();
        let mut dirty: BTreeSet<ClientId> = old.windows.keys().copied().chain(old.dirty).collect();
        dirty.extend(new.windows.keys());
        gone.retain(|(_, pages)| !pages.is_empty());
        let windows = new.windows.into_iter().map(|(id, window)| (id, window.unsaved()));
        *self = Self {
            windows: windows.collect(),
            gone,
            dirty,
            ..new
        };
    }

    /// Writes the windows that changed since the last flush.
    pub(crate) fn flush(&mut self, rows: &mut dyn RowsMut, copy: CopyPrefix) {
        for (id, pages) in std::mem::take(&mut self.gone) {
            delete_pages(rows, copy, id, pages);
        }
        for id in std::mem::take(&mut self.dirty) {
            let Some(window) = self.windows.get_mut(&id) else {
                rows.delete(client::key(copy, id));
                continue;
            };
            for (at, outcomes) in window.unstored() {
                let page = at / PAGE_OUTCOMES;
                rows.put(client::page_key(copy, id, page), client::encode_page(at, outcomes));
            }
            let gone = window.set_stored();
            rows.put(client::key(copy, id), client::encode_head(window));
            for pages in gone {
                delete_pages(rows, copy, id, pages);
            }
        }
    }

    /// Returns the windows, by client.
    pub fn windows(&self) -> &BTreeMap<ClientId, IdempotencyWindow> {
        &self.windows
    }

    /// Returns the number of clients.
    pub fn clients(&self) -> usize {
        self.windows.len() - usize::from(self.replays().is_some())
    }

    /// Returns the window of replays, which is not a client's: it remembers of each change of a fork that was written
    /// again, by its revision there, the revision that it has here. Nothing is ever evicted from it.
    pub fn replays(&self) -> Option<&IdempotencyWindow> {
        self.windows.get(&ClientId::REPLAYS)
    }

    /// Returns the replay of a change that a promotion cut, if it was written again.
    pub fn replay_of(&self, cut: Revision) -> Option<IdempotencyRecord> {
        self.replays()?.find(cut.to_u64()).copied()
    }

    /// Returns the number of outcomes in the windows of all clients.
    pub fn outcomes(&self) -> usize {
        self.outcomes
    }

    /// Returns the tenant time of the oldest outcome.
    pub fn oldest(&self) -> Option<TenantTime> {
        self.by_oldest.first().map(|(time, _)| *time)
    }

    /// Returns the tenant time of the newest outcome of the client that has been idle for longest.
    pub fn longest_idle(&self) -> Option<TenantTime> {
        self.by_newest.first().map(|(time, _)| *time)
    }

    /// Changes the window of a client; a new window begins at this edge. A window that becomes empty is removed, and
    /// its edge returned.
    fn update(
        &mut self,
        id: ClientId,
        edge: TenantTime,
        act: impl FnOnce(&mut IdempotencyWindow),
    ) -> Option<TenantTime> {
        self.dirty.insert(id);
        let (before, window) = match self.windows.entry(id) {
            Entry::Occupied(kept) => {
                let window = kept.into_mut();
                (TimeBounds::of(window), window)
            }
            Entry::Vacant(new) => (None, new.insert(IdempotencyWindow::from_parts(edge, Vec::new()))),
        };
        let len = window.len();
        act(window);
        let after = TimeBounds::of(window);
        // What is not in these indexes is not evicted.
        if id != ClientId::REPLAYS {
            self.outcomes = self.outcomes + window.len() - len;
            let (oldest, newest) = (|bounds: TimeBounds| bounds.oldest, |bounds: TimeBounds| bounds.newest);
            index(&mut self.by_oldest, id, before.map(oldest), after.map(oldest));
            index(&mut self.by_newest, id, before.map(newest), after.map(newest));
        }
        if after.is_some() {
            return None;
        }
        let window = self.windows.remove(&id)?;
        self.gone.push((id, window.stored_pages()));
        Some(window.edge())
    }

    /// Looks up a write by its idempotency key.
    pub fn check(&self, state: &CopyState, key: &IdempotencyKey, request: u64) -> IdempotencyCheck {
        let window = self.windows.get(&key.client);
        if let Some(outcome) = window.and_then(|window| window.find(key.sequence))
            && !planted::is(Bug::WindowNotChecked)
        {
            return if outcome.is_of(request) {
                IdempotencyCheck::Repeated(*outcome)
            } else {
                IdempotencyCheck::Reused
            };
        }
        let edge = window.map_or(state.edge, IdempotencyWindow::edge);
        let forgotten = edge > TenantTime(0) && key.first_sent <= edge;
        if forgotten || key.first_sent > state.time {
            return IdempotencyCheck::Expired { edge };
        }
        IdempotencyCheck::New
    }

    /// Plans, as the owner, the outcome of a write at this time and the evictions that come with it.
    pub(crate) fn plan_outcome(
        &self,
        key: &IdempotencyKey,
        request: u64,
        now: TenantTime,
        limits: WindowLimits,
    ) -> change::IdempotencyOutcome {
        let own = self.windows.get(&key.client);
        let over = own.map_or(0, |window| (window.len() + 1).saturating_sub(OUTCOMES_MAX));
        let over_in_copy = (self.outcomes + 1).saturating_sub(limits.outcomes as usize);
        // If the copy has too many outcomes its oldest are evicted, also if they are the client's own.
        let is_oldest = self.by_oldest.first().is_some_and(|(_, id)| *id == key.client);
        let over = if is_oldest { over.max(over_in_copy) } else { over };
        let evicted = own.map_or(0, |window| window.evictable(now, EVICTED_MAX, over));
        let over_left = over_in_copy.saturating_sub(evicted);
        let mut others = self.find_evictable(key.client, now, EVICTED_MAX - evicted, over_left);
        if own.is_none() {
            self.make_room(&mut others, now, limits);
        }
        change::IdempotencyOutcome {
            client: key.client,
            sequence: key.sequence,
            request,
            evicted: evicted as u32,
            others,
        }
    }

    /// Finds outcomes of other clients that are expired, or evictable where the copy has too many.
    fn find_evictable(
        &self,
        client: ClientId,
        now: TenantTime,
        mut most: usize,
        mut over: usize,
    ) -> Vec<(ClientId, u32)> {
        let mut found = Vec::new();
        for (time, other) in &self.by_oldest {
            if most == 0 || found.len() == OTHERS_MAX - CLIENTS_EVICTED_MAX || !is_evictable(*time, now) {
                break;
            }
            let window = self.windows.get(other).filter(|_| *other != client);
            let count = window.map_or(0, |window| window.evictable(now, most, over));
            if count > 0 {
                found.push((*other, count as u32));
                (most, over) = (most - count, over.saturating_sub(count));
            } else if window.is_some() {
                // The oldest outcome of all others is kept, and so are the later ones.
                break;
            }
        }
        found
    }

    /// Adds evictions of the clients that have been idle for longest, whole or in part, where there are as many
    /// clients as the limit allows.
    fn make_room(&self, found: &mut Vec<(ClientId, u32)>, now: TenantTime, limits: WindowLimits) {
        let mut over = (self.clients() + 1).saturating_sub(limits.clients as usize);
        let mut most = CLIENT_EVICTED_MAX;
        for (time, client) in self.by_newest.iter().take(CLIENTS_EVICTED_MAX) {
            if over == 0 || most == 0 || !is_evictable(*time, now) {
                return;
            }
            let len = self.windows.get(client).map_or(0, IdempotencyWindow::len);
            let count = len.min(most);
            found.retain(|(other, _)| other != client);
            found.push((*client, count as u32));
            (over, most) = (over - 1, most - count);
        }
    }

    /// Adds an outcome and evicts what the owner evicted with it, for the clients that `applies` selects.
    pub(crate) fn apply_outcome(
        &mut self,
        state: &mut CopyState,
        change: &change::Change,
        applies: impl Fn(ClientId) -> bool,
    ) {
        if let Some(replay) = ReplayRecord::of(change).filter(|_| applies(ClientId::REPLAYS)) {
            self.update(ClientId::REPLAYS, TenantTime(0), |window| {
                state.digests.add_outcome(ClientId::REPLAYS, &replay.0);
                window.add(replay.0);
            });
        }
        let Some(outcome) = &change.outcome else { return };
        for (other, count) in outcome.others.iter().filter(|(other, _)| applies(*other)) {
            self.forget(state, *other, *count);
        }
        if !applies(outcome.client) {
            return;
        }
        let id = outcome.client;
        let new = IdempotencyRecord {
            sequence: outcome.sequence,
            revision: change.revision,
            request: outcome.request,
            time: change.time,
        };
        self.update(id, state.edge, |window| {
            evict(state, id, &mut *window, outcome.evicted);
            state.digests.add_outcome(id, &new);
            window.add(new);
        });
    }

    /// Removes the outcome of a change that is undone, the latest of the copy. What was evicted with it is not restored:
    /// tells whether nothing was.
    pub(crate) fn undo_outcome(&mut self, state: &mut CopyState, change: &change::Change) -> bool {
        if ReplayRecord::of(change).is_some() {
            self.remove_newest(state, ClientId::REPLAYS, change.revision);
        }
        let Some(outcome) = &change.outcome else { return true };
        self.remove_newest(state, outcome.client, change.revision);
        outcome.evicted == 0 && outcome.others.is_empty()
    }

    /// Removes the newest outcome of a window, if it is that of a change.
    fn remove_newest(&mut self, state: &mut CopyState, id: ClientId, revision: Revision) {
        let newest = self.windows.get(&id).and_then(IdempotencyWindow::newest);
        if newest.is_some_and(|newest| newest.revision == revision) {
            let edge = self.update(id, state.edge, |window| {
                if let Some(undone) = window.remove_newest() {
                    state.digests.remove_outcome(id, &undone);
                }
            });
            state.edge = state.edge.max(edge.unwrap_or_default());
        }
    }

    /// Evicts the oldest outcomes of a client, and the client with its last one.
    fn forget(&mut self, state: &mut CopyState, id: ClientId, count: u32) {
        if self.windows.contains_key(&id) {
            let edge = self.update(id, state.edge, |window| evict(state, id, window, count));
            state.edge = state.edge.max(edge.unwrap_or_default());
        }
    }

    /// Returns the client above this one whose window is partly loaded, and its last loaded outcome.
    pub fn partial_after(&self, loaded: Option<ClientId>) -> Option<(ClientId, Revision)> {
        let start = loaded.map_or(Bound::Unbounded, Bound::Excluded);
        let (id, window) = self.windows.range((start, Bound::Unbounded)).next()?;
        Some((*id, window.newest()?.revision))
    }

    /// Adds a part of a window as another group holds it, which has nothing before `part.oldest`.
    pub(crate) fn load(&mut self, state: &mut CopyState, part: WindowPart) {
        let (id, kept) = (part.client, part.oldest);
        self.update(id, part.edge, |window| {
            while window.oldest().is_some_and(|oldest| oldest.revision < kept) {
                evict(state, id, &mut *window, 1);
            }
            window.raise_edge(part.edge);
            for outcome in part.outcomes {
                state.digests.add_outcome(id, &outcome);
                window.add(outcome);
            }
        });
    }

    /// Removes a client whose window was partly loaded: the group that it came from has removed it.
    pub(crate) fn unload(&mut self, state: &mut CopyState, id: ClientId) {
        if self.windows.contains_key(&id) {
            self.update(id, state.edge, |window| evict(state, id, window, u32::MAX));
        }
    }

    /// Raises the edge of windows whose oldest outcome `new` selects.
    pub(crate) fn raise_edges(&mut self, edge: TenantTime, new: impl Fn(ClientId, Revision) -> bool) {
        for (id, window) in &mut self.windows {
            if window.oldest().is_some_and(|oldest| new(*id, oldest.revision)) && window.raise_edge(edge) {
                self.dirty.insert(*id);
            }
        }
    }
}

/// Record in the window of replays: the sequence is the revision that was cut, the request names group and fork.
struct ReplayRecord(IdempotencyRecord);

impl ReplayRecord {
    /// Returns the record of a change that is a replay. The first effect stands for all of them.
    fn of(change: &change::Change) -> Option<Self> {
        let origin = change.origin.filter(|_| change.effect == 0)?;
        Some(Self(IdempotencyRecord {
            sequence: origin.revision.to_u64(),
            revision: change.revision,
            request: u64::from(origin.group.get()) << 32 | u64::from(origin.fork),
            time: change.time,
        }))
    }
}

const PAGES: Malformed = Malformed {
    what: "pages of a client window",
};

fn delete_pages(rows: &mut dyn RowsMut, copy: CopyPrefix, id: ClientId, pages: Range<u64>) {
    for page in pages {
        rows.delete(client::page_key(copy, id, page));
    }
}

/// Updates an index by time for a client.
fn index(
    by_time: &mut BTreeSet<(TenantTime, ClientId)>,
    id: ClientId,
    before: Option<TenantTime>,
    after: Option<TenantTime>,
) {
    if before == after {
        return;
    }
    if let Some(before) = before {
        by_time.remove(&(before, id));
    }
    if let Some(after) = after {
        by_time.insert((after, id));
    }
}

/// Evicts the oldest outcomes of a window.
fn evict(state: &mut CopyState, id: ClientId, window: &mut IdempotencyWindow, count: u32) {
    for _ in 0..count {
        let Some(old) = window.evict() else { return };
        state.digests.remove_outcome(id, &old);
    }
}

/// Tenant times of a window's oldest and newest outcome.
#[derive(Clone, Copy)]
struct TimeBounds {
    oldest: TenantTime,
    newest: TenantTime,
}

impl TimeBounds {
    fn of(window: &IdempotencyWindow) -> Option<Self> {
        Some(Self {
            oldest: window.oldest()?.time,
            newest: window.newest()?.time,
        })
    }
}
