//! Takes operations, finds out who serves them, and sees that each is answered.
//!
//! ```text
//! dispatch ─ parse ─ tenant (view) ─ state::routing ─┬─ here, admitted, write   ─> writes: few entries for many
//!                                                    ├─ here, admitted, read    ─> reads: one read index for many
//!                                                    ├─ here, admitted, replica ─> replica: gate, perhaps wait
//!                                                    └─ elsewhere               ─> forwarder: one stream a node
//! ```
//!
//! # Invariants
//!
//! 1. Every call is answered once.
//! 2. A write is proposed at most once by this node, unless the first proposal certainly did nothing.
//! 3. What its tenant's limits do not admit is refused before it is queued for anything, also on its way to another node.
//! 4. A write without an idempotency key that a gRPC library has sent before is refused by the node that it asked: an
//!    earlier attempt may have happened.
//! 5. A linearizable read shows nothing past its end: it is removed before, by an entry.
//! 6. A write is answered after the serving check that follows its commit, a linearizable read after the one that
//!    follows the reading.

mod admit;
mod call;
mod deadlines;
mod ended;
mod forwarder;
mod leaders;
mod link;
mod reads;
mod replica;
mod request;
mod writes;
mod written;

use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};

use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use stead_api::{
    convert::read::Consistency,
    net::Connect,
    operation::{Sort, sort},
    proto::v1::Routing,
};
use stead_state::{
    directory::Tenant,
    freshness::gate::Level,
    routing::{self, Here, Need, Route, Voter},
};
use stead_types::{Epoch, Error, ErrorKind, GroupId, NodeId, TenantNumber, limits::HOPS_MAX};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use call::cancelled;
pub(crate) use call::{Answers, Call, Forwarded, Reply};
use deadlines::by_deadline;
use forwarder::Forwarder;
pub(crate) use reads::refused;
pub(crate) use request::remote_unavailable;
use request::{Ask, Read, Request, Write};

use crate::{
    admission::Admission,
    host::Host,
    metrics::{Op, ServedFrom},
    reply,
    supervisor::Spawner,
};

/// How long an operation waits for its tenant to be ready at its home: just created, or just moved there.
const READY_WAIT: Duration = Duration::from_secs(3);

/// When a write that found too much waiting before it is worth another attempt.
const OVERLOADED_WAIT: Duration = Duration::from_millis(100);

/// Operations of one stream, from a client or from another node, that are in flight.
pub(crate) const STREAM_OPERATIONS_MAX: usize = 4_096;

/// Of what may be in flight on the way to another node, one tenant has at most one part of so many.
const FORWARDED_SHARE: usize = 4;

/// Routes operations.
pub(crate) struct Router {
    host: Arc<Host>,
    forwarder: Forwarder,
    admission: Arc<Admission>,
}

/// An operation whose tenant is known.
struct Job<A> {
    call: Call,
    tenant: Arc<Tenant>,
    ask: A,
}

/// The operations of a message that are served together.
#[derive(Default)]
struct Batches {
    writes: BTreeMap<(GroupId, TenantNumber), Vec<Job<Write>>>,
    reads: BTreeMap<GroupId, Vec<Job<Read>>>,
    replicas: Vec<(GroupId, Job<Read>)>,
    /// Those that must wait for something before they can be routed.
    late: Vec<(Call, Request)>,
}

impl Router {
    /// Returns a router for a node.
    pub(crate) fn new(host: Arc<Host>, connect: Connect, spawner: Spawner) -> Self {
        let forwarder = Forwarder::new(connect, host.views.clone(), spawner, host.peer_alarms.clone());
        Self {
            host,
            forwarder,
            admission: Arc::new(Admission::new()),
        }
    }

    /// Returns what everything on the node shares.
    pub(crate) fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// Returns the way of watches to one of a group's nodes, and which it is.
    pub(crate) fn channel_to(&self, group: GroupId, nodes: &[NodeId]) -> Option<(NodeId, Channel)> {
        self.forwarder.channel_to(group, nodes)
    }

    /// Notes that a node of a group could not be reached: the next one is asked next time.
    pub(crate) fn failed_at(&self, group: GroupId, node: NodeId, nodes: &[NodeId]) {
        self.forwarder.failed_at(group, node, nodes);
    }

