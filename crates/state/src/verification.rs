//! Verification of a tenant's copies: their digests are compared at revisions that both have had.
//!
//! A copy has one digest, of its present revision. Under writes two copies are rarely asked while they have the same
//! one, so each is sampled for a while, and the samples of the home's leader are kept for copies that are behind.
//!
//! # Invariants
//!
//! 1. A copy is called equal or different by digests of one revision only, never by two that are near each other.

use std::collections::BTreeMap;

use stead_types::{GroupId, NodeId, Revision};

/// Most samples of one copy that are kept; beyond it the oldest go.
pub const SAMPLES_MAX: usize = 65_536;

/// Copy of a tenant: the node that holds it for a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CopyHolder {
    /// The group.
    pub group: GroupId,
    /// The node.
    pub node: NodeId,
}

/// Digest of the live keys of a copy at a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DigestSample {
    /// Last change of the copy.
    pub revision: Revision,
    /// Its digest of live keys then.
    pub keys: u128,
}

/// Result for one copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// It had the digest of the home's leader at this revision, the highest one that could be compared.
    Equal(Revision),
    /// It had another one at this revision, the lowest one at which that was seen.
    Different(Revision),
    /// No revision of both was seen; the highest one that the copy has reached, if there is one.
    NotCompared(Option<Revision>),
}

/// Samples of the home's leader and of the copies that are compared with it.
#[derive(Clone, Debug, Default)]
pub struct Verification {
    home: BTreeMap<Revision, u128>,
    copies: BTreeMap<CopyHolder, BTreeMap<Revision, u128>>,
}

impl Verification {
    /// Adds samples of the home's leader.
    pub fn add_home(&mut self, samples: impl IntoIterator<Item = DigestSample>) {
        add(&mut self.home, samples);
    }

    /// Adds samples of a copy.
    pub fn add_copy(&mut self, holder: CopyHolder, samples: impl IntoIterator<Item = DigestSample>) {
        add(self.copies.entry(holder).or_default(), samples);
    }

    /// Returns the lowest revision at which a copy that is behind can be compared.
    pub fn first(&self) -> Option<Revision> {
        self.home.first_key_value().map(|(revision, _)| *revision)
    }

    /// Returns the highest revision of the home's leader that was seen.
    pub fn last(&self) -> Option<Revision> {
        self.home.last_key_value().map(|(revision, _)| *revision)
    }

    /// Compares a copy with the home's leader.
    pub fn compare(&self, holder: CopyHolder) -> Comparison {
        let Some(copy) = self.copies.get(&holder) else {
            return Comparison::NotCompared(None);
        };
        let mut equal = None;
        for (revision, keys) in copy {
            match self.home.get(revision) {
                Some(of_home) if of_home != keys => return Comparison::Different(*revision),
                Some(_) => equal = Some(*revision),
                None => {}
            }
        }
        let reached = copy.last_key_value().map(|(revision, _)| *revision);
        equal.map_or(Comparison::NotCompared(reached), Comparison::Equal)
    }
}

fn add(to: &mut BTreeMap<Revision, u128>, samples: impl IntoIterator<Item = DigestSample>) {
    for DigestSample { revision, keys } in samples {
        to.insert(revision, keys);
        if to.len() > SAMPLES_MAX {
            to.pop_first();
        }
    }
}

#[cfg(test)]
mod tests {
    use stead_types::{Epoch, Sequence};

    use super::*;

    const COPY: CopyHolder = CopyHolder {
        group: GroupId::new(2),
        node: NodeId::new(4),
    };

    fn at(number: u64) -> Revision {
        Revision::new(Epoch::FIRST, Sequence::new(number).unwrap())
    }

    fn samples(of: &[(u64, u128)]) -> Vec<DigestSample> {
        let sample = |(number, keys): &(u64, u128)| DigestSample {
            revision: at(*number),
            keys: *keys,
        };
        of.iter().map(sample).collect()
    }

    fn compare(home: &[(u64, u128)], copy: &[(u64, u128)]) -> Comparison {
        let mut verification = Verification::default();
        verification.add_home(samples(home));
        verification.add_copy(COPY, samples(copy));
        verification.compare(COPY)
    }

    #[test]
    fn copies_are_compared_at_common_revisions_only() {
        assert_eq!(compare(&[(5, 50)], &[(5, 50)]), Comparison::Equal(at(5)));
        assert_eq!(compare(&[(5, 50)], &[(5, 51)]), Comparison::Different(at(5)));
        assert_eq!(compare(&[(5, 50)], &[(4, 50)]), Comparison::NotCompared(Some(at(4))));
        assert_eq!(compare(&[(5, 50)], &[]), Comparison::NotCompared(None));
        assert_eq!(compare(&[], &[(5, 50)]), Comparison::NotCompared(Some(at(5))));
        let other = CopyHolder {
            node: NodeId::new(5),
            ..COPY
        };
        assert_eq!(Verification::default().compare(other), Comparison::NotCompared(None));
    }

    #[test]
    fn one_difference_outweighs_later_equality() {
        let home = [(5, 50), (6, 60), (7, 70)];
        assert_eq!(compare(&home, &[(5, 50), (7, 70)]), Comparison::Equal(at(7)));
        assert_eq!(
            compare(&home, &[(5, 50), (6, 61), (7, 70)]),
            Comparison::Different(at(6))
        );
    }

    /// The copy reaches later what the home's leader had at first.
    #[test]
    fn samples_of_home_wait_for_copy_that_is_behind() {
        let mut verification = Verification::default();
        verification.add_home(samples(&[(5, 50)]));
        verification.add_copy(COPY, samples(&[(3, 30)]));
        verification.add_home(samples(&[(9, 90)]));
        assert_eq!(verification.first(), Some(at(5)));
        verification.add_copy(COPY, samples(&[(5, 50), (8, 80)]));
        assert_eq!(verification.compare(COPY), Comparison::Equal(at(5)));
    }

    #[test]
    fn samples_are_bounded_and_the_oldest_go() {
        let mut verification = Verification::default();
        let all = (1..=SAMPLES_MAX as u64 + 10).map(|number| DigestSample {
            revision: at(number),
            keys: 0,
        });
        verification.add_home(all);
        assert_eq!(verification.first(), Some(at(11)));
    }
}
