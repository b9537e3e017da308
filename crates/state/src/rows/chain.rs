//! Version chain of a key: the links of an MVCC version to earlier ones, by which any version is found in a few
//! steps, however many there are (a skip list).
//!
//! Versions are numbered from one. A version links, for each power of eight, to the last version before it whose
//! number is a multiple of that power; so from a multiple of 8^k it is one step back by 8^k.
//!
//! ```text
//!   205 ── 204 ── 203 ──...── 200 ──...── 192 ──...── 128 ──...── 64
//!    └──────────────────────── ^ ───────── ^
//!           200 is a multiple of 8 and links to 192, a multiple of 64, which links to 128
//! ```
//!
//! Encoded after the version's own id: number varint; where it is above eight a list of links, newest first, each the
//! difference of its revision to the one before varint, effect varint. Links at or below the retention floor are left
//! out when a version is written: nothing reads there.
//!
//! # Invariants
//!
//! 1. From one version to another, `distance` versions before it, it is at most [`STEPS_PER_LEVEL`] steps for each
//!    level that `distance` has: 49 for a million.

use stead_types::Revision;

use crate::codec::{Malformed, Reader, Writer};

/// Id of a key's MVCC version: revision, and effect of that revision.
pub type VersionId = (Revision, u16);

/// Bits of a level: each level is eight times the one below.
const LEVEL_BITS: u32 = 3;
/// Number of levels of the highest version number: a tenant has 2^40 revisions.
const LEVELS_MAX: usize = 13;
/// Most steps on one level, up and down.
pub const STEPS_PER_LEVEL: u32 = 2 << LEVEL_BITS;

/// Number of a version and its links to earlier versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionChain {
    number: u64,
    len: usize,
    revisions: [Revision; LEVELS_MAX],
    effects: [u16; LEVELS_MAX],
}

impl Default for VersionChain {
    /// Returns the chain of a key's first version.
    fn default() -> Self {
        Self {
            number: 1,
            len: 0,
            revisions: [Revision::ZERO; LEVELS_MAX],
            effects: [0; LEVELS_MAX],
        }
    }
}

impl VersionChain {
    /// Returns the chain of the version after this one, which has the id `version`. Links at or below the floor are
    /// left out.
    pub fn next(&self, version: VersionId, floor: Revision) -> Self {
        let mut next = Self {
            number: self.number.saturating_add(1),
            ..Self::default()
        };
        let mut known = multiples(self.number).zip(self.links()).peekable();
        for number in multiples(next.number) {
            while known.next_if(|(older, _)| *older > number).is_some() {}
            let found = match known.peek() {
                _ if number == self.number => version,
                Some((older, version)) if *older == number => *version,
                Some(_) | None => break,
            };
            if found.0 <= floor || !next.push(found) {
                break;
            }
        }
        next
    }

    fn push(&mut self, (revision, effect): VersionId) -> bool {
        let (Some(revisions), Some(effects)) = (self.revisions.get_mut(self.len), self.effects.get_mut(self.len))
        else {
            return false;
        };
        (*revisions, *effects) = (revision, effect);
        self.len += 1;
        true
    }

    /// Returns the links, newest first.
    fn links(&self) -> impl DoubleEndedIterator<Item = VersionId> + '_ {
        let links = self.revisions.iter().copied().zip(self.effects.iter().copied());
        links.take(self.len)
    }

    /// Returns the oldest link that is still above a revision.
    pub fn link_toward(&self, revision: Revision) -> Option<VersionId> {
        self.links().rev().find(|version| version.0 > revision)
    }

    /// Writes the chain of the version with revision `own`.
    pub fn encode(&self, w: &mut Writer, own: Revision) {
        w.varint(self.number);
        if self.number <= 1 << LEVEL_BITS {
            return;
        }
        let mut last = own.to_u64();
        w.varint(self.len as u64);
        for (revision, effect) in self.links() {
            w.varint(last.wrapping_sub(revision.to_u64())).varint(u64::from(effect));
            last = revision.to_u64();
        }
    }

    /// Reads what [`VersionChain::encode`] wrote.
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

/// Returns the numbers of the versions that a version links to, newest first.
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
        /// Any chain that can be encoded.
        pub(crate) fn chains()(number in 1u64.., links in prop::collection::vec((any::<u64>(), any::<u16>()), 0..=LEVELS_MAX)) -> VersionChain {
            let mut chain = VersionChain { number, ..VersionChain::default() };
            for (revision, effect) in links {
                if number > 1 << LEVEL_BITS {
                    chain.push((Revision::from_u64(revision), effect));
                }
            }
            chain
        }
    }

    proptest! {
        #[test]
        fn chain_round_trips(chain in chains(), own: u64) {
            let own = Revision::from_u64(own);
            let mut w = Writer::default();
            chain.encode(&mut w, own);
            let mut r = Reader::new(w.finish(), "chain");
            prop_assert_eq!(VersionChain::decode(&mut r, own), Ok(chain));
            prop_assert_eq!(r.end(), Ok(()));
        }
    }

    /// The chain with the longest encoding.
    pub(crate) fn longest() -> VersionChain {
        let number = u64::MAX;
        let mut chain = VersionChain {
            number,
            ..VersionChain::default()
        };
        let links = [Revision::from_u64(0), Revision::from_u64(u64::MAX)];
        while chain.push((links[chain.len % 2], u16::MAX)) {}
        chain
    }

    fn at(number: u64) -> VersionId {
        (Revision::from_u64(number << 1), (number % 7) as u16)
    }

    /// The chains of `count` versions, with a floor that follows `kept` versions behind.
    fn chain_of(count: u64, kept: u64) -> Vec<VersionChain> {
        let mut chains = vec![VersionChain::default()];
        for number in 1..count {
            let floor = at(number.saturating_sub(kept)).0;
            let next = chains.last().unwrap().next(at(number), floor);
            chains.push(next);
        }
        chains
    }

    #[test]
    fn chain_links_to_last_multiple_of_each_power() {
        let chains = chain_of(205, u64::MAX);
        let of = |number: usize| -> Vec<u64> {
            let links = chains[number - 1].links();
            links
                .map(|version| (1..300).find(|number| at(*number) == version).unwrap())
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
    fn any_version_is_found_in_bounded_steps() {
        const COUNT: u64 = 5_000;
        let chains = chain_of(COUNT, u64::MAX);
        for sought in 1..COUNT {
            let (mut number, mut steps) = (COUNT, 0);
            while number > sought {
                let skipped = chains[number as usize - 1].link_toward(at(sought).0);
                number = skipped.map_or(number - 1, |version| version.0.to_u64() >> 1);
                steps += 1;
            }
            assert_eq!(number, sought);
            assert!(steps <= 5 * STEPS_PER_LEVEL, "invariant 1: {steps} steps to {sought}");
        }
    }

    #[test]
    fn links_below_retention_floor_are_left_out() {
        for chain in chain_of(5_000, 10) {
            assert!(
                chain
                    .links()
                    .all(|version| version.0 > at(chain.number.saturating_sub(12)).0)
            );
        }
    }
}
