//! A client's window of remembered outcomes.
//!
//! Outcomes stand in the order of their revisions. A window never forgets by itself: the owner decides what goes, and
//! what went is part of the change, so that followers forget the same.
//!
//! # Invariants
//!
//! 1. `edge` is the latest tenant time of any outcome that was forgotten.
//! 2. A window holds at most [`OUTCOMES_MAX`] outcomes after its owner has evicted.

use std::collections::{BTreeMap, VecDeque};

use stead_types::{
    Revision, TenantTime,
    planted::{self, Bug},
};

/// Most outcomes remembered of one client.
pub const OUTCOMES_MAX: usize = 4096;
/// How long an outcome is remembered, in tenant time.
pub const REMEMBERED_MS_MAX: u64 = 10 * 60 * 1000;
/// Most clients of a tenant whose outcomes are remembered.
pub const CLIENTS_MAX: usize = 1024;
/// Most outcomes, and most clients, that one write makes the owner forget.
pub const EVICTED_MAX: usize = 4;

/// One remembered outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Remembered {
    /// Which of the client's writes.
    pub sequence: u64,
    /// What it became.
    pub revision: Revision,
    /// Hash of the request; with [`Remembered::OTHERWISE`] if it was a transaction whose conditions did not hold.
    pub request: u64,
    /// The tenant's time at the change.
    pub time: TenantTime,
}

impl Remembered {
    /// The bit of `request` that is no part of the hash.
    pub const OTHERWISE: u64 = 1;

    /// Tells whether it is the outcome of a request with this hash.
    pub fn is_of(&self, request: u64) -> bool {
        self.request & !Self::OTHERWISE == request & !Self::OTHERWISE
    }

    /// Tells whether the conditions held.
    pub fn held(&self) -> bool {
        self.request & Self::OTHERWISE == 0
    }
}

/// The outcomes of one client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Window {
    edge: TenantTime,
    order: VecDeque<Remembered>,
    /// Revision by sequence: the latest outcome stands for a sequence that was given out again after eviction.
    by_sequence: BTreeMap<u64, Revision>,
}

impl Window {
    /// Builds a window from its parts, the outcomes being in order.
    pub fn from_parts(edge: TenantTime, outcomes: Vec<Remembered>) -> Self {
        let by_sequence = outcomes
            .iter()
            .map(|outcome| (outcome.sequence, outcome.revision))
            .collect();
        Self {
            edge,
            order: outcomes.into(),
            by_sequence,
        }
    }

    /// Returns the latest tenant time of an outcome that was forgotten, or zero.
    pub fn edge(&self) -> TenantTime {
        self.edge
    }

    /// Returns how many outcomes are remembered.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Tells whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Returns the outcomes, oldest first.
    pub fn outcomes(&self) -> impl ExactSizeIterator<Item = &Remembered> {
        self.order.iter()
    }

    /// Returns the latest outcome.
    pub fn newest(&self) -> Option<&Remembered> {
        self.order.back()
    }

    /// Returns the oldest outcome.
    pub fn oldest(&self) -> Option<&Remembered> {
        self.order.front()
    }

    /// Raises the edge, and tells whether that changed it.
    pub(crate) fn raise_edge(&mut self, edge: TenantTime) -> bool {
        let raised = edge > self.edge;
        self.edge = self.edge.max(edge);
        raised
    }

    /// Returns the outcome of a write, if it is remembered.
    pub fn find(&self, sequence: u64) -> Option<&Remembered> {
        let revision = self.by_sequence.get(&sequence)?;
        let at = self
            .order
            .binary_search_by_key(revision, |outcome| outcome.revision)
            .ok()?;
        self.order.get(at)
    }

    /// Returns how many outcomes the owner forgets when it adds one at `now`.
    pub fn to_evict(&self, now: TenantTime) -> usize {
        let over = (self.order.len() + 1).saturating_sub(OUTCOMES_MAX);
        let old = self
            .order
            .iter()
            .take(EVICTED_MAX)
            .take_while(|outcome| is_old(outcome.time, now))
            .count();
        over.max(old).min(EVICTED_MAX)
    }

    /// Forgets the oldest outcome.
    pub(crate) fn evict(&mut self) -> Option<Remembered> {
        let oldest = self.order.pop_front()?;
        if !planted::is(Bug::EdgeNotRaised) {
            self.edge = self.edge.max(oldest.time);
        }
        if self.by_sequence.get(&oldest.sequence) == Some(&oldest.revision) {
            self.by_sequence.remove(&oldest.sequence);
        }
        Some(oldest)
    }

    /// Remembers an outcome, which is later than all others.
    pub(crate) fn add(&mut self, outcome: Remembered) {
        self.by_sequence.insert(outcome.sequence, outcome.revision);
        self.order.push_back(outcome);
    }
}

/// Tells whether an outcome of this time has been remembered long enough.
pub(crate) fn is_old(time: TenantTime, now: TenantTime) -> bool {
    now.0.saturating_sub(time.0) > REMEMBERED_MS_MAX
}
