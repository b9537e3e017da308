//! Validation of data from another group before it is proposed: what this build cannot read, or what does not
//! continue the session, never reaches the own log. There it would stop every replica, and again at each start.
//!
//! # Invariants
//!
//! 1. What passes can be applied: no replica fails or panics over it.

use stead_types::{
    Epoch, Revision, Sequence,
    limits::{KEY_LEN_MAX, VALUE_LEN_MAX},
};

use super::{
    command::{ChunkContent, WindowPart},
    record::ClientsLoaded,
};
use crate::{
    codec::Malformed,
    rows::change::{Cause, Change, EFFECTS_MAX},
};

/// Reason why data from another group is not proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFeedData {
    /// The encoding is unknown to this build: the sender is newer, or the bytes are damaged.
    #[error("feed data cannot be read: the sender runs another version, or the bytes are damaged")]
    Unreadable(#[from] Malformed),
    /// The data is of another tenant, home, epoch or attempt than the session.
    #[error("feed data is of another session")]
    OtherSession,
    /// Revisions are missing or out of order.
    #[error("revision {found} does not follow {after}")]
    NotContiguous {
        /// Revision before it.
        after: Revision,
        /// Revision that does not follow.
        found: Revision,
    },
    /// The change cannot have been made by a home.
    #[error("the change at {at} has {what}")]
    Change {
        /// Revision of the change.
        at: Revision,
        /// Description of the defect.
        what: &'static str,
    },
    /// Client windows are out of order or out of the chunk's range.
    #[error("client windows are out of order")]
    Windows,
}

/// Checks changes of a session at this epoch, and returns the last revision. `after` is the last change that the
/// session has received, `None` before its first. Changes that were received before may be repeated: apply ignores
/// them.
pub fn check_changes(
    changes: &[Change],
    epoch: Epoch,
    after: Option<Revision>,
) -> Result<Option<Revision>, InvalidFeedData> {
    let first = changes.first().map(|first| first.revision);
    let mut before = match (after, first) {
        (Some(after), Some(first)) if first.sequence() > after.sequence() => Some(after),
        (_, Some(_)) => None,
        (after, None) => after,
    };
    for change_set in changes.chunk_by(|one, next| one.more && one.revision == next.revision) {
        let revision = check_effects(change_set)?;
        if let Some(after) = before
            && (after.sequence().next() != Some(revision.sequence()) || revision.epoch() < after.epoch())
        {
            let found = revision;
            return Err(InvalidFeedData::NotContiguous { after, found });
        }
        if revision.epoch() > epoch {
            return Err(InvalidFeedData::OtherSession);
        }
        before = Some(revision);
    }
    Ok(before)
}

/// Checks all effects of one change.
fn check_effects(effects: &[Change]) -> Result<Revision, InvalidFeedData> {
    let at = effects.first().map_or(Revision::ZERO, |first| first.revision);
    let wrong = |what| InvalidFeedData::Change { at, what };
    if effects.len() > EFFECTS_MAX {
        return Err(wrong("more effects than a change can have"));
    }
    for (number, effect) in effects.iter().enumerate() {
        if usize::from(effect.effect) != number {
            return Err(wrong("effects that are missing or out of order"));
        }
        if effect.outcome.is_some() && number > 0 {
            return Err(wrong("an outcome that is not with its first effect"));
        }
        let origin = |effect: &Change| effect.origin.map(|origin| origin.revision);
        if origin(effect) != origin(&effects[0]) {
            return Err(wrong("effects that are replays of different changes"));
        }
        check_effect(effect)?;
    }
    if effects.last().is_none_or(|last| last.more) {
        return Err(wrong("effects that are missing at its end"));
    }
    Ok(at)
}

fn check_effect(change: &Change) -> Result<(), InvalidFeedData> {
    let wrong = |what| {
        let at = change.revision;
        Err(InvalidFeedData::Change { at, what })
    };
    if change.revision.sequence() == Sequence::ZERO {
        return wrong("no revision");
    }
    if change.key.is_empty() || change.key.len() > KEY_LEN_MAX {
        return wrong("a key that is empty or too long");
    }
    match &change.value {
        Some(value) if value.bytes.len() > VALUE_LEN_MAX => wrong("a value that is too long"),
        Some(value) if value.create > change.revision => wrong("a key that was created after it"),
        Some(value) if value.version == 0 || value.version > change.revision.sequence().get() => {
            wrong("a version that its key cannot have")
        }
        Some(_) | None if change.cause == Cause::Expiry && change.origin.is_some() => {
            wrong("an expiry that is a replay")
        }
        Some(_) | None => Ok(()),
    }
}

/// Checks the content of a chunk of a seed that begins at `first`, at this epoch.
pub fn check_chunk(
    part: &ChunkContent,
    epoch: Epoch,
    first: Revision,
    read_at: Revision,
) -> Result<(), InvalidFeedData> {
    match part {
        ChunkContent::Changes { after, up_to, changes } => {
            if up_to < after || *up_to > first.sequence() {
                return Err(InvalidFeedData::OtherSession);
            }
            let mut before = (Revision::new(Epoch::NONE, *after), u16::MAX);
            for change in changes {
                check_effect(change)?;
                let (revision, found) = (change.revision, (change.revision.sequence(), change.effect));
                if found <= (before.0.sequence(), before.1) || revision.sequence() > *up_to || revision.epoch() > epoch
                {
                    return Err(InvalidFeedData::NotContiguous {
                        after: before.0,
                        found: revision,
                    });
                }
                if change.value.is_none() {
                    let (at, what) = (revision, "no value, where only live keys are");
                    return Err(InvalidFeedData::Change { at, what });
                }
                before = (revision, change.effect);
            }
            Ok(())
        }
        ChunkContent::Clients {
            after, up_to, windows, ..
        } => {
            if *up_to < after.whole {
                return Err(InvalidFeedData::Windows);
            }
            let mut before = after.whole;
            // The last window may be a part of the one after the range.
            let inside = windows.len().saturating_sub(1);
            for (number, window) in windows.iter().enumerate() {
                let client = Some(window.client);
                let is_next = before < client && (number == inside || client <= *up_to);
                if !is_next || !is_in_order(window, after, read_at) {
                    return Err(InvalidFeedData::Windows);
                }
                before = client;
            }
            Ok(())
        }
    }
}

/// Tells whether the outcomes of a window are in the order of their revisions, after those that are loaded, and none
/// was made after the window was read.
fn is_in_order(window: &WindowPart, loaded: &ClientsLoaded, read_at: Revision) -> bool {
    let part = loaded.part.filter(|(client, _)| *client == window.client);
    let mut before = part.map_or(Revision::ZERO, |(_, revision)| revision);
    window.outcomes.iter().all(|outcome| {
        let is_next = before < outcome.revision && window.oldest <= outcome.revision && outcome.revision <= read_at;
        before = outcome.revision;
        is_next
    })
}

#[cfg(test)]
#[path = "feed_validation_test.rs"]
mod feed_validation_test;
