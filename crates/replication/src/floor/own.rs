//! Tenants with limits of history of their own: what each of them keeps.
//!
//! Only what was touched and has such limits is looked at, until nothing of its past is left that could go.
//!
//! # Invariants
//!
//! 1. A floor does not pass what a follower of the tenant has not got yet, but for what the limits of the group give up.
//! 2. A floor does not go back.
//! 3. What is known of one tenant's entries is bounded by [`PIECES_MAX`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use stead_state::{
    directory,
    rows::{Unreadable, feed::Touched},
    shard::read::Reading,
};
use stead_types::{GroupId, Revision, Sequence, TenantLimit, TenantNumber, TenantTime};

use crate::source::acknowledged::Follower;

/// Most pieces of a tenant's entries that a follower has not got; beyond it two become one.
const PIECES_MAX: usize = 256;

/// What a tenant wants kept, and for whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// How long, in milliseconds; else as long as the group keeps what it needs for nobody.
    pub(super) age_ms: Option<u64>,
    /// How many of the newest revisions at most.
    pub(super) count: Option<u64>,
    /// The groups that follow it.
    pub(super) followers: Vec<GroupId>,
}

impl Wanted {
    /// Returns what a tenant wants, if that is not what all others do.
    pub(super) fn of(tenant: &directory::Tenant) -> Option<Self> {
        let limits = tenant.limits.as_deref()?;
        let age_ms = limits.get(TenantLimit::HistoryAge);
        let count = limits.get(TenantLimit::HistoryCount);
        (age_ms.is_some() || count.is_some()).then(|| Self {
            age_ms,
            count,
            followers: tenant.follower_groups().collect(),
        })
    }
}

/// From when on the group keeps the past, as logged time in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeptFrom {
    /// Now, less the age that a tenant wants kept, is counted from here.
    pub(super) now: u64,
    /// Of what nobody needs.
    pub(super) unneeded: u64,
    /// Of what a follower needs.
    pub(super) needed: u64,
}

/// The tenants of a home that have limits of their own.
#[derive(Debug, Default)]
pub(super) struct Own {
    tenants: BTreeMap<TenantNumber, Kept>,
    /// Those of whose past something may go yet.
    active: BTreeSet<TenantNumber>,
}

#[derive(Debug)]
struct Kept {
    wanted: Wanted,
    /// It has no limits of its own any more, and is forgotten when its past is as the group keeps it.
    is_leaving: bool,
    /// Its entries that a follower may not have got, in their order.
    pieces: VecDeque<Piece>,
}

/// Some entries that follow one another, as far as one tenant is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    /// Index of the last entry.
    index: u64,
    /// The first change.
    first: Sequence,
}

impl Own {
    /// Takes over what tenants want from a new view, when entries up to `seen` have been taken in: which of them touched
    /// a tenant that is new here is not known, so all may have.
    pub(super) fn want(&mut self, mut wanted: BTreeMap<TenantNumber, Wanted>, seen: u64) {
        let all = || {
            let first = Sequence::ZERO;
            VecDeque::from([Piece { index: seen, first }])
        };
        for (tenant, kept) in &mut self.tenants {
            let now = wanted.remove(tenant);
            kept.is_leaving = now.is_none();
            let now = now.unwrap_or_else(|| Wanted {
                followers: kept.wanted.followers.clone(),
                ..Wanted::default()
            });
            if now.followers != kept.wanted.followers {
                kept.pieces = all();
            }
            if now != kept.wanted {
                self.active.insert(*tenant);
            }
            kept.wanted = now;
        }
        for (tenant, wanted) in wanted {
            let kept = Kept {
                wanted,
                is_leaving: false,
                pieces: all(),
            };
            self.tenants.insert(tenant, kept);
            self.active.insert(tenant);
        }
    }

    /// Notes what an entry has touched.
    pub(super) fn touched(&mut self, index: u64, touched: &[Touched]) {
        if self.tenants.is_empty() {
            return;
        }
        for touched in touched {
            if let Some(kept) = self.tenants.get_mut(&touched.tenant) {
                kept.add(Piece {
                    index,
                    first: touched.first,
                });
                self.active.insert(touched.tenant);
            }
        }
    }

