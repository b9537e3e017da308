//! One stream: waits, takes in what the follower says, and gives out messages one by one.

use std::{collections::VecDeque, pin::Pin, sync::Arc};

use futures::{Future, FutureExt, StreamExt, future::OptionFuture, stream::FuturesUnordered};
use stead_api::proto::internal::v1::{FeedAck, FeedAttach, FeedPing, FeedPong, FeedRefused, feed_refused::Reason};
use stead_raft::{Leadership, ReadIndexError};
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
    IN_FLIGHT_BYTES_MAX, KEEP_UP_INTERVAL, PACE, acknowledged,
    open::not_leader,
    pings::{PINGS_MAX, Pings},
    produce::UnderWay,
    sessions::{Attempt, Sessions},
};
use crate::{
    counters::Border,
    local::Local,
    payload::Packer,
    wire::{self, Position, SubscribeRequest, SubscribeResponse, ToFollower, ToHome},
};

/// What a follower says, and who leads meanwhile.
type Inbound = (Streaming<SubscribeRequest>, watch::Receiver<Leadership>);
type Round = Pin<Box<dyn Future<Output = (u64, Result<u64, ReadIndexError>)> + Send>>;

/// The home's end of one stream.
pub(crate) struct Source {
    pub(super) local: Arc<Local>,
    pub(super) follower: GroupId,
    /// Of the leadership that this stream is of.
    pub(super) term: u64,
    /// What it is among the follower's streams; none of one that only refuses.
    pub(super) stream: Option<acknowledged::Stream>,
    /// Resolves when the follower has opened another stream.
    pub(super) replaced: Option<oneshot::Receiver<()>>,
    pub(super) border: Option<Border>,
    pub(super) sessions: Sessions,
    /// The home's entries up to here have been gone through.
    pub(super) place: u64,
    /// What entries behind it changed and is not sent yet.
    pub(super) under_way: Option<UnderWay>,
    /// Of the last batch.
    pub(super) offset: FeedOffset,
    /// Messages that are ready.
    pub(super) out: VecDeque<ToFollower>,
    pub(super) packer: Packer,
    pub(super) applied: watch::Receiver<u64>,
    /// The last entry that had nothing for the follower, since the last batch.
    pub(super) skipped: Option<FeedOffset>,
    keep_up_at: Instant,
    /// When the next batch may be made.
    paced_until: Instant,
    in_flight: InFlight,
    inbound: Streaming<SubscribeRequest>,
    leadership: watch::Receiver<Leadership>,
    rounds: FuturesUnordered<Round>,
    pings: Pings,
    /// Nothing more is given out but what is ready.
    has_ended: bool,
    ended_with: Option<Status>,
}

/// Batches that have not been acknowledged.
#[derive(Debug, Default)]
struct InFlight {
    batches: VecDeque<(u64, usize)>,
    bytes: usize,
    number: u64,
}

enum Wake {
    Said(Result<Option<SubscribeRequest>, Status>),
    Confirmed(u64, Result<u64, ReadIndexError>),
    Applied,
    LeaderChanged,
    Replaced,
    KeepUp,
    PaceOver,
}

impl Source {
    /// Returns a source that has said nothing.
    pub(super) fn new(local: Arc<Local>, follower: GroupId, (inbound, leadership): Inbound) -> Self {
        Self {
            follower,
            term: 0,
            stream: None,
            replaced: None,
            border: local.border_to(follower),
            sessions: Sessions::default(),
            place: 0,
            under_way: None,
            offset: FeedOffset::ZERO,
            out: VecDeque::new(),
            packer: Packer::new(),
            applied: local.group.applied(),
            skipped: None,
            keep_up_at: Instant::now(),
            paced_until: Instant::now(),
            in_flight: InFlight::default(),
            inbound,
            leadership,
            rounds: FuturesUnordered::new(),
            pings: Pings::default(),
            has_ended: false,
            ended_with: None,
            local,
        }
    }

    /// Returns a source that ends with its first message.
    pub(super) fn refusing(local: Arc<Local>, from: Inbound, message: ToFollower) -> Self {
        let mut source = Self::new(local, GroupId::DIRECTORY, from);
        source.out.push_back(message);
        source.has_ended = true;
        source
    }

