//! Watches: changes of one tenant, in order, without gaps, from any replica of it.
//!
//! ```text
//!  service ─ continuation ─ parse ─ route ─┬─ here:      Watcher ── catches up from history, then follows its Hub
//!                                          └─ elsewhere: another node's watcher, its messages relayed
//! ```
//!
//! When the copy that serves a watch leaves, or its node fails, the node that was asked routes it again, from where it
//! is: a watch goes on across a move.
//!
//! # Invariants
//!
//! 1. A watch gets every change of its ranges behind its beginning once, in the order of revisions.
//! 2. Changes are read once for all watches of a tenant that have caught up.
//! 3. A watch whose reader is slow takes no memory but for the message that was made last: what is shared goes on
//!    without it, and it catches up from history, or ends with where history begins.
//! 4. Only the home, or what every replica knows alike, ends a watch for good. A copy that does not reach where a watch
//!    begins, or has no history of it, sends it home.

#[cfg(test)]
mod change_fixture;
mod continuation;
#[cfg(test)]
mod copies_test;
mod events;
mod forward;
mod history;
mod hub;
mod initial_state;
mod remote_need;
mod spec;
mod start;
mod watcher;

use std::sync::Arc;

use futures::{StreamExt, future::ready, stream, stream::BoxStream};
use stead_api::proto::v1::{WatchCreate, WatchEnded, WatchResponse, watch_response::Response};
use stead_api::status;
use stead_state::{
    directory::Tenant,
    routing::{CurrentHome, RouteDecision, ServingRole},
};
use stead_types::{Durability, Error, ErrorKind, GroupId, Revision};
use tokio::time::Instant;

use self::{
    history::SharedHistory,
    hub::Hubs,
    spec::WatchSpec,
    start::StartCheck,
    watcher::{Watcher, WatcherContext},
};
use crate::{
    auth::Access,
    host::{Host, HostedGroup, READY_WAIT},
    router::{
        AdmissionController, ForwardLinks, ForwardOrigin, ForwardTarget, RoutePlanner, ServingCheck, shows_only_remote,
    },
    supervisor::Spawner,
};

/// Messages of one watch; the last one tells how it ended.
pub(crate) type Messages = BoxStream<'static, WatchResponse>;

/// Parts of the node that watches share with operations.
pub(crate) struct WatchContext {
    /// State of the node.
    pub(crate) host: Arc<Host>,
    /// Planner of routes.
    pub(crate) routes: Arc<RoutePlanner>,
    /// Admission controller.
    pub(crate) admission: Arc<AdmissionController>,
    /// Links to other nodes.
    pub(crate) links: Arc<ForwardLinks>,
}

/// The watches of a node.
pub(crate) struct Watches {
    context: WatchContext,
    serving: ServingCheck,
    hubs: Arc<Hubs>,
    history: Arc<SharedHistory>,
}

/// Origin of a watch that another node forwarded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ForwardedWatch {
    /// Group, epoch and tenant as the sender knew them.
    pub(crate) forwarded: ForwardTarget,
    /// Number of times that it was forwarded.
    pub(crate) hops: u32,
    /// Whether only the home's leader may serve it.
    pub(crate) at_home: bool,
}

/// A watch request with its tenant resolved.
struct ResolvedWatch {
    access: Access,
    spec: WatchSpec,
    create: WatchCreate,
    forwarded_by: Option<ForwardedWatch>,
    tenant: Arc<Tenant>,
}

impl Watches {
    /// Returns the watches of a node.
    pub(crate) fn new(context: WatchContext, spawner: Spawner) -> Self {
        let host = &context.host;
        Self {
            serving: ServingCheck::new(host),
            hubs: Arc::new(Hubs::new(host.directory_view.clone(), spawner)),
            history: Arc::default(),
            context,
        }
    }

    /// Starts a watch. One that a caller asked this node for goes on when its copy leaves.
    pub(crate) fn watch(
        self: &Arc<Self>,
        create: WatchCreate,
        access: Access,
        forwarded_by: Option<ForwardedWatch>,
    ) -> Messages {
        let watches = self.clone();
        match forwarded_by {
            Some(_) => watches.attempt(create, access, forwarded_by),
            None => continuation::continued(create, move |create| watches.attempt(create, access.clone(), None)),
        }
    }

    fn attempt(
        self: &Arc<Self>,
        create: WatchCreate,
        access: Access,
        forwarded_by: Option<ForwardedWatch>,
    ) -> Messages {
        let (id, watches) = (create.id, self.clone());
        let started = async move { watches.start(create, access, forwarded_by).await };
        let messages = stream::once(started).flat_map(move |started| match started {
            Ok(messages) => messages,
            Err(error) => stream::once(ready(ended(id, Some(&error)))).boxed(),
        });
        messages.boxed()
    }

    async fn start(
        self: &Arc<Self>,
        create: WatchCreate,
        access: Access,
        forwarded_by: Option<ForwardedWatch>,
    ) -> Result<Messages, Error> {
        let spec = spec::parse(&create)?;
        spec.check_access(&access)?;
        let mut tenant = self.context.host.resolve(&spec.tenant).await?;
        if let Some(forwarded_by) = forwarded_by {
            let until = Instant::now() + READY_WAIT;
            let target = &forwarded_by.forwarded;
            if !self.context.routes.wait_for_sender(target, &spec.tenant, until).await {
                return Err(behind_sender());
            }
            tenant = self.context.host.resolve(&spec.tenant).await?;
        }
        spec.check_tenant(tenant.number)?;
        let watch = ResolvedWatch {
            access,
            spec,
            create,
            forwarded_by,
            tenant,
        };
        let role = if forwarded_by.is_some_and(|forwarded_by| forwarded_by.at_home) {
            ServingRole::Home
        } else {
            ServingRole::Replica
        };
        self.route(watch, role).await
    }

