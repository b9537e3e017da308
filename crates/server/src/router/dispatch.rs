//! Dispatch of operations: resolves tenants, routes, and hands each operation to an executor or to the forwarder.

use std::{collections::BTreeMap, sync::Arc};

use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use stead_state::routing::{CurrentHome, RouteDecision, ServingRole};
use stead_types::{Error, ErrorKind, GroupId, TenantNumber};
use tokio::time::{Instant, timeout_at};

use super::{
    admission_controller::{self, AdmissionController},
    call::Call,
    call_completion::CallCompletion,
    forward_links::ForwardLinks,
    forwarder::Forwarder,
    job::Job,
    key_access,
    reads::{ReadExecutor, RevisionWaits},
    rejections,
    request::{self, Action, ReadRequest, Request, WriteRequest},
    route_planner::RoutePlanner,
    serving::ServingCheck,
    writes::WriteExecutor,
};
use crate::host::{Host, READY_WAIT};

/// Router of operations: finds out where each is served, and hands it over.
pub(crate) struct Router {
    host: Arc<Host>,
    routes: Arc<RoutePlanner>,
    admission: Arc<AdmissionController>,
    forwarder: Arc<Forwarder>,
    completion: CallCompletion,
    writes: WriteExecutor,
    reads: ReadExecutor,
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

impl Batches {
    fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.reads.is_empty() && self.replicas.is_empty() && self.deferred.is_empty()
    }
}

impl Router {
    /// Returns the router of a node, with its executors.
    pub(crate) fn new(
        host: Arc<Host>,
        routes: Arc<RoutePlanner>,
        admission: Arc<AdmissionController>,
        links: Arc<ForwardLinks>,
        waits: Arc<RevisionWaits>,
    ) -> Self {
        let node = host.config.node.clone();
        let completion = CallCompletion::new(host.metrics.clone());
        let forwarder = Arc::new(Forwarder::new(node.id, admission.clone(), completion.clone(), links));
        let serving = ServingCheck::new(&host);
        Self {
            writes: WriteExecutor::new(
                node.clone(),
                serving.clone(),
                completion.clone(),
                forwarder.clone(),
                host.disk_room.clone(),
            ),
            reads: ReadExecutor::new(
                node,
                host.directory_view.clone(),
                serving,
                completion.clone(),
                forwarder.clone(),
                waits,
            ),
            host,
            routes,
            admission,
            forwarder,
            completion,
        }
    }

