//! One group as this node has it: what the handle, the service and the tasks share.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use openraft::Instant as _;
use openraft::async_runtime::watch::WatchReceiver;
use stead_store::log::GroupLog;
use stead_store::machine::Machine;
use stead_types::NodeId;
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::blocking::Worker;
use crate::clock::GroupClock;
use crate::founding::{DiskLost, Founding, Standing, Step, has_voted};
use crate::group::Leadership;
use crate::network::Network;
use crate::proposer::Proposer;
use crate::reads::Reads;
use crate::tasks::Tasks;
use crate::timing::Periods;
use crate::types::Raft;
use crate::wire::Sender;

/// A group of this node.
pub(crate) struct Member {
    pub(crate) sender: Sender,
    pub(crate) periods: Periods,
    pub(crate) raft: Raft,
    pub(crate) log: Arc<dyn GroupLog>,
    pub(crate) clock: Arc<GroupClock>,
    pub(crate) machine: Arc<dyn Machine>,
    /// Tells whether rows that differ now are to be rebuilt.
    pub(crate) may_rebuild: Arc<dyn Fn() -> bool + Send + Sync>,
    /// Whether replicas differed when they were compared last.
    pub(crate) differs: AtomicBool,
    pub(crate) proposer: Arc<Proposer>,
    pub(crate) reads: Reads,
    pub(crate) applied: watch::Sender<u64>,
    pub(crate) leadership: watch::Sender<Leadership>,
    pub(crate) tasks: Tasks,
    pub(crate) worker: Worker,
    pub(crate) spool: Option<PathBuf>,
    /// Held while a snapshot is received: one at a time.
    pub(crate) receiving: Mutex<()>,
    /// Held while a snapshot goes to a voter that asked for it: one at a time.
    pub(crate) giving: Arc<Mutex<()>>,
    /// When the leader was heard of last, on a node that follows.
    pub(crate) heard: Heard,
    /// Set for one lease after a restart: it neither votes nor stands for election meanwhile.
    pub(crate) is_held_back: AtomicBool,
    pub(crate) founding: Arc<Founding>,
    /// The voters that the group begins with.
    pub(crate) voters: BTreeSet<NodeId>,
}

/// When somebody was heard of last; read and written without waiting.
#[derive(Debug)]
pub(crate) struct Heard {
    from: Instant,
    after_ms: AtomicU64,
}

impl Heard {
    pub(crate) fn new() -> Self {
        Self {
            from: Instant::now(),
            after_ms: AtomicU64::new(0),
        }
    }

    pub(crate) fn note(&self) {
        let after = u64::try_from(self.from.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.after_ms.store(after, Ordering::Relaxed);
    }

    fn ago(&self) -> Duration {
        let after = Duration::from_millis(self.after_ms.load(Ordering::Relaxed));
        self.from.elapsed().saturating_sub(after)
    }
}

const RUNNING: &str = "running Raft";

/// Between two looks whether the time is to be written down.
const TIME_LOOK_INTERVAL: Duration = Duration::from_secs(1);

impl Member {
    /// Tells whether this node hears of the leader, or as the leader is heard by a majority.
    pub(crate) fn is_in_touch(&self) -> bool {
        let silence_max = self.periods.silence_max();
        if !self.leadership.borrow().is_here {
            return self.heard.ago() < silence_max;
        }
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let is_alone = metrics.membership_config.membership().voter_ids().count() < 2;
        let acknowledged = metrics.last_quorum_acked.as_ref();
        is_alone || acknowledged.is_none_or(|at| at.elapsed() < silence_max)
    }

    pub(crate) fn is_held_back(&self) -> bool {
        self.is_held_back.load(Ordering::Acquire)
    }

    /// Lets the node take part in elections once every lease it may have granted before it restarted is over. A node
    /// that voted at once could make a second leader while the first still answers reads by its lease.
    pub(crate) async fn hold_back(self: Arc<Self>) {
        tokio::time::sleep(self.periods.election_max()).await;
        self.is_held_back.store(false, Ordering::Release);
        self.raft.runtime_config().elect(true);
    }

    /// Takes part in the beginning of the group, or stops the node: see [`crate::founding`].
    pub(crate) async fn found(self: Arc<Self>, network: Network) {
        let group = self.sender.group;
        loop {
            let step = tokio::select! {
                biased;
                () = self.founding.joined() => return,
                step = self.founding.next(group, |voter| network.standing(voter)) => step,
            };
            tracing::debug!(%group, node = %self.sender.node, ?step, "the group begins");
            match step {
                Step::Wait => {}
                Step::Initialize => {
                    if let Err(error) = self.initialize().await {
                        return self.worker.fail("writing the initial entry", error);
                    }
                    self.founding.initialized();
                }
                Step::Refuse(owner) => return self.worker.fail("joining it", DiskLost { group, owner }),
                Step::Join => break,
            }
        }
        self.join();
        if self.voters.last() == Some(&self.sender.node) && !self.founding.others_have_begun() {
            // One begins at once, the others when they have heard of no leader: no vote is split. The initial entry of
            // the highest voter is the greatest, so that all can vote for it.
            drop(self.raft.trigger().elect(false).await);
        }
    }

