//! Decides what becomes of a change of a fork if it is written again now: pure, over the keys, windows and lineage of one
//! copy. At the tenant's home it is part of apply; elsewhere it is what that copy would say.
//!
//! # Invariants
//!
//! 1. A change that is on the lineage, was replayed, or was sent again by its client is never written.
//! 2. A change counts as clean only if each of its keys is as the fork's history had it: at the fork point, or after
//!    earlier changes of the same fork that were replayed.

use bytes::Bytes;
use stead_types::{Revision, Sequence, TenantTime};

use super::{
    append::current,
    client_windows::ClientWindows,
    command::{Replay, ReplayClasses, ReplayEffect},
    idempotency_window::IdempotencyWindow,
    read::{ForkClass, TenantReader, change_at},
};
use crate::{
    lineage::RevisionStatus,
    rows::{
        Unreadable,
        change::{NotedOperation, ReplayOrigin},
        current::CurrentVersion,
    },
};

/// Most replayed changes that a tenant remembers. They are never forgotten: a replay beyond it is refused. Each takes about
/// 60 bytes of memory on every node that holds the tenant.
pub const REPLAYS_MAX: usize = 1 << 20;

/// Decision of a copy about a change of a fork.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayDecision {
    /// Class of the change.
    pub class: ForkClass,
    /// Revision that the change has here already, if it was replayed or absorbed.
    pub found: Option<Revision>,
    /// State of its keys, in the order of its effects; empty where the change was found.
    pub keys: Vec<ReplayKey>,
}

/// Key of a change of a fork in a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayKey {
    /// Current version of the key.
    pub current: Option<CurrentVersion>,
    /// Whether somebody has changed it since, or may have.
    pub is_touched: bool,
}

/// Key of a change of a fork that somebody has changed since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TouchedKey {
    /// The key.
    pub key: Bytes,
    /// Revision of its last change; zero where it is not known: the key is gone.
    pub live: Revision,
}

impl ReplayDecision {
    fn found(class: ForkClass, revision: Revision) -> Self {
        Self {
            class,
            found: Some(revision),
            keys: Vec::new(),
        }
    }

    /// Returns the keys of a change that somebody has changed since.
    pub fn touched(&self, replay: &Replay) -> Vec<TouchedKey> {
        let keys = replay.effects.iter().zip(&self.keys).filter(|(_, key)| key.is_touched);
        let touched = keys.map(|(effect, key)| TouchedKey {
            key: effect.key.clone(),
            live: key.current.map_or(Revision::ZERO, |current| current.revision),
        });
        touched.collect()
    }
}

impl ReplayClasses {
    /// Tells whether changes of a class are written.
    pub fn has(self, class: ForkClass) -> bool {
        match class {
            ForkClass::Clean => self.clean,
            ForkClass::Commutative => self.commutative,
            ForkClass::Uncertain => self.uncertain,
            ForkClass::Conflict => self.conflict,
            ForkClass::Expired => self.expired,
            ForkClass::Absorbed | ForkClass::Replayed => false,
        }
    }
}

/// Decides what becomes of a change of a fork if it is written again at this tenant time.
pub fn decide(reader: &TenantReader<'_>, replay: &Replay, now: TenantTime) -> Result<ReplayDecision, Unreadable> {
    let lineage = &reader.record.lineage;
    let cut = replay.origin.revision;
    if let Some(before) = reader.clients.replay_of(cut) {
        return Ok(ReplayDecision::found(ForkClass::Replayed, before.revision));
    }
    if lineage.status_of(cut) == RevisionStatus::OnLineage {
        return Ok(ReplayDecision::found(ForkClass::Absorbed, cut));
    }
    if let Some(sent_again) = sent_again(reader.clients, replay) {
        return Ok(ReplayDecision::found(ForkClass::Absorbed, sent_again));
    }
    let shared = replay.point.min(replay.lineage.fork_point(lineage));
    let mut keys = Vec::with_capacity(replay.effects.len());
    for effect in &replay.effects {
        let current = current(reader.rows, reader.copy, &effect.key)?;
        let is_touched = is_touched(reader, replay, effect, current, shared, now)?;
        keys.push(ReplayKey { current, is_touched });
    }
    let class = class(reader, replay, &keys, now);
    Ok(ReplayDecision {
        class,
        found: None,
        keys,
    })
}

