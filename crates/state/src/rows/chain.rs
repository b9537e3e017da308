//! Where a version stands among those of its key, and to which earlier ones it points beside the one before it: any
//! version is found in a few steps, however many there are.
//!
//! Versions are numbered from one. A version points, for each power of eight, to the last version before it whose number
//! is a multiple of that power; so from a multiple of 8^k it is one step back by 8^k.
//!
//! ```text
//!   205 ── 204 ── 203 ──...── 200 ──...── 192 ──...── 128 ──...── 64
//!    └──────────────────────── ^ ───────── ^
//!           200 is a multiple of 8 and points to 192, a multiple of 64, which points to 128
//! ```
//!
//! Written behind the version's own place: number varint; where it is above eight a list of places, newest first, each
//! the difference of its revision to the one before varint, effect varint. Those at or below the floor are left out
//! when a version is written: nobody reads there.
//!
//! # Invariants
//!
//! 1. From one version to another, `distance` versions before it, it is at most [`STEPS_PER_LEVEL`] steps for each level
//!    that `distance` has: 49 for a million.

use stead_types::Revision;

use crate::codec::{Malformed, Reader, Writer};

/// A change of a key: revision, and effect of that revision.
pub type Place = (Revision, u16);

/// Bits of a level: each is eight times the one below.
const LEVEL_BITS: u32 = 3;
/// Levels that the highest number has: a tenant has 2^40 revisions.
const LEVELS_MAX: usize = 13;
/// Most steps on one level, there and back.
pub const STEPS_PER_LEVEL: u32 = 2 << LEVEL_BITS;

/// A version's number and the places that it points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain {
    number: u64,
    len: usize,
    revisions: [Revision; LEVELS_MAX],
    effects: [u16; LEVELS_MAX],
}

impl Default for Chain {
    /// Returns that of a key's first version.
    fn default() -> Self {
        Self {
            number: 1,
            len: 0,
            revisions: [Revision::ZERO; LEVELS_MAX],
            effects: [0; LEVELS_MAX],
        }
    }
}

impl Chain {
    /// Returns that of the version behind this one, which stands at a place. Nothing at or below the floor is read.
    pub fn next(&self, place: Place, floor: Revision) -> Self {
        let mut next = Self {
            number: self.number.saturating_add(1),
            ..Self::default()
        };
        let mut known = multiples(self.number).zip(self.places()).peekable();
        for number in multiples(next.number) {
            while known.next_if(|(older, _)| *older > number).is_some() {}
            let found = match known.peek() {
                _ if number == self.number => place,
                Some((older, place)) if *older == number => *place,
                Some(_) | None => break,
            };
            if found.0 <= floor || !next.push(found) {
                break;
            }
        }
        next
    }

    fn push(&mut self, (revision, effect): Place) -> bool {
        let (Some(revisions), Some(effects)) = (self.revisions.get_mut(self.len), self.effects.get_mut(self.len))
        else {
            return false;
        };
        (*revisions, *effects) = (revision, effect);
        self.len += 1;
        true
    }

    /// Returns the places, newest first.
    fn places(&self) -> impl DoubleEndedIterator<Item = Place> + '_ {
        let places = self.revisions.iter().copied().zip(self.effects.iter().copied());
        places.take(self.len)
    }

    /// Returns the oldest of the places that is still above a revision.
    pub fn toward(&self, revision: Revision) -> Option<Place> {
        self.places().rev().find(|place| place.0 > revision)
    }

    /// Writes it, behind the place `own` that it belongs to.
    pub fn encode(&self, w: &mut Writer, own: Revision) {
        w.varint(self.number);
        if self.number <= 1 << LEVEL_BITS {
            return;
        }
        let mut last = own.to_u64();
        w.varint(self.len as u64);
        for (revision, effect) in self.places() {
            w.varint(last.wrapping_sub(revision.to_u64())).varint(u64::from(effect));
            last = revision.to_u64();
        }
    }

    /// Reads what [`Chain::encode`] wrote.
    pub fn decode(r: &mut Reader, own: Revision) -> Result<Self, Malformed> {
        let mut chain = Self {
            number: r.varint()?,
            ..Self::default()
        };
        if chain.number <= 1 << LEVEL_BITS {
            return Ok(chain);
        }
        let mut last = own.to_u64();
        for _ in 0..r.varint()? {
            last = last.wrapping_sub(r.varint()?);
            let effect = u16::try_from(r.varint()?).map_err(|_| r.malformed())?;
            if !chain.push((Revision::from_u64(last), effect)) {
                return Err(r.malformed());
            }
        }
        Ok(chain)
    }
}