    /// Returns the next message, or `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Result<SubscribeResponse, Status>> {
        loop {
            if let Some(message) = self.out.pop_front() {
                return Some(Ok(wire::to_follower(message)));
            }
            if self.has_ended {
                return self.ended_with.take().map(Err);
            }
            let worked = self.produce().unwrap_or_else(|unreadable| {
                self.local.unreadable(unreadable);
                self.end(Some(Status::internal("storage could not be read")));
                true
            });
            self.answer_pings();
            if worked {
                tokio::task::coop::consume_budget().await;
            } else if self.out.is_empty() {
                let wake = self.wait().await;
                self.step(wake);
            }
        }
    }

    /// Waits for something to do. May be dropped at any time.
    async fn wait(&mut self) -> Wake {
        let (has_room, may_send) = (self.has_room(), self.may_send());
        let (keep_up_at, paced_until) = (self.keep_up_at, self.paced_until);
        let replaced: OptionFuture<_> = self.replaced.as_mut().into();
        tokio::select! {
            biased;
            said = self.inbound.message() => Wake::Said(said),
            Some((ping, round)) = self.rounds.next(), if !self.rounds.is_empty() => Wake::Confirmed(ping, round),
            Ok(()) = self.leadership.changed() => Wake::LeaderChanged,
            Some(_) = replaced => Wake::Replaced,
            Ok(()) = self.applied.changed(), if may_send => Wake::Applied,
            () = sleep_until(paced_until), if has_room && !may_send => Wake::PaceOver,
            () = sleep_until(keep_up_at), if self.skipped.is_some() => Wake::KeepUp,
        }
    }

    fn step(&mut self, wake: Wake) {
        match wake {
            Wake::Said(Ok(Some(message))) => {
                if let Err(garbled) = self.said(message) {
                    self.local.alarms.unreadable();
                    let (group, follower) = (self.local.id(), self.follower);
                    tracing::error!(%group, %follower, error = %garbled, "a follower's stream cannot be read");
                    self.end(Some(Status::invalid_argument(garbled.to_string())));
                }
            }
            Wake::Said(Ok(None)) => self.end(None),
            Wake::Said(Err(status)) => {
                self.local.alarms.note(&status);
                self.end(None);
            }
            Wake::Confirmed(ping, Ok(index)) => self.pings.confirmed(ping, index),
            Wake::Confirmed(_, Err(error @ ReadIndexError::NotLeader { .. })) => {
                self.out.push_back(not_leader(error));
                self.end(None);
            }
            // The ping stays unanswered; the follower sends others.
            Wake::Confirmed(_, Err(ReadIndexError::NoQuorum | ReadIndexError::Overloaded)) => {}
            Wake::Confirmed(_, Err(ReadIndexError::Stopped)) => self.end(None),
            Wake::Applied | Wake::PaceOver => {}
            Wake::LeaderChanged => self.leader_changed(),
            // What it acknowledges here would not count. Its leader, if that is still one, opens it again.
            Wake::Replaced => {
                self.replaced = None;
                self.end(None);
            }
            Wake::KeepUp => {
                if let Some(offset) = self.skipped.take() {
                    self.keep_up(offset);
                }
            }
        }
    }

    fn leader_changed(&mut self) {
        let known = *self.leadership.borrow_and_update();
        // Another term of the same leader, too, begins with what followers list when they open a stream.
        if !known.is_here || known.term != self.term {
            self.out
                .push_back(not_leader(ReadIndexError::NotLeader { leader: known.leader }));
            self.end(None);
        }
    }

    /// Ends the stream, because the feed does not say any more who was touched behind its place.
    pub(super) fn overtaken(&mut self) {
        let (group, follower) = (self.local.id(), self.follower);
        tracing::info!(%group, %follower, place = self.place, "retention has passed a stream: it is opened anew");
        self.end(None);
    }

    /// Tells whether nothing more is given out but what is ready.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }

    fn end(&mut self, status: Option<Status>) {
        self.has_ended = true;
        self.ended_with = status;
    }

    fn said(&mut self, request: SubscribeRequest) -> Result<(), wire::Garbled> {
        match request.message {
            Some(ToHome::Attach(attach)) => self.attach(&attach),
            Some(ToHome::Ack(ack)) => self.acknowledged(&ack),
            Some(ToHome::Ping(ping)) => {
                self.ping(ping);
                Ok(())
            }
            Some(ToHome::Open(_) | ToHome::Listing(_)) => Err(wire::Garbled("a stream is opened once")),
            // A newer follower's message.
            None => Ok(()),
        }
    }

    fn attach(&mut self, attach: &FeedAttach) -> Result<(), wire::Garbled> {
        let position = attach.position.as_ref().ok_or(wire::Garbled("position"))?;
        let position = Position::from_message(position)?;
        let (tenant, revision) = (position.tenant, position.revision);
        // Whether it may be sent is checked when it is its turn, as for every batch.
        if self.sessions.attach(tenant, Attempt::of(&position), revision) {
            self.note(|follower| follower.detach(tenant, Some((position.epoch, revision))));
        }
        Ok(())
    }

    fn acknowledged(&mut self, ack: &FeedAck) -> Result<(), wire::Garbled> {
        let offset = wire::offset_from(ack.offset)?;
        self.in_flight.done(ack.batches);
        let (mut attached, mut detached) = (wire::positions(&ack.attached)?, wire::positions(&ack.detached)?);
        // What belongs to an attempt that is over here is void: the follower is told, or has begun another one.
        attached.retain(|position| self.sessions.attempt(position.tenant) == Some(Attempt::of(position)));
        detached.retain(|position| match self.sessions.attempt(position.tenant) {
            Some(attempt) if attempt.number > position.attach => false,
            Some(_) => self.sessions.end(position.tenant).is_some(),
            // It says where the tenant is.
            None => true,
        });
        self.note(|follower| follower.acknowledge(offset, &attached, &detached));
        Ok(())
    }

    /// Notes what is known of the follower, if this is still its stream.
    fn note(&self, change: impl FnOnce(&mut acknowledged::Follower)) {
        if let Some(stream) = self.stream {
            self.local.acknowledged.change(self.follower, stream, change);
        }
    }

    fn ping(&mut self, ping: FeedPing) {
        if self.rounds.len() >= PINGS_MAX {
            return;
        }
        let group = self.local.group.clone();
        self.rounds
            .push(async move { (ping.number, group.read_index().await) }.boxed());
    }

    /// Answers pings that everything before has been sent for.
    fn answer_pings(&mut self) {
        let place = if planted::is(Bug::PongBeforeData) {
            u64::MAX
        } else {
            self.place
        };
        let Some(number) = self.pings.passed(place) else {
            return;
        };
        let version = self.local.views.version();
        self.out.push_back(ToFollower::Pong(FeedPong {
            number,
            offset: Some(wire::offset_to(self.offset)),
            view_incarnation: version.incarnation.0,
            view_index: version.index,
        }));
    }

    /// Ends a tenant's session and tells the follower why.
    pub(super) fn refuse(&mut self, tenant: TenantNumber, reason: Reason) {
        if let Some(attempt) = self.sessions.end(tenant) {
            self.note(|follower| follower.detach(tenant, None));
            self.out.push_back(ToFollower::Refused(FeedRefused {
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

    /// Tells whether the follower has acknowledged enough for more.
    pub(super) fn has_room(&self) -> bool {
        self.in_flight.bytes < IN_FLIGHT_BYTES_MAX
    }

    /// Counts a batch and returns its number.
    pub(super) fn sends(&mut self, bytes: usize) -> u64 {
        self.paced_until = Instant::now() + PACE;
        self.in_flight.add(bytes)
    }

    /// Notes the offset of a batch that was sent.
    pub(super) fn sent(&mut self, offset: FeedOffset) {
        self.offset = offset;
        self.skipped = None;
    }

    /// Notes an entry that had nothing for the follower.
    pub(super) fn skipped(&mut self, offset: FeedOffset) {
        if self.skipped.is_none() {
            self.keep_up_at = Instant::now() + KEEP_UP_INTERVAL;
        }
        self.skipped = Some(offset);
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.note(|follower| follower.connected = false);
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
