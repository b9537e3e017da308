//! The home's end of one stream: handles the follower's messages and yields messages to it one by one.

use std::{collections::VecDeque, pin::Pin, sync::Arc};

use futures::{Future, FutureExt, StreamExt, future::OptionFuture, stream::FuturesUnordered};
use stead_api::proto::internal::v1::{FeedAck, FeedAttach, FeedPing, FeedPong, FeedRefused, feed_refused::Reason};
use stead_raft::{Leadership, ReadIndexError};
use stead_state::sent_ledger::SentPart;
use stead_types::{
    FeedOffset, GroupId, TenantNumber,
    planted::{self, Bug},
};
use tokio::{
    sync::{oneshot, watch},
    time::{Instant, sleep_until},
};
use tonic::{Status, Streaming};

use super::{
    limits::{EMPTY_BATCH_INTERVAL, IN_FLIGHT_BYTES_MAX, PACE},
    pending_entries::PendingEntries,
    pings::{PINGS_MAX, ReceivedPings},
    sent_batons::SentBatons,
    sessions::SourceSessions,
};
use crate::{
    attach_attempt::AttachAttempt,
    follower_progress::{FollowerProgress, StreamId},
    group_context::GroupContext,
    payload::PayloadCompressor,
    traffic::RegionPair,
    wire::{self, MessageToFollower, MessageToHome, SubscribeRequest, SubscribeResponse, TenantPosition},
};

type ReadIndexRound = Pin<Box<dyn Future<Output = (u64, Result<u64, ReadIndexError>)> + Send>>;

/// The home's end of one stream.
pub(crate) struct FeedSource {
    pub(super) context: Arc<GroupContext>,
    pub(super) follower: GroupId,
    /// Term of the leadership that the stream belongs to.
    pub(super) term: u64,
    /// Identity among the follower's streams; none for a stream that only refuses.
    pub(super) stream: Option<StreamId>,
    /// Resolves when the stream does not count any more: the follower has opened another one, or the term is over.
    pub(super) replaced: Option<oneshot::Receiver<()>>,
    pub(super) region_pair: Option<RegionPair>,
    pub(super) sessions: SourceSessions,
    /// Index of the last log entry of the home that was scanned.
    pub(super) scanned_index: u64,
    /// Changes of entries behind it that are not sent yet.
    pub(super) pending: Option<PendingEntries>,
    /// Offset of the last batch.
    pub(super) offset: FeedOffset,
    /// Messages that are ready to be sent.
    pub(super) out: VecDeque<MessageToFollower>,
    /// Data in ready messages that is not recorded yet: none of them is sent before it is.
    pub(super) unrecorded: Vec<SentPart>,
    pub(super) compressor: PayloadCompressor,
    pub(super) applied: watch::Receiver<u64>,
    /// Batons that were sent.
    pub(super) batons: SentBatons,
    /// Whether changes that a baton waits for are still to be sent.
    pub(super) hands_over: bool,
    /// Wakes the stream when a tenant is relinquished.
    pub(super) handovers: watch::Receiver<()>,
    /// Offset of the last entry since the last batch that had no change for the follower.
    pub(super) skipped: Option<FeedOffset>,
    empty_batch_at: Instant,
    /// Time from which the next batch may be made.
    paced_until: Instant,
    /// Time from which tenants that catch up may be sent more: within the bandwidth of seeds.
    catch_up_at: Instant,
    in_flight: InFlight,
    inbound: Streaming<SubscribeRequest>,
    leadership: watch::Receiver<Leadership>,
    rounds: FuturesUnordered<ReadIndexRound>,
    pings: ReceivedPings,
    /// Whether the stream ends once the ready messages are sent.
    has_ended: bool,
    ended_with: Option<Status>,
}

/// Batches that are sent and not acknowledged.
#[derive(Debug, Default)]
struct InFlight {
    batches: VecDeque<(u64, usize)>,
    bytes: usize,
    number: u64,
}

/// Event that the stream waits for.
enum Wake {
    Message(Result<Option<SubscribeRequest>, Status>),
    ReadIndex(u64, Result<u64, ReadIndexError>),
    Applied,
    LeaderChanged,
    Replaced,
    EmptyBatchDue,
    PaceElapsed,
    HandoverDue,
}

