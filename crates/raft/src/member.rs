//! Member: this node's part in one group, shared by the handle, the service and the tasks.

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
use stead_types::{Incarnation, NodeId};
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::blocking::BlockingWorker;
use crate::clock::GroupClock;
use crate::copy_bandwidth::CopyBandwidth;
use crate::group_bootstrap::{DiskLost, GroupBootstrap, Step, VoterState, has_voted};
use crate::leadership::Leadership;
use crate::machine::Raft;
use crate::network::Network;
use crate::read_index::ReadIndexQueue;
use crate::spool::ReceiveProgress;
use crate::tasks::Tasks;
use crate::timing::Periods;
use crate::wire::Sender;

/// This node's part in one group.
pub(crate) struct Member {
    pub(crate) sender: Sender,
    pub(crate) periods: Periods,
    pub(crate) raft: Raft,
    pub(crate) log: Arc<dyn GroupLog>,
    pub(crate) clock: Arc<GroupClock>,
    pub(crate) machine: Arc<dyn Machine>,
    /// Tells, once rows have diverged, whether they are to be rebuilt.
    pub(crate) may_rebuild: Arc<dyn Fn() -> bool + Send + Sync>,
    /// Whether replicas differed at the last corruption check.
    pub(crate) differs: AtomicBool,
    /// Rejects the queued and all further proposals.
    pub(crate) stop_proposals: Box<dyn Fn() + Send + Sync>,
    pub(crate) reads: ReadIndexQueue,
    pub(crate) applied: watch::Sender<u64>,
    pub(crate) leadership: watch::Sender<Leadership>,
    /// Result of [`Member::is_connected`] at the last heartbeat.
    pub(crate) connected: watch::Sender<bool>,
    pub(crate) tasks: Tasks,
    pub(crate) worker: BlockingWorker,
    pub(crate) spool: Option<PathBuf>,
    pub(crate) copies: Arc<CopyBandwidth>,
    /// Locked while a snapshot is received: one at a time.
    pub(crate) receiving_snapshot: Mutex<()>,
    /// Bytes of the snapshot that is being received or installed.
    pub(crate) snapshot_received: ReceiveProgress,
    /// Locked while a snapshot is sent to a voter that requested it: one at a time.
    pub(crate) serving_snapshot: Arc<Mutex<()>>,
    /// Last contact with the leader, on a node that follows.
    pub(crate) last_contact: LastContact,
    /// Set for one lease after a restart: the node neither votes nor stands for election meanwhile.
    pub(crate) is_held_back: AtomicBool,
    pub(crate) bootstrap: Arc<GroupBootstrap>,
    /// Later incarnation of the group that another node has named.
    pub(crate) later: watch::Sender<Option<Incarnation>>,
    /// The initial voters of the group.
    pub(crate) voters: BTreeSet<NodeId>,
}

/// Time of the last contact; read and written without locks.
#[derive(Debug)]
pub(crate) struct LastContact {
    from: Instant,
    after_ms: AtomicU64,
}

