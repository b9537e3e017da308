//! The windows of a copy's clients.
//!
//! # Invariants
//!
//! 1. A window that begins anew begins with the copy's edge: what was forgotten with the client stays refused.
//! 2. `by_oldest` and `by_newest` have each client once, under the tenant time of its oldest and its newest outcome.
//! 3. A change makes its owner forget at most [`EVICTED_MAX`] outcomes for their age or number, and
//!    [`CLIENT_EVICTED_MAX`] of quiet clients to make room for its own.
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
    record::CopyState,
    window::{
        CLIENT_EVICTED_MAX, CLIENTS_EVICTED_MAX, EVICTED_MAX, OTHERS_MAX, OUTCOMES_MAX, PAGE_OUTCOMES, Remembered,
        Window, may_go,
    },
};
use crate::{
    codec::Malformed,
    rows::{Copy, Order, Rows, RowsMut, Unreadable, change, client, kind},
};

/// What the windows say about a write with an idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// It was not executed: go on.
    New,
    /// It was executed; this is its outcome.
    Repeated(Remembered),
    /// The key was used for another request.
    Reused,
    /// It may have been executed and forgotten.
    Expired {
        /// The window's lower edge.
        edge: TenantTime,
    },
}

/// The windows of one copy, in memory; rows are written at checkpoints.
#[derive(Clone, Debug, Default)]
pub struct Clients {
    windows: BTreeMap<ClientId, Window>,
    by_oldest: BTreeSet<(TenantTime, ClientId)>,
    by_newest: BTreeSet<(TenantTime, ClientId)>,
    outcomes: usize,
    dirty: BTreeSet<ClientId>,
    /// Pages in rows of windows that are gone.
    gone: Vec<(ClientId, Range<u64>)>,
}

