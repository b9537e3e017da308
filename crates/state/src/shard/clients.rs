//! The windows of a copy's clients.
//!
//! # Invariants
//!
//! 1. A window that begins anew begins with the copy's edge: what was forgotten with the client stays refused.
//! 2. `by_age` has each client once, under the tenant time of its newest outcome.

use std::collections::{BTreeMap, BTreeSet};

use stead_types::{
    ClientId, IdempotencyKey, Revision, TenantTime,
    planted::{self, Bug},
};

use super::{
    record::CopyState,
    window::{CLIENTS_MAX, EVICTED_MAX, Remembered, Window, is_old},
};
use crate::{
    codec::Malformed,
    rows::{Copy, Row, Rows, RowsMut, Unreadable, change, client, kind},
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
    by_age: BTreeSet<(TenantTime, ClientId)>,
    dirty: BTreeSet<ClientId>,
}

impl Clients {
    /// Reads the windows of a copy.
    pub(crate) fn open(rows: &dyn Rows, copy: Copy) -> Result<Self, Unreadable> {
        let mut clients = Self::default();
        let range = copy.range(kind::CLIENT);
        for row in rows.range(&range.start..&range.end, crate::rows::Order::Ascending) {
            let (id, window) = parse(row)?;
            clients.put(id, window);
        }
        clients.dirty.clear();
        Ok(clients)
    }

    /// Writes what has changed since the last time.
    pub(crate) fn flush(&mut self, rows: &mut dyn RowsMut, copy: Copy) {
        for id in std::mem::take(&mut self.dirty) {
            match self.windows.get(&id) {
                Some(window) => rows.put(client::key(copy, id), client::encode(window)),
                None => rows.delete(client::key(copy, id)),
            }
        }
    }

    /// Returns the windows, by client.
    pub fn windows(&self) -> &BTreeMap<ClientId, Window> {
        &self.windows
    }

    /// Takes a window in as it is.
    pub(crate) fn put(&mut self, id: ClientId, window: Window) {
        self.forget_age(id);
        self.by_age.insert((age(&window), id));
        self.windows.insert(id, window);
        self.dirty.insert(id);
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
    pub(crate) fn outcome(&self, key: &IdempotencyKey, request: u64, now: TenantTime) -> change::Outcome {
        let window = self.windows.get(&key.client);
        let over = match window {
            Some(_) => 0,
            None => (self.windows.len() + 1).saturating_sub(CLIENTS_MAX),
        };
        let others = self.by_age.iter().filter(|(_, client)| *client != key.client);
        let clients_evicted = others
            .take(EVICTED_MAX)
            .enumerate()
            .take_while(|(nth, (time, _))| *nth < over || is_old(*time, now))
            .map(|(_, (_, client))| *client)
            .collect();
        change::Outcome {
            client: key.client,
            sequence: key.sequence,
            request,
            evicted: window.map_or(0, |window| window.to_evict(now) as u32),
            clients_evicted,
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
        for gone in outcome.clients_evicted.iter().filter(|client| applies(**client)) {
            self.forget(state, *gone);
        }
        if !applies(outcome.client) {
            return;
        }
        let id = outcome.client;
        self.forget_age(id);
        let edge = state.edge;
        let window = self
            .windows
            .entry(id)
            .or_insert_with(|| Window::from_parts(edge, Vec::new()));
        for _ in 0..outcome.evicted {
            if let Some(old) = window.evict() {
                state.digests.remove_outcome(id, &old);
            }
        }
        let new = Remembered {
            sequence: outcome.sequence,
            revision: change.revision,
            request: outcome.request,
            time: change.time,
        };
        state.digests.add_outcome(id, &new);
        window.add(new);
        self.by_age.insert((change.time, id));
        self.dirty.insert(id);
    }

    /// Raises the edge of windows of which nothing is older than what `new` says is new.
    pub(crate) fn raise_edges(&mut self, edge: TenantTime, new: impl Fn(ClientId, Revision) -> bool) {
        for (id, window) in &mut self.windows {
            if window.oldest().is_some_and(|oldest| new(*id, oldest.revision)) && window.raise_edge(edge) {
                self.dirty.insert(*id);
            }
        }
    }

    /// Forgets a client whole.
    fn forget(&mut self, state: &mut CopyState, id: ClientId) {
        self.forget_age(id);
        let Some(window) = self.windows.remove(&id) else { return };
        for old in window.outcomes() {
            state.digests.remove_outcome(id, old);
        }
        state.edge = state.edge.max(window.edge()).max(age(&window));
        self.dirty.insert(id);
    }

    fn forget_age(&mut self, id: ClientId) {
        if let Some(window) = self.windows.get(&id) {
            self.by_age.remove(&(age(window), id));
        }
    }
}

/// Returns the tenant time of a window's newest outcome.
fn age(window: &Window) -> TenantTime {
    window.newest().map_or(window.edge(), |outcome| outcome.time)
}

fn parse(row: Row) -> Result<(ClientId, Window), Unreadable> {
    let (key, value) = row?;
    let parsed: Result<_, Malformed> = client::parse_key(key).and_then(|id| Ok((id, client::decode(value)?)));
    Ok(parsed?)
}