    /// Returns those to be looked at.
    pub(super) fn active(&self) -> Vec<TenantNumber> {
        self.active.iter().copied().collect()
    }

    /// Returns the floor that a tenant should have: at least the one that it has. With the tenant comes its last change
    /// as of the entries that were noted.
    pub(super) fn floor(
        &mut self,
        (tenant, last): (TenantNumber, Sequence),
        reading: &Reading<'_>,
        followers: &BTreeMap<GroupId, Option<Follower>>,
        from: KeptFrom,
    ) -> Result<Revision, Unreadable> {
        let floor = reading.state().floor;
        let Some(kept) = self.tenants.get_mut(&tenant) else {
            self.active.remove(&tenant);
            return Ok(floor);
        };
        let acknowledged = kept.acknowledged(tenant, last, followers);
        let unwanted_ms = kept
            .wanted
            .age_ms
            .map_or(from.unneeded, |age| from.now.saturating_sub(age));
        let mut target = reading.last_before(floor, TenantTime(unwanted_ms.max(from.needed)))?;
        if let Some(count) = kept.wanted.count {
            target = target.max(reading.revision_of(newest(last, count))?);
        }
        if target.sequence() > acknowledged {
            target = reading.revision_of(acknowledged)?;
        }
        let given_up = reading.last_before(floor, TenantTime(from.needed))?;
        let moved = target.max(given_up).max(floor);
        kept.forget(acknowledged.max(moved.sequence()), last);
        if moved.sequence() >= last {
            self.active.remove(&tenant);
            if kept.is_leaving {
                self.tenants.remove(&tenant);
            }
        }
        Ok(moved)
    }

    /// Looks at a tenant again although nothing has touched it.
    pub(super) fn again(&mut self, tenant: TenantNumber) {
        if self.tenants.contains_key(&tenant) {
            self.active.insert(tenant);
        }
    }

    /// Forgets to look at a tenant that is not held here any more.
    pub(super) fn rest(&mut self, tenant: TenantNumber) {
        self.active.remove(&tenant);
    }
}

impl Kept {
    fn add(&mut self, piece: Piece) {
        if self.pieces.len() >= PIECES_MAX {
            let pieces = std::mem::take(&mut self.pieces);
            let pairs = pieces.into_iter().collect::<Vec<_>>();
            self.pieces = pairs.chunks(2).map(together).collect();
        }
        self.pieces.push_back(piece);
    }

    /// Returns the last change that every follower has, of those up to `last`.
    fn acknowledged(
        &self,
        tenant: TenantNumber,
        last: Sequence,
        followers: &BTreeMap<GroupId, Option<Follower>>,
    ) -> Sequence {
        let has = |group: &GroupId| {
            let known = followers.get(group).and_then(Option::as_ref);
            let Some(known) = known.filter(|known| known.knows(tenant)) else {
                // Where it is will be known once its stream is open.
                return Sequence::ZERO;
            };
            match known.detached.get(&tenant) {
                Some((_, revision)) => revision.sequence(),
                None => {
                    let missing = self.pieces.iter().find(|piece| piece.index > known.offset.index);
                    missing.map_or(last, |piece| before(piece.first))
                }
            }
        };
        self.wanted.followers.iter().map(has).fold(last, Sequence::min)
    }

    /// Forgets the entries up to a change: every follower has them, or they are gone.
    fn forget(&mut self, up_to: Sequence, last: Sequence) {
        while !self.pieces.is_empty() {
            let end = self.pieces.get(1).map_or(last, |next| before(next.first));
            if end > up_to {
                return;
            }
            self.pieces.pop_front();
        }
    }
}

fn before(sequence: Sequence) -> Sequence {
    Sequence::new(sequence.get().saturating_sub(1)).unwrap_or(Sequence::ZERO)
}

fn together(pair: &[Piece]) -> Piece {
    Piece {
        index: pair[pair.len() - 1].index,
        first: pair[0].first,
    }
}

/// Returns the first of the newest `count` changes.
fn newest(last: Sequence, count: u64) -> Sequence {
    Sequence::new((last.get() + 1).saturating_sub(count)).unwrap_or(Sequence::ZERO)
}

#[cfg(test)]
mod tests {
    use stead_types::{Epoch, FeedOffset, Incarnation};

