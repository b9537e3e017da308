//! Holder of leases: the attempts and leases of one voter node.
//!
//! Several leases are held at once, each for itself: one that counts, and later ones whose version the view has not
//! reached. If only the newest of those were kept, a view that lags by more than the time between two renewals would
//! never reach the version of any.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use stead_types::{DirectoryVersion, Epoch, GroupId, TenantNumber};

use super::{
    AttemptNumber, LeaseAnswer, Renewal,
    clock::NodeTime,
    pair::{Attempt, LeasePair, Standing},
};
use crate::serving::{BootTime, Lease, ServingState};

/// Most attempts whose answers are awaited: an older one is forgotten.
pub const ATTEMPTS_MAX: usize = 16;
/// Most leases that are held: twice as many as are renewed within one ttl.
pub const LEASES_MAX: usize = 8;
/// Renewals within one ttl.
pub const RENEWALS_PER_TTL: u32 = 4;

/// Leases of one voter node, and the attempts to renew them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LeaseHolder {
    last_attempt: u64,
    attempts: BTreeMap<AttemptNumber, Attempt>,
    /// In the order of their attempts.
    leases: Vec<LeasePair>,
    renewal: Option<LatestRenewal>,
    /// End of the last lease of each group that has counted and is over.
    ended: BTreeMap<GroupId, BootTime>,
}

/// The latest attempt that was answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct LatestRenewal {
    number: AttemptNumber,
    due: BootTime,
    groups: BTreeSet<GroupId>,
}

/// Lease that counts by the view: it permits more than serving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FullLease {
    /// Boot clock when it was asked for. A reconciler proposes only under one that was asked for after its leadership
    /// began.
    pub asked: BootTime,
    /// Time that is left of it.
    pub left: Duration,
    /// Version as of which it was granted.
    pub version: DirectoryVersion,
}

/// Directory entry, in a node's view, of a tenant that one of its groups is asked to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServedTenant {
    /// The group.
    pub group: GroupId,
    /// The tenant.
    pub tenant: TenantNumber,
    /// Fence of the view.
    pub fence: Epoch,
    /// Version of the view in which the fence was read.
    pub view: DirectoryVersion,
}

impl LeaseHolder {
    /// Begins an attempt. To be called with clocks that were read before it is sent: its lease counts from here
    /// (protocol.md "Leases", rule 1).
    pub fn begin(&mut self, now: NodeTime, view: DirectoryVersion, groups: BTreeSet<GroupId>) -> Renewal {
        self.last_attempt += 1;
        let renewal = Renewal {
            attempt: AttemptNumber(self.last_attempt),
            view,
            groups,
        };
        self.attempts.insert(renewal.attempt, Attempt::new(now, &renewal));
        if self.attempts.len() > ATTEMPTS_MAX {
            self.attempts.pop_first();
        }
        renewal
    }

    /// Takes an answer. One of an unknown or forgotten attempt is ignored. Returns whether it was taken.
    pub fn answer(&mut self, answer: LeaseAnswer) -> bool {
        let Some(attempt) = self.attempts.remove(&answer.attempt) else {
            return false;
        };
        let is_latest = |latest: &LatestRenewal| latest.number < answer.attempt;
        if self.renewal.as_ref().is_none_or(is_latest) {
            self.renewal = Some(LatestRenewal {
                number: answer.attempt,
                due: attempt.begun.boot.after(answer.ttl / RENEWALS_PER_TTL),
                groups: attempt.groups.clone(),
            });
        }
        let lease = LeasePair::new(attempt, answer);
        let at = self.leases.partition_point(|held| held.number < lease.number);
        self.leases.insert(at, lease);
        // The oldest ones stay, since a view reaches their versions first.
        if self.leases.len() > LEASES_MAX {
            self.leases.remove(LEASES_MAX - 1);
        }
        true
    }