    /// Serves operations or forwards them; returns when all that are served here are answered.
    pub(crate) async fn dispatch(self: Arc<Self>, calls: Vec<Call>) {
        let mut batches = Batches::default();
        for call in calls {
            let parsed = request::parse(&call.operation).and_then(|request| {
                key_access::check(&call.access, &request)?;
                Ok(request)
            });
            match parsed {
                Ok(request) if call.is_retry && request.action.needs_idempotency_key() => {
                    self.completion.reject(call, &rejections::idempotency_key_missing());
                }
                Ok(request) => self.enqueue(call, request, &mut batches),
                Err(error) => self.completion.reject(call, &error),
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
        if let Some(forwarded) = call.forwarded.filter(|forwarded| forwarded.epoch > tenant.epoch) {
            self.host.see_epoch(tenant.number, forwarded.epoch);
        }
        let role = self.routes.required_role(&request.action, &tenant);
        let route = self.routes.route(&call, &tenant, role);
        if let RouteDecision::Local { group } = route
            && let hosted = self.host.groups.get(&group)
            && let Err(error) = self.admission.admit(&mut call, &tenant, &request.action, hosted)
        {
            return self.completion.reject(call, &error);
        }
        if admission_controller::responds_with_data(&request.action)
            && let Err(error) = self.admission.check_room(&call, &tenant)
        {
            return self.completion.reject(call, &error);
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
                if self.routes.is_linearizable(&request, &tenant) {
                    batches
                        .reads
                        .entry(group)
                        .or_default()
                        .push(Job { call, tenant, request });
                } else {
                    batches.replicas.push((group, Job { call, tenant, request }));
                }
            }
            (
                RouteDecision::SameRegion { group, epoch, nodes }
                | RouteDecision::OtherRegion {
                    group, epoch, nodes, ..
                },
                request,
            ) => {
                let to = CurrentHome { group, epoch };
                self.forwarder.forward(Job { call, tenant, request }, to, &nodes);
            }
            (RouteDecision::Wait { .. }, action) => batches.deferred.push((
                call,
                Request {
                    tenant: request.tenant,
                    action,
                },
            )),
            (RouteDecision::Refuse(error), _) => self.completion.reject(call, &error),
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

    async fn serve_writes(self: &Arc<Self>, group: GroupId, tenant: TenantNumber, jobs: Vec<Job<WriteRequest>>) {
        if let Some(hosted) = self.host.groups.get(&group) {
            let moved = self.writes.execute(hosted, tenant, jobs).await;
            self.route_again(moved.into_iter().map(|job| job.map(Action::Write)))
                .await;
        }
    }

    async fn serve_linearizable_reads(self: &Arc<Self>, group: GroupId, jobs: Vec<Job<ReadRequest>>) {
        if let Some(hosted) = self.host.groups.get(&group) {
            let moved = self.reads.execute_linearizable(hosted, jobs).await;
            self.route_again(moved.into_iter().map(|job| job.map(Action::Read)))
                .await;
        }
    }

    /// Routes operations of tenants that another group owns now, and that did nothing here.
    async fn route_again(self: &Arc<Self>, jobs: impl Iterator<Item = Job<Action>>) {
        let mut batches = Batches::default();
        for Job {
            mut call,
            tenant,
            request: action,
        } in jobs
        {
            call.responder.release();
            let tenant = tenant.name.clone();
            self.enqueue(call, Request { tenant, action }, &mut batches);
        }
        if !batches.is_empty() {
            self.clone().serve(batches).await;
        }
    }

    /// Serves a read from a replica of this node, or else from its home, here or elsewhere.
    async fn serve_replica_read(self: &Arc<Self>, group: GroupId, job: Job<ReadRequest>) {
        let Some(hosted) = self.host.groups.get(&group) else {
            return;
        };
        let unserved = self.reads.execute_at_replica(hosted, job).await;
        if let Some((home, job)) = unserved.and_then(|job| self.forward_home(job)) {
            self.serve_linearizable_reads(home, vec![job]).await;
        }
    }

    /// Serves an operation whose tenant is unknown to this node's view, or is not yet what its sender saw.
    async fn run_deferred(self: Arc<Self>, call: Call, request: Request) {
        let resolved = timeout_at(call.deadline, self.host.resolve(&request.tenant)).await;
        let tenant = match resolved {
            Ok(Ok(tenant)) => tenant,
            Ok(Err(error)) => return self.completion.reject(call, &error),
            Err(_) => return self.completion.reject(call, &rejections::deadline_exceeded()),
        };
        if let Some(forwarded) = call.forwarded {
            let until = call.deadline.min(Instant::now() + READY_WAIT);
            if !self.routes.wait_for_sender(&forwarded, &tenant.name, until).await {
                let message = "this node's copy of the directory is behind the sender's: try again";
                return self
                    .completion
                    .reject(call, &Error::new(ErrorKind::Unavailable, message));
            }
        }
        let mut batches = Batches::default();
        self.enqueue(call, request, &mut batches);
        match batches.deferred.pop() {
            Some((call, request)) => {
                self.completion
                    .reject(call, &rejections::between_homes(&request.tenant));
            }
            None => self.serve(batches).await,
        }
    }

    /// Forwards an operation to its home from a node that could not serve it; returns it with its home if that is a
    /// group of this node.
    fn forward_home<A>(&self, job: Job<A>) -> Option<(GroupId, Job<A>)> {
        match self.routes.route(&job.call, &job.tenant, ServingRole::Home) {
            RouteDecision::Local { group } => Some((group, job)),
            RouteDecision::SameRegion { group, epoch, nodes }
            | RouteDecision::OtherRegion {
                group, epoch, nodes, ..
            } => {
                self.forwarder.forward(job, CurrentHome { group, epoch }, &nodes);
                None
            }
            RouteDecision::Wait { .. } => {
                self.completion
                    .reject(job.call, &rejections::between_homes(&job.tenant.name));
                None
            }
            RouteDecision::Refuse(error) => {
                self.completion.reject(job.call, &error);
                None
            }
        }
    }
}