impl Clients {
    /// Reads the windows of a copy.
    pub(crate) fn open(rows: &dyn Rows, copy: Copy) -> Result<Self, Unreadable> {
        let mut clients = Self::default();
        let range = copy.range(kind::CLIENT);
        let mut open: Option<(ClientId, client::Head, Window)> = None;
        for row in rows.range(&range.start..&range.end, Order::Ascending) {
            let (key, value) = row?;
            match client::parse_key(key)? {
                (id, None) => {
                    clients.close(open.take())?;
                    let head = client::decode_head(value)?;
                    open = Some((id, head, Window::stored(head.edge, head.first)));
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

    fn close(&mut self, open: Option<(ClientId, client::Head, Window)>) -> Result<(), Malformed> {
        let Some((id, head, window)) = open else { return Ok(()) };
        if window.len() as u64 != head.len {
            return Err(PAGES);
        }
        self.outcomes += window.len();
        let Some(ends) = Ends::of(&window) else {
            return Err(PAGES);
        };
        self.by_oldest.insert((ends.oldest, id));
        self.by_newest.insert((ends.newest, id));
        self.windows.insert(id, window);
        Ok(())
    }

    /// Writes what has changed since the last time.
    pub(crate) fn flush(&mut self, rows: &mut dyn RowsMut, copy: Copy) {
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
            delete_pages(rows, copy, id, gone);
        }
    }

    /// Returns the windows, by client.
    pub fn windows(&self) -> &BTreeMap<ClientId, Window> {
        &self.windows
    }

    /// Returns how many outcomes are remembered.
    pub fn outcomes(&self) -> usize {
        self.outcomes
    }

    /// Returns the tenant time of the oldest outcome that is remembered.
    pub fn oldest(&self) -> Option<TenantTime> {
        self.by_oldest.first().map(|(time, _)| *time)
    }

    /// Returns the tenant time of the newest outcome of the client that has been silent for longest.
    pub fn quietest(&self) -> Option<TenantTime> {
        self.by_newest.first().map(|(time, _)| *time)
    }

    /// Changes the window of a client, one that begins at this edge if the client is not kept. One in which nothing is left
    /// goes, and its edge is returned.
    fn update(&mut self, id: ClientId, edge: TenantTime, act: impl FnOnce(&mut Window)) -> Option<TenantTime> {
        self.dirty.insert(id);
        let (before, window) = match self.windows.entry(id) {
            Entry::Occupied(kept) => {
                let window = kept.into_mut();
                (Ends::of(window), window)
            }
            Entry::Vacant(new) => (None, new.insert(Window::from_parts(edge, Vec::new()))),
        };
        let len = window.len();
        act(window);
        let after = Ends::of(window);
        self.outcomes = self.outcomes + window.len() - len;
        let ends = |of: fn(Ends) -> TenantTime| (before.map(of), after.map(of));
        index(&mut self.by_oldest, id, ends(|ends| ends.oldest));
        index(&mut self.by_newest, id, ends(|ends| ends.newest));
        if after.is_some() {
            return None;
        }
        let window = self.windows.remove(&id)?;
        self.gone.push((id, window.stored_pages()));
        Some(window.edge())
    }

    /// Looks a write up.
    pub fn check(&self, state: &CopyState, key: &IdempotencyKey, request: u64) -> Check {
        let window = self.windows.get(&key.client);
        if let Some(outcome) = window.and_then(|window| window.find(key.sequence))
            && !planted::is(Bug::WindowNotChecked)
        {
            return if outcome.is_of(request) {
                Check::Repeated(*outcome)
            } else {
                Check::Reused
            };
        }
        let edge = window.map_or(state.edge, Window::edge);
        let forgotten = edge > TenantTime(0) && key.first_sent <= edge;
        if forgotten || key.first_sent > state.time {
            return Check::Expired { edge };
        }
        Check::New
    }

    /// Decides, as the owner, what a new outcome at this time makes it forget.
    pub(crate) fn outcome(
        &self,
        key: &IdempotencyKey,
        request: u64,
        (now, limits): (TenantTime, WindowLimits),
    ) -> change::Outcome {
        let own = self.windows.get(&key.client);
        let over = own.map_or(0, |window| (window.len() + 1).saturating_sub(OUTCOMES_MAX));
        let of_copy = (self.outcomes + 1).saturating_sub(limits.outcomes as usize);
        // Where the copy has too many its oldest go, also if they are the client's own.
        let is_oldest = self.by_oldest.first().is_some_and(|(_, id)| *id == key.client);
        let over = if is_oldest { over.max(of_copy) } else { over };
        let evicted = own.map_or(0, |window| window.evictable(now, EVICTED_MAX, over));
        let left = of_copy.saturating_sub(evicted);
        let mut others = self.too_old(key.client, now, (EVICTED_MAX - evicted, left));
        if own.is_none() {
            self.make_room(&mut others, now, limits);
        }
        change::Outcome {
            client: key.client,
            sequence: key.sequence,
            request,
            evicted: evicted as u32,
            others,
        }
    }

    /// Finds outcomes of other clients that are old, or may go where the copy has too many.
    fn too_old(&self, client: ClientId, now: TenantTime, (mut most, mut over): (usize, usize)) -> Vec<(ClientId, u32)> {
        let mut found = Vec::new();
        for (time, other) in &self.by_oldest {
            if most == 0 || found.len() == OTHERS_MAX - CLIENTS_EVICTED_MAX || !may_go(*time, now) {
                break;
            }
            let window = self.windows.get(other).filter(|_| *other != client);
            let count = window.map_or(0, |window| window.evictable(now, most, over));
            if count > 0 {
                found.push((*other, count as u32));
                (most, over) = (most - count, over.saturating_sub(count));
            } else if window.is_some() {
                // The oldest of all others stays: so do theirs.
                break;
            }
        }
        found
    }

    /// Forgets clients that were silent for longest where there are as many as there may be, or a part of what they hold.
    fn make_room(&self, found: &mut Vec<(ClientId, u32)>, now: TenantTime, limits: WindowLimits) {
        let mut over = (self.windows.len() + 1).saturating_sub(limits.clients as usize);
        let mut most = CLIENT_EVICTED_MAX;
        for (time, client) in self.by_newest.iter().take(CLIENTS_EVICTED_MAX) {
            if over == 0 || most == 0 || !may_go(*time, now) {
                return;
            }
            let len = self.windows.get(client).map_or(0, Window::len);
            let count = len.min(most);
            found.retain(|(other, _)| other != client);
            found.push((*client, count as u32));
            (over, most) = (over - 1, most - count);
        }
    }

    /// Remembers an outcome and forgets what the owner forgot with it, as far as `applies` says of a client.
    pub(crate) fn remember(
        &mut self,
        state: &mut CopyState,
        change: &change::Change,
        applies: impl Fn(ClientId) -> bool,
    ) {
        let Some(outcome) = &change.outcome else { return };
        for (other, count) in outcome.others.iter().filter(|(other, _)| applies(*other)) {
            self.forget(state, *other, *count);
        }
        if !applies(outcome.client) {
            return;
        }
        let id = outcome.client;
        let new = Remembered {
            sequence: outcome.sequence,
            revision: change.revision,
            request: outcome.request,
            time: change.time,
        };
        self.update(id, state.edge, |window| {
            evict(state, (id, &mut *window), outcome.evicted);
            state.digests.add_outcome(id, &new);
            window.add(new);
        });
    }

    /// Forgets the oldest outcomes of a client, and the client with its last one.
    fn forget(&mut self, state: &mut CopyState, id: ClientId, count: u32) {
        if self.windows.contains_key(&id) {
            let edge = self.update(id, state.edge, |window| evict(state, (id, window), count));
            state.edge = state.edge.max(edge.unwrap_or_default());
        }
    }

    /// Returns the client above this one of which only a part was brought, and the last outcome that was.
    pub fn partial_behind(&self, loaded: Option<ClientId>) -> Option<(ClientId, Revision)> {
        let start = loaded.map_or(Bound::Unbounded, Bound::Excluded);
        let (id, window) = self.windows.range((start, Bound::Unbounded)).next()?;
        Some((*id, window.newest()?.revision))
    }

    /// Adds a part of a window as another group holds it: nothing before `part.oldest` is remembered there.
    pub(crate) fn load(&mut self, state: &mut CopyState, part: WindowPart) {
        let (id, kept) = (part.client, part.oldest);
        self.update(id, part.edge, |window| {
            while window.oldest().is_some_and(|oldest| oldest.revision < kept) {
                evict(state, (id, &mut *window), 1);
            }
            window.raise_edge(part.edge);
            for outcome in part.outcomes {
                state.digests.add_outcome(id, &outcome);
                window.add(outcome);
            }
        });
    }

    /// Forgets a client of which only a part had been brought: it was forgotten where it came from.
    pub(crate) fn unload(&mut self, state: &mut CopyState, id: ClientId) {
        if self.windows.contains_key(&id) {
            self.update(id, state.edge, |window| evict(state, (id, window), u32::MAX));
        }
    }

    /// Raises the edge of windows of which nothing is older than what `new` says is new.
    pub(crate) fn raise_edges(&mut self, edge: TenantTime, new: impl Fn(ClientId, Revision) -> bool) {
        for (id, window) in &mut self.windows {
            if window.oldest().is_some_and(|oldest| new(*id, oldest.revision)) && window.raise_edge(edge) {
                self.dirty.insert(*id);
            }
        }
    }
}

const PAGES: Malformed = Malformed {
    what: "pages of a client window",
};

fn delete_pages(rows: &mut dyn RowsMut, copy: Copy, id: ClientId, pages: Range<u64>) {
    for page in pages {
        rows.delete(client::page_key(copy, id, page));
    }
}

/// Brings an index by time up to date with a client.
fn index(
    by_time: &mut BTreeSet<(TenantTime, ClientId)>,
    id: ClientId,
    (before, after): (Option<TenantTime>, Option<TenantTime>),
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

/// Forgets the oldest outcomes of a window.
fn evict(state: &mut CopyState, (id, window): (ClientId, &mut Window), count: u32) {
    for _ in 0..count {
        let Some(old) = window.evict() else { return };
        state.digests.remove_outcome(id, &old);
    }
}

/// The tenant times of a window's first and last outcome.
#[derive(Clone, Copy)]
struct Ends {
    oldest: TenantTime,
    newest: TenantTime,
}

impl Ends {
    fn of(window: &Window) -> Option<Self> {
        Some(Self {
            oldest: window.oldest()?.time,
            newest: window.newest()?.time,
        })
    }
}