impl LastContact {
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

impl Member {
    /// Tells whether this node hears from the leader, or as the leader from a majority.
    pub(crate) fn is_connected(&self) -> bool {
        let silence_max = self.periods.silence_max();
        if !self.leadership.borrow().is_here {
            return self.last_contact.ago() < silence_max;
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

    /// Enables elections once every lease that the node may have granted before its restart is over. A node that voted
    /// at once could elect a second leader while the first still serves reads by its lease.
    pub(crate) async fn hold_back(self: Arc<Self>) {
        tokio::time::sleep(self.periods.election_max()).await;
        self.is_held_back.store(false, Ordering::Release);
        self.raft.runtime_config().elect(true);
    }

    /// Runs the bootstrap of the group, which may stop the node: see [`crate::group_bootstrap`].
    pub(crate) async fn run_bootstrap(self: Arc<Self>, network: Network) {
        let group = self.sender.group;
        loop {
            let step = tokio::select! {
                biased;
                () = self.bootstrap.joined() => return,
                step = self.bootstrap.next(group, |voter| network.voter_state(voter)) => step,
            };
            tracing::debug!(%group, node = %self.sender.node, ?step, "group bootstrap");
            match step {
                Step::Wait => {}
                Step::Initialize => {
                    if let Err(error) = self.initialize().await {
                        return self.worker.fail("writing the initial entry", error);
                    }
                    self.bootstrap.mark_initialized();
                }
                Step::Refuse(owner) => return self.worker.fail("joining the group", DiskLost { group, owner }),
                Step::Join => break,
            }
        }
        self.join();
        if self.voters.last() == Some(&self.sender.node) && !self.bootstrap.others_have_begun() {
            // One voter stands at once, the others after an election timeout: no vote is split. The initial entry of
            // the highest voter is the greatest, so that all can vote for it.
            drop(self.raft.trigger().elect(false).await);
        }
    }

    fn join(&self) {
        self.is_held_back.store(false, Ordering::Release);
        self.raft.runtime_config().elect(true);
        self.bootstrap.join();
    }

    /// Tells whether votes and entries of a joined voter may be accepted: it proves that all have the initial entry, so
    /// this one joins too.
    pub(crate) fn admits(&self, other: NodeId) -> bool {
        if !self.bootstrap.has_joined() && self.bootstrap.own() == VoterState::Initial {
            tracing::debug!(group = %self.sender.group, node = %self.sender.node, %other, "group bootstrap is complete");
            self.join();
        }
        self.bootstrap.has_joined()
    }

    /// Returns the own state to a voter that bootstraps the group and has reported its own.
    pub(crate) fn voter_state(&self, asker: NodeId, theirs: VoterState) -> io::Result<VoterState> {
        self.bootstrap.record_state(asker, theirs);
        if !self.bootstrap.has_joined() {
            return Ok(self.bootstrap.own());
        }
        let log = self.log.state()?;
        // A lost log is detected when the group is opened.
        VoterState::of(self.sender.group, &log, has_voted(&log, self.sender.node)?, false).map_err(io::Error::other)
    }

    /// Writes the initial membership durably.
    async fn initialize(&self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let members: BTreeMap<u64, ()> = self.voters.iter().map(|node| (node.get(), ())).collect();
        self.raft.initialize(members).await?;
        Ok(())
    }

    /// Publishes the leadership, and detects when Raft stops by itself.
    pub(crate) async fn watch_leader(self: Arc<Self>) {
        let mut metrics = self.raft.server_metrics();
        let mut logged = None;
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
                // Before the leadership is visible: the first entry that follows has this time.
                self.clock.lead();
            } else if !leadership.is_here && known.is_here {
                self.clock.follow();
            }
            self.leadership.send_if_modified(|known| {
                let is_new = *known != leadership;
                *known = leadership;
                is_new
            });
            if let (Some(leader), true) = (leadership.leader, leadership.leader != logged) {
                tracing::info!(group = %self.sender.group, %leader, term = leadership.term, "leader changed");
                logged = leadership.leader;
            }
            if metrics.changed().await.is_err() {
                break;
            }
        }
        self.raft_ended();
    }

    /// Checks, with each heartbeat, the wall clock of this node against those of the others, as their responses reported
    /// them, and whether it is in contact with the group.
    pub(crate) async fn watch_voters(self: Arc<Self>) {
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
            self.clock.check_wall_clock(voters);
            let is_connected = self.is_connected();
            self.connected
                .send_if_modified(|known| std::mem::replace(known, is_connected) != is_connected);
        }
    }

    fn raft_ended(&self) {
        self.clock.follow();
        (self.stop_proposals)();
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
            Ok(()) => self.worker.fail(RUNNING, "Raft stopped by itself"),
        }
    }

    /// Stops the group on this node in order, and answers all waiting callers.
    pub(crate) async fn stop(&self) {
        self.tasks.announce_stop();
        (self.stop_proposals)();
        self.reads.stop();
        // openraft's shutdown fails only if its task panicked, which is reported already.
        drop(self.raft.shutdown().await);
        self.tasks.stop().await;
    }
}
