//! What another group sends, checked before it is proposed: what this build cannot read, or what does not go on where the
//! session stands, never reaches the own log. There it would stop every replica, and again at each start.
//!
//! # Invariants
//!
//! 1. What passes can be applied: no replica fails or panics over it.

use stead_types::{
    Epoch, Revision, Sequence,
    limits::{KEY_LEN_MAX, VALUE_LEN_MAX},
};

use super::{
    command::{Part, WindowPart},
    record::ClientsLoaded,
};
use crate::{
    codec::Malformed,
    rows::change::{Change, EFFECTS_MAX},
};

/// Why something that another group has sent is not proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unacceptable {
    /// This build does not know its form: the sender is newer, or the bytes are damaged.
    #[error("it cannot be read: the sender runs another version, or its bytes are damaged")]
    Unreadable(#[from] Malformed),
    /// It is of another tenant, home, epoch or attempt than the session.
    #[error("it is not of this session")]
    OtherSession,
    /// Revisions are missing or out of order.
    #[error("{found} does not follow {after}")]
    NotContiguous {
        /// What stands before it.
        after: Revision,
        /// The revision.
        found: Revision,
    },
    /// A change is not one that a home can have made.
    #[error("the change at {at} has {what}")]
    Change {
        /// Its revision.
        at: Revision,
        /// What is wrong.
        what: &'static str,
    },
    /// Windows of clients are out of order or out of the range that they are said to be of.
    #[error("windows of clients are not in order")]
    Windows,
}

/// Checks changes of a session at this epoch. `after` is the last one that the session has brought; of its first ones
/// nothing is known. What was brought before may come again: the log ignores it. Returns the last revision.
pub fn check_changes(
    changes: &[Change],
    epoch: Epoch,
    after: Option<Revision>,
) -> Result<Option<Revision>, Unacceptable> {
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
            return Err(Unacceptable::NotContiguous { after, found });
        }
        if revision.epoch() > epoch {
            return Err(Unacceptable::OtherSession);
        }
        before = Some(revision);
    }
    Ok(before)
}

/// Checks the effects of one change, all of them.
fn check_effects(effects: &[Change]) -> Result<Revision, Unacceptable> {
    let at = effects.first().map_or(Revision::ZERO, |first| first.revision);
    let wrong = |what| Unacceptable::Change { at, what };
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
        check_effect(effect)?;
    }
    if effects.last().is_none_or(|last| last.more) {
        return Err(wrong("effects that are missing at its end"));
    }
    Ok(at)
}

fn check_effect(change: &Change) -> Result<(), Unacceptable> {
    let wrong = |what| {
        let at = change.revision;
        Err(Unacceptable::Change { at, what })
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
        Some(_) | None => Ok(()),
    }
}

/// Checks a part of a copy that is being built, of a seed that begins at `first`, at this epoch.
pub fn check_part(part: &Part, epoch: Epoch, first: Revision, read_at: Revision) -> Result<(), Unacceptable> {
    match part {
        Part::Changes { after, up_to, changes } => {
            if up_to < after || *up_to > first.sequence() {
                return Err(Unacceptable::OtherSession);
            }
            let mut before = (Revision::new(Epoch::NONE, *after), u16::MAX);
            for change in changes {
                check_effect(change)?;
                let (revision, found) = (change.revision, (change.revision.sequence(), change.effect));
                if found <= (before.0.sequence(), before.1) || revision.sequence() > *up_to || revision.epoch() > epoch
                {
                    return Err(Unacceptable::NotContiguous {
                        after: before.0,
                        found: revision,
                    });
                }
                if change.value.is_none() {
                    let (at, what) = (revision, "no value, where only live keys are");
                    return Err(Unacceptable::Change { at, what });
                }
                before = (revision, change.effect);
            }
            Ok(())
        }
        Part::Clients {
            after, up_to, windows, ..
        } => {
            if *up_to < after.whole {
                return Err(Unacceptable::Windows);
            }
            let mut before = after.whole;
            // The last window may be a part of the one behind the range.
            let inside = windows.len().saturating_sub(1);
            for (number, window) in windows.iter().enumerate() {
                let client = Some(window.client);
                let is_next = before < client && (number == inside || client <= *up_to);
                if !is_next || !is_in_order(window, after, read_at) {
                    return Err(Unacceptable::Windows);
                }
                before = client;
            }
            Ok(())
        }
    }
}

/// Tells whether the outcomes of a window stand in the order of their revisions, behind those that are loaded, and none
/// was made after it was read.
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
#[path = "incoming_test.rs"]
mod incoming_test;