impl FeedSource {
    /// Returns a source that has sent nothing.
    pub(super) fn new(
        context: Arc<GroupContext>,
        follower: GroupId,
        inbound: Streaming<SubscribeRequest>,
        leadership: watch::Receiver<Leadership>,
    ) -> Self {
        Self {
            follower,
            term: 0,
            stream: None,
            replaced: None,
            region_pair: context.region_pair_to(follower),
            sessions: SourceSessions::default(),
            scanned_index: 0,
            pending: None,
            offset: FeedOffset::ZERO,
            out: VecDeque::new(),
            unrecorded: Vec::new(),
            compressor: PayloadCompressor::new(),
            applied: context.group.applied(),
            batons: SentBatons::default(),
            hands_over: false,
            handovers: context.handovers.subscribe(),
            skipped: None,
            empty_batch_at: Instant::now(),
            paced_until: Instant::now(),
            catch_up_at: Instant::now(),
            in_flight: InFlight::default(),
            inbound,
            leadership,
            rounds: FuturesUnordered::new(),
            pings: ReceivedPings::default(),
            has_ended: false,
            ended_with: None,
            context,
        }
    }

    /// Returns a source that ends with its first message.
    pub(super) fn refusing(
        context: Arc<GroupContext>,
        inbound: Streaming<SubscribeRequest>,
        leadership: watch::Receiver<Leadership>,
        message: MessageToFollower,
    ) -> Self {
        let mut source = Self::new(context, GroupId::DIRECTORY, inbound, leadership);
        source.out.push_back(message);
        source.has_ended = true;
        source
    }