    async fn route(self: &Arc<Self>, watch: ResolvedWatch, role: ServingRole) -> Result<Messages, Error> {
        let route = self.context.routes.route_watch(
            &watch.tenant,
            role,
            watch.forwarded_by.map(|forwarded_by| ForwardOrigin {
                target: forwarded_by.forwarded,
                hops: forwarded_by.hops,
            }),
        );
        match route {
            RouteDecision::Local { group } => self.serve_here(group, watch).await,
            RouteDecision::SameRegion { group, epoch, nodes }
            | RouteDecision::OtherRegion {
                group, epoch, nodes, ..
            } => {
                let to = CurrentHome { group, epoch };
                self.forward(&watch, to, &nodes, role == ServingRole::Home).await
            }
            RouteDecision::Wait { .. } => Err(behind_sender()),
            RouteDecision::Refuse(error) => Err(error),
        }
    }

    /// Serves a watch from a replica of this node, or forwards it to the home.
    async fn serve_here(self: &Arc<Self>, group: GroupId, watch: ResolvedWatch) -> Result<Messages, Error> {
        let host = &self.context.host;
        let hosted = host.groups.get(&group).cloned().ok_or_else(tenant_not_ready)?;
        if !*hosted.raft.watch_connected().borrow() {
            return Err(watcher::no_contact(group));
        }
        let mut start = start::wait_for_start(&hosted, &watch, group).await?;
        let is_reached = matches!(start, StartCheck::Ready(_) | StartCheck::HomeOnly);
        if !is_reached && hosted.raft.is_leader() && hosted.owns(watch.tenant.number) {
            start = start::confirm_start(&hosted, &self.serving, &watch).await?;
        }
        let StartCheck::Ready(position) = start else {
            return self.forward_home(group, watch).await;
        };
        if self.must_be_watched_at_home(group, &hosted, &watch.tenant) {
            return self.forward_home(group, watch).await;
        }
        self.start_watcher(group, hosted, watch, position)
    }

    /// Tells whether a copy may show changes of a tenant with durability `REMOTE` that only the home's leader knows to be in
    /// another region.
    fn must_be_watched_at_home(&self, group: GroupId, hosted: &HostedGroup, tenant: &Tenant) -> bool {
        let view = &self.context.host.directory_view;
        let number = tenant.number;
        let shows = hosted.read_tenant(number, |reading| {
            let reading = reading?;
            let record = reading.record();
            Some(if record.owned().is_some() {
                hosted.raft.is_leader()
            } else {
                view.read(|view| shows_only_remote(view, tenant, group, record))
            })
        });
        tenant.durability == Durability::Remote && !matches!(shows, Ok(Some(true)))
    }

    fn start_watcher(
        &self,
        group: GroupId,
        hosted: HostedGroup,
        watch: ResolvedWatch,
        position: Revision,
    ) -> Result<Messages, Error> {
        let permit = self.context.admission.admit_watch(&watch.tenant)?;
        let context = WatcherContext {
            host: self.context.host.clone(),
            hosted,
            hubs: self.hubs.clone(),
            history: self.history.clone(),
            group,
        };
        let watcher = Watcher::new(context, watch, permit, position);
        Ok(watcher.into_messages())
    }

    /// Forwards a watch that cannot start at a copy to the home's leader.
    async fn forward_home(self: &Arc<Self>, copy: GroupId, watch: ResolvedWatch) -> Result<Messages, Error> {
        match self.context.routes.route_watch(&watch.tenant, ServingRole::Home, None) {
            RouteDecision::SameRegion { group, epoch, nodes }
            | RouteDecision::OtherRegion {
                group, epoch, nodes, ..
            } => self.forward(&watch, CurrentHome { group, epoch }, &nodes, true).await,
            // This node has both, while a tenant moves between groups of one region. From the home there is nowhere to
            // forward to.
            RouteDecision::Local { group } if group != copy => Box::pin(self.serve_here(group, watch)).await,
            RouteDecision::Refuse(error) => Err(error),
            RouteDecision::Local { .. } | RouteDecision::Wait { .. } => Err(tenant_not_ready()),
        }
    }
}

fn behind_sender() -> Error {
    let message = "this node's copy of the directory is behind that of the node that forwarded the watch: try again";
    Error::new(ErrorKind::Unavailable, message)
}

fn tenant_not_ready() -> Error {
    let message = "the tenant is not ready to be watched here: try again";
    Error::new(ErrorKind::TenantMoving, message)
}

/// Returns the last message of a watch; without an error it was cancelled.
pub(crate) fn ended(id: u64, error: Option<&Error>) -> WatchResponse {
    WatchResponse {
        id,
        response: Some(Response::Ended(WatchEnded {
            error: error.map(status::to_operation_error),
        })),
        ..WatchResponse::default()
    }
}
