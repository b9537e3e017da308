//! One stream: waits, takes in what came, proposes it, acknowledges what was applied.

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
        digest::{Differs, Digests},
        incoming::Unacceptable,
        record::{AttachNumber, Record},
    },
};
use stead_store::{group_rows::HalfChanged, machine::Answer};
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
    connect::{Open, connect, position},
    flux::Flux,
    incoming::{Incoming, LastAttempt, check_attempt},
    outcome::Outcome,
    pings::Pings,
    queue::{self, Attached, Item, Proposal, Queue},
    seed,
};
use crate::{
    local::Local,
    payload::Unpacker,
    peers::Peers,
    source::{BATCH_LEN_MAX, BATCH_PARTS_MAX},
    wire::{self, Garbled, Position, SubscribeRequest, SubscribeResponse, ToFollower, ToHome},
};

/// How long a proposal waits that found too much waiting.
const OVERLOADED_PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

/// How long a stream is not opened again that could not be read.
const GARBLED_PAUSE: std::time::Duration = std::time::Duration::from_secs(5);

/// A stream that ended sooner than this is not opened again at once, but after a wait that doubles each time.
const SHORT_LIFE: std::time::Duration = std::time::Duration::from_secs(1);
const REOPEN_PAUSE_MIN: std::time::Duration = std::time::Duration::from_millis(5);

type Seed = BoxFuture<'static, (TenantNumber, bool)>;
type UnderWay = BoxFuture<'static, (Proposal, Result<Vec<Answer>, ProposeError>)>;

/// Follows one home, from stream to stream, until the own rows are closed.
pub(crate) async fn run(local: Arc<Local>, peers: Arc<Peers>, home: GroupId) {
    let (mut flux, mut seeds, mut hint) = (Flux::default(), FuturesUnordered::new(), None);
    let mut pause = REOPEN_PAUSE_MIN;
    loop {
        let open = Box::pin(connect(&local, &peers, home, &mut hint)).await;
        flux.opened();
        // A node whose rows are closed stops.
        let Ok(mut stream) = Stream::new(local.clone(), peers.clone(), home, open) else {
            return;
        };
        stream.seeds = seeds;
        stream.flux = flux;
        local.freshness.connected(home, true);
        let opened = Instant::now();
        let end = Box::pin(stream.go()).await;
        local.freshness.connected(home, false);
        tracing::debug!(group = %local.id(), %home, ?end, "stream ended");
        if let End::Garbled(garbled) = &end {
            local.garbled(home, garbled);
            tokio::time::sleep(GARBLED_PAUSE).await;
        }
        if let Some(under_way) = stream.under_way.take() {
            // It may attach tenants, which the next stream must be opened with. What it came to is read from records.
            drop(under_way.await);
        }
        (flux, seeds) = (stream.flux, stream.seeds);
        if let End::NotLeader(leader) = end {
            hint = leader;
        }
        if opened.elapsed() < SHORT_LIFE {
            // It may be refused again for what this side says: opening costs both sides a list of all tenants.
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(GARBLED_PAUSE);
        } else {
            pause = REOPEN_PAUSE_MIN;
        }
    }
}