    /// Drops everything if the clocks point to a pause since a lease was asked for (rule 6): also the attempts under
    /// way, which were begun before it. Then the next renewal is due at once. Returns whether leases were dropped.
    pub fn observe(&mut self, now: NodeTime) -> bool {
        let asked = self.leases.iter().map(|lease| lease.attempt.begun);
        let is_paused = asked.into_iter().any(|begun| now.shows_pause_since(begun));
        if is_paused {
            self.attempts.clear();
            self.renewal = None;
        }
        // Nearly always nothing is over.
        if self.leases.iter().any(|lease| is_paused || lease.expiry <= now.boot) {
            self.end_leases(now, is_paused);
        }
        is_paused
    }

    /// Removes the leases that are over, or all, and keeps when each group's last one ended.
    fn end_leases(&mut self, now: NodeTime, are_all_over: bool) {
        let is_over = |lease: &mut LeasePair| are_all_over || lease.expiry <= now.boot;
        for lease in self.leases.extract_if(.., is_over).filter(|lease| lease.has_counted) {
            let ended = lease.expiry.min(now.boot);
            for group in lease.attempt.groups {
                let last = self.ended.entry(group).or_insert(ended);
                *last = ended.max(*last);
            }
        }
    }

    /// Returns the boot clock at which a renewal for these groups is due: a quarter of the ttl after the latest one
    /// that was answered, at once if there is none or if it did not name all of the groups.
    pub fn renew_at(&self, groups: &BTreeSet<GroupId>) -> BootTime {
        let covers = |latest: &&LatestRenewal| groups.is_subset(&latest.groups);
        let latest = self.renewal.as_ref().filter(covers);
        latest.map_or(BootTime(0), |latest| latest.due)
    }

    /// Returns the input of the serving check (rule 4), after the state was read or the write applied. The clocks must
    /// be read after the view.
    pub fn serving_state(&mut self, now: NodeTime, served: ServedTenant, leader_confirmed: bool) -> ServingState {
        self.observe(now);
        let named = self.of_group(served.group);
        let best = named.max_by_key(|lease| (lease.standing(served.view) > Standing::Pending, lease.expiry));
        let early = best.filter(|lease| lease.standing(served.view) == Standing::Early);
        ServingState {
            leader_confirmed,
            lease: best.map_or(Lease::Absent, LeasePair::as_lease),
            view_version: early.map_or(served.view, |lease| lease.version),
            now: now.boot,
            fence_epoch: early.map_or(served.fence, |lease| lease.fence(served.tenant, served.fence)),
        }
    }

    /// Returns the best lease for a group that counts by a view of this version. Only such a one permits proposals and
    /// answers to pings (rule 3).
    pub fn full_lease(&mut self, now: NodeTime, view: DirectoryVersion, group: GroupId) -> Option<FullLease> {
        self.observe(now);
        let counting = self
            .of_group(group)
            .filter(|lease| lease.standing(view) == Standing::Full);
        let best = counting.max_by_key(|lease| lease.expiry)?;
        Some(FullLease {
            asked: best.attempt.begun.boot,
            left: best.left(now.boot),
            version: best.version,
        })
    }

    /// Returns the time for which a group may still be served with a view of this version; zero without a lease.
    pub fn left(&mut self, now: NodeTime, view: DirectoryVersion, group: GroupId) -> Duration {
        self.observe(now);
        let named = self.leases.iter_mut();
        let named = named.filter(|lease| lease.attempt.groups.contains(&group));
        let counting = named.filter(|lease| lease.standing(view) > Standing::Pending);
        let left = counting.map(|lease| {
            lease.has_counted = true;
            lease.left(now.boot)
        });
        left.max().unwrap_or_default()
    }

    /// Returns when the last lease of a group that had counted ended; `None` if none has. It is over only if none counts
    /// now.
    pub fn last_end(&self, group: GroupId) -> Option<BootTime> {
        self.ended.get(&group).copied()
    }

    /// Returns the leases whose attempts named a group: the directory has noted no other as granted to a voter of it.
    fn of_group(&self, group: GroupId) -> impl Iterator<Item = &LeasePair> {
        self.leases
            .iter()
            .filter(move |lease| lease.attempt.groups.contains(&group))
    }
}
