//! Reads that wait for a revision of their tenant, woken by it alone: the entries of other tenants of the group wake none
//! of them.
//!
//! The number of reads that wait is bounded by their tenants' operations in flight.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc};

use parking_lot::Mutex;
use stead_types::{GroupId, Revision, TenantNumber};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::host::HostedGroup;

type WaitKey = (GroupId, TenantNumber);

/// Tenants of a node's groups for whose revisions reads wait.
#[derive(Debug, Default)]
pub(crate) struct RevisionWaits {
    tenants: Mutex<BTreeMap<WaitKey, watch::Sender<Revision>>>,
    /// Notified when a tenant was added, one task a group.
    added: Mutex<BTreeMap<GroupId, Arc<Notify>>>,
}

/// A read that waits.
pub(super) struct RevisionWait {
    waits: Arc<RevisionWaits>,
    key: WaitKey,
    revision: watch::Receiver<Revision>,
}

impl RevisionWait {
    /// Waits until the tenant's copy has another revision than at the last call.
    pub(super) async fn changed(&mut self) {
        // The sender lives as long as there is a receiver.
        self.revision.changed().await.ok();
    }
}

impl Drop for RevisionWait {
    fn drop(&mut self) {
        let mut tenants = self.waits.tenants.lock();
        if tenants
            .get(&self.key)
            .is_some_and(|revision| revision.receiver_count() == 1)
        {
            tenants.remove(&self.key);
        }
    }
}

impl RevisionWaits {
    /// Begins to wait: whatever is applied from now on wakes the read.
    pub(super) fn begin(self: &Arc<Self>, group: GroupId, tenant: TenantNumber) -> RevisionWait {
        let key = (group, tenant);
        let revision = {
            let mut tenants = self.tenants.lock();
            let new = || watch::Sender::new(Revision::ZERO);
            tenants.entry(key).or_insert_with(new).subscribe()
        };
        self.added_to(group).notify_one();
        RevisionWait {
            waits: self.clone(),
            key,
            revision,
        }
    }

    fn added_to(&self, group: GroupId) -> Arc<Notify> {
        self.added.lock().entry(group).or_default().clone()
    }

    /// Wakes the reads of one group until the token fires.
    pub(crate) async fn run(self: Arc<Self>, hosted: HostedGroup, stop: CancellationToken) -> Result<(), Infallible> {
        let added = self.added_to(hosted.raft.id());
        let mut applied = hosted.raft.applied();
        loop {
            applied.borrow_and_update();
            let next = async {
                if self.wake(&hosted) {
                    tokio::select! {
                        changed = applied.changed() => changed.is_ok(),
                        () = added.notified() => true,
                    }
                } else {
                    added.notified().await;
                    true
                }
            };
            tokio::select! {
                goes_on = next => if !goes_on { return Ok(()) },
                () = stop.cancelled() => return Ok(()),
            }
        }
    }

    /// Tells waiting reads of a group the revisions of their tenants; returns whether there are any.
    fn wake(&self, hosted: &HostedGroup) -> bool {
        let group = hosted.raft.id();
        let whole = (group, TenantNumber::new(0))..=(group, TenantNumber::new(u64::MAX));
        let waiting: Vec<TenantNumber> = {
            let tenants = self.tenants.lock();
            tenants.range(whole).map(|((_, tenant), _)| *tenant).collect()
        };
        // A node whose rows cannot be read is about to stop.
        let revisions = hosted.machine.read(|view| {
            let revision = |tenant: &TenantNumber| view.record(*tenant).map(|record| record.live.revision);
            waiting.iter().map(revision).collect::<Vec<_>>()
        });
        let tenants = self.tenants.lock();
        for (tenant, revision) in waiting.iter().zip(revisions.into_iter().flatten()) {
            if let (Some(sender), Some(revision)) = (tenants.get(&(group, *tenant)), revision) {
                sender.send_if_modified(|known| std::mem::replace(known, revision) != revision);
            }
        }
        !waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn tenant_is_forgotten_with_its_last_read() {
        let waits = Arc::new(RevisionWaits::default());
        let (group, tenant) = (GroupId::new(1), TenantNumber::new(7));
        let mut one = waits.begin(group, tenant);
        let mut two = waits.begin(group, tenant);
        let other = waits.begin(group, TenantNumber::new(8));
        waits.tenants.lock()[&(group, tenant)].send_replace("1.4".parse().unwrap());
        assert!(one.changed().now_or_never().is_some());
        assert!(one.changed().now_or_never().is_none());
        drop((one, other));
        assert!(two.changed().now_or_never().is_some());
        assert_eq!(waits.tenants.lock().len(), 1);
        drop(two);
        assert!(waits.tenants.lock().is_empty());
    }
}
