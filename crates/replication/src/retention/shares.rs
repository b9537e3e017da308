//! Shares of tenants in the history that a group keeps: where it is more than the group's bound, the loudest give way first.
//!
//! # Invariants
//!
//! 1. A tenant with less history than an equal share of the bound is not affected by what others write.
//! 2. What is kept for quiet tenants and the share of the loud ones are together no more than the bound.
//! 3. What is known of tenants is bounded by [`TENANTS_MAX`]; those beyond it count as loud.

use std::collections::{BTreeMap, BTreeSet};

use stead_state::rows::feed::TouchedTenant;
use stead_types::TenantNumber;

/// Most tenants whose history is metered.
const TENANTS_MAX: usize = 10_000;

/// Bytes of history by tenant, of a period and the one before it.
#[derive(Debug, Default)]
pub(super) struct HistoryMeters {
    tenants: BTreeMap<TenantNumber, [u64; 2]>,
    /// Number of the running period.
    period: u64,
    /// A tenant beyond the bound has written.
    is_full: bool,
}

/// Shares at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct HistoryShares {
    /// Tenants whose history is kept as if they were alone.
    pub(super) quiet: BTreeSet<TenantNumber>,
    /// Bytes that are kept for the others together; the whole bound where there are none.
    pub(super) left: u64,
}

impl HistoryMeters {
    /// Adds the bytes of an entry, shared out evenly over the changes in it; `period` is the length of a period in
    /// milliseconds.
    pub(super) fn add(&mut self, time_ms: u64, len: u64, touched: &[TouchedTenant], period: u64) {
        self.turn(time_ms / period.max(1));
        let changes = |touched: &TouchedTenant| touched.last.get().saturating_sub(touched.first.get()) + 1;
        let all: u64 = touched.iter().map(changes).sum();
        for touched in touched {
            let share = u128::from(len) * u128::from(changes(touched)) / u128::from(all.max(1));
            let share = u64::try_from(share).unwrap_or(u64::MAX);
            if self.tenants.len() >= TENANTS_MAX && !self.tenants.contains_key(&touched.tenant) {
                self.is_full = true;
                continue;
            }
            let [now, _] = self.tenants.entry(touched.tenant).or_default();
            *now = now.saturating_add(share);
        }
    }

    /// Begins a period, if it is a later one.
    fn turn(&mut self, period: u64) {
        let Some(passed) = period.checked_sub(self.period).filter(|passed| *passed > 0) else {
            return;
        };
        self.period = period;
        self.is_full = false;
        self.tenants.retain(|_, [now, before]| {
            *before = if passed == 1 { *now } else { 0 };
            *now = 0;
            *before > 0
        });
    }

    /// Shares out a bound of so many bytes.
    pub(super) fn shares(&self, bound: u64) -> HistoryShares {
        let mut lens: Vec<(u64, TenantNumber)> = self
            .tenants
            .iter()
            .map(|(tenant, [now, before])| (now.saturating_add(*before), *tenant))
            .collect();
        lens.sort_unstable();
        // Those that are not metered are one more, which takes all that it gets.
        let count = lens.len() + usize::from(self.is_full);
        let mut shares = HistoryShares {
            left: bound,
            ..HistoryShares::default()
        };
        for (place, (len, tenant)) in lens.into_iter().enumerate() {
            if shares.left / (count - place) as u64 <= len {
                break;
            }
            shares.left -= len;
            shares.quiet.insert(tenant);
        }
        if shares.quiet.len() == count {
            shares.left = bound;
        }
        shares
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng, rngs::SmallRng};
    use stead_types::{Epoch, Sequence};

    use super::*;

    const PERIOD: u64 = 1_000;

    fn touched(tenant: u64, changes: u64) -> TouchedTenant {
        TouchedTenant {
            tenant: TenantNumber::new(tenant),
            epoch: Epoch::FIRST,
            first: Sequence::new(1).unwrap(),
            last: Sequence::new(changes).unwrap(),
        }
    }

    fn quiet(meters: &HistoryMeters, bound: u64) -> Vec<u64> {
        meters.shares(bound).quiet.into_iter().map(TenantNumber::get).collect()
    }

    #[test]
    fn loudest_gives_way_first() {
        let mut meters = HistoryMeters::default();
        for (tenant, len) in [(1, 160), (2, 5), (3, 30), (4, 30)] {
            meters.add(10, len, &[touched(tenant, 1)], PERIOD);
        }
        assert_eq!(quiet(&meters, 1_000), [1, 2, 3, 4]);
        let shares = meters.shares(100);
        assert_eq!(
            shares.quiet.into_iter().map(TenantNumber::get).collect::<Vec<_>>(),
            [2, 3, 4]
        );
        assert_eq!(shares.left, 35);
        assert_eq!(quiet(&meters, 60), [2], "two of equal size give way together");
        assert_eq!(quiet(&meters, 4), [0; 0]);
    }

    #[test]
    fn entry_is_shared_out_by_changes_and_forgotten_after_two_periods() {
        let mut meters = HistoryMeters::default();
        meters.add(10, 100, &[touched(1, 9), touched(2, 1)], PERIOD);
        assert_eq!(
            meters.tenants.values().map(|lens| lens[0]).collect::<Vec<_>>(),
            [90, 10]
        );
        meters.add(1_010, 5, &[touched(3, 1)], PERIOD);
        assert_eq!(meters.shares(104).left, 89);
        assert_eq!(meters.shares(106).left, 106, "nobody is loud");
        meters.add(2_010, 5, &[touched(3, 1)], PERIOD);
        assert_eq!(quiet(&meters, 11), [3]);
        meters.add(9_010, 1, &[touched(4, 1)], PERIOD);
        assert_eq!(quiet(&meters, 100), [4]);
    }

    #[test]
    fn meters_are_bounded() {
        let mut meters = HistoryMeters::default();
        for tenant in 0..2 * TENANTS_MAX as u64 {
            meters.add(10, 1, &[touched(tenant, 1)], PERIOD);
        }
        assert_eq!(meters.tenants.len(), TENANTS_MAX);
        assert_eq!(meters.shares(1 << 30).quiet.len(), TENANTS_MAX);
    }

    /// Invariants 1 and 2.
    #[test]
    fn shares_are_fair() {
        let mut rng = SmallRng::seed_from_u64(10);
        for _ in 0..2_000 {
            let lens: Vec<u64> = (0..rng.random_range(1..20))
                .map(|_| rng.random_range(1..1_000))
                .collect();
            let bound = rng.random_range(1..10_000);
            let mut meters = HistoryMeters::default();
            for (tenant, len) in lens.iter().enumerate() {
                meters.add(10, *len, &[touched(tenant as u64, 1)], PERIOD);
            }
            let shares = meters.shares(bound);
            let of = |tenant: &TenantNumber| lens[usize::try_from(tenant.get()).unwrap()];
            let kept: u64 = shares.quiet.iter().map(of).sum();
            if shares.quiet.len() == lens.len() {
                assert!(kept <= bound, "{lens:?} {bound}");
            } else {
                assert_eq!(kept + shares.left, bound, "{lens:?} {bound}");
            }
            for (tenant, len) in lens.iter().enumerate() {
                let is_small = *len < bound / lens.len() as u64;
                let is_quiet = shares.quiet.contains(&TenantNumber::new(tenant as u64));
                assert!(is_quiet || !is_small, "{lens:?} {bound}");
            }
        }
    }
}