    fn join(&self) {
        self.is_held_back.store(false, Ordering::Release);
        self.raft.runtime_config().elect(true);
        self.founding.join();
    }

    /// Tells whether votes and entries may be taken of a voter that takes part: then all have the initial entry, and
    /// this one takes part too.
    pub(crate) fn admits(&self, other: NodeId) -> bool {
        if !self.founding.has_joined() && self.founding.own() == Standing::Initial {
            tracing::debug!(group = %self.sender.group, node = %self.sender.node, %other, "the group has begun");
            self.join();
        }
        self.founding.has_joined()
    }

    /// Answers a voter at the group's beginning, which has said what it has itself: what this one has.
    pub(crate) fn standing(&self, asker: NodeId, theirs: Standing) -> io::Result<Standing> {
        self.founding.heard(asker, theirs);
        if !self.founding.has_joined() {
            return Ok(self.founding.own());
        }
        let log = self.log.state()?;
        // One that was lost has been found when the group was opened.
        Standing::of(self.sender.group, &log, has_voted(&log, self.sender.node)?, false).map_err(io::Error::other)
    }

    /// Makes the initial membership durable.
    async fn initialize(&self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let members: BTreeMap<u64, ()> = self.voters.iter().map(|node| (node.get(), ())).collect();
        self.raft.initialize(members).await?;
        Ok(())
    }

    /// Passes on who leads, and notices when Raft ends by itself.
    pub(crate) async fn watch_leader(self: Arc<Self>) {
        let mut metrics = self.raft.server_metrics();
        let mut told = None;
        loop {
            let leadership = {
                let seen = metrics.borrow_watched();
                let leader = seen.current_leader.map(NodeId::new);
                Leadership {
                    leader,
                    term: seen.vote.leader_id.term,
                    is_here: leader == Some(self.sender.node) && seen.state.is_leader(),
                }
            };
            let known = *self.leadership.borrow();
            if leadership.is_here && (!known.is_here || known.term != leadership.term) {
                // Before anybody sees that it leads: the first entry that follows has this time.
                self.clock.lead();
            } else if !leadership.is_here && known.is_here {
                self.clock.follow();
            }
            self.leadership.send_if_modified(|known| {
                let is_new = *known != leadership;
                *known = leadership;
                is_new
            });
            if let (Some(leader), true) = (leadership.leader, leadership.leader != told) {
                tracing::info!(group = %self.sender.group, %leader, term = leadership.term, "a leader is known");
                told = leadership.leader;
            }
            if metrics.changed().await.is_err() {
                break;
            }
        }
        self.raft_ended();
    }

    /// Looks at the wall clock of this node, and at those of the others as their answers told them.
    pub(crate) async fn watch_clocks(self: Arc<Self>) {
        let mut ticks = interval(self.periods.heartbeat());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let voters = {
                let metrics = self.raft.server_metrics();
                let metrics = metrics.borrow_watched();
                let members = metrics.membership_config.membership();
                members.voter_ids().map(NodeId::new).collect()
            };
            self.clock.look(voters);
        }
    }

    /// Writes the time down where nobody writes anything, so that a restart of all nodes does not leave it behind.
    pub(crate) async fn write_time(self: Arc<Self>) {
        let mut ticks = interval(TIME_LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if self.clock.is_entry_due()
                && let Err(error) = self.proposer.propose_time().await
            {
                tracing::debug!(group = %self.sender.group, %error, "the time was not written down");
            }
        }
    }

    fn raft_ended(&self) {
        self.clock.follow();
        self.proposer.stop();
        self.reads.stop();
        self.leadership.send_modify(|known| {
            known.leader = None;
            known.is_here = false;
        });
        if self.tasks.is_stopping() {
            return;
        }
        let state = self.raft.metrics().borrow_watched().running_state.clone();
        match state {
            Err(fatal) => self.worker.fail(RUNNING, fatal),
            Ok(()) => self.worker.fail(RUNNING, "Raft ended by itself"),
        }
    }

    /// Ends the group on this node: in order, and with all answered who wait.
    pub(crate) async fn stop(&self) {
        self.tasks.announce_stop();
        self.proposer.stop();
        self.reads.stop();
        // openraft's shutdown fails only if its task panicked, which has been reported then.
        drop(self.raft.shutdown().await);
        self.tasks.stop().await;
    }
}