    /// Keeps links to the homes of other regions open. Returns when the token fires.
    pub(crate) async fn keep_warm(self: Arc<Self>, stop: CancellationToken) -> Result<(), Infallible> {
        let mut versions = self.host.views.watch();
        loop {
            versions.borrow_and_update();
            self.forwarder.warm(|group| self.host.groups.contains_key(&group));
            tokio::select! {
                changed = versions.changed() => if changed.is_err() { return Ok(()) },
                () = stop.cancelled() => return Ok(()),
            }
        }
    }

    /// Tells those who hand operations on that callers have cancelled some.
    pub(crate) fn cancelled(&self) {
        self.forwarder.cancelled();
    }

    /// Serves operations, or hands them on; returns when all that are served here are answered.
    pub(crate) async fn dispatch(self: Arc<Self>, calls: Vec<Call>) {
        let mut batches = Batches::default();
        for call in calls {
            match request::parse(&call.operation) {
                Ok(request) if call.is_repeated && request.ask.happens_each_time() => {
                    self.refuse(call, &without_key());
                }
                Ok(request) => self.place(call, request, &mut batches),
                Err(error) => self.refuse(call, &error),
            }
        }
        self.run(batches).await;
    }

    /// Finds the batch of an operation, or hands it on.
    fn place(&self, mut call: Call, request: Request, batches: &mut Batches) {
        let Some(tenant) = self.host.known(&request.tenant) else {
            return batches.late.push((call, request));
        };
        if call
            .forwarded
            .is_some_and(|forwarded| forwarded.tenant != tenant.number)
        {
            // The sender's view or this one is behind: the name was used again.
            return batches.late.push((call, request));
        }
        let route = self.route(&call, &tenant, need(&request.ask, &self.host, &tenant));
        if let Route::Here { group } = route
            && let Err(error) = self.admit(&mut call, &tenant, &request.ask, group)
        {
            return self.refuse(call, &error);
        }
        match (route, request.ask) {
            (Route::Here { group }, Ask::Write(ask)) => {
                batches
                    .writes
                    .entry((group, tenant.number))
                    .or_default()
                    .push(Job { call, tenant, ask });
            }
            (Route::Here { group }, Ask::Read(ask)) => {
                if is_linearizable(&ask, &self.host, &tenant) {
                    batches.reads.entry(group).or_default().push(Job { call, tenant, ask });
                } else {
                    batches.replicas.push((group, Job { call, tenant, ask }));
                }
            }
            (Route::Inside { group, nodes } | Route::Away { group, nodes, .. }, ask) => {
                self.forward(Job { call, tenant, ask }, group, &nodes);
            }
            (Route::Wait { .. }, ask) => batches.late.push((
                call,
                Request {
                    tenant: request.tenant,
                    ask,
                },
            )),
            (Route::Refuse(error), _) => self.refuse(call, &error),
        }
    }

