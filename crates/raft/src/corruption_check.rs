//! Corruption check: finds, reports and repairs diverged replicas of a group by comparing digests.
//!
//! Each voter asks the others for their digest after the entry of its own last digest, and decides for itself: it
//! trusts only a majority of all voters.
//!
//! ```text
//!   own digest = a majority's, all others too   ──> nothing
//!   own digest = a majority's, another is not   ──> logged; that voter will find the same
//!   a majority's is another one                 ──> this node stops; its rows are set aside, and rebuilt by a snapshot
//!   no digest is a majority's                   ──> logged; no replica can be trusted
//!   some differ, and too few have responded     ──> logged; decided once the other voters respond
//! ```
//!
//! # Invariants
//!
//! 1. Only a voter of the minority gives up its rows, so that those of a majority always stay.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use stead_store::digests::StateDigest;
use stead_store::health::{NodeFailure, Rebuild};
use stead_types::NodeId;
use tokio::time::{MissedTickBehavior, interval};

use crate::member::Member;
use crate::network::Network;

/// Interval of checks for a digest to compare: digests are taken half as often.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Error of a replica that differs from a majority of its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "after entry {index} the rows of this node differ from those of a majority of the voters: they are set aside, and \
     rebuilt from another voter at the next start"
)]
struct RowsDiffer {
    index: u64,
}

/// Result of comparing the voters' digests after one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
enum DigestComparison {
    /// A majority has this voter's digest, and so have all that responded.
    Equal,
    /// A majority has this voter's digest; these voters do not.
    OthersDiffer(BTreeSet<NodeId>),
    /// A majority has another digest.
    OwnDiffers,
    /// All responded, and no majority has the same digest.
    NoMajority,
    /// Some have another digest, and too few responded to tell which is right.
    Undecided,
    /// Too few responded, and none differs.
    Unknown,
}

/// Compares this voter's digest with those of the others; `None` for one that has none after that entry, or did not
/// respond.
fn compare_digests(own: u128, others: &[(NodeId, Option<u128>)]) -> DigestComparison {
    let voters = others.len() + 1;
    let majority = voters / 2 + 1;
    let with = |digest: u128| others.iter().filter(|(_, other)| *other == Some(digest)).count();
    if with(own) + 1 >= majority {
        let differs = |(node, other): &(NodeId, Option<u128>)| other.is_some_and(|other| other != own).then_some(*node);
        let others: BTreeSet<NodeId> = others.iter().filter_map(differs).collect();
        return if others.is_empty() {
            DigestComparison::Equal
        } else {
            DigestComparison::OthersDiffer(others)
        };
    }
    let answers = || others.iter().filter_map(|(_, other)| *other);
    if answers().any(|digest| digest != own && with(digest) >= majority) {
        DigestComparison::OwnDiffers
    } else if answers().count() == others.len() {
        DigestComparison::NoMajority
    } else if answers().any(|digest| digest != own) {
        DigestComparison::Undecided
    } else {
        DigestComparison::Unknown
    }
}

impl Member {
    /// Compares digests for as long as the group runs.
    pub(crate) async fn compare(self: Arc<Self>, network: Network) {
        let mut ticks = interval(CHECK_INTERVAL);
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

    /// Compares one digest with those of the other voters. Tells whether the comparison was conclusive.
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
        let comparison = compare_digests(own.digest, &answers);
        let (group, index) = (self.sender.group, own.index);
        if comparison != DigestComparison::Unknown {
            self.differs
                .store(comparison != DigestComparison::Equal, Ordering::Relaxed);
        }
        match comparison {
            DigestComparison::Equal => {}
            DigestComparison::OthersDiffer(others) => {
                tracing::error!(%group, index, ?others, "corruption check failed: rows of other voters differ from a majority's");
            }
            DigestComparison::NoMajority => tracing::error!(
                %group,
                index,
                ?answers,
                "corruption check failed: no majority of the voters has equal rows; compare them with a follower's before \
                 repairing anything"
            ),
            DigestComparison::OwnDiffers if (self.may_rebuild)() => {
                let failure = NodeFailure::of_group(group, "comparing its rows", RowsDiffer { index });
                let target = Some((group, index));
                self.worker.health.fail(failure.with_rebuild(Rebuild { target }));
            }
            DigestComparison::OwnDiffers => tracing::error!(
                %group,
                index,
                "corruption check failed: rows of this node differ from a majority's again after a recent rebuild; they are \
                 left as they are, report this as a bug"
            ),
            DigestComparison::Undecided => tracing::error!(
                %group,
                index,
                ?answers,
                "corruption check failed: rows of the voters differ, and too few voters responded to tell which are right; \
                 start those that are down"
            ),
            DigestComparison::Unknown => return false,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(others: &[Option<u128>]) -> DigestComparison {
        let nodes = (2..).map(NodeId::new);
        compare_digests(7, &nodes.zip(others.iter().copied()).collect::<Vec<_>>())
    }

    fn differ(nodes: &[u64]) -> DigestComparison {
        DigestComparison::OthersDiffer(nodes.iter().copied().map(NodeId::new).collect())
    }

    #[test]
    fn digest_comparison_trusts_only_a_majority() {
        // Invariant 1.
        let (own, other, third) = (Some(7), Some(8), Some(9));
        for (others, expected) in [
            (&[][..], DigestComparison::Equal),
            (&[own], DigestComparison::Equal),
            (&[None], DigestComparison::Unknown),
            (&[other], DigestComparison::NoMajority),
            (&[own, own], DigestComparison::Equal),
            (&[own, None], DigestComparison::Equal),
            (&[own, other], differ(&[3])),
            (&[other, other], DigestComparison::OwnDiffers),
            (&[other, third], DigestComparison::NoMajority),
            (&[other, None], DigestComparison::Undecided),
            (&[None, None], DigestComparison::Unknown),
            (&[other, other, own], DigestComparison::NoMajority),
            (&[other, other, other], DigestComparison::OwnDiffers),
            (&[own, own, other, other], differ(&[4, 5])),
            (&[other, other, other, own], DigestComparison::OwnDiffers),
            (&[other, other, None, own], DigestComparison::Undecided),
        ] {
            assert_eq!(of(others), expected, "{others:?}");
        }
    }
}