    use super::*;
    use crate::source::{acknowledged::Acknowledged, sessions::Attempt};
    use stead_state::shard::record::AttachNumber;

    const T: TenantNumber = TenantNumber::new(7);
    const F: [GroupId; 2] = [GroupId::new(2), GroupId::new(3)];

    fn sequence(number: u64) -> Sequence {
        Sequence::new(number).unwrap()
    }

    fn kept(pieces: impl IntoIterator<Item = (u64, u64)>) -> Kept {
        let mut kept = Kept {
            wanted: Wanted {
                followers: F.into(),
                ..Wanted::default()
            },
            is_leaving: false,
            pieces: VecDeque::new(),
        };
        for (index, first) in pieces {
            let first = sequence(first);
            kept.add(Piece { index, first });
        }
        kept
    }

    enum Where {
        Attached(u64),
        Detached(u64),
        Unknown,
    }

    fn follower(position: Where) -> Option<Follower> {
        let acknowledged = Acknowledged::default();
        acknowledged.leads(1);
        let offset = |index| FeedOffset {
            incarnation: Incarnation::FIRST,
            index,
        };
        let attempt = Attempt {
            epoch: Epoch::FIRST,
            number: AttachNumber(1),
        };
        let (offset, attached, detached) = match position {
            Where::Attached(index) => (offset(index), [(T, attempt)].into(), BTreeMap::new()),
            Where::Detached(at) => {
                let at = (Epoch::FIRST, Revision::new(Epoch::FIRST, sequence(at)));
                (offset(1_000), BTreeMap::new(), [(T, at)].into())
            }
            Where::Unknown => (offset(1_000), BTreeMap::new(), BTreeMap::new()),
        };
        acknowledged.opened((F[0], 1), offset, attached, detached);
        acknowledged.of(F[0])
    }

    /// Invariant 1.
    #[test]
    fn what_all_followers_have_is_what_the_one_has_that_is_furthest_behind() {
        let kept = kept([(10, 1), (20, 4), (30, 9)]);
        let has = |a, b| {
            let followers = [(F[0], follower(a)), (F[1], follower(b))].into();
            kept.acknowledged(T, sequence(12), &followers).get()
        };
        assert_eq!(has(Where::Attached(30), Where::Attached(99)), 12);
        assert_eq!(
            has(Where::Attached(29), Where::Attached(99)),
            8,
            "not the entry of its offset's successor"
        );
        assert_eq!(has(Where::Attached(20), Where::Attached(10)), 3);
        assert_eq!(has(Where::Attached(9), Where::Attached(30)), 0);
        assert_eq!(
            has(Where::Attached(30), Where::Detached(5)),
            5,
            "its own position counts, not the offset"
        );
        assert_eq!(has(Where::Unknown, Where::Attached(30)), 0);
        let one = [(F[0], follower(Where::Attached(30)))].into();
        assert_eq!(
            kept.acknowledged(T, sequence(12), &one).get(),
            0,
            "nothing is known of the other one"
        );
    }

    #[test]
    fn what_is_gone_or_acknowledged_is_forgotten() {
        let mut kept = kept([(10, 1), (20, 4), (30, 9)]);
        for (up_to, left) in [(2, 3), (3, 2), (7, 2), (8, 1), (11, 1), (12, 0)] {
            kept.forget(sequence(up_to), sequence(12));
            assert_eq!(kept.pieces.len(), left, "up to {up_to}");
        }
    }

    /// Invariant 3.
    #[test]
    fn what_a_follower_lacks_is_known_more_coarsely_the_more_it_is() {
        let kept = kept((1..=100_000).map(|number| (10 * number, number)));
        assert!(kept.pieces.len() <= PIECES_MAX, "{}", kept.pieces.len());
        let at = |index| {
            [
                (F[0], follower(Where::Attached(index))),
                (F[1], follower(Where::Attached(u64::MAX))),
            ]
            .into()
        };
        for index in [0, 9, 5_000, 999_990, 1_000_000] {
            let has = kept.acknowledged(T, sequence(100_000), &at(index)).get();
            assert!(has <= index / 10, "{has} of {}", index / 10);
        }
        assert_eq!(kept.acknowledged(T, sequence(100_000), &at(1_000_000)).get(), 100_000);
    }
}
