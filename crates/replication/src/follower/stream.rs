//! The follower's end of one stream: queues the home's messages, proposes them, acknowledges what was applied.

use std::{collections::BTreeSet, sync::Arc};

use futures::{
    FutureExt, StreamExt,
    future::{BoxFuture, OptionFuture},
    stream::FuturesUnordered,
};
use stead_api::proto::internal::v1::{
    FeedAck, FeedAttach, FeedAttached, FeedBatch, FeedPing, FeedPong, FeedRefused, feed_refused::Reason,
};
use stead_raft::ProposeError;
use stead_state::{
    codec::{Malformed, Reader},
    freshness::Proof,
    lineage::Lineage,
    shard::{
        ApplyResult,
        digest::{DigestMismatch, Digests},
        feed_validation::InvalidFeedData,
        record::{AttachNumber, TenantRecord},
    },
};
use stead_store::group_rows::IncompleteChange;
use stead_types::{
    Epoch, FeedOffset, GroupId, Incarnation, Revision, TenantNumber,
    planted::{self, Bug},
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use tonic::{Status, Streaming};

use super::{
    CLASS,
    attach_scheduler::AttachScheduler,
    connect::{OpenStream, connect, position},
    feed_checker::{FeedChecker, LastAttempt, check_attempt},
    outcome::ProposalOutcome,
    pings::SentPings,
    queue::{self, AttachedTenant, FeedQueue, FollowerProposal, Item},
    seed::{self, SeedTarget},
};
use crate::{
    feed_clients::FeedClients,
    group_context::GroupContext,
    payload::PayloadDecompressor,
    source::{BATCH_LEN_MAX, BATCH_PARTS_MAX},
    wire::{
        self, InvalidMessage, MessageToFollower, MessageToHome, SubscribeRequest, SubscribeResponse, TenantPosition,
    },
};

/// Pause before a proposal that met a full proposal queue is repeated.
const OVERLOADED_PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

/// Pause before a stream is opened again after an invalid message.
const INVALID_MESSAGE_PAUSE: std::time::Duration = std::time::Duration::from_secs(5);

/// Lifetime below which a stream is not opened again at once, but after a pause that doubles each time.
const SHORT_LIFETIME: std::time::Duration = std::time::Duration::from_secs(1);
/// Shortest pause before a stream is opened again that lived shorter than [`SHORT_LIFETIME`].
const REOPEN_PAUSE_MIN: std::time::Duration = std::time::Duration::from_millis(5);

type SeedTask = BoxFuture<'static, (TenantNumber, bool)>;
type PendingProposal = BoxFuture<'static, (FollowerProposal, Result<Vec<ApplyResult>, ProposeError>)>;

/// Task that follows one home, from stream to stream, until this node's rows are closed.
pub(crate) async fn run(context: Arc<GroupContext>, feed_clients: Arc<FeedClients>, home: GroupId) {
    let (mut scheduler, mut seeds, mut hint) = (AttachScheduler::default(), FuturesUnordered::new(), None);
    let mut pause = REOPEN_PAUSE_MIN;
    loop {
        let open = Box::pin(connect(&context, &feed_clients, home, &mut hint)).await;
        scheduler.reset_asked();
        // A node whose rows are closed stops.
        let Ok(mut stream) = FollowerStream::new(context.clone(), feed_clients.clone(), home, open) else {
            return;
        };
        stream.seeds = seeds;
        stream.scheduler = scheduler;
        context.freshness.set_connected(home, true);
        let opened_at = Instant::now();
        let end = Box::pin(stream.run_until_end()).await;
        context.freshness.set_connected(home, false);
        tracing::debug!(group = %context.id(), %home, ?end, "stream ended");
        if let StreamEnd::InvalidMessage(invalid) = &end {
            context.report_invalid_stream(home, invalid);
            tokio::time::sleep(INVALID_MESSAGE_PAUSE).await;
        }
        if let Some(pending) = stream.pending.take() {
            // It may attach tenants, which the next stream must be opened with. Its outcome is read from records.
            drop(pending.await);
        }
        (scheduler, seeds) = (stream.scheduler, stream.seeds);
        if let StreamEnd::NotLeader(leader) = end {
            hint = leader;
        }
        if opened_at.elapsed() < SHORT_LIFETIME {
            // It may be refused again for the same reason, and each open costs both sides a listing of all tenants.
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(INVALID_MESSAGE_PAUSE);
        } else {
            pause = REOPEN_PAUSE_MIN;
        }
    }
}

/// Reason for the end of a stream.
#[derive(Debug)]
enum StreamEnd {
    /// Another node leads the home, or none.
    NotLeader(Option<stead_types::NodeId>),
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
}

/// The follower's end of one open stream.
struct FollowerStream {
    context: Arc<GroupContext>,
    feed_clients: Arc<FeedClients>,
    home: GroupId,
    to_home: mpsc::Sender<SubscribeRequest>,
    from_home: Streaming<SubscribeResponse>,
    applied: watch::Receiver<u64>,
    decompressor: PayloadDecompressor,
    queue: FeedQueue,
    pending: Option<PendingProposal>,
    scheduler: AttachScheduler,
    seeds: FuturesUnordered<SeedTask>,
    checker: FeedChecker,
    /// Tenants whose seeded copy cannot be used: the next one is seeded from the beginning.
    needs_fresh_seed: BTreeSet<TenantNumber>,
    /// The shard's count of detachments at the last refresh.
    detached_seen: Option<u64>,
    pings: SentPings,
    pinged_at: Option<Instant>,
    /// Time of the last records.
    records_at: Option<Instant>,
}

impl FollowerStream {
    fn new(
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
            records_at: None,
        })
    }

    /// Acts and waits in turn until the stream ends.
    async fn run_until_end(&mut self) -> StreamEnd {
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
            .map_or_else(Instant::now, |at| at + freshness.interval(self.records_at));
        // Due actions are done between proposals.
        let due = self.scheduler.next_due().filter(|_| self.pending.is_none());
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
            Wake::FreshnessDemand | Wake::Applied | Wake::AttachDue => Ok(()),
        }
    }

    /// Does all work that needs no waiting.
    fn act(&mut self) -> Result<(), StreamEnd> {
        self.applied.borrow_and_update();
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
            let (context, feed_clients, home) = (self.context.clone(), self.feed_clients.clone(), self.home);
            let fresh = self.needs_fresh_seed.remove(&tenant);
            let target = SeedTarget { home, tenant, fresh };
            let seed = async move { (tenant, seed::seed(context, feed_clients, target).await) };
            self.seeds.push(seed.boxed());
        }
        self.propose()
    }

    /// Reads which tenants are detached, if that has changed, and tells the home of new ones: entries of other origin
    /// than this stream end sessions, too.
    fn refresh_detached(&mut self) -> Result<(), StreamEnd> {
        let (seen, scheduler, home) = (&mut self.detached_seen, &mut self.scheduler, self.home);
        let (offset, detached) = self.context.machine.read(|held| {
            let shard = held.shard();
            let mut detached = Vec::new();
            let now = Some(shard.detachment_version());
            if std::mem::replace(seen, now) != now {
                let new = scheduler.set_detached(shard.detached(home));
                let over = |record: &&TenantRecord| record.session.is_none() && record.attach > AttachNumber::default();
                let records = new
                    .into_iter()
                    .filter_map(|tenant| Some((tenant, shard.record(tenant).filter(over)?)));
                detached.extend(records.map(|(tenant, record)| position(tenant, record).to_message()));
            }
            (shard.stream(home), detached)
        })?;
        if detached.is_empty() {
            return Ok(());
        }
        self.send(MessageToHome::Ack(FeedAck {
            offset: Some(wire::offset_to(offset)),
            batches: 0,
            attached: Vec::new(),
            detached,
        }))
    }

    /// Queues the begin of an attempt to attach a tenant, if there is a copy to begin with.
    fn begin(&mut self, tenant: TenantNumber) -> Result<(), StreamEnd> {
        match self.attach_start(tenant)? {
            Some((_, AttachStart::At(_))) => self.queue.push(Item::Begin(tenant)),
            Some((_, AttachStart::InSeed)) => self.scheduler.schedule_seed(tenant, Instant::now()),
            Some((_, AttachStart::Suspect)) => self.scheduler.retry_later(tenant, Instant::now()),
            // It is not detached; once it is, the refresh finds it.
            None => self.scheduler.remove(tenant),
        }
        Ok(())
    }

    /// Asks the home to attach a tenant, in the attempt that has begun.
    fn ask(&mut self, tenant: TenantNumber) -> Result<(), StreamEnd> {
        let is_begun = self.context.machine.read(|held| {
            let record = held.record(tenant);
            record.is_some_and(|record| record.session_of(self.home, record.attach).is_some())
        })?;
        let Some((position, AttachStart::At(revision))) = self.attach_start(tenant)?.filter(|_| is_begun) else {
            // The attempt has ended meanwhile.
            self.scheduler.retry_later(tenant, Instant::now());
            return Ok(());
        };
        let position = Some(TenantPosition { revision, ..position }.to_message());
        self.send(MessageToHome::Attach(FeedAttach { position }))
    }

    /// Returns the position of a detached tenant of this home, and where its attach starts.
    fn attach_start(&self, tenant: TenantNumber) -> Result<Option<(TenantPosition, AttachStart)>, IncompleteChange> {
        let home = self.home;
        self.context.machine.read(|held| {
            let detached = held.record(tenant).filter(|record| record.home() == Some(home));
            let record = detached.filter(|record| !held.shard().is_attached(record))?;
            Some((position(tenant, record), attach_start(record)))
        })
    }

    fn propose(&mut self) -> Result<(), StreamEnd> {
        let home = self.home;
        let (context, queue) = (&self.context, &mut self.queue);
        let version = context.directory_view.version();
        let proposal = context.machine.read(|held| {
            let committed = held.shard().stream(home);
            let at = queue::ProposalBase { committed, version };
            queue.proposal(at, |tenant| held.record(tenant).map(queue::RecordSummary::of))
        })?;
        let Some(proposal) = proposal else { return Ok(()) };
        let group = self.context.group.clone();
        let class = CLASS + u64::from(home.get());
        let pending = async move {
            if proposal.commands.is_empty() {
                return (proposal, Ok(Vec::new()));
            }
            loop {
                match group.propose(class, proposal.commands.clone()).await {
                    Err(ProposeError::Overloaded) => tokio::time::sleep(OVERLOADED_PAUSE).await,
                    answers => return (proposal, answers),
                }
            }
        };
        self.pending = Some(pending.boxed());
        Ok(())
    }

    fn handle_proposed(&mut self, mut proposal: FollowerProposal, answers: Vec<ApplyResult>) -> Result<(), StreamEnd> {
        let (home, context) = (self.home, self.context.clone());
        let outcome = context
            .machine
            .read(|held| ProposalOutcome::read(home, &proposal, answers, &held))?;
        for tenant in &outcome.refused {
            self.scheduler.retry_later(*tenant, Instant::now());
        }
        for (tenant, differs) in outcome.digest_mismatches.iter().chain(&outcome.seed_mismatches) {
            let of = match differs {
                DigestMismatch::Keys => "live keys",
                DigestMismatch::Outcomes => "idempotency records",
            };
            tracing::error!(group = %context.id(), %home, %tenant, of, "a copy's digest does not match its home's");
        }
        for (tenant, _) in &outcome.seed_mismatches {
            self.needs_fresh_seed.insert(*tenant);
            self.scheduler.schedule_fresh_seed(*tenant, Instant::now());
        }
        for proof in proposal.proofs.drain(..) {
            context.freshness.add_proof(home, proof);
        }
        context.freshness.advance(home);
        if let Some(ack) = outcome.acknowledgement(&proposal) {
            self.send(MessageToHome::Ack(ack))?;
        }
        outcome.begun.into_iter().try_for_each(|tenant| self.ask(tenant))
    }

    fn handle_message(&mut self, response: SubscribeResponse) -> Result<(), StreamEnd> {
        match response.message {
            Some(MessageToFollower::Batch(batch)) => self.handle_batch(batch)?,
            Some(MessageToFollower::Attached(attached)) => self.handle_attached(attached)?,
            Some(MessageToFollower::Refused(refused)) => self.handle_refused(&refused)?,
            Some(MessageToFollower::Pong(pong)) => self.handle_pong(&pong)?,
            Some(MessageToFollower::NotLeader(not_leader)) => {
                let leader = (not_leader.leader != 0).then_some(stead_types::NodeId::new(not_leader.leader));
                return Err(StreamEnd::NotLeader(leader));
            }
            Some(MessageToFollower::Opened(_)) => return Err(InvalidMessage("the stream is already open").into()),
            // A newer home's message.
            None => {}
        }
        Ok(())
    }

    fn handle_batch(&mut self, batch: FeedBatch) -> Result<(), StreamEnd> {
        let offset = wire::offset_from(batch.offset)?;
        let unreadable = |_| InvalidMessage("payload");
        let mut raw = self
            .decompressor
            .decompress(batch.payload, batch.raw_len)
            .map_err(unreadable)?;
        // A longer one would not fit into a proposal of the group.
        if raw.len() > BATCH_LEN_MAX || batch.parts.len() > BATCH_PARTS_MAX {
            return Err(InvalidMessage("batch").into());
        }
        let attempts = self.last_attempts(batch.parts.iter().map(|part| part.tenant))?;
        let mut parts = Vec::with_capacity(batch.parts.len());
        for (part, last) in batch.parts.iter().zip(attempts) {
            let len = part.len as usize;
            if len > raw.len() {
                return Err(InvalidMessage("part").into());
            }
            match self.checker.part(last, part, raw.split_to(len)) {
                Ok(part) => parts.extend(part),
                // It is detached before the offset passes what it lacks.
                Err(why) => self.end_session(part.tenant, part.attach, last, &why),
            }
        }
        if !parts.is_empty() {
            self.records_at = Some(Instant::now());
        }
        let number = batch.number;
        self.queue.push(Item::Batch { number, offset, parts });
        Ok(())
    }

    /// Returns the last attempts to attach these tenants, as their records have them.
    fn last_attempts(&self, tenants: impl Iterator<Item = u64>) -> Result<Vec<Option<LastAttempt>>, IncompleteChange> {
        self.context.machine.read(|held| {
            let last = |tenant| LastAttempt::of(held.record(TenantNumber::new(tenant))?, self.home);
            tenants.map(last).collect()
        })
    }

    fn handle_attached(&mut self, attached: FeedAttached) -> Result<(), StreamEnd> {
        let (tenant, attach) = (attached.tenant, attached.attach);
        let last = self.last_attempts(std::iter::once(attached.tenant))?.pop().flatten();
        let read = read_attached(attached).map_err(InvalidFeedData::Unreadable);
        let checked = read.and_then(|attached| {
            check_attempt(last, attached.epoch, attached.number)?;
            Ok(attached)
        });
        match checked {
            Ok(attached) => self.queue.push(Item::Attached(attached)),
            Err(why) => self.end_session(tenant, attach, last, &why),
        }
        Ok(())
    }

    /// Ends a tenant's session because of invalid data from its home, and schedules another attempt. The session is the
    /// one in the record, whatever the home has named.
    fn end_session(&mut self, tenant: u64, attach: u64, last: Option<LastAttempt>, why: &InvalidFeedData) {
        let tenant = TenantNumber::new(tenant);
        let number = last.map_or(AttachNumber(attach), |last| last.number);
        self.context.report_invalid_data(self.home, tenant, why);
        self.checker.end(tenant, number);
        self.queue.push(Item::Detached(tenant, number));
        self.scheduler.retry_later(tenant, Instant::now());
    }

    fn handle_refused(&mut self, refused: &FeedRefused) -> Result<(), StreamEnd> {
        let (tenant, now) = (TenantNumber::new(refused.tenant), Instant::now());
        let (group, home, reason) = (self.context.id(), self.home, refused.reason());
        tracing::debug!(%group, %home, %tenant, ?reason, "attach was refused");
        let number = AttachNumber(refused.attach);
        let has_shadow = self.context.machine.read(|held| {
            // The refusal of an earlier attempt says nothing about this one.
            let record = held.record(tenant).filter(|record| record.home() == Some(self.home))?;
            (record.attach == number).then_some(record.shadow.is_some())
        })?;
        let Some(has_shadow) = has_shadow else { return Ok(()) };
        // Also if it is not attached: that may be in a pending proposal.
        self.queue.push(Item::Detached(tenant, number));
        match refused.reason() {
            Reason::SeedNeeded if has_shadow => {
                // The seed took so long that the home has dropped the changes after it.
                self.needs_fresh_seed.insert(tenant);
                self.scheduler.schedule_fresh_seed(tenant, now);
            }
            Reason::SeedNeeded => self.scheduler.schedule_seed(tenant, now),
            Reason::NotOwner | Reason::NotAdmitted | Reason::Forked | Reason::Unspecified => {
                self.scheduler.retry_later(tenant, now);
            }
        }
        Ok(())
    }

    fn send_ping(&mut self) -> Result<(), StreamEnd> {
        let now = Instant::now();
        self.pinged_at = Some(now);
        if !self.context.freshness.wants_ping(self.home) {
            return Ok(());
        }
        let number = self.pings.send(now);
        self.send(MessageToHome::Ping(FeedPing { number }))
    }

    fn handle_pong(&mut self, pong: &FeedPong) -> Result<(), StreamEnd> {
        let offset = wire::offset_from(pong.offset)?;
        if let Some(mut sent) = self.pings.take_answered(pong.number) {
            if planted::is(Bug::FreshFromAnswer) {
                sent = Instant::now();
            }
            self.queue.push(Item::Pong(Proof {
                as_of: self.context.freshness.at(sent),
                offset,
                view: wire::version_from(pong.view_incarnation, pong.view_index),
            }));
        }
        Ok(())
    }

    fn send(&mut self, message: MessageToHome) -> Result<(), StreamEnd> {
        self.to_home
            .try_send(wire::to_home(message))
            .map_err(|_| StreamEnd::Broken)
    }
}

