//! Reads changes of a fork as commands that write them again.

use bytes::Bytes;
use stead_types::{Revision, Sequence, TenantTime};

use super::{AtForkPoint, ForkClass, ForkReader};
use crate::{
    rows::{
        Order, Unreadable,
        change::{self, Cause, Change, NotedOperation, ReplayOrigin, Value},
    },
    shard::{
        command::{Replay, ReplayClasses, ReplayEffect, ReplayedWrite, WindowLimits},
        replay::decide,
    },
};

/// Page of the changes of a fork, to be written again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayPage {
    /// Changes in their order, with the revisions that they have in the fork.
    pub replays: Vec<ForkReplay>,
    /// Sequence that the next page begins after; `None` on the last page.
    pub next: Option<Sequence>,
}

/// Change of a fork, to be written again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForkReplay {
    /// Revision of the change in the fork.
    pub revision: Revision,
    /// The command, which allows no class and has the default limits: its proposer sets both.
    pub command: Replay,
}

/// Returns the bytes of a value that a replay needs: of an operation that is done again only its own.
fn replayed_bytes(value: &Value, operation: Option<NotedOperation>) -> Bytes {
    match operation {
        None => value.bytes.clone(),
        Some(NotedOperation::Increment(_)) => Bytes::new(),
        Some(NotedOperation::Append { len, .. }) => {
            let kept = value.bytes.len().saturating_sub(len as usize);
            value.bytes.slice(kept..)
        }
    }
}

impl ForkReader<'_> {
    /// Returns changes after a sequence, or from the first that is in the fork's history on: at most `entries_max`, and of
    /// `len_max` bytes unless the first one alone is longer.
    pub fn replays(
        &self,
        after: Option<Sequence>,
        entries_max: usize,
        len_max: usize,
    ) -> Result<ReplayPage, Unreadable> {
        let mut page = ReplayPage {
            replays: Vec::new(),
            next: None,
        };
        let Some((start, end)) = self.span(after) else {
            return Ok(page);
        };
        let (mut effects, mut len): (Vec<Change>, usize) = (Vec::new(), 0);
        for row in self.live.rows.range(&start..&end, Order::Ascending) {
            let (key, value) = row?;
            let (sequence, effect) = change::parse_key(key)?;
            if effect == 0 && !effects.is_empty() {
                page.replays.push(self.replay(&effects)?);
                effects.clear();
                if page.replays.len() >= entries_max.max(1) || len >= len_max {
                    page.next = page.replays.last().map(|last| last.revision.sequence());
                    return Ok(page);
                }
            }
            len += value.len();
            effects.push(change::decode(sequence, effect, value)?);
        }
        if !effects.is_empty() {
            page.replays.push(self.replay(&effects)?);
        }
        Ok(page)
    }

    /// Returns the command that writes a change again. A change that was itself a replay counts as the one that it wrote
    /// again, so that no two forks bring the same twice.
    pub(super) fn replay(&self, effects: &[Change]) -> Result<ForkReplay, Unreadable> {
        let first = effects.first().ok_or(crate::codec::Malformed {
            what: "change of a fork",
        })?;
        let outcome = first.outcome.as_ref();
        let mut replayed = Vec::with_capacity(effects.len());
        for effect in effects {
            replayed.push(ReplayEffect {
                key: effect.key.clone(),
                value: effect
                    .value
                    .as_ref()
                    .map(|value| (replayed_bytes(value, effect.operation), value.expires)),
                was_absent: self.before(effect)? == AtForkPoint::Known(None),
                operation: effect.operation,
            });
        }
        let fork = self.fork();
        let command = Replay {
            tenant: self.tenant(),
            origin: ReplayOrigin {
                revision: first.origin.map_or(first.revision, |origin| origin.revision),
                group: self.group(),
                fork: fork.copy.number,
                over_others: false,
            },
            point: fork.point,
            lineage: fork.lineage.clone(),
            time: first.time,
            is_expiry: first.cause == Cause::Expiry,
            write: outcome.map(|outcome| ReplayedWrite {
                client: outcome.client,
                sequence: outcome.sequence,
                request: outcome.request,
            }),
            limits: WindowLimits::default(),
            allowed: ReplayClasses::default(),
            effects: replayed,
        };
        Ok(ForkReplay {
            revision: first.revision,
            command,
        })
    }

    /// Returns the class of a change, as the live copy of this group says, and the revision that it has there already.
    pub(super) fn class(
        &self,
        effects: &[Change],
        now: TenantTime,
    ) -> Result<(ForkClass, Option<Revision>), Unreadable> {
        let replay = self.replay(effects)?;
        let decision = decide(&self.live, &replay.command, now)?;
        Ok((decision.class, decision.found))
    }
}