    /// Serves what is served here. Boxed, because what must wait comes back here.
    fn run(self: Arc<Self>, batches: Batches) -> BoxFuture<'static, ()> {
        Box::pin(self.run_batches(batches))
    }

    async fn run_batches(self: Arc<Self>, batches: Batches) {
        let mut running: FuturesUnordered<BoxFuture<'_, ()>> = FuturesUnordered::new();
        for ((group, tenant), jobs) in batches.writes {
            running.push(Box::pin(self.write(group, tenant, jobs)));
        }
        for (group, jobs) in batches.reads {
            running.push(Box::pin(self.read(group, jobs)));
        }
        for (group, job) in batches.replicas {
            running.push(Box::pin(self.read_replica(group, job)));
        }
        for (call, request) in batches.late {
            running.push(Box::pin(self.clone().run_late(call, request)));
        }
        while running.next().await.is_some() {}
    }

    /// Serves an operation whose tenant this node's view does not know, or not yet as its sender did.
    async fn run_late(self: Arc<Self>, call: Call, request: Request) {
        let resolved = timeout_at(call.deadline, self.host.resolve(&request.tenant)).await;
        let tenant = match resolved {
            Ok(Ok(tenant)) => tenant,
            Ok(Err(error)) => return self.refuse(call, &error),
            Err(_) => return self.refuse(call, &too_late()),
        };
        if let Some(forwarded) = call.forwarded {
            let until = call.deadline.min(Instant::now() + READY_WAIT);
            if !self.reach(&forwarded, &tenant, until).await {
                let message = "this node's copy of the directory is behind the sender's: try again";
                return self.refuse(call, &Error::new(ErrorKind::Unavailable, message));
            }
        }
        let mut batches = Batches::default();
        self.place(call, request, &mut batches);
        match batches.late.pop() {
            Some((call, request)) => {
                let message = format!("tenant {} is between two homes: try again", request.tenant);
                self.refuse(call, &Error::new(ErrorKind::TenantMoving, message));
            }
            None => self.run(batches).await,
        }
    }

    /// Waits until this node knows what the sender of a forwarded operation knew.
    async fn reach(&self, forwarded: &Forwarded, tenant: &Tenant, until: Instant) -> bool {
        let mut versions = self.host.views.watch();
        loop {
            versions.borrow_and_update();
            let known = self.host.known(&tenant.name);
            if known.is_some_and(|known| known.number == forwarded.tenant && known.epoch >= forwarded.epoch) {
                return true;
            }
            if timeout_at(until, versions.changed()).await.is_err() {
                return false;
            }
        }
    }

    fn route(&self, call: &Call, tenant: &Tenant, need: Need) -> Route {
        let came = call.forwarded.map(|forwarded| (forwarded, call.hops));
        let direct = call.operation.routing == i32::from(Routing::Direct);
        self.decide(tenant, need, came, direct)
    }

    /// Says who serves something else than an operation, which may have come from another node after some hops.
    pub(crate) fn route_of(&self, tenant: &Tenant, need: Need, came: Option<(Forwarded, u32)>) -> Route {
        self.decide(tenant, need, came, false)
    }

    fn decide(&self, tenant: &Tenant, need: Need, came: Option<(Forwarded, u32)>, direct: bool) -> Route {
        let host = &self.host;
        // Read before the view: whoever holds a machine's state may read the view, and not the other way round.
        let epochs: BTreeMap<GroupId, Epoch> = self.epochs(tenant);
        let voter = |group: GroupId| match host.groups.get(&group).map(|hosted| hosted.raft.leader()) {
            None => Voter::No,
            Some(None) => Voter::WithoutLeader,
            Some(Some(leader)) => Voter::LedBy(leader),
        };
        let epoch = |group: GroupId| epochs.get(&group).copied().unwrap_or(Epoch::NONE);
        let here = Here {
            node: host.config.node.id,
            region: &host.config.node.region,
            voter: &voter,
            epoch: &epoch,
        };
        let forwarded = came.map(|(forwarded, hops)| routing::Forwarded {
            hops,
            epoch: forwarded.epoch,
            group: forwarded.group,
        });
        host.views.read(|view| {
            routing::route(
                view,
                &here,
                routing::Request {
                    tenant,
                    need,
                    forwarded,
                    direct,
                },
            )
        })
    }

    /// The epochs of a tenant in the groups of this node that hold it.
    fn epochs(&self, tenant: &Tenant) -> BTreeMap<GroupId, Epoch> {
        let groups = self.host.groups.iter();
        let held = groups.filter(|(group, _)| tenant.home == **group || tenant.has(**group));
        held.filter_map(|(group, hosted)| Some((*group, hosted.epoch(tenant.number)?)))
            .collect()
    }

    /// Hands an operation on to one of these nodes.
    fn forward<A>(&self, mut job: Job<A>, group: GroupId, nodes: &[NodeId]) {
        // What it held here as one that this node serves would count twice.
        job.call.reply.release();
        let share = (STREAM_OPERATIONS_MAX / FORWARDED_SHARE) as u64;
        match self.admission.admit_forwarded(Instant::now(), &job.tenant, share) {
            Ok(permit) => job.call.reply.hold(permit),
            Err(refused) => {
                let error = self.refused(refused, &job.tenant);
                return self.refuse(job.call, &error);
            }
        }
        let to = Forwarded {
            group,
            epoch: job.tenant.epoch,
            tenant: job.tenant.number,
        };
        self.host.counts.request(op(&job.call), ServedFrom::Forwarded);
        self.forwarder.send(job.call, to, nodes);
    }

    /// Hands an operation on to the leader that its group names, unless that is as far as it may go.
    fn forward_to_leader<A>(&self, job: Job<A>, group: GroupId, leader: Option<NodeId>) {
        match leader.filter(|leader| *leader != self.host.config.node.id && job.call.hops < HOPS_MAX) {
            Some(leader) => self.forward(job, group, &[leader]),
            None => self.no_leader(job),
        }
    }

    /// Answers those whose caller no longer waits, before they cost anything; returns the others.
    fn wanted<A>(&self, jobs: Vec<Job<A>>) -> Vec<Job<A>> {
        let now = Instant::now();
        let is_wanted = |job: &Job<A>| job.call.deadline > now && !job.call.reply.is_unwanted();
        let (wanted, others): (Vec<_>, Vec<_>) = jobs.into_iter().partition(is_wanted);
        for job in others {
            let error = if job.call.deadline > now {
                cancelled()
            } else {
                too_late()
            };
            self.refuse(job.call, &error);
        }
        wanted
    }

    /// Sends an operation to its home, from a node that could not serve it.
    fn forward_home<A>(&self, job: Job<A>) -> Option<Job<A>> {
        match self.route(&job.call, &job.tenant, Need::Home) {
            Route::Here { .. } => Some(job),
            Route::Inside { group, nodes } | Route::Away { group, nodes, .. } => {
                self.forward(job, group, &nodes);
                None
            }
            Route::Wait { .. } => {
                let message = format!("tenant {} is between two homes: try again", job.tenant.name);
                self.refuse(job.call, &Error::new(ErrorKind::TenantMoving, message));
                None
            }
            Route::Refuse(error) => {
                self.refuse(job.call, &error);
                None
            }
        }
    }

    fn refuse(&self, call: Call, error: &Error) {
        self.host.counts.request(op(&call), ServedFrom::Failed);
        call.reply.send(reply::error(error));
    }
}

