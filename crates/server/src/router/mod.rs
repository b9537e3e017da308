//! Routes operations: parses and admits each, finds the node that serves it, and ensures that it is answered.
//!
//! ```text
//! dispatch ─ parse ─ tenant (view) ─ state::routing ─┬─ here, admitted, write   ─> writes: few entries for many
//!                                                    ├─ here, admitted, read    ─> reads: one read index for many
//!                                                    ├─ here, admitted, replica ─> replica: freshness gate, may wait
//!                                                    └─ elsewhere               ─> forwarder: one stream for each node
//! ```
//!
//! # Invariants
//!
//! 1. Every call is answered once.
//! 2. A write is proposed at most once by this node, unless the first proposal certainly did nothing.
//! 3. An operation beyond its tenant's limits is rejected before it is queued for anything, also on its way to another
//!    node.
//! 4. A write without an idempotency key that a gRPC library has sent before is refused by the node that it asked: an
//!    earlier attempt may have happened.
//! 5. A linearizable read shows no expired key: it is removed before, by an entry.
//! 6. A write is answered after the serving check that follows its commit, a linearizable read after the one that
//!    follows the reading.

mod admit;
mod call;
mod deadlines;
mod expired_keys;
mod forwarder;
mod leader_cache;
mod link;
mod reads;
mod replica;
mod request;
mod write_response;
mod writes;

use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};

use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use stead_api::{
    convert::read::Consistency,
    net::Connect,
    operation::{OperationKind, operation_kind},
    proto::v1::Routing,
};
use stead_state::{
    directory::Tenant,
    freshness::gate::FreshnessLevel,
    routing::{self, LocalNode, RouteDecision, ServingRole, VoterStatus},
};
use stead_types::{Epoch, Error, ErrorKind, GroupId, NodeId, TenantNumber, limits::HOPS_MAX};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use call::cancelled_error;
pub(crate) use call::{Call, ForwardOrigin, ForwardTarget, Responder, ResponseSender};
use deadlines::group_by_deadline;
use forwarder::Forwarder;
pub(crate) use reads::read_error;
pub(crate) use request::remote_unavailable;
use request::{Action, ReadRequest, Request, WriteRequest};

use crate::{
    admission::Admission,
    host::{Host, READY_WAIT},
    metrics::{OperationLabel, ServedFrom},
    response,
    supervisor::Spawner,
};

/// Retry delay of a write that was shed because too many were queued.
const OVERLOADED_RETRY_DELAY: Duration = Duration::from_millis(100);

/// Most operations in flight of one stream, from a client or from another node.
pub(crate) const STREAM_OPERATIONS_MAX: usize = 4_096;

/// Divisor of one tenant's share of the operations in flight to another node.
const FORWARDED_SHARE: usize = 4;

/// Router of operations.
pub(crate) struct Router {
    host: Arc<Host>,
    forwarder: Forwarder,
    admission: Arc<Admission>,
}

/// An operation whose tenant is resolved.
struct Job<R> {
    call: Call,
    tenant: Arc<Tenant>,
    request: R,
}

/// Operations of a message, grouped by how they are served.
#[derive(Default)]
struct Batches {
    writes: BTreeMap<(GroupId, TenantNumber), Vec<Job<WriteRequest>>>,
    reads: BTreeMap<GroupId, Vec<Job<ReadRequest>>>,
    replicas: Vec<(GroupId, Job<ReadRequest>)>,
    /// Operations that must wait before they can be routed.
    deferred: Vec<(Call, Request)>,
}

impl Router {
    /// Returns a router for a node.
    pub(crate) fn new(host: Arc<Host>, connect: Connect, spawner: Spawner) -> Self {
        let forwarder = Forwarder::new(connect, host.directory_view.clone(), spawner, host.peer_alarms.clone());
        Self {
            host,
            forwarder,
            admission: Arc::new(Admission::new()),
        }
    }

    /// Returns the shared state of the node.
    pub(crate) fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// Returns the connection for watches to one of a group's nodes, and that node.
    pub(crate) fn channel_for_watch(&self, group: GroupId, nodes: &[NodeId]) -> Option<(NodeId, Channel)> {
        self.forwarder.channel_for_watch(group, nodes)
    }

    /// Records that a node of a group could not be reached: the next one is tried next time.
    pub(crate) fn record_failure(&self, group: GroupId, node: NodeId, nodes: &[NodeId]) {
        self.forwarder.record_failure(group, node, nodes);
    }

