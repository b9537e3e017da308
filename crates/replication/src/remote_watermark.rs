//! Remote watermark of a group: up to where the changes of the tenants that it owns are applied in another region. Answers
//! with durability `REMOTE` wait for it.
//!
//! # Invariants
//!
//! 1. An acknowledgement counts where its follower is in another region than this group, is not uncounted in the owner's
//!    record, and is attached in the epoch of that record.
//! 2. What is confirmed stays confirmed: a member that was counted leaves the replica set only once a follower that stays
//!    in another region has applied more, or with a remote floor that no promotion goes below.
//! 3. A leader counts nothing before a follower has opened a stream in its term, beyond what its log or itself has confirmed
//!    before.
//! 4. Each wait ends: confirmed, at its deadline, or when this group no longer speaks for the tenant. There are as many as
//!    there are operations that wait, which admission bounds.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use stead_raft::TypedGroup;
use stead_state::{
    directory::{Rejection, Tenant},
    shard::{apply_result::EvaluationPoint, command::ConfirmRemote, record::Role},
};
use stead_store::shard::ShardMachine;
use stead_types::{Durability, Epoch, FeedOffset, GroupId, TenantNumber};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use crate::{
    acknowledgements::Acknowledgements,
    directory_view::SharedDirectoryView,
    follower_progress::{ChangePosition, FollowerProgress},
    group_context::is_elsewhere,
};

/// How a wait for another region ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoteWait {
    /// A counted follower in another region has applied the change.
    Confirmed,
    /// None has in time.
    TimedOut,
    /// This node does not lead the group any more, or a later term has begun.
    LeaderChanged,
    /// The group does not own the tenant any more, or a fence forbids it to.
    NotOwner,
}

/// Remote watermark of the tenants that a group owns, current while this node leads the group.
pub struct RemoteWatermark {
    group: TypedGroup<ShardMachine>,
    machine: Arc<ShardMachine>,
    directory_view: SharedDirectoryView,
    acknowledgements: Arc<Acknowledgements>,
    /// Wakes waits when a tenant was relinquished.
    handovers: watch::Sender<()>,
    /// Highest log index that was found to be confirmed, of the tenants that were asked for.
    confirmed: Mutex<BTreeMap<TenantNumber, u64>>,
}

/// Followers that count, according to the owner's record.
#[derive(Clone, Debug, PartialEq, Eq)]
struct CountedIn {
    epoch: Epoch,
    uncounted: Vec<GroupId>,
    /// Log index up to which an earlier entry says that another region has everything.
    logged: u64,
}

impl CountedIn {
    /// Tells whether the acknowledgements of one follower confirm a change.
    fn is_confirmed_by(
        &self,
        group: GroupId,
        follower: &FollowerProgress,
        tenant: TenantNumber,
        change: &ChangePosition,
        is_elsewhere: bool,
    ) -> bool {
        is_elsewhere && !self.uncounted.contains(&group) && follower.has_applied(tenant, self.epoch, change)
    }
}

impl RemoteWatermark {
    pub(crate) fn new(
        group: TypedGroup<ShardMachine>,
        machine: Arc<ShardMachine>,
        directory_view: SharedDirectoryView,
        acknowledgements: Arc<Acknowledgements>,
        handovers: watch::Sender<()>,
    ) -> Self {
        Self {
            group,
            machine,
            directory_view,
            acknowledgements,
            handovers,
            confirmed: Mutex::default(),
        }
    }

    /// Checks that a tenant can have durability `REMOTE` at all.
    ///
    /// # Errors
    ///
    /// The feature level is too low, or no other region follows the tenant.
    pub fn check(&self, tenant: &Tenant) -> Result<(), Rejection> {
        self.directory_view.read(|view| {
            view.settings().check_region_loss()?;
            let is_elsewhere = |group| is_elsewhere(view, self.group.id(), group);
            if tenant.follower_groups().any(is_elsewhere) {
                Ok(())
            } else {
                Err(Rejection::RemoteAlone)
            }
        })
    }

