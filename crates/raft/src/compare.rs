//! How replicas of a group that differ are found, told and repaired.
//!
//! Each voter asks the others for the digest that its machine took last, and decides for itself: it believes a majority of
//! all voters and nobody else.
//!
//! ```text
//!   own digest = a majority's, all others too   ──> nothing
//!   own digest = a majority's, another is not   ──> told; that voter will find the same
//!   a majority's is another one                 ──> this node ends; its rows are set aside, and come back by a snapshot
//!   no digest is a majority's                   ──> told; nothing can be believed
//!   some differ, and too few have answered      ──> told; who is right is known when the others are back
//! ```
//!
//! # Invariants
//!
//! 1. Only a voter of the minority gives up its rows, so that those of a majority are always there.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use stead_store::digests::StateDigest;
use stead_store::health::{Failure, Rebuild};
use stead_types::NodeId;
use tokio::time::{MissedTickBehavior, interval};

use crate::member::Member;
use crate::network::Network;

/// Between two looks whether there is a digest to compare: digests are taken half as often.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// This replica differs from a majority of its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "after entry {index} the rows of this node differ from those of a majority of the voters: they are set aside, and at the \
     next start come back from another voter"
)]
struct RowsDiffer {
    index: u64,
}

/// What the voters' digests after one entry say.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// A majority has this voter's, and so have all that have answered.
    Equal,
    /// A majority has this voter's; these have not.
    OthersDiffer(BTreeSet<NodeId>),
    /// A majority has another one.
    OwnDiffers,
    /// All have answered, and no majority has the same.
    NobodyIsRight,
    /// Some have another one, and too few have answered to tell who is right.
    Undecided,
    /// Too few have answered, and none differs.
    Unheard,
}

/// Judges this voter's digest by those of the others; `None` of one that has none after that entry, or did not answer.
fn verdict(own: u128, others: &[(NodeId, Option<u128>)]) -> Verdict {
    let voters = others.len() + 1;
    let majority = voters / 2 + 1;
    let with = |digest: u128| others.iter().filter(|(_, other)| *other == Some(digest)).count();
    if with(own) + 1 >= majority {
        let differs = |(node, other): &(NodeId, Option<u128>)| other.is_some_and(|other| other != own).then_some(*node);
        let others: BTreeSet<NodeId> = others.iter().filter_map(differs).collect();
        return if others.is_empty() {
            Verdict::Equal
        } else {
            Verdict::OthersDiffer(others)
        };
    }
    let answers = || others.iter().filter_map(|(_, other)| *other);
    if answers().any(|digest| digest != own && with(digest) >= majority) {
        Verdict::OwnDiffers
    } else if answers().count() == others.len() {
        Verdict::NobodyIsRight
    } else if answers().any(|digest| digest != own) {
        Verdict::Undecided
    } else {
        Verdict::Unheard
    }
}

impl Member {
    /// Compares digests for as long as the group runs.
    pub(crate) async fn compare(self: Arc<Self>, network: Network) {
        let mut ticks = interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut compared = 0;
        loop {
            ticks.tick().await;
            let own = self.machine.digests().pop();
            if let Some(own) = own.filter(|own| own.index > compared)
                && self.compare_with_others(&network, own).await
            {
                compared = own.index;
            }
        }
    }

    /// Compares one digest. Tells whether it is done with.
    async fn compare_with_others(&self, network: &Network, own: StateDigest) -> bool {
        let others: Vec<NodeId> = {
            let metrics = self.raft.server_metrics();
            let metrics = metrics.borrow_watched();
            let members = metrics.membership_config.membership();
            let voters: BTreeSet<NodeId> = members.voter_ids().map(NodeId::new).collect();
            if !voters.contains(&self.sender.node) {
                return true;
            }
            voters.into_iter().filter(|node| *node != self.sender.node).collect()
        };
        let ask = |node: NodeId| async move { (node, network.digest(node, own.index).await) };
        let answers = futures::future::join_all(others.into_iter().map(ask)).await;
        let verdict = verdict(own.digest, &answers);
        let (group, index) = (self.sender.group, own.index);
        if verdict != Verdict::Unheard {
            self.differs.store(verdict != Verdict::Equal, Ordering::Relaxed);
        }
        match verdict {
            Verdict::Equal => {}
            Verdict::OthersDiffer(others) => {
                tracing::error!(%group, index, ?others, "rows of other voters differ from those of a majority");
            }
            Verdict::NobodyIsRight => tracing::error!(
                %group,
                index,
                ?answers,
                "rows of the voters differ, and no majority has the same: compare them with a follower's before anything is \
                 repaired"
            ),
            Verdict::OwnDiffers if (self.may_rebuild)() => {
                let failure = Failure::of_group(group, "comparing its rows", RowsDiffer { index });
                let reaching = Some((group, index));
                self.worker.health.fail(failure.rebuilding(Rebuild { reaching }));
            }
            Verdict::OwnDiffers => tracing::error!(
                %group,
                index,
                "rows of this node differ from those of a majority, and so they did a short time ago: they are left as they \
                 are, this is a fault of the program"
            ),
            Verdict::Undecided => tracing::error!(
                %group,
                index,
                ?answers,
                "rows of the voters differ, and too few voters answer to tell who is right: bring the others back"
            ),
            Verdict::Unheard => return false,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(others: &[Option<u128>]) -> Verdict {
        let nodes = (2..).map(NodeId::new);
        verdict(7, &nodes.zip(others.iter().copied()).collect::<Vec<_>>())
    }

    fn differ(nodes: &[u64]) -> Verdict {
        Verdict::OthersDiffer(nodes.iter().copied().map(NodeId::new).collect())
    }

    #[test]
    fn only_a_majority_is_believed() {
        // Invariant 1.
        let (own, other, third) = (Some(7), Some(8), Some(9));
        for (others, expected) in [
            (&[][..], Verdict::Equal),
            (&[own], Verdict::Equal),
            (&[None], Verdict::Unheard),
            (&[other], Verdict::NobodyIsRight),
            (&[own, own], Verdict::Equal),
            (&[own, None], Verdict::Equal),
            (&[own, other], differ(&[3])),
            (&[other, other], Verdict::OwnDiffers),
            (&[other, third], Verdict::NobodyIsRight),
            (&[other, None], Verdict::Undecided),
            (&[None, None], Verdict::Unheard),
            (&[other, other, own], Verdict::NobodyIsRight),
            (&[other, other, other], Verdict::OwnDiffers),
            (&[own, own, other, other], differ(&[4, 5])),
            (&[other, other, other, own], Verdict::OwnDiffers),
            (&[other, other, None, own], Verdict::Undecided),
        ] {
            assert_eq!(of(others), expected, "{others:?}");
        }
    }
}
