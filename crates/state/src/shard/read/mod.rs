//! Reads a tenant's data, at the current or an older revision.
//!
//! Which replica may answer, and whether it is fresh enough, is decided elsewhere: here a revision is only checked
//! against the copy's own lineage and history.

mod changes;
mod dead_ranges;
mod expired;
mod fork_keys;
mod fork_replays;
mod forks;
mod page;
mod ranges;
mod scan;
mod seed;

use bytes::Bytes;
pub use changes::ChangesPage;
pub use dead_ranges::{DeadRange, DeadRanges};
pub use fork_keys::{ForkKey, ForkKeyPage, ForkPlace};
pub use fork_replays::{ForkReplay, ReplayPage};
pub use forks::{AtForkPoint, ForkClass, ForkEffect, ForkEntry, ForkPage, ForkReader, ForkSummary};
pub use page::{InvalidPageToken, PageToken, arguments_hash};
pub use ranges::KeyRanges;
pub use scan::{FindDeadRange, Scan, ScanPage};
use stead_types::{Revision, Sequence, TenantTime};

use super::{
    append::current,
    apply_result::{EvaluationPoint, Version},
    client_windows::ClientWindows,
    record::{CopyState, TenantRecord},
};
use crate::{
    codec::Malformed,
    lineage::{LostRevisions, RevisionStatus},
    rows::{
        CopyPrefix, Rows, Unreadable,
        chain::VersionId,
        change::{self, Change},
        current::CurrentVersion,
    },
};

/// Error of a read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The copy has not reached the revision.
    #[error("the copy has only reached revision {reached}")]
    NotReached {
        /// Revision of the copy.
        reached: Revision,
    },
    /// A promotion cut the revision.
    #[error("revision {} was cut after {}", .0.last, .0.kept)]
    Forked(LostRevisions),
    /// The revision is below the retention floor.
    #[error("history begins at revision {oldest}")]
    Compacted {
        /// Oldest revision that can be read.
        oldest: Revision,
    },
    /// Storage failed: the node must stop.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
}

impl From<Malformed> for ReadError {
    fn from(malformed: Malformed) -> Self {
        Self::Unreadable(malformed.into())
    }
}

/// Result of reading many keys at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchGetResult {
    /// Revision that was read.
    pub revision: Revision,
    /// One version for each requested key; `None` where the key does not exist.
    pub versions: Vec<Option<Version>>,
}

/// Reader of a tenant's live copy.
#[derive(Clone, Copy)]
pub struct TenantReader<'a> {
    pub(super) rows: &'a dyn Rows,
    pub(super) copy: CopyPrefix,
    pub(super) record: &'a TenantRecord,
    pub(super) clients: &'a ClientWindows,
    /// No key of an owned tenant expires before this.
    pub(super) next_expiry: Option<TenantTime>,
}