/// Start of a tenant's attach attempt.
enum AttachStart {
    /// After this revision.
    At(Revision),
    /// A copy is being seeded; its chunks come first.
    InSeed,
    /// Its digest does not match: it waits for an operator.
    Suspect,
}

fn attach_start(record: &TenantRecord) -> AttachStart {
    match &record.shadow {
        Some(shadow) => {
            let chunks = shadow.loaded >= shadow.seed.sequence();
            let clients = shadow.has_all_clients();
            if chunks && clients {
                AttachStart::At(shadow.state.revision)
            } else {
                AttachStart::InSeed
            }
        }
        None if record.suspect => AttachStart::Suspect,
        None => AttachStart::At(record.live.revision),
    }
}

fn read_attached(attached: FeedAttached) -> Result<AttachedTenant, Malformed> {
    let mut lineage = Reader::new(attached.lineage, "lineage");
    let mut digests = Reader::new(attached.digests, "digests");
    let read = AttachedTenant {
        tenant: TenantNumber::new(attached.tenant),
        epoch: Epoch::new(attached.epoch).ok_or_else(|| lineage.malformed())?,
        number: AttachNumber(attached.attach),
        position: Revision::from_u64(attached.position),
        lineage: Lineage::decode(&mut lineage)?,
        digests: Digests::decode(&mut digests)?,
    };
    lineage.end()?;
    digests.end()?;
    Ok(read)
}