/// Returns the revision of the write under its client's own idempotency key, if the client has sent it again.
fn sent_again(clients: &ClientWindows, replay: &Replay) -> Option<Revision> {
    let write = replay.write?;
    let found = clients.windows().get(&write.client)?.find(write.sequence)?;
    found.is_of(write.request).then_some(found.revision)
}

fn class(reader: &TenantReader<'_>, replay: &Replay, keys: &[ReplayKey], now: TenantTime) -> ForkClass {
    let is_over = |effect: &ReplayEffect| is_over(effect, replay.time, now);
    let touched = || replay.effects.iter().zip(keys).filter(|(_, key)| key.is_touched);
    if replay.is_expiry || replay.effects.iter().all(is_over) {
        return ForkClass::Expired;
    }
    if touched().next().is_none() {
        return ForkClass::Clean;
    }
    let is_too_old = reader.record.lineage.status_of(replay.origin.revision) == RevisionStatus::TooOld;
    let is_commutative = touched().all(|(effect, _)| effect.operation.is_some());
    match (is_commutative && !is_too_old, may_have_been_sent_again(reader, replay)) {
        (false, _) => ForkClass::Conflict,
        (true, true) => ForkClass::Uncertain,
        (true, false) => ForkClass::Commutative,
    }
}

/// Tells whether the client's window no longer reaches back to the change: the client may have sent it again since, and
/// the outcome may be evicted.
fn may_have_been_sent_again(reader: &TenantReader<'_>, replay: &Replay) -> bool {
    let edge = |client| {
        let window = reader.clients.windows().get(&client);
        window.map_or(reader.record.live.edge, IdempotencyWindow::edge)
    };
    let lacks_outcomes = reader.record.live.rewound;
    replay
        .write
        .is_some_and(|write| lacks_outcomes || edge(write.client) > replay.time)
}

/// Tells whether the time of an effect is over: its value has expired, or its counter counts anew since.
fn is_over(effect: &ReplayEffect, written: TenantTime, now: TenantTime) -> bool {
    let expires = effect.value.as_ref().and_then(|(_, expires)| *expires);
    let window = match effect.operation {
        Some(NotedOperation::Increment(increment)) => increment.window,
        Some(NotedOperation::Append { .. }) | None => None,
    };
    expires.is_some_and(|expires| expires <= now) || window.is_some_and(|window| written.0 / window < now.0 / window)
}

/// Tells whether somebody has changed a key since the fork point, or may have; replays of earlier changes of the same
/// history do not count, unless somebody had before them. A key that was created and deleted again, longer ago than history is kept, is not known to be.
fn is_touched(
    reader: &TenantReader<'_>,
    replay: &Replay,
    effect: &ReplayEffect,
    current: Option<CurrentVersion>,
    shared: Sequence,
    now: TenantTime,
) -> Result<bool, Unreadable> {
    let Some(current) = current else {
        return Ok(!effect.was_absent);
    };
    if current.has_expired(now) {
        return Ok(true);
    }
    if current.revision.sequence() <= shared {
        return Ok(false);
    }
    let change = change_at(reader.rows, reader.copy, (current.revision, current.effect))?;
    let is_earlier = |ReplayOrigin {
                          revision: cut,
                          over_others,
                          ..
                      }: ReplayOrigin| {
        !over_others
            && cut.sequence() > replay.point
            && cut < replay.origin.revision
            && replay.lineage.status_of(cut) == RevisionStatus::OnLineage
    };
    let origin = change.and_then(|change| change.origin);
    Ok(!origin.is_some_and(is_earlier))
}