/// Returns the numbers that a version points to, newest first.
fn multiples(number: u64) -> impl Iterator<Item = u64> {
    let before = number.saturating_sub(1);
    let mut last = 0;
    let levels = (1..=LEVELS_MAX as u32).map(move |level| (before >> (level * LEVEL_BITS)) << (level * LEVEL_BITS));
    levels.take_while(|number| *number > 0).filter(move |number| {
        let is_new = *number != last;
        last = *number;
        is_new
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        /// Any chain that can be written.
        pub(crate) fn chains()(number in 1u64.., places in prop::collection::vec((any::<u64>(), any::<u16>()), 0..=LEVELS_MAX)) -> Chain {
            let mut chain = Chain { number, ..Chain::default() };
            for (revision, effect) in places {
                if number > 1 << LEVEL_BITS {
                    chain.push((Revision::from_u64(revision), effect));
                }
            }
            chain
        }
    }

    proptest! {
        #[test]
        fn a_chain_reads_back(chain in chains(), own: u64) {
            let own = Revision::from_u64(own);
            let mut w = Writer::default();
            chain.encode(&mut w, own);
            let mut r = Reader::new(w.finish(), "chain");
            prop_assert_eq!(Chain::decode(&mut r, own), Ok(chain));
            prop_assert_eq!(r.end(), Ok(()));
        }
    }

    /// The chain that takes most bytes.
    pub(crate) fn longest() -> Chain {
        let number = u64::MAX;
        let mut chain = Chain {
            number,
            ..Chain::default()
        };
        let places = [Revision::from_u64(0), Revision::from_u64(u64::MAX)];
        while chain.push((places[chain.len % 2], u16::MAX)) {}
        chain
    }

    fn at(number: u64) -> Place {
        (Revision::from_u64(number << 1), (number % 7) as u16)
    }

    /// The chains of so many versions, of which the floor follows `kept` behind.
    fn chain_of(count: u64, kept: u64) -> Vec<Chain> {
        let mut chains = vec![Chain::default()];
        for number in 1..count {
            let floor = at(number.saturating_sub(kept)).0;
            let next = chains.last().unwrap().next(at(number), floor);
            chains.push(next);
        }
        chains
    }

    #[test]
    fn a_chain_points_to_the_last_multiple_of_each_power() {
        let chains = chain_of(205, u64::MAX);
        let of = |number: usize| -> Vec<u64> {
            let places = chains[number - 1].places();
            places
                .map(|place| (1..300).find(|number| at(*number) == place).unwrap())
                .collect()
        };
        assert_eq!(of(8), [0; 0]);
        assert_eq!(of(9), [8]);
        assert_eq!(of(64), [56]);
        assert_eq!(of(65), [64]);
        assert_eq!(of(200), [192]);
        assert_eq!(of(205), [200, 192]);
        assert_eq!(of(192), [184, 128]);
    }

    #[test]
    fn every_version_is_found_in_few_steps() {
        const COUNT: u64 = 5_000;
        let chains = chain_of(COUNT, u64::MAX);
        for sought in 1..COUNT {
            let (mut number, mut steps) = (COUNT, 0);
            while number > sought {
                let skipped = chains[number as usize - 1].toward(at(sought).0);
                number = skipped.map_or(number - 1, |place| place.0.to_u64() >> 1);
                steps += 1;
            }
            assert_eq!(number, sought);
            assert!(steps <= 5 * STEPS_PER_LEVEL, "invariant 1: {steps} steps to {sought}");
        }
    }

    #[test]
    fn places_below_the_floor_are_left_out() {
        for chain in chain_of(5_000, 10) {
            assert!(
                chain
                    .places()
                    .all(|place| place.0 > at(chain.number.saturating_sub(12)).0)
            );
        }
    }
}