impl<'a> TenantReader<'a> {
    /// Returns the tenant's record.
    pub fn record(&self) -> &'a TenantRecord {
        self.record
    }

    /// Returns the state of the copy.
    pub fn state(&self) -> &'a CopyState {
        &self.record.live
    }

    /// Returns the state that a response read from the copy depends on, at whatever revision it was read.
    pub fn evaluation_point(&self) -> EvaluationPoint {
        self.state().evaluation_point()
    }

    /// Returns the revision to read at: the requested one, if the copy has it, else the copy's own.
    pub fn resolve(&self, at: Option<Revision>) -> Result<Revision, ReadError> {
        let Some(at) = at else { return Ok(self.state().revision) };
        let lineage = &self.record.lineage;
        if let Some(lost) = lineage.lost(at) {
            return Err(ReadError::Forked(lost));
        }
        if lineage.status_of(at) == RevisionStatus::TooOld {
            return Err(self.compacted());
        }
        let (reached, floor) = (self.state().revision, self.state().retention_floor);
        let is_empty = reached.sequence() == Sequence::ZERO;
        if (at.epoch() > lineage.epoch() || is_empty) && at > reached {
            return Err(ReadError::NotReached { reached });
        }
        // On the lineage sequences order revisions. Of one that was brought to what a promotion has kept only the sequence
        // is exact.
        if at.sequence() > reached.sequence() {
            return Err(ReadError::NotReached { reached });
        }
        if at.sequence() < floor.sequence() {
            return Err(self.compacted());
        }
        Ok(if at.sequence() == reached.sequence() {
            reached
        } else {
            at
        })
    }

    fn compacted(&self) -> ReadError {
        ReadError::Compacted {
            oldest: self.state().retention_floor,
        }
    }

    /// Returns the version of a key, if it exists.
    pub fn get(&self, key: &[u8], at: Option<Revision>) -> Result<Option<Version>, ReadError> {
        let at = self.resolve(at)?;
        Ok(self.version(key, at)?)
    }

    /// Returns the versions of many keys at one revision; `None` if keys and values exceed `len_max` bytes.
    pub fn batch_get(
        &self,
        keys: &[Bytes],
        at: Option<Revision>,
        len_max: u64,
    ) -> Result<Option<BatchGetResult>, ReadError> {
        let revision = self.resolve(at)?;
        let (mut versions, mut len) = (Vec::with_capacity(keys.len()), 0);
        for key in keys {
            let version = self.version(key, revision)?;
            len += version
                .as_ref()
                .map_or(0, |version| key.len() + version.value.bytes.len()) as u64;
            if len > len_max {
                return Ok(None);
            }
            versions.push(version);
        }
        Ok(Some(BatchGetResult { revision, versions }))
    }

    /// Returns the version of a key as of a resolved revision.
    fn version(&self, key: &[u8], at: Revision) -> Result<Option<Version>, Unreadable> {
        match current(self.rows, self.copy, key)? {
            Some(now) if now.revision <= at && now.live.is_none() => Ok(None),
            Some(now) => as_of(self.rows, self.copy, &now, at),
            None => Ok(None),
        }
    }
}

/// Finds a key's version as of a revision. The version chain skips most versions between.
fn as_of(rows: &dyn Rows, copy: CopyPrefix, now: &CurrentVersion, at: Revision) -> Result<Option<Version>, Unreadable> {
    let mut version = (now.revision, now.effect);
    let mut skipped = now.chain.link_toward(at);
    loop {
        if let Some(older) = skipped {
            version = older;
        }
        let change = change_at(rows, copy, version)?.ok_or(Malformed {
            what: "chain of versions",
        })?;
        if version.0 <= at {
            return Ok(into_version(change));
        }
        skipped = change.chain.link_toward(at);
        match change.previous {
            Some(_) if skipped.is_some() => {}
            // Versions below the retention floor may be removed, except those that can be read at it; a delete cannot.
            Some(previous) if previous.0 > at || !change.follows_delete() => version = previous,
            Some(_) | None => return Ok(None),
        }
    }
}

fn into_version(change: Change) -> Option<Version> {
    let revision = change.revision;
    change.value.map(|value| Version { revision, value })
}

/// Reads the version of a key before a change that is above the retention floor.
pub(super) fn previous_version(
    rows: &dyn Rows,
    copy: CopyPrefix,
    key: &[u8],
    change: Revision,
) -> Result<Option<Version>, Unreadable> {
    let at = Revision::new(change.epoch(), change.sequence().prev());
    match current(rows, copy, key)? {
        Some(now) => as_of(rows, copy, &now, at),
        None => Ok(None),
    }
}

/// Reads one change, if history has it.
pub(super) fn change_at(rows: &dyn Rows, copy: CopyPrefix, version: VersionId) -> Result<Option<Change>, Unreadable> {
    let (revision, effect) = version;
    let sequence = revision.sequence();
    let row = rows.get(&change::key(copy, sequence, effect))?;
    Ok(row.map(|row| change::decode(sequence, effect, row)).transpose()?)
}

/// Reads the version that one change made, if history has it and it is not a delete.
pub(super) fn version_at(rows: &dyn Rows, copy: CopyPrefix, at: VersionId) -> Result<Option<Version>, Unreadable> {
    Ok(change_at(rows, copy, at)?.and_then(into_version))
}