    /// Keeps links to the homes of other regions open. Returns when the token fires.
    pub(crate) async fn keep_links_open(self: Arc<Self>, stop: CancellationToken) -> Result<(), Infallible> {
        let mut versions = self.host.directory_view.watch();
        loop {
            versions.borrow_and_update();
            self.forwarder.open_links(|group| self.host.groups.contains_key(&group));
            tokio::select! {
                changed = versions.changed() => if changed.is_err() { return Ok(()) },
                () = stop.cancelled() => return Ok(()),
            }
        }
    }

    /// Notifies the links that callers have cancelled operations.
    pub(crate) fn notify_cancelled(&self) {
        self.forwarder.notify_cancelled();
    }

    /// Serves operations or forwards them; returns when all that are served here are answered.
    pub(crate) async fn dispatch(self: Arc<Self>, calls: Vec<Call>) {
        let mut batches = Batches::default();
        for call in calls {
            match request::parse(&call.operation) {
                Ok(request) if call.is_retry && request.action.needs_idempotency_key() => {
                    self.reject(call, &idempotency_key_missing());
                }
                Ok(request) => self.enqueue(call, request, &mut batches),
                Err(error) => self.reject(call, &error),
            }
        }
        self.serve(batches).await;
    }

    /// Puts an operation into its batch, or forwards or rejects it.
    fn enqueue(&self, mut call: Call, request: Request, batches: &mut Batches) {
        let Some(tenant) = self.host.tenant_in_view(&request.tenant) else {
            return batches.deferred.push((call, request));
        };
        if call
            .forwarded
            .is_some_and(|forwarded| forwarded.tenant != tenant.number)
        {
            // The sender's view or this one is behind: the name was reused for another tenant.
            return batches.deferred.push((call, request));
        }
        let route = self.route(&call, &tenant, required_role(&request.action, &self.host, &tenant));
        if let RouteDecision::Local { group } = route
            && let Err(error) = self.admit(&mut call, &tenant, &request.action, group)
        {
            return self.reject(call, &error);
        }
        match (route, request.action) {
            (RouteDecision::Local { group }, Action::Write(request)) => {
                batches
                    .writes
                    .entry((group, tenant.number))
                    .or_default()
                    .push(Job { call, tenant, request });
            }
            (RouteDecision::Local { group }, Action::Read(request)) => {
                if is_linearizable(&request, &self.host, &tenant) {
                    batches
                        .reads
                        .entry(group)
                        .or_default()
                        .push(Job { call, tenant, request });
                } else {
                    batches.replicas.push((group, Job { call, tenant, request }));
                }
            }
            (RouteDecision::SameRegion { group, nodes } | RouteDecision::OtherRegion { group, nodes, .. }, request) => {
                self.forward(Job { call, tenant, request }, group, &nodes);
            }
            (RouteDecision::Wait { .. }, action) => batches.deferred.push((
                call,
                Request {
                    tenant: request.tenant,
                    action,
                },
            )),
            (RouteDecision::Refuse(error), _) => self.reject(call, &error),
        }
    }

