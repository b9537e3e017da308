//! Reads forks: what a promotion cut, beside what the lineage has instead.

use bytes::Bytes;
use stead_types::{ClientId, Revision, Sequence, TenantNumber, TenantTime};

use super::{TenantReader, Version, as_of};
use crate::{
    lineage::Lineage,
    rows::{
        CopyPrefix, Order, Rows, Unreadable,
        change::{self, Cause, Change, IdempotencyOutcome, Value},
    },
    shard::{Shard, append::current_after, record::Fork},
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
    /// Whether the idempotency windows of the live copy have its outcome: the write was sent again since.
    pub is_on_lineage: bool,
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
///
/// Changes hold values, not the operations that made them. So an increment of a key that was changed since is a conflict
/// like any other, though it could be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ForkClass {
    /// Its idempotency key is on the lineage: the client has sent it again.
    Absorbed,
    /// It removed an expired key, or wrote what has expired since.
    Expired,
    /// None of its keys was changed since the fork point.
    Clean,
    /// One of its keys was changed since the fork point, or may have been.
    Conflict,
}

impl ForkEntry {
    /// Returns the class of the change, for this fork point and tenant time.
    pub fn class(&self, point: Sequence, now: TenantTime) -> ForkClass {
        let has_expired = |effect: &ForkEffect| {
            let expires = effect.cut.as_ref().and_then(|value| value.expires);
            expires.is_some_and(|expires| expires <= now)
        };
        if self.is_on_lineage {
            ForkClass::Absorbed
        } else if self.cause == Cause::Expiry || self.effects.iter().all(has_expired) {
            ForkClass::Expired
        } else if self.effects.iter().all(|effect| effect.is_untouched(point)) {
            ForkClass::Clean
        } else {
            ForkClass::Conflict
        }
    }
}

impl ForkEffect {
    /// Tells whether the key has certainly not been changed on the lineage since the fork point.
    fn is_untouched(&self, point: Sequence) -> bool {
        match &self.live {
            Some(live) => live.revision.sequence() <= point,
            None => self.before == AtForkPoint::Known(None),
        }
    }
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
        let summary = |fork: &Fork| {
            let copy = self.prefix().copy(tenant, fork.copy.number);
            let (point, last) = (fork.point, fork.copy.revision);
            let first = point.next().unwrap_or(Sequence::MAX);
            let row = rows.get(&change::key(copy, first, 0))?;
            let first = row.map(|row| change::decode(first, 0, row)).transpose()?;
            Ok(ForkSummary {
                number: fork.copy.number,
                lineage: fork.lineage.clone(),
                point,
                first: first.map(|change| change.revision),
                last,
                entries: last.sequence().get().saturating_sub(point.get()),
                len: fork.tail.map_or(fork.copy.len, |tail| tail.len),
                is_whole: fork.tail.is_none(),
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
            is_on_lineage: outcome.is_some_and(|outcome| self.is_on_lineage(outcome)),
            effects: Vec::new(),
        }
    }

    fn is_on_lineage(&self, outcome: &IdempotencyOutcome) -> bool {
        let window = self.live.clients.windows().get(&outcome.client);
        let found = window.and_then(|window| window.find(outcome.sequence));
        found.is_some_and(|found| found.is_of(outcome.request))
    }

    pub(super) fn effect(&self, change: &Change) -> Result<ForkEffect, Unreadable> {
        let before = match self.fork.tail {
            Some(tail) => AtForkPoint::Known(as_of(self.live.rows, self.copy, &current_after(change), tail.after)?),
            None if self.fork.point == Sequence::ZERO => AtForkPoint::Known(None),
            None => AtForkPoint::Unknown,
        };
        let live = self.live.version(&change.key, self.live.state().revision)?;
        Ok(ForkEffect {
            key: change.key.clone(),
            before,
            cut: change.value.clone(),
            live,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POINT: Sequence = Sequence::ZERO;

    fn version(revision: &str) -> Version {
        Version {
            revision: revision.parse().unwrap(),
            value: value(None),
        }
    }

    fn value(expires: Option<u64>) -> Value {
        Value {
            create: Revision::ZERO,
            version: 1,
            expires: expires.map(TenantTime),
            bytes: Bytes::from_static(b"v"),
        }
    }

    fn effect(before: AtForkPoint, cut: Option<Value>, live: Option<Version>) -> ForkEffect {
        let key = Bytes::from_static(b"k");
        ForkEffect { key, before, cut, live }
    }

    fn class(effects: Vec<ForkEffect>) -> ForkClass {
        entry(effects).class(Sequence::new(5).unwrap(), TenantTime(1_000))
    }

    fn entry(effects: Vec<ForkEffect>) -> ForkEntry {
        ForkEntry {
            revision: "1.6".parse().unwrap(),
            time: TenantTime(900),
            cause: Cause::Write,
            idempotency: None,
            is_on_lineage: false,
            effects,
        }
    }

    #[test]
    fn change_of_untouched_keys_is_clean_and_of_others_conflict() {
        let known = |version: Option<&str>| AtForkPoint::Known(version.map(self::version));
        let put = || Some(value(None));
        for (before, live, expected) in [
            (known(Some("1.3")), Some("1.3"), ForkClass::Clean),
            (known(None), None, ForkClass::Clean),
            // It is at or below the fork point, whatever the fork knows.
            (AtForkPoint::Unknown, Some("1.5"), ForkClass::Clean),
            (known(Some("1.3")), Some("2.6"), ForkClass::Conflict),
            (known(Some("1.3")), None, ForkClass::Conflict),
            (known(None), Some("2.6"), ForkClass::Conflict),
            (AtForkPoint::Unknown, None, ForkClass::Conflict),
        ] {
            let live = live.map(version);
            for cut in [put(), None] {
                assert_eq!(
                    class(vec![effect(before.clone(), cut, live.clone())]),
                    expected,
                    "{before:?} {live:?}"
                );
            }
        }
        let clean = effect(known(None), put(), None);
        let conflict = effect(known(None), put(), Some(version("2.6")));
        assert_eq!(class(vec![clean, conflict]), ForkClass::Conflict);
    }

    #[test]
    fn absorbed_and_expired_changes_are_told_whatever_their_keys_are() {
        let gone = || effect(AtForkPoint::Known(None), Some(value(Some(1_000))), Some(version("2.6")));
        assert_eq!(class(vec![gone()]), ForkClass::Expired);
        let lasting = effect(AtForkPoint::Known(None), Some(value(Some(1_001))), None);
        assert_eq!(class(vec![lasting.clone()]), ForkClass::Clean);
        assert_eq!(
            class(vec![gone(), lasting.clone()]),
            ForkClass::Conflict,
            "one of them has not expired"
        );
        let removal = ForkEntry {
            cause: Cause::Expiry,
            ..entry(vec![effect(AtForkPoint::Known(None), None, None)])
        };
        assert_eq!(removal.class(POINT, TenantTime(0)), ForkClass::Expired);
        let absorbed = ForkEntry {
            is_on_lineage: true,
            ..entry(vec![lasting])
        };
        assert_eq!(absorbed.class(POINT, TenantTime(0)), ForkClass::Absorbed);
    }
}
