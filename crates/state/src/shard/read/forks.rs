//! Reads forks: what a promotion cut, beside what the lineage has instead.

use bytes::Bytes;
use stead_types::{ClientId, Epoch, GroupId, Revision, Sequence, TenantNumber, TenantTime};

use super::{TenantReader, Version, as_of};
use crate::{
    lineage::Lineage,
    rows::{
        CopyPrefix, Order, Rows, Unreadable,
        change::{self, Cause, Change, Value},
    },
    shard::{
        Shard, append::current_after, client_windows::ClientWindows, idempotency_window::IdempotencyRecord,
        record::Fork,
    },
};

/// Overview of a fork.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForkSummary {
    /// Number of the fork, by which it is named.
    pub number: u32,
    /// Lineage that it belongs to.
    pub lineage: Lineage,
    /// Fork point: everything above this sequence was cut.
    pub point: Sequence,
    /// First change that was cut; `None` where it is no longer in the fork's history.
    pub first: Option<Revision>,
    /// Last change that was cut.
    pub last: Revision,
    /// Number of changes that were cut.
    pub entries: u64,
    /// Bytes: of the changes, or of the live keys where the whole copy is the fork.
    pub len: u64,
    /// Whether the whole copy is the fork, because the versions at the fork point were gone.
    pub is_whole: bool,
    /// Number of its changes that were written again, as far as the group's live copy has them.
    pub replayed: u64,
}

/// Page of the changes of a fork.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForkPage {
    /// The changes in their order.
    pub entries: Vec<ForkEntry>,
    /// Sequence that the next page begins after; `None` on the last page.
    pub next: Option<Sequence>,
}

/// Change that was cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForkEntry {
    /// Revision of the change.
    pub revision: Revision,
    /// Tenant time of the change.
    pub time: TenantTime,
    /// Cause of the change.
    pub cause: Cause,
    /// Client and sequence of its idempotency key, if it had one.
    pub idempotency: Option<(ClientId, u64)>,
    /// Its effects.
    pub effects: Vec<ForkEffect>,
}

/// Effect of a change that was cut, on one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForkEffect {
    /// The key.
    pub key: Bytes,
    /// Version of the key at the fork point.
    pub before: AtForkPoint,
    /// Value that was cut; `None` for a delete.
    pub cut: Option<Value>,
    /// Version of the key in the live copy now.
    pub live: Option<Version>,
}

/// Version of a key at the fork point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AtForkPoint {
    /// The version, or `None` where the key did not exist.
    Known(Option<Version>),
    /// The fork's history does not reach the fork point.
    Unknown,
}

/// Class of a change that was cut: what becomes of it if it is written again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ForkClass {
    /// It was written again from a fork.
    Replayed,
    /// The client has sent it again under its idempotency key, or it is on the lineage after all.
    Absorbed,
    /// It removed an expired key, wrote what has expired since, or incremented a counter that counts anew since.
    Expired,
    /// None of its keys was changed since the fork point, but by replays of earlier changes.
    Clean,
    /// Where its keys were changed since, it incremented or appended: that can be done again upon what is there. Only
    /// changes that were made from feature level 4 on tell what they did; others are conflicts.
    Commutative,
    /// As [`ForkClass::Commutative`], but its client may have sent it again: the idempotency window does not reach back
    /// as far.
    Uncertain,
    /// One of its keys was changed since the fork point, or may have been.
    Conflict,
}

/// Reader of one fork of a tenant.
#[derive(Clone, Copy)]
pub struct ForkReader<'a> {
    pub(super) live: TenantReader<'a>,
    fork: &'a Fork,
    copy: CopyPrefix,
}

impl Shard {
    /// Returns the tenants that have a fork, from a number on.
    pub fn forked(&self, from: TenantNumber) -> impl Iterator<Item = TenantNumber> {
        self.forked.range(from..).copied()
    }

    /// Returns the number of tenants that have a fork.
    pub fn forked_count(&self) -> usize {
        self.forked.len()
    }

    /// Returns overviews of a tenant's forks.
    pub fn forks(&self, rows: &dyn Rows, tenant: TenantNumber) -> Result<Vec<ForkSummary>, Unreadable> {
        let forks = self.record(tenant).map_or(&[][..], |record| &record.forks);
        let replays = self.clients(tenant).and_then(ClientWindows::replays);
        let count = |first: Revision, last: Revision| {
            let is_of = |record: &&IdempotencyRecord| (first.to_u64()..=last.to_u64()).contains(&record.sequence);
            replays.map_or(0, |window| window.outcomes().filter(is_of).count()) as u64
        };
        let summary = |fork: &Fork| {
            let copy = self.prefix().copy(tenant, fork.copy.number);
            let (point, last) = (fork.point, fork.copy.revision);
            let first = point.next().unwrap_or(Sequence::MAX);
            let row = rows.get(&change::key(copy, first, 0))?;
            let first = row.map(|row| change::decode(first, 0, row)).transpose()?;
            let from = first
                .as_ref()
                .map_or(Revision::new(Epoch::FIRST, point), |first| first.revision);
            Ok(ForkSummary {
                number: fork.copy.number,
                lineage: fork.lineage.clone(),
                point,
                first: first.map(|change| change.revision),
                last,
                entries: last.sequence().get().saturating_sub(point.get()),
                len: fork.tail.map_or(fork.copy.len, |tail| tail.len),
                is_whole: fork.tail.is_none(),
                replayed: count(from, last),
            })
        };
        forks.iter().map(summary).collect()
    }