    /// Waits until another region has applied all that an answer depends on. It is woken by acknowledgements, and by what
    /// may end it: nothing is polled.
    pub async fn wait(&self, tenant: TenantNumber, at: EvaluationPoint, until: Instant) -> RemoteWait {
        let change = self.change(at);
        let mut leadership = self.group.watch_leader();
        let term = leadership.borrow_and_update().term;
        let mut acknowledged = self.acknowledgements.watch();
        let mut views = self.directory_view.watch();
        let mut handovers = self.handovers.subscribe();
        loop {
            acknowledged.borrow_and_update();
            views.borrow_and_update();
            let Some(counted) = self.counted_in(tenant) else {
                return RemoteWait::NotOwner;
            };
            // It begins before the check, so that nothing is missed between the two.
            let mut applied = self.acknowledgements.wait_applied(tenant, counted.epoch, change);
            if self.is_confirmed_in(&counted, tenant, &change) {
                return RemoteWait::Confirmed;
            }
            let progress = async {
                match &mut applied {
                    Some(applied) => applied.woken().await,
                    // A follower has applied it whose acknowledgements do not count.
                    None => drop(acknowledged.changed().await),
                }
            };
            tokio::select! {
                () = progress => {}
                () = sleep_until(until) => return RemoteWait::TimedOut,
                _ = leadership.wait_for(|known| !known.is_here || known.term != term) => {
                    return RemoteWait::LeaderChanged;
                }
                _ = views.changed() => {}
                _ = handovers.changed() => {}
            }
        }
    }

    /// Tells whether another region has applied all that an answer depends on.
    pub fn is_confirmed(&self, tenant: TenantNumber, at: EvaluationPoint) -> bool {
        let change = self.change(at);
        let counted = self.counted_in(tenant);
        counted.is_some_and(|counted| self.is_confirmed_in(&counted, tenant, &change))
    }

    /// Returns what the log does not say yet about tenants with durability `REMOTE`: as much as one proposal takes.
    pub(crate) fn unlogged(&self, tenants_max: usize) -> Vec<ConfirmRemote> {
        let confirmed: Vec<_> = self
            .confirmed
            .lock()
            .iter()
            .map(|(tenant, index)| (*tenant, *index))
            .collect();
        let is_remote = |tenant: TenantNumber| {
            self.directory_view.read(|view| {
                let tenant = view.tenant(tenant);
                tenant.is_some_and(|tenant| tenant.durability == Durability::Remote)
            })
        };
        let unlogged = |(tenant, index): (TenantNumber, u64)| {
            let owned = self.machine.read(|held| {
                let record = held.record(tenant)?;
                let epoch = record.owned()?;
                // Of an earlier ownership the index is below the entry that began this one.
                (record.remote < index && index <= record.live.index).then_some(epoch)
            });
            let epoch = owned.ok().flatten().filter(|_| is_remote(tenant))?;
            Some(ConfirmRemote { tenant, epoch, index })
        };
        confirmed.into_iter().filter_map(unlogged).take(tenants_max).collect()
    }

    /// Returns the number of tenants of which an answer waits.
    pub fn tenants_waiting(&self) -> usize {
        self.acknowledgements.tenants_waiting()
    }

    fn change(&self, at: EvaluationPoint) -> ChangePosition {
        ChangePosition {
            revision: at.revision,
            offset: FeedOffset {
                incarnation: self.group.incarnation(),
                index: at.index,
            },
        }
    }

    fn is_confirmed_in(&self, counted: &CountedIn, tenant: TenantNumber, change: &ChangePosition) -> bool {
        let index = change.offset.index;
        let known = self.confirmed.lock().get(&tenant).copied().unwrap_or(0);
        if index <= counted.logged.max(known) {
            return true;
        }
        let group = self.group.id();
        let elsewhere = |other| self.directory_view.read(|view| is_elsewhere(view, group, other));
        let is_confirmed = self
            .acknowledgements
            .any(|other, follower| counted.is_confirmed_by(other, follower, tenant, change, elsewhere(other)));
        if is_confirmed {
            let mut confirmed = self.confirmed.lock();
            let known = confirmed.entry(tenant).or_default();
            *known = index.max(*known);
        }
        is_confirmed
    }

