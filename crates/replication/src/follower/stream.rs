//! The follower's end of one stream: its state, the events that it waits for, and what is done at each.
//!
//! The work itself is in files of its own, which all depend on this one: `messages`, `attach`, `proposals`, `proofs`.

use std::{collections::BTreeSet, sync::Arc};

use futures::{
    StreamExt,
    future::{BoxFuture, OptionFuture},
    stream::FuturesUnordered,
};
use stead_raft::ProposeError;
use stead_state::shard::{ApplyResult, record::TenantRecord};
use stead_store::group_rows::IncompleteChange;
use stead_types::{FeedOffset, GroupId, Incarnation, NodeId, TenantNumber};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use tonic::{Status, Streaming};

use super::{
    attach_scheduler::AttachScheduler,
    connect::OpenStream,
    feed_checker::FeedChecker,
    pings::SentPings,
    queue::{FeedQueue, FollowerProposal},
    reported_heirs::ReportedHeirs,
};
use crate::{
    feed_clients::FeedClients,
    group_context::GroupContext,
    payload::PayloadDecompressor,
    wire::{self, InvalidMessage, MessageToHome, SubscribeRequest, SubscribeResponse},
};

type SeedTask = BoxFuture<'static, (TenantNumber, bool)>;
type PendingProposal = BoxFuture<'static, (FollowerProposal, Result<Vec<ApplyResult>, ProposeError>)>;