    /// Returns a reader of a fork; `None` where there is no such fork, or while the live copy is being rewound.
    pub fn fork<'a>(&'a self, rows: &'a dyn Rows, tenant: TenantNumber, number: u32) -> Option<ForkReader<'a>> {
        let live = self.reading(rows, tenant)?;
        Some(ForkReader {
            live,
            fork: live.record().fork(number)?,
            copy: self.prefix().copy(tenant, number),
        })
    }
}

impl ForkReader<'_> {
    /// Returns the fork.
    pub fn fork(&self) -> &Fork {
        self.fork
    }

    /// Returns the reader of the live copy that the fork is compared with.
    pub fn live(&self) -> &TenantReader<'_> {
        &self.live
    }

    /// Returns the changes that were cut, after a sequence or from the first that is in the fork's history on: at most
    /// `entries_max`, and of about `len_max` bytes.
    pub fn entries(&self, after: Option<Sequence>, entries_max: usize, len_max: usize) -> Result<ForkPage, Unreadable> {
        let mut page = ForkPage {
            entries: Vec::new(),
            next: None,
        };
        let Some((start, end)) = self.span(after) else {
            return Ok(page);
        };
        let mut len = 0;
        for row in self.live.rows.range(&start..&end, Order::Ascending) {
            let (key, value) = row?;
            let (sequence, effect) = change::parse_key(key)?;
            if effect == 0 && !page.entries.is_empty() && (page.entries.len() >= entries_max || len >= len_max) {
                page.next = page.entries.last().map(|entry| entry.revision.sequence());
                break;
            }
            // The versions beside it are about as long.
            len += 3 * value.len();
            let change = change::decode(sequence, effect, value)?;
            if effect == 0 {
                page.entries.push(self.entry(&change));
            }
            let effect = self.effect(&change)?;
            if let Some(entry) = page.entries.last_mut() {
                entry.effects.push(effect);
            }
        }
        Ok(page)
    }

    /// Returns the first and the last key of the rows of the changes that were cut, after a sequence; `None` where there
    /// are none.
    pub(super) fn span(&self, after: Option<Sequence>) -> Option<(Bytes, Bytes)> {
        let last = self.fork.copy.revision.sequence();
        // Of changes below the retention floor only some are left.
        let floor = match self.fork.tail {
            Some(_) => Sequence::ZERO,
            None => self.fork.copy.retention_floor.sequence(),
        };
        let after = after.unwrap_or_default().max(self.fork.point).max(floor);
        let start = change::key(self.copy, after.next().unwrap_or(Sequence::MAX), 0);
        let end = change::key(self.copy, last.next().unwrap_or(Sequence::MAX), 0);
        (start < end).then_some((start, end))
    }

    pub(super) fn entry(&self, change: &Change) -> ForkEntry {
        let outcome = change.outcome.as_ref();
        ForkEntry {
            revision: change.revision,
            time: change.time,
            cause: change.cause,
            idempotency: outcome.map(|outcome| (outcome.client, outcome.sequence)),
            effects: Vec::new(),
        }
    }

    pub(super) fn effect(&self, change: &Change) -> Result<ForkEffect, Unreadable> {
        let before = self.before(change)?;
        let live = self.live.version(&change.key, self.live.state().revision)?;
        Ok(ForkEffect {
            key: change.key.clone(),
            before,
            cut: change.value.clone(),
            live,
        })
    }

    /// Returns the version at the fork point of the key of a change.
    pub(super) fn before(&self, change: &Change) -> Result<AtForkPoint, Unreadable> {
        Ok(match self.fork.tail {
            Some(tail) => AtForkPoint::Known(as_of(self.live.rows, self.copy, &current_after(change), tail.after)?),
            None if self.fork.point == Sequence::ZERO => AtForkPoint::Known(None),
            None => AtForkPoint::Unknown,
        })
    }

    pub(super) fn tenant(&self) -> TenantNumber {
        self.copy.tenant
    }

    pub(super) fn group(&self) -> GroupId {
        self.copy.group.group
    }
}
