//! Reads a tenant's data, as of what has been applied or at an older revision.
//!
//! Who may answer, and whether the answer is fresh enough, is decided elsewhere: here a revision is only checked against
//! the copy's own lineage and history.

mod changes;
mod ended;
mod page;
mod ranges;
mod scan;
mod seed;

use bytes::Bytes;
pub use changes::Changes;
pub use page::{InvalidPageToken, PageToken, arguments_hash};
pub use ranges::Ranges;
pub use scan::{Page, Scan};
use stead_types::{Epoch, Revision, Sequence, TenantTime};

use super::{
    answer::{Evaluated, Version},
    append::current,
    clients::Clients,
    record::{CopyState, Record},
};
use crate::{
    codec::Malformed,
    lineage::Standing,
    rows::{
        Copy, Rows, Unreadable,
        change::{self, Change},
        current::Current,
    },
};

/// Why a read was not answered.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The copy has not reached the revision.
    #[error("the copy has reached {reached}")]
    NotReached {
        /// Where it is.
        reached: Revision,
    },
    /// A promotion cut the revision.
    #[error("epoch {epoch} was cut after sequence {kept}")]
    Forked {
        /// The epoch that was cut.
        epoch: Epoch,
        /// The last sequence of it that was kept.
        kept: Sequence,
    },
    /// The revision is older than the history that is kept.
    #[error("history begins at {oldest}")]
    Compacted {
        /// The oldest revision that can be read.
        oldest: Revision,
    },
    /// Storage failed: the node must stop.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
}

impl From<Malformed> for Refused {
    fn from(malformed: Malformed) -> Self {
        Self::Unreadable(malformed.into())
    }
}

/// Many keys at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The revision.
    pub revision: Revision,
    /// One for each key asked for; `None` where it does not exist.
    pub versions: Vec<Option<Version>>,
}

/// Access to one tenant's live copy.
#[derive(Clone, Copy)]
pub struct Reading<'a> {
    pub(super) rows: &'a dyn Rows,
    pub(super) copy: Copy,
    pub(super) record: &'a Record,
    pub(super) clients: &'a Clients,
    /// No key of an owned tenant expires before this.
    pub(super) next_expiry: Option<TenantTime>,
}

impl<'a> Reading<'a> {
    /// Returns the tenant's record.
    pub fn record(&self) -> &'a Record {
        self.record
    }

    /// Returns where the copy stands.
    pub fn state(&self) -> &'a CopyState {
        &self.record.live
    }

    /// Returns what an answer read from the copy depends on, at whatever revision it was read.
    pub fn evaluated(&self) -> Evaluated {
        self.state().evaluated()
    }

    /// Returns the revision to read at: the one asked for, if the copy has it, else the copy's own.
    pub fn resolve(&self, at: Option<Revision>) -> Result<Revision, Refused> {
        let Some(at) = at else { return Ok(self.state().revision) };
        match self.record.lineage.standing(at) {
            Standing::Cut { kept } => {
                let epoch = at.epoch();
                return Err(Refused::Forked { epoch, kept });
            }
            Standing::Closed => return Err(self.compacted()),
            Standing::On => {}
        }
        if at > self.state().revision {
            let reached = self.state().revision;
            return Err(Refused::NotReached { reached });
        }
        if at < self.state().floor {
            return Err(self.compacted());
        }
        Ok(at)
    }

    fn compacted(&self) -> Refused {
        Refused::Compacted {
            oldest: self.state().floor,
        }
    }

    /// Returns a key's version, if it has one.
    pub fn get(&self, key: &[u8], at: Option<Revision>) -> Result<Option<Version>, Refused> {
        let at = self.resolve(at)?;
        Ok(self.version(key, at)?)
    }

    /// Returns the versions of many keys at one revision, and which one that was; `None` if keys and values come to more
    /// than `len_max` bytes.
    pub fn batch_get(&self, keys: &[Bytes], at: Option<Revision>, len_max: u64) -> Result<Option<Batch>, Refused> {
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
        Ok(Some(Batch { revision, versions }))
    }

    /// Returns the version of a key as of a revision that was resolved.
    fn version(&self, key: &[u8], at: Revision) -> Result<Option<Version>, Unreadable> {
        match current(self.rows, self.copy, key)? {
            Some(now) if now.revision <= at && now.live.is_none() => Ok(None),
            Some(now) => as_of(self.rows, self.copy, &now, at),
            None => Ok(None),
        }
    }
}

/// Finds a key's version as of a revision. Most of those between are skipped: rows::chain.
fn as_of(rows: &dyn Rows, copy: Copy, now: &Current, at: Revision) -> Result<Option<Version>, Unreadable> {
    let mut place = (now.revision, now.effect);
    let mut skipped = now.chain.toward(at);
    loop {
        if let Some(older) = skipped {
            place = older;
        }
        let change = change_at(rows, copy, place)?.ok_or(Malformed {
            what: "chain of versions",
        })?;
        if place.0 <= at {
            return Ok(into_version(change));
        }
        skipped = change.chain.toward(at);
        match change.previous {
            Some(_) if skipped.is_some() => {}
            // What is below the floor may be gone, but for what can still be read there: a delete cannot.
            Some(previous) if previous.0 > at || !change.follows_delete() => place = previous,
            Some(_) | None => return Ok(None),
        }
    }
}

fn into_version(change: Change) -> Option<Version> {
    let revision = change.revision;
    change.value.map(|value| Version { revision, value })
}

/// Reads a key as it was before a change that is above the floor.
pub(super) fn previous_version(
    rows: &dyn Rows,
    copy: Copy,
    key: &[u8],
    change: Revision,
) -> Result<Option<Version>, Unreadable> {
    let before = Sequence::new(change.sequence().get().saturating_sub(1)).unwrap_or(Sequence::ZERO);
    let at = Revision::new(change.epoch(), before);
    match current(rows, copy, key)? {
        Some(now) => as_of(rows, copy, &now, at),
        None => Ok(None),
    }
}

/// Reads one change, if it is still kept.
pub(super) fn change_at(
    rows: &dyn Rows,
    copy: Copy,
    (revision, effect): (Revision, u16),
) -> Result<Option<Change>, Unreadable> {
    let sequence = revision.sequence();
    let row = rows.get(&change::key(copy, sequence, effect))?;
    Ok(row.map(|row| change::decode(sequence, effect, row)).transpose()?)
}

/// Reads what one change made of its key, if it is still kept and not a delete.
pub(super) fn version_at(rows: &dyn Rows, copy: Copy, at: (Revision, u16)) -> Result<Option<Version>, Unreadable> {
    Ok(change_at(rows, copy, at)?.and_then(into_version))
}