/// Why a stream ended.
#[derive(Debug)]
enum End {
    /// Another node leads the home, or none.
    NotLeader(Option<stead_types::NodeId>),
    /// It broke, or its sender ended it.
    Broken,
    /// What came is not what should.
    Garbled(Garbled),
    /// The own group did not take a proposal.
    NotTaken(#[expect(dead_code, reason = "shown in logs")] ProposeError),
    /// The own rows are closed.
    HalfChanged(#[expect(dead_code, reason = "shown in logs")] HalfChanged),
}

impl From<HalfChanged> for End {
    fn from(half_changed: HalfChanged) -> Self {
        Self::HalfChanged(half_changed)
    }
}

impl From<Garbled> for End {
    fn from(garbled: Garbled) -> Self {
        Self::Garbled(garbled)
    }
}

enum Wake {
    Said(Result<Option<SubscribeResponse>, Status>),
    Proposed(Proposal, Result<Vec<Answer>, ProposeError>),
    Seeded(TenantNumber, bool),
    PingDue,
    Busy,
    Applied,
    Due,
}

/// One open stream.
struct Stream {
    local: Arc<Local>,
    peers: Arc<Peers>,
    home: GroupId,
    to_home: mpsc::Sender<SubscribeRequest>,
    from_home: Streaming<SubscribeResponse>,
    applied: watch::Receiver<u64>,
    unpacker: Unpacker,
    queue: Queue,
    under_way: Option<UnderWay>,
    flux: Flux,
    seeds: FuturesUnordered<Seed>,
    /// What has come of whom.
    incoming: Incoming,
    /// Tenants whose new copy differed from the home: the next one is built from the beginning.
    unlike: BTreeSet<TenantNumber>,
    /// The shard's count of changes of who is detached, as of the last look.
    seen: Option<u64>,
    pings: Pings,
    pinged: Option<Instant>,
    /// When records came last.
    busy: Option<Instant>,
}

impl Stream {
    fn new(local: Arc<Local>, peers: Arc<Peers>, home: GroupId, open: Open) -> Result<Self, HalfChanged> {
        let incarnation = Incarnation(open.opened.incarnation);
        let mut queue = Queue::new(home, incarnation);
        if let Some(begins) = open.opened.begins {
            let attached = local.machine.read(|held| {
                let of_home = |record: &Record| record.session.filter(|session| session.home == home);
                let records = held.shard().records();
                let attached = records.filter_map(|(tenant, record)| Some((tenant, of_home(record)?.number)));
                attached.collect::<Vec<_>>()
            })?;
            let offset = FeedOffset {
                incarnation: Incarnation(begins.incarnation),
                index: begins.index,
            };
            queue.begins(offset, attached);
        }
        Ok(Self {
            applied: local.group.applied(),
            local,
            peers,
            home,
            to_home: open.to_home,
            from_home: open.from_home,
            unpacker: Unpacker::new(),
            queue,
            under_way: None,
            flux: Flux::default(),
            seeds: FuturesUnordered::new(),
            incoming: Incoming::default(),
            unlike: BTreeSet::new(),
            seen: None,
            pings: Pings::default(),
            pinged: None,
            busy: None,
        })
    }

    /// Goes on until the stream ends.
    async fn go(&mut self) -> End {
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

    /// Waits for something to do. May be dropped at any time.
    async fn wait(&mut self) -> Wake {
        let freshness = self.local.freshness.clone();
        let ping_at = self
            .pinged
            .map_or_else(Instant::now, |at| at + freshness.interval(self.busy));
        // What is due is done between proposals.
        let due = self.flux.next_due().filter(|_| self.under_way.is_none());
        let under_way: OptionFuture<_> = self.under_way.as_mut().into();
        tokio::select! {
            biased;
            Some((proposal, answers)) = under_way => Wake::Proposed(proposal, answers),
            said = self.from_home.message() => Wake::Said(said),
            Some((tenant, complete)) = self.seeds.next(), if !self.seeds.is_empty() => Wake::Seeded(tenant, complete),
            Ok(()) = self.applied.changed() => Wake::Applied,
            () = freshness.wanted() => Wake::Busy,
            () = sleep_until(ping_at) => Wake::PingDue,
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => Wake::Due,
        }
    }

    fn step(&mut self, wake: Wake) -> Result<(), End> {
        match wake {
            Wake::Said(Ok(Some(response))) => self.said(response),
            Wake::Said(Ok(None)) => Err(End::Broken),
            Wake::Said(Err(status)) => {
                self.local.alarms.note(&status);
                Err(End::Broken)
            }
            Wake::Proposed(proposal, Ok(answers)) => {
                self.under_way = None;
                self.proposed(proposal, answers)
            }
            Wake::Proposed(_, Err(error)) => {
                self.under_way = None;
                Err(End::NotTaken(error))
            }
            Wake::Seeded(tenant, complete) => {
                self.flux.seeded(tenant, complete, Instant::now());
                Ok(())
            }
            Wake::PingDue => self.ping(),
            Wake::Busy | Wake::Applied | Wake::Due => Ok(()),
        }
    }

    /// Does what can be done without waiting.
    fn act(&mut self) -> Result<(), End> {
        self.applied.borrow_and_update();
        if self.under_way.is_some() {
            return Ok(());
        }
        // The home is told all that the log has: nobody is asked for whom it has still to be told of.
        self.look()?;
        let todo = self.flux.todo(Instant::now());
        for tenant in todo.ask {
            self.begin(tenant)?;
        }
        for tenant in todo.seed {
            let (local, peers, home) = (self.local.clone(), self.peers.clone(), self.home);
            let fresh = self.unlike.remove(&tenant);
            let seed = async move { (tenant, seed::seed(local, peers, home, (tenant, fresh)).await) };
            self.seeds.push(seed.boxed());
        }
        self.propose()
    }

    /// Looks who is detached, if that has changed, and tells the home of those who were not before: other entries than
    /// this stream's end sessions, too.
    fn look(&mut self) -> Result<(), End> {
        let (seen, flux, home) = (&mut self.seen, &mut self.flux, self.home);
        let (offset, detached) = self.local.machine.read(|held| {
            let shard = held.shard();
            let mut detached = Vec::new();
            let now = Some(shard.detached_changes());
            if std::mem::replace(seen, now) != now {
                let new = flux.detached(shard.detached(home));
                let over = |record: &&Record| record.session.is_none() && record.attach > AttachNumber::default();
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
        self.send(ToHome::Ack(FeedAck {
            offset: Some(wire::offset_to(offset)),
            batches: 0,
            attached: Vec::new(),
            detached,
        }))
    }

    /// Lets an attempt to attach a tenant begin, if there is a copy to begin with.
    fn begin(&mut self, tenant: TenantNumber) -> Result<(), End> {
        match self.standing(tenant)? {
            Some((_, Standing::At(_))) => self.queue.push(Item::Begin(tenant)),
            Some((_, Standing::InSeed)) => self.flux.needs_seed(tenant, Instant::now()),
            Some((_, Standing::Suspect)) => self.flux.refused(tenant, Instant::now()),
            // Once it is detached it will be found again.
            None => self.flux.forget(tenant),
        }
        Ok(())
    }

    /// Asks the home to attach a tenant, in the attempt that has begun.
    fn ask(&mut self, tenant: TenantNumber) -> Result<(), End> {
        let is_begun = self.local.machine.read(|held| {
            let record = held.record(tenant);
            record.is_some_and(|record| record.session_of(self.home, record.attach).is_some())
        })?;
        let Some((position, Standing::At(revision))) = self.standing(tenant)?.filter(|_| is_begun) else {
            // The attempt is over again.
            self.flux.refused(tenant, Instant::now());
            return Ok(());
        };
        let position = Some(Position { revision, ..position }.to_message());
        self.send(ToHome::Attach(FeedAttach { position }))
    }

    /// Returns where a tenant of this home that is not attached is, and from where its changes are wanted.
    fn standing(&self, tenant: TenantNumber) -> Result<Option<(Position, Standing)>, HalfChanged> {
        let home = self.home;
        self.local.machine.read(|held| {
            let detached = held.record(tenant).filter(|record| record.home() == Some(home));
            let record = detached.filter(|record| !held.shard().is_attached(record))?;
            Some((position(tenant, record), standing(record)))
        })
    }

    fn propose(&mut self) -> Result<(), End> {
        let home = self.home;
        let (local, queue) = (&self.local, &mut self.queue);
        let version = local.views.version();
        let proposal = local.machine.read(|held| {
            let committed = held.shard().stream(home);
            let at = queue::Standing { committed, version };
            queue.proposal(at, |tenant| held.record(tenant).map(queue::Known::of))
        })?;
        let Some(proposal) = proposal else { return Ok(()) };
        let group = self.local.group.clone();
        let class = CLASS + u64::from(home.get());
        let under_way = async move {
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
        self.under_way = Some(under_way.boxed());
        Ok(())
    }

    fn proposed(&mut self, mut proposal: Proposal, answers: Vec<Answer>) -> Result<(), End> {
        let (home, local) = (self.home, self.local.clone());
        let outcome = local
            .machine
            .read(|held| Outcome::read(home, &proposal, answers, &held))?;
        for tenant in &outcome.refused {
            self.flux.refused(*tenant, Instant::now());
        }
        for (tenant, differs) in outcome.unlike.iter().chain(&outcome.unlike_seeds) {
            let of = match differs {
                Differs::Keys => "live keys",
                Differs::Outcomes => "idempotency records",
            };
            tracing::error!(group = %local.id(), %home, %tenant, of, "a copy's digest differs from its home's");
        }
        for (tenant, _) in &outcome.unlike_seeds {
            self.unlike.insert(*tenant);
            self.flux.needs_new_seed(*tenant, Instant::now());
        }
        for proof in proposal.proofs.drain(..) {
            local.freshness.answered(home, proof);
        }
        local.freshness.advance(home);
        if let Some(ack) = outcome.acknowledgement(&proposal) {
            self.send(ToHome::Ack(ack))?;
        }
        outcome.begun.into_iter().try_for_each(|tenant| self.ask(tenant))
    }

    fn said(&mut self, response: SubscribeResponse) -> Result<(), End> {
        match response.message {
            Some(ToFollower::Batch(batch)) => self.batch(batch)?,
            Some(ToFollower::Attached(attached)) => self.attached(attached)?,
            Some(ToFollower::Refused(refused)) => self.refused(&refused)?,
            Some(ToFollower::Pong(pong)) => self.pong(&pong)?,
            Some(ToFollower::NotLeader(not_leader)) => {
                let leader = (not_leader.leader != 0).then_some(stead_types::NodeId::new(not_leader.leader));
                return Err(End::NotLeader(leader));
            }
            Some(ToFollower::Opened(_)) => return Err(Garbled("a stream is opened once").into()),
            // A newer home's message.
            None => {}
        }
        Ok(())
    }

    fn batch(&mut self, batch: FeedBatch) -> Result<(), End> {
        let offset = wire::offset_from(batch.offset)?;
        let unreadable = |_| Garbled("payload");
        let mut raw = self.unpacker.unpack(batch.payload, batch.raw_len).map_err(unreadable)?;
        // What is longer would never find room in the group's log.
        if raw.len() > BATCH_LEN_MAX || batch.parts.len() > BATCH_PARTS_MAX {
            return Err(Garbled("batch").into());
        }
        let attempts = self.last_attempts(batch.parts.iter().map(|part| part.tenant))?;
        let mut parts = Vec::with_capacity(batch.parts.len());
        for (part, last) in batch.parts.iter().zip(attempts) {
            let len = part.len as usize;
            if len > raw.len() {
                return Err(Garbled("part").into());
            }
            match self.incoming.part(last, part, raw.split_to(len)) {
                Ok(part) => parts.extend(part),
                // It is detached before the offset passes what it lacks.
                Err(why) => self.unacceptable((part.tenant, part.attach), last, &why),
            }
        }
        if !parts.is_empty() {
            self.busy = Some(Instant::now());
        }
        let number = batch.number;
        self.queue.push(Item::Batch { number, offset, parts });
        Ok(())
    }

    /// Returns the last attempts to attach these tenants, as their records have them.
    fn last_attempts(&self, tenants: impl Iterator<Item = u64>) -> Result<Vec<Option<LastAttempt>>, HalfChanged> {
        self.local.machine.read(|held| {
            let last = |tenant| LastAttempt::of(held.record(TenantNumber::new(tenant))?, self.home);
            tenants.map(last).collect()
        })
    }

    fn attached(&mut self, attached: FeedAttached) -> Result<(), End> {
        let attempt = (attached.tenant, attached.attach);
        let last = self.last_attempts(std::iter::once(attached.tenant))?.pop().flatten();
        let read = read_attached(attached).map_err(Unacceptable::Unreadable);
        let checked = read.and_then(|attached| {
            check_attempt(last, (attached.epoch, attached.number))?;
            Ok(attached)
        });
        match checked {
            Ok(attached) => self.queue.push(Item::Attached(attached)),
            Err(why) => self.unacceptable(attempt, last, &why),
        }
        Ok(())
    }

    /// Ends a tenant's session, because of what its home has sent; it is asked for again, later. The session is the one
    /// that the record has, whatever the home has named.
    fn unacceptable(&mut self, (tenant, attach): (u64, u64), last: Option<LastAttempt>, why: &Unacceptable) {
        let tenant = TenantNumber::new(tenant);
        let number = last.map_or(AttachNumber(attach), |last| last.number);
        self.local.unacceptable(self.home, tenant, why);
        self.incoming.end(tenant, number);
        self.queue.push(Item::Detached(tenant, number));
        self.flux.refused(tenant, Instant::now());
    }

    fn refused(&mut self, refused: &FeedRefused) -> Result<(), End> {
        let (tenant, now) = (TenantNumber::new(refused.tenant), Instant::now());
        tracing::debug!(group = %self.local.id(), home = %self.home, %tenant, reason = ?refused.reason(), "refused");
        let number = AttachNumber(refused.attach);
        let has_shadow = self.local.machine.read(|held| {
            // Of an earlier attempt it says nothing about this one.
            let record = held.record(tenant).filter(|record| record.home() == Some(self.home))?;
            (record.attach == number).then_some(record.shadow.is_some())
        })?;
        let Some(has_shadow) = has_shadow else { return Ok(()) };
        // Also if it is not attached: that may be under way.
        self.queue.push(Item::Detached(tenant, number));
        match refused.reason() {
            Reason::SeedNeeded if has_shadow => {
                // It took so long to build that the home has forgotten what comes next.
                self.unlike.insert(tenant);
                self.flux.needs_new_seed(tenant, now);
            }
            Reason::SeedNeeded => self.flux.needs_seed(tenant, now),
            Reason::NotOwner | Reason::NotAdmitted | Reason::Forked | Reason::Unspecified => {
                self.flux.refused(tenant, now);
            }
        }
        Ok(())
    }

    fn ping(&mut self) -> Result<(), End> {
        let now = Instant::now();
        self.pinged = Some(now);
        if !self.local.freshness.wants_ping(self.home) {
            return Ok(());
        }
        let number = self.pings.send(now);
        self.send(ToHome::Ping(FeedPing { number }))
    }

    fn pong(&mut self, pong: &FeedPong) -> Result<(), End> {
        let offset = wire::offset_from(pong.offset)?;
        if let Some(mut sent) = self.pings.answered(pong.number) {
            if planted::is(Bug::FreshFromAnswer) {
                sent = Instant::now();
            }
            self.queue.push(Item::Pong(Proof {
                as_of: self.local.freshness.at(sent),
                offset,
                view: wire::version_from(pong.view_incarnation, pong.view_index),
            }));
        }
        Ok(())
    }

    fn send(&mut self, message: ToHome) -> Result<(), End> {
        self.to_home.try_send(wire::to_home(message)).map_err(|_| End::Broken)
    }
}

/// From where a tenant's changes are wanted.
enum Standing {
    At(Revision),
    /// A copy is being built; its chunks come first.
    InSeed,
    /// Its digest differs: it waits for an operator.
    Suspect,
}

fn standing(record: &Record) -> Standing {
    match &record.shadow {
        Some(shadow) => {
            let chunks = shadow.loaded >= shadow.seed.sequence();
            let clients = shadow.has_all_clients();
            if chunks && clients {
                Standing::At(shadow.state.revision)
            } else {
                Standing::InSeed
            }
        }
        None if record.suspect => Standing::Suspect,
        None => Standing::At(record.live.revision),
    }
}

fn read_attached(attached: FeedAttached) -> Result<Attached, Malformed> {
    let mut lineage = Reader::new(attached.lineage, "lineage");
    let mut digests = Reader::new(attached.digests, "digests");
    let read = Attached {
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