/// Reason for the end of a stream.
#[derive(Debug)]
pub(super) enum StreamEnd {
    /// Another node leads the home, or none.
    NotLeader(Option<NodeId>),
    /// The connection broke, or the home ended it.
    Broken,
    /// A message was invalid.
    InvalidMessage(InvalidMessage),
    /// This group did not commit a proposal.
    NotCommitted(#[expect(dead_code, reason = "shown in logs")] ProposeError),
    /// This node's rows are closed.
    IncompleteChange(#[expect(dead_code, reason = "shown in logs")] IncompleteChange),
}

impl From<IncompleteChange> for StreamEnd {
    fn from(incomplete: IncompleteChange) -> Self {
        Self::IncompleteChange(incomplete)
    }
}

impl From<InvalidMessage> for StreamEnd {
    fn from(invalid: InvalidMessage) -> Self {
        Self::InvalidMessage(invalid)
    }
}

/// Event that the stream waits for.
enum Wake {
    Message(Result<Option<SubscribeResponse>, Status>),
    Proposed(FollowerProposal, Result<Vec<ApplyResult>, ProposeError>),
    Seeded(TenantNumber, bool),
    PingDue,
    FreshnessDemand,
    Applied,
    AttachDue,
    HeirsDue,
}

/// The follower's end of one open stream.
pub(super) struct FollowerStream {
    pub(super) context: Arc<GroupContext>,
    pub(super) feed_clients: Arc<FeedClients>,
    pub(super) home: GroupId,
    to_home: mpsc::Sender<SubscribeRequest>,
    from_home: Streaming<SubscribeResponse>,
    applied: watch::Receiver<u64>,
    pub(super) decompressor: PayloadDecompressor,
    pub(super) queue: FeedQueue,
    pub(super) pending: Option<PendingProposal>,
    pub(super) scheduler: AttachScheduler,
    pub(super) seeds: FuturesUnordered<SeedTask>,
    pub(super) checker: FeedChecker,
    /// Tenants whose seeded copy cannot be used: the next one is seeded from the beginning.
    pub(super) needs_fresh_seed: BTreeSet<TenantNumber>,
    /// The shard's count of detachments at the last refresh.
    pub(super) detached_seen: Option<u64>,
    pub(super) pings: SentPings,
    pub(super) pinged_at: Option<Instant>,
    pub(super) reported_heirs: ReportedHeirs,
    /// Time of the last records.
    pub(super) records_at: Option<Instant>,
}

impl FollowerStream {
    /// Returns the follower's end of a stream that has been opened.
    pub(super) fn new(
        context: Arc<GroupContext>,
        feed_clients: Arc<FeedClients>,
        home: GroupId,
        open: OpenStream,
    ) -> Result<Self, IncompleteChange> {
        let incarnation = Incarnation(open.opened.incarnation);
        let mut queue = FeedQueue::new(home, incarnation);
        if let Some(begins) = open.opened.begins {
            let attached = context.machine.read(|held| {
                let of_home = |record: &TenantRecord| record.session.filter(|session| session.home == home);
                let records = held.shard().records();
                let attached = records.filter_map(|(tenant, record)| Some((tenant, of_home(record)?.number)));
                attached.collect::<Vec<_>>()
            })?;
            let offset = FeedOffset {
                incarnation: Incarnation(begins.incarnation),
                index: begins.index,
            };
            queue.begin_stream(offset, attached);
        }
        Ok(Self {
            applied: context.group.applied(),
            context,
            feed_clients,
            home,
            to_home: open.to_home,
            from_home: open.from_home,
            decompressor: PayloadDecompressor::new(),
            queue,
            pending: None,
            scheduler: AttachScheduler::default(),
            seeds: FuturesUnordered::new(),
            checker: FeedChecker::default(),
            needs_fresh_seed: BTreeSet::new(),
            detached_seen: None,
            pings: SentPings::default(),
            pinged_at: None,
            reported_heirs: ReportedHeirs::default(),
            records_at: None,
        })
    }

    /// Acts and waits in turn until the stream ends.
    pub(super) async fn run_until_end(&mut self) -> StreamEnd {
        loop {
            if let Err(end) = self.act() {
                return end;
            }
            let wake = self.wait().await;
            if let Err(end) = self.step(wake) {
                return end;
            }
        }
    }

    /// Waits for the next event. May be dropped at any time.
    async fn wait(&mut self) -> Wake {
        let freshness = self.context.freshness.clone();
        let ping_at = self
            .pinged_at
            .map_or_else(Instant::now, |at| at + freshness.ping_interval(self.records_at));
        // Due actions are done between proposals.
        let due = self.scheduler.next_due().filter(|_| self.pending.is_none());
        let heirs_at = self.reported_heirs.next_due();
        let pending: OptionFuture<_> = self.pending.as_mut().into();
        tokio::select! {
            biased;
            Some((proposal, answers)) = pending => Wake::Proposed(proposal, answers),
            message = self.from_home.message() => Wake::Message(message),
            Some((tenant, complete)) = self.seeds.next(), if !self.seeds.is_empty() => Wake::Seeded(tenant, complete),
            Ok(()) = self.applied.changed() => Wake::Applied,
            () = freshness.demand_began() => Wake::FreshnessDemand,
            () = sleep_until(ping_at) => Wake::PingDue,
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => Wake::AttachDue,
            () = sleep_until(heirs_at.unwrap_or_else(Instant::now)), if heirs_at.is_some() => Wake::HeirsDue,
        }
    }

    fn step(&mut self, wake: Wake) -> Result<(), StreamEnd> {
        match wake {
            Wake::Message(Ok(Some(response))) => self.handle_message(response),
            Wake::Message(Ok(None)) => Err(StreamEnd::Broken),
            Wake::Message(Err(status)) => {
                self.context.alarms.record_status(&status);
                Err(StreamEnd::Broken)
            }
            Wake::Proposed(proposal, Ok(answers)) => {
                self.pending = None;
                self.handle_proposed(proposal, answers)
            }
            Wake::Proposed(_, Err(error)) => {
                self.pending = None;
                Err(StreamEnd::NotCommitted(error))
            }
            Wake::Seeded(tenant, complete) => {
                self.scheduler.finish_seed(tenant, complete, Instant::now());
                Ok(())
            }
            Wake::PingDue => self.send_ping(),
            Wake::FreshnessDemand | Wake::Applied | Wake::AttachDue | Wake::HeirsDue => Ok(()),
        }
    }

    /// Does all work that needs no waiting.
    fn act(&mut self) -> Result<(), StreamEnd> {
        self.applied.borrow_and_update();
        self.report_heirs()?;
        if self.pending.is_some() {
            return Ok(());
        }
        // The home is told of all detachments in the log before it is asked to attach a tenant again.
        self.refresh_detached()?;
        let actions = self.scheduler.next_actions(Instant::now());
        for tenant in actions.ask {
            self.begin(tenant)?;
        }
        for tenant in actions.seed {
            self.start_seed(tenant);
        }
        self.propose()
    }

    /// Sends the home a message.
    pub(super) fn send(&mut self, message: MessageToHome) -> Result<(), StreamEnd> {
        self.to_home
            .try_send(wire::to_home(message))
            .map_err(|_| StreamEnd::Broken)
    }
}