    /// Serves batches. The future is boxed, because a deferred operation calls this again.
    fn serve(self: Arc<Self>, batches: Batches) -> BoxFuture<'static, ()> {
        Box::pin(self.serve_batches(batches))
    }

    async fn serve_batches(self: Arc<Self>, batches: Batches) {
        let mut running: FuturesUnordered<BoxFuture<'_, ()>> = FuturesUnordered::new();
        for ((group, tenant), jobs) in batches.writes {
            running.push(Box::pin(self.serve_writes(group, tenant, jobs)));
        }
        for (group, jobs) in batches.reads {
            running.push(Box::pin(self.serve_linearizable_reads(group, jobs)));
        }
        for (group, job) in batches.replicas {
            running.push(Box::pin(self.serve_replica_read(group, job)));
        }
        for (call, request) in batches.deferred {
            running.push(Box::pin(self.clone().run_deferred(call, request)));
        }
        while running.next().await.is_some() {}
    }

    /// Serves an operation whose tenant is unknown to this node's view, or is not yet what its sender saw.
    async fn run_deferred(self: Arc<Self>, call: Call, request: Request) {
        let resolved = timeout_at(call.deadline, self.host.resolve(&request.tenant)).await;
        let tenant = match resolved {
            Ok(Ok(tenant)) => tenant,
            Ok(Err(error)) => return self.reject(call, &error),
            Err(_) => return self.reject(call, &deadline_exceeded()),
        };
        if let Some(forwarded) = call.forwarded {
            let until = call.deadline.min(Instant::now() + READY_WAIT);
            if !self.wait_for_sender_view(&forwarded, &tenant, until).await {
                let message = "this node's copy of the directory is behind the sender's: try again";
                return self.reject(call, &Error::new(ErrorKind::Unavailable, message));
            }
        }
        let mut batches = Batches::default();
        self.enqueue(call, request, &mut batches);
        match batches.deferred.pop() {
            Some((call, request)) => {
                let message = format!("tenant {} is between two homes: try again", request.tenant);
                self.reject(call, &Error::new(ErrorKind::TenantMoving, message));
            }
            None => self.serve(batches).await,
        }
    }

    /// Waits until this node's view has reached the sender's state of a tenant.
    async fn wait_for_sender_view(&self, forwarded: &ForwardTarget, tenant: &Tenant, until: Instant) -> bool {
        let mut versions = self.host.directory_view.watch();
        loop {
            versions.borrow_and_update();
            let known = self.host.tenant_in_view(&tenant.name);
            if known.is_some_and(|known| known.number == forwarded.tenant && known.epoch >= forwarded.epoch) {
                return true;
            }
            if timeout_at(until, versions.changed()).await.is_err() {
                return false;
            }
        }
    }

    fn route(&self, call: &Call, tenant: &Tenant, role: ServingRole) -> RouteDecision {
        let forwarded_by = call.forwarded.map(|target| ForwardOrigin {
            target,
            hops: call.hops,
        });
        let direct = call.operation.routing == i32::from(Routing::Direct);
        self.decide(tenant, role, forwarded_by, direct)
    }

    /// Routes a watch, which may have been forwarded by another node.
    pub(crate) fn route_watch(
        &self,
        tenant: &Tenant,
        role: ServingRole,
        forwarded_by: Option<ForwardOrigin>,
    ) -> RouteDecision {
        self.decide(tenant, role, forwarded_by, false)
    }

    fn decide(
        &self,
        tenant: &Tenant,
        role: ServingRole,
        forwarded_by: Option<ForwardOrigin>,
        direct: bool,
    ) -> RouteDecision {
        let host = &self.host;
        // Lock order: the machines are read before the view, because a reader of a machine may read the view, and not
        // the other way round.
        let known_epochs: BTreeMap<GroupId, Epoch> = self.known_epochs(tenant);
        let voter = |group: GroupId| match host.groups.get(&group).map(|hosted| hosted.raft.leader()) {
            None => VoterStatus::Absent,
            Some(None) => VoterStatus::LeaderUnknown,
            Some(Some(leader)) => VoterStatus::LedBy(leader),
        };
        let epoch = |group: GroupId| known_epochs.get(&group).copied().unwrap_or(Epoch::NONE);
        let here = LocalNode {
            node: host.config.node.id,
            region: &host.config.node.region,
            voter: &voter,
            epoch: &epoch,
        };
        let forwarded = forwarded_by.map(|origin| routing::ForwardInfo {
            hops: origin.hops,
            epoch: origin.target.epoch,
            group: origin.target.group,
        });
        host.directory_view.read(|view| {
            routing::route(
                view,
                &here,
                routing::RouteRequest {
                    tenant,
                    serving_role: role,
                    forwarded,
                    direct,
                },
            )
        })
    }

    /// Returns the epochs of a tenant in the groups of this node that hold it.
    fn known_epochs(&self, tenant: &Tenant) -> BTreeMap<GroupId, Epoch> {
        let groups = self.host.groups.iter();
        let held = groups.filter(|(group, _)| tenant.home == **group || tenant.has(**group));
        held.filter_map(|(group, hosted)| Some((*group, hosted.epoch(tenant.number)?)))
            .collect()
    }

    /// Forwards an operation to one of these nodes.
    fn forward<A>(&self, mut job: Job<A>, group: GroupId, nodes: &[NodeId]) {
        // A permit as an operation that this node serves would count twice.
        job.call.responder.release();
        let share = (STREAM_OPERATIONS_MAX / FORWARDED_SHARE) as u64;
        match self.admission.admit_forwarded(Instant::now(), &job.tenant, share) {
            Ok(permit) => job.call.responder.hold(permit),
            Err(refused) => {
                let error = self.admission_error(refused, &job.tenant);
                return self.reject(job.call, &error);
            }
        }
        let target = ForwardTarget {
            group,
            epoch: job.tenant.epoch,
            tenant: job.tenant.number,
        };
        self.host.metrics.request(op_label(&job.call), ServedFrom::Forwarded);
        self.forwarder.send(job.call, target, nodes);
    }

    /// Forwards an operation to the group's leader, unless it is unknown or the hops are used up.
    fn forward_to_leader<A>(&self, job: Job<A>, group: GroupId, leader: Option<NodeId>) {
        match leader.filter(|leader| *leader != self.host.config.node.id && job.call.hops < HOPS_MAX) {
            Some(leader) => self.forward(job, group, &[leader]),
            None => self.reject_no_leader(job),
        }
    }

    /// Rejects jobs that were cancelled or exceeded their deadline, before they cost anything; returns the others.
    fn reject_inactive<A>(&self, jobs: Vec<Job<A>>) -> Vec<Job<A>> {
        let now = Instant::now();
        let is_active = |job: &Job<A>| job.call.deadline > now && !job.call.responder.is_abandoned();
        let (active, inactive): (Vec<_>, Vec<_>) = jobs.into_iter().partition(is_active);
        for job in inactive {
            let error = if job.call.deadline > now {
                cancelled_error()
            } else {
                deadline_exceeded()
            };
            self.reject(job.call, &error);
        }
        active
    }

    /// Forwards an operation to its home from a node that could not serve it; returns it if this node is the home.
    fn forward_home<A>(&self, job: Job<A>) -> Option<Job<A>> {
        match self.route(&job.call, &job.tenant, ServingRole::Home) {
            RouteDecision::Local { .. } => Some(job),
            RouteDecision::SameRegion { group, nodes } | RouteDecision::OtherRegion { group, nodes, .. } => {
                self.forward(job, group, &nodes);
                None
            }
            RouteDecision::Wait { .. } => {
                let message = format!("tenant {} is between two homes: try again", job.tenant.name);
                self.reject(job.call, &Error::new(ErrorKind::TenantMoving, message));
                None
            }
            RouteDecision::Refuse(error) => {
                self.reject(job.call, &error);
                None
            }
        }
    }

    fn reject(&self, call: Call, error: &Error) {
        self.host.metrics.request(op_label(&call), ServedFrom::Failed);
        call.responder.send(response::error_answer(error));
    }
}