/// The answer to an operation whose deadline passed before anything happened.
fn too_late() -> Error {
    Error::new(
        ErrorKind::DeadlineExceeded,
        "the deadline passed before anything happened",
    )
}

/// Who can serve an operation.
fn need(ask: &Ask, host: &Host, tenant: &Tenant) -> Need {
    match ask {
        Ask::Write(_) => Need::Home,
        Ask::Read(read) => match read.consistency {
            Consistency::Linearizable => Need::Home,
            // At home, only the leader knows how fresh it is.
            Consistency::Bounded(_) if host.groups.contains_key(&tenant.home) => Need::Home,
            Consistency::Bounded(_) | Consistency::Session(_) | Consistency::Local => Need::Replica,
        },
    }
}

/// Tells whether a read that is served here takes a read index: the home's leader answers bounded reads that way.
fn is_linearizable(read: &Read, host: &Host, tenant: &Tenant) -> bool {
    match read.consistency {
        Consistency::Linearizable => true,
        Consistency::Bounded(_) => host
            .groups
            .get(&tenant.home)
            .is_some_and(|hosted| hosted.raft.is_leader()),
        Consistency::Session(_) | Consistency::Local => false,
    }
}

/// What a read asks of a replica.
fn level(consistency: &Consistency, tenant: TenantNumber) -> Level {
    match consistency {
        Consistency::Bounded(bound) => Level::Bounded(*bound),
        Consistency::Session(tokens) => tokens.of(tenant).map_or(Level::Local, Level::Session),
        Consistency::Linearizable | Consistency::Local => Level::Local,
    }
}

/// The error of a write without an idempotency key that was sent before.
fn without_key() -> Error {
    let message = "the gRPC library has sent this write again, and it has no idempotency_key: an earlier attempt may have \
                   happened, this one was not executed; read what is there, and send an idempotency_key with every write \
                   that may be repeated";
    Error::new(ErrorKind::IdempotencyKeyMissing, message)
}

fn op(call: &Call) -> Op {
    match call.operation.request.as_ref().map(sort) {
        Some(Sort::Write) => Op::Write,
        Some(Sort::Scan) => Op::Scan,
        Some(Sort::Read) | None => Op::Read,
    }
}