    /// Returns the next message, or `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Result<SubscribeResponse, Status>> {
        loop {
            if !self.unrecorded.is_empty() {
                let recorded = self.context.record_sent(self.follower, &self.unrecorded).await;
                self.unrecorded.clear();
                if let Err(status) = recorded {
                    // What is queued has the parts that were not recorded.
                    self.out.clear();
                    self.end(Some(status));
                }
            }
            if let Some(message) = self.out.pop_front() {
                return Some(Ok(wire::to_follower(message)));
            }
            if self.has_ended {
                return self.ended_with.take().map(Err);
            }
            let made_progress = self.produce().unwrap_or_else(|unreadable| {
                self.context.fail_unreadable(unreadable);
                self.end(Some(Status::internal("storage could not be read")));
                true
            });
            self.answer_pings();
            if made_progress {
                tokio::task::coop::consume_budget().await;
            } else if self.out.is_empty() {
                let wake = self.wait().await;
                self.step(wake);
            }
        }
    }

    /// Waits for the next event. May be dropped at any time.
    async fn wait(&mut self) -> Wake {
        let (has_room, may_send) = (self.has_room(), self.may_send());
        let baton_at = self.batons.next_due();
        let (empty_batch_at, paced_until) = (self.empty_batch_at, self.paced_until);
        let (catch_up_at, is_behind) = (self.catch_up_at, !self.may_catch_up() && self.sessions.is_any_behind());
        let replaced: OptionFuture<_> = self.replaced.as_mut().into();
        tokio::select! {
            biased;
            message = self.inbound.message() => Wake::Message(message),
            Some((ping, round)) = self.rounds.next(), if !self.rounds.is_empty() => Wake::ReadIndex(ping, round),
            Ok(()) = self.leadership.changed() => Wake::LeaderChanged,
            Some(_) = replaced => Wake::Replaced,
            Ok(()) = self.applied.changed(), if may_send => Wake::Applied,
            () = sleep_until(paced_until), if has_room && !may_send => Wake::PaceElapsed,
            () = sleep_until(catch_up_at), if has_room && is_behind => Wake::PaceElapsed,
            () = sleep_until(empty_batch_at), if self.skipped.is_some() => Wake::EmptyBatchDue,
            Ok(()) = self.handovers.changed(), if has_room => Wake::HandoverDue,
            () = sleep_until(baton_at.unwrap_or_else(Instant::now)), if baton_at.is_some() && has_room => Wake::HandoverDue,
        }
    }

    fn step(&mut self, wake: Wake) {
        match wake {
            Wake::Message(Ok(Some(message))) => {
                if let Err(invalid) = self.handle_message(message) {
                    self.context.alarms.record_unreadable();
                    let (group, follower) = (self.context.id(), self.follower);
                    tracing::error!(%group, %follower, error = %invalid, "feed stream from the follower is invalid");
                    self.end(Some(Status::invalid_argument(invalid.to_string())));
                }
            }
            Wake::Message(Ok(None)) => self.end(None),
            Wake::Message(Err(status)) => {
                self.context.alarms.record_status(&status);
                self.end(None);
            }
            Wake::ReadIndex(ping, Ok(index)) => self.pings.add_confirmed(ping, index),
            Wake::ReadIndex(_, Err(error @ ReadIndexError::NotLeader { .. })) => {
                self.end_not_leader(error);
            }
            // The ping gets no response; the follower sends others.
            Wake::ReadIndex(_, Err(ReadIndexError::NoQuorum | ReadIndexError::Overloaded)) => {}
            Wake::ReadIndex(_, Err(ReadIndexError::Stopped)) => self.end(None),
            Wake::Applied | Wake::PaceElapsed | Wake::HandoverDue => {}
            Wake::LeaderChanged => self.leader_changed(),
            // Its acknowledgements would not count. The follower's leader, if it still is one, opens a new stream.
            Wake::Replaced => {
                self.replaced = None;
                self.end(None);
            }
            Wake::EmptyBatchDue => {
                if let Some(offset) = self.skipped.take() {
                    self.send_empty(offset);
                }
            }
        }
    }

    fn leader_changed(&mut self) {
        let known = *self.leadership.borrow_and_update();
        // Another term of the same leader, too, begins with the listings of newly opened streams.
        if !known.is_here || known.term != self.term {
            self.end_not_leader(ReadIndexError::NotLeader { leader: known.leader });
        }
    }

    /// Ends the stream with the message that another node leads the group.
    fn end_not_leader(&mut self, error: ReadIndexError) {
        self.out
            .push_back(MessageToFollower::NotLeader(wire::not_leader(error)));
        self.end(None);
    }

    /// Ends the stream, because the feed does not show any more which tenants changed after its scanned index.
    pub(super) fn end_behind_retention(&mut self) {
        let (group, follower, scanned_index) = (self.context.id(), self.follower, self.scanned_index);
        tracing::info!(%group, %follower, scanned_index, "the retention floor has passed what a feed stream reads next: the follower opens it again, and seeds tenants that are too far behind");
        self.end(None);
    }

    /// Tells whether the stream ends once the ready messages are sent.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }

    fn end(&mut self, status: Option<Status>) {
        self.has_ended = true;
        self.ended_with = status;
    }

    fn handle_message(&mut self, request: SubscribeRequest) -> Result<(), wire::InvalidMessage> {
        match request.message {
            Some(MessageToHome::Attach(attach)) => self.handle_attach(&attach),
            Some(MessageToHome::Ack(ack)) => self.apply_ack(&ack),
            Some(MessageToHome::Ping(ping)) => {
                self.handle_ping(ping);
                Ok(())
            }
            Some(MessageToHome::Heir(heir)) => {
                self.context.heirs.record(self.follower, &heir);
                Ok(())
            }
            Some(MessageToHome::Open(_) | MessageToHome::Listing(_)) => {
                Err(wire::InvalidMessage("the stream is already open"))
            }
            // A newer follower's message.
            None => Ok(()),
        }
    }

    fn handle_attach(&mut self, attach: &FeedAttach) -> Result<(), wire::InvalidMessage> {
        let position = attach.position.as_ref().ok_or(wire::InvalidMessage("position"))?;
        let position = TenantPosition::from_message(position)?;
        let (tenant, revision) = (position.tenant, position.revision);
        self.context.see_epochs(std::iter::once(&position));
        // Admission is checked when it is its turn, as for every batch.
        if self.sessions.attach(tenant, AttachAttempt::of(&position), revision) {
            self.update_progress(|follower| follower.detach(tenant, Some((position.epoch, revision))));
            if position.seed.is_some() {
                let seeds = &self.context.seeds;
                // One that has failed is refused when it is its turn.
                seeds.catch_up(tenant, self.follower, position.epoch, revision).ok();
            }
        }
        Ok(())
    }

    fn apply_ack(&mut self, ack: &FeedAck) -> Result<(), wire::InvalidMessage> {
        let offset = wire::offset_from(ack.offset)?;
        self.in_flight.done(ack.batches);
        let (mut attached, mut detached) = (wire::positions(&ack.attached)?, wire::positions(&ack.detached)?);
        // Also an attempt that is over shows the epoch that the follower follows by now.
        self.context.see_epochs(attached.iter().chain(&detached));
        // Positions of an attempt that is over here are void: the follower is told, or has begun another attempt.
        attached.retain(|position| self.sessions.attempt(position.tenant) == Some(AttachAttempt::of(position)));
        detached.retain(|position| match self.sessions.attempt(position.tenant) {
            Some(attempt) if attempt.number > position.attach => false,
            Some(_) => self.sessions.end(position.tenant).is_some(),
            // It tells the tenant's position.
            None => true,
        });
        self.update_progress(|follower| follower.acknowledge(offset, &attached, &detached));
        for position in &attached {
            self.context.seeds.complete(position.tenant, self.follower);
        }
        Ok(())
    }

    /// Changes the follower's progress, if this is still its stream.
    fn update_progress(&self, change: impl FnOnce(&mut FollowerProgress)) {
        if let Some(stream) = self.stream {
            self.context.acknowledgements.update(self.follower, stream, change);
        }
    }

    fn handle_ping(&mut self, ping: FeedPing) {
        if self.rounds.len() >= PINGS_MAX {
            return;
        }
        let group = self.context.group.clone();
        self.rounds
            .push(async move { (ping.number, group.read_index().await) }.boxed());
    }

    /// Answers the pings whose read index has been scanned and sent.
    fn answer_pings(&mut self) {
        // A pong tells what could be acknowledged here until now: without a lease that is not known.
        if self.hands_over || self.context.lease().is_none() {
            return;
        }
        let scanned_index = if planted::is(Bug::PongBeforeData) {
            u64::MAX
        } else {
            self.scanned_index
        };
        let Some(number) = self.pings.take_passed(scanned_index) else {
            return;
        };
        let version = self.context.directory_view.version();
        self.out.push_back(MessageToFollower::Pong(FeedPong {
            number,
            offset: Some(wire::offset_to(self.offset)),
            view_incarnation: version.incarnation.0,
            view_index: version.index,
        }));
    }

    /// Ends a tenant's session and sends the follower the reason.
    pub(super) fn refuse(&mut self, tenant: TenantNumber, reason: Reason) {
        if let Some(attempt) = self.sessions.end(tenant) {
            self.update_progress(|follower| follower.detach(tenant, None));
            self.out.push_back(MessageToFollower::Refused(FeedRefused {
                tenant: tenant.get(),
                epoch: attempt.epoch.get(),
                reason: reason.into(),
                attach: attempt.number.0,
            }));
        }
    }

    /// Tells whether another batch may be made now.
    pub(super) fn may_send(&self) -> bool {
        self.has_room() && self.paced_until <= Instant::now()
    }

    /// Tells whether tenants that catch up may be sent more now.
    pub(super) fn may_catch_up(&self) -> bool {
        self.catch_up_at <= Instant::now()
    }

    /// Takes the bandwidth of history that was sent to a seeded copy.
    pub(super) fn pace_catch_up(&mut self, len: usize) {
        self.catch_up_at = self.context.group.copy_bandwidth().take(len);
    }

    /// Tells whether the follower has acknowledged enough for more.
    pub(super) fn has_room(&self) -> bool {
        self.in_flight.bytes < IN_FLIGHT_BYTES_MAX
    }

    /// Counts a batch as in flight and returns its number.
    pub(super) fn record_batch(&mut self, bytes: usize) -> u64 {
        self.paced_until = Instant::now() + PACE;
        self.in_flight.add(bytes)
    }

    /// Records the offset of a batch that was sent.
    pub(super) fn record_offset(&mut self, offset: FeedOffset) {
        self.offset = offset;
        self.skipped = None;
    }

    /// Records the offset of an entry that had no change for the follower.
    pub(super) fn record_skipped(&mut self, offset: FeedOffset) {
        if self.skipped.is_none() {
            self.empty_batch_at = Instant::now() + EMPTY_BATCH_INTERVAL;
        }
        self.skipped = Some(offset);
    }
}

impl Drop for FeedSource {
    fn drop(&mut self) {
        self.update_progress(|follower| follower.connected = false);
    }
}

impl InFlight {
    fn add(&mut self, bytes: usize) -> u64 {
        self.number += 1;
        self.bytes += bytes;
        self.batches.push_back((self.number, bytes));
        self.number
    }

    fn done(&mut self, number: u64) {
        while let Some((_, bytes)) = self.batches.pop_front_if(|(sent, _)| *sent <= number) {
            self.bytes -= bytes;
        }
    }
}