/// Returns the error of an operation whose deadline passed before it began.
fn deadline_exceeded() -> Error {
    Error::new(
        ErrorKind::DeadlineExceeded,
        "the deadline passed before the operation was executed",
    )
}

/// Returns the role that an operation needs.
fn required_role(action: &Action, host: &Host, tenant: &Tenant) -> ServingRole {
    match action {
        Action::Write(_) => ServingRole::Home,
        Action::Read(read) => match read.consistency {
            Consistency::Linearizable => ServingRole::Home,
            // At home the leader answers: nobody is fresher.
            Consistency::Bounded(_) if host.groups.contains_key(&tenant.home) => ServingRole::Home,
            Consistency::Bounded(_) | Consistency::Session(_) | Consistency::Local => ServingRole::Replica,
        },
    }
}

/// Tells whether a read that is served here takes a read index: the home's leader answers bounded reads that way.
fn is_linearizable(read: &ReadRequest, host: &Host, tenant: &Tenant) -> bool {
    match read.consistency {
        Consistency::Linearizable => true,
        Consistency::Bounded(_) => host
            .groups
            .get(&tenant.home)
            .is_some_and(|hosted| hosted.raft.is_leader()),
        Consistency::Session(_) | Consistency::Local => false,
    }
}

/// Returns the freshness that a read needs of a replica.
fn freshness_level(consistency: &Consistency, tenant: TenantNumber) -> FreshnessLevel {
    match consistency {
        Consistency::Bounded(bound) => FreshnessLevel::Bounded(*bound),
        Consistency::Session(tokens) => tokens.of(tenant).map_or(FreshnessLevel::Local, FreshnessLevel::Session),
        Consistency::Linearizable | Consistency::Local => FreshnessLevel::Local,
    }
}

/// Returns the error of a retried write without an idempotency key.
fn idempotency_key_missing() -> Error {
    let message = "the gRPC library has sent this write again, and it has no idempotency_key: an earlier attempt may have \
                   been executed, this one was not; read what is there, and send an idempotency_key with every write \
                   that may be repeated";
    Error::new(ErrorKind::IdempotencyKeyMissing, message)
}

fn op_label(call: &Call) -> OperationLabel {
    match call.operation.request.as_ref().map(operation_kind) {
        Some(OperationKind::Write) => OperationLabel::Write,
        Some(OperationKind::Scan) => OperationLabel::Scan,
        Some(OperationKind::Read) | None => OperationLabel::Read,
    }
}