    /// Returns who counts for a tenant that this group speaks for; `None` if it does not.
    fn counted_in(&self, tenant: TenantNumber) -> Option<CountedIn> {
        let record = self.machine.read(|held| {
            let record = held.record(tenant)?;
            // A change before the handover may be confirmed after it.
            let speaks = matches!(record.role, Role::Owner | Role::Relinquished { .. });
            speaks.then(|| CountedIn {
                epoch: record.epoch,
                uncounted: record.uncounted.clone(),
                logged: record.remote,
            })
        });
        let counted = record.ok().flatten()?;
        let fence = self
            .directory_view
            .read(|view| view.tenant(tenant).map_or(Epoch::MAX, |tenant| tenant.fence()));
        (fence <= counted.epoch).then_some(counted)
    }
}

#[cfg(test)]
mod tests {
    use stead_state::shard::record::AttachNumber;
    use stead_types::{Incarnation, Revision, Sequence};

    use super::*;
    use crate::{acknowledgements::StreamOpening, wire::TenantPosition};

    const T: TenantNumber = TenantNumber::new(7);
    const U: TenantNumber = TenantNumber::new(8);
    const FAR: GroupId = GroupId::new(2);

    fn offset(index: u64) -> FeedOffset {
        FeedOffset {
            incarnation: Incarnation::FIRST,
            index,
        }
    }

    fn revision(sequence: u64) -> Revision {
        Revision::new(Epoch::FIRST, Sequence::new(sequence).unwrap())
    }

    fn change(sequence: u64, index: u64) -> ChangePosition {
        ChangePosition {
            revision: revision(sequence),
            offset: offset(index),
        }
    }

    /// Returns a follower that was attached at a sequence, in an epoch, and has acknowledged an offset.
    fn follower(index: u64, attached_at: u64, epoch: Epoch) -> FollowerProgress {
        let acknowledgements = Acknowledgements::default();
        let (stream, _replaced) = acknowledgements.open_stream(StreamOpening {
            follower: FAR,
            term: 1,
            offset: offset(index),
            attached: BTreeMap::new(),
            detached: BTreeMap::new(),
        });
        let attached = TenantPosition {
            tenant: T,
            epoch,
            revision: revision(attached_at),
            attach: AttachNumber(1),
            seed: None,
        };
        acknowledgements.update(FAR, stream, |follower| {
            follower.acknowledge(offset(index), &[attached], &[]);
        });
        acknowledgements.of(FAR).unwrap()
    }

    /// Invariant 1.
    #[test]
    fn only_counted_follower_elsewhere_in_same_epoch_confirms() {
        let counted = CountedIn {
            epoch: Epoch::FIRST,
            uncounted: Vec::new(),
            logged: 0,
        };
        let far = follower(50, 3, Epoch::FIRST);
        let confirms = |counted: &CountedIn, follower: &FollowerProgress, change, elsewhere| {
            counted.is_confirmed_by(FAR, follower, T, &change, elsewhere)
        };
        assert!(confirms(&counted, &far, change(9, 50), true));
        assert!(!confirms(&counted, &far, change(9, 51), true), "it has not applied it");
        assert!(confirms(&counted, &far, change(3, 60), true), "it was attached with it");
        assert!(!confirms(&counted, &far, change(9, 50), false), "in the home's region");
        let uncounted = CountedIn {
            uncounted: vec![FAR],
            ..counted
        };
        assert!(!confirms(&uncounted, &far, change(9, 50), true), "it leaves");
        let later = CountedIn {
            epoch: Epoch::new(2).unwrap(),
            ..counted.clone()
        };
        assert!(
            !confirms(&later, &far, change(9, 50), true),
            "attached in an epoch before"
        );
        assert!(
            !counted.is_confirmed_by(FAR, &far, U, &change(1, 1), true),
            "not attached"
        );
        let mut detached = far;
        detached.detach(T, Some((Epoch::FIRST, revision(9))));
        assert!(!confirms(&counted, &detached, change(9, 50), true), "detached");
    }
}
