//! Reads the keys of a fork in pages: a change of many long values is split, so that a page has a bound.

use stead_types::{Revision, Sequence, TenantTime};

use super::{AtForkPoint, ForkClass, ForkEffect, ForkReader, Version};
use crate::rows::{
    Order, Unreadable,
    change::{self, Change},
};

/// Place of a key in a fork: its change, and its effect among those of the change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ForkPlace {
    /// Sequence of the change.
    pub sequence: Sequence,
    /// Index of the effect.
    pub effect: u16,
}

/// Page of the keys of a fork.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForkKeyPage {
    /// The keys in the order of their changes.
    pub keys: Vec<ForkKey>,
    /// First place of the next page; `None` on the last one.
    pub next: Option<ForkPlace>,
}

/// Key of a change that was cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForkKey {
    /// Revision of the change.
    pub revision: Revision,
    /// Tenant time of the change.
    pub time: TenantTime,
    /// Class of the whole change.
    pub class: ForkClass,
    /// Revision that the change has in the live copy, if it was replayed or absorbed.
    pub found: Option<Revision>,
    /// Its effect on the key.
    pub effect: ForkEffect,
}

impl ForkReader<'_> {
    /// Returns keys from a place on, or from the first that is in the fork's history: at most `keys_max`, and of
    /// `len_max` bytes at most unless the first one alone is longer. `now` is the tenant time that expiry is told by.
    pub fn keys(
        &self,
        from: Option<ForkPlace>,
        now: TenantTime,
        keys_max: usize,
        len_max: usize,
    ) -> Result<ForkKeyPage, Unreadable> {
        let mut page = KeyPage {
            keys: Vec::new(),
            len: 0,
            keys_max,
            len_max,
        };
        let after = from.map(|from| from.sequence.prev());
        let Some((start, end)) = self.span(after) else {
            return Ok(page.ended(None));
        };
        let mut effects: Vec<Change> = Vec::new();
        for row in self.live.rows.range(&start..&end, Order::Ascending) {
            let (key, value) = row?;
            let (sequence, effect) = change::parse_key(key)?;
            if effect == 0 && !effects.is_empty() {
                if let Some(next) = self.add(&mut page, &effects, first_effect(&effects, from), now)? {
                    return Ok(page.ended(Some(next)));
                }
                effects.clear();
            }
            effects.push(change::decode(sequence, effect, value)?);
        }
        let next = self.add(&mut page, &effects, first_effect(&effects, from), now)?;
        Ok(page.ended(next))
    }

    /// Adds the keys of one change, from an effect on; returns the place of the first that has no room.
    fn add(
        &self,
        page: &mut KeyPage,
        effects: &[Change],
        from: u16,
        now: TenantTime,
    ) -> Result<Option<ForkPlace>, Unreadable> {
        let mut class = None;
        for effect in effects.iter().filter(|effect| effect.effect >= from) {
            let place = ForkPlace {
                sequence: effect.revision.sequence(),
                effect: effect.effect,
            };
            if page.keys.len() >= page.keys_max.max(1) {
                return Ok(Some(place));
            }
            let found = self.effect(effect)?;
            let len = len(&found);
            if !page.keys.is_empty() && page.len + len > page.len_max {
                return Ok(Some(place));
            }
            let (class, live) = match class {
                Some(class) => class,
                None => *class.insert(self.class(effects, now)?),
            };
            page.len += len;
            page.keys.push(ForkKey {
                revision: effect.revision,
                time: effect.time,
                class,
                found: live,
                effect: found,
            });
        }
        Ok(None)
    }
}

/// Page that is being filled.
struct KeyPage {
    keys: Vec<ForkKey>,
    len: usize,
    keys_max: usize,
    len_max: usize,
}

impl KeyPage {
    fn ended(self, next: Option<ForkPlace>) -> ForkKeyPage {
        ForkKeyPage { keys: self.keys, next }
    }
}

/// Returns the first effect that a page shows of a change: its first place may be within one.
fn first_effect(effects: &[Change], from: Option<ForkPlace>) -> u16 {
    let sequence = effects.first().map(|effect| effect.revision.sequence());
    let place = from.filter(|from| sequence == Some(from.sequence));
    place.map_or(0, |place| place.effect)
}

fn len(effect: &ForkEffect) -> usize {
    let of = |version: Option<&Version>| version.map_or(0, |version| version.value.bytes.len() + effect.key.len());
    let before = match &effect.before {
        AtForkPoint::Known(before) => of(before.as_ref()),
        AtForkPoint::Unknown => 0,
    };
    let cut = effect
        .cut
        .as_ref()
        .map_or(0, |value| value.bytes.len() + effect.key.len());
    effect.key.len() + before + cut + of(effect.live.as_ref())
}
