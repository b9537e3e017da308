//! Watches: changes of one tenant, in order, without gaps, from any replica of it.
//!
//! ```text
//!  service ─ Watches::watch ─ parse ─ route ─┬─ here:      Watcher ── catches up by itself, then takes what its Hub reads
//!                                            └─ elsewhere: another node's watcher, its messages handed through
//! ```
//!
//! # Invariants
//!
//! 1. A watch gets every change of its ranges behind its beginning once, in the order of revisions.
//! 2. Changes are read once for all watches of a tenant that have caught up.
//! 3. A watch whose reader is slow takes no memory but for the message that was made last: what is shared goes on
//!    without it, and it catches up from history, or ends with where history begins.
//! 4. Only the home, or what every replica knows alike, ends a watch for good. A copy that does not reach where a watch
//!    begins, or has no history of it, sends it home.

mod ask;
mod begin;
#[cfg(test)]
mod change_fixture;
#[cfg(test)]
mod copies_test;
mod events;
mod forward;
mod hub;
mod state;
mod watcher;

use std::sync::Arc;

use futures::{StreamExt, future::ready, stream, stream::BoxStream};
use stead_api::proto::v1::{WatchCreate, WatchEnded, WatchResponse, watch_response::Response};
use stead_api::status;
use stead_state::{
    directory::Tenant,
    routing::{Need, Route},
};
use stead_types::{Error, ErrorKind, GroupId, Revision};

use self::{ask::Ask, begin::Reach, hub::Hubs, watcher::Watcher};
use crate::{
    host::Hosted,
    router::{Forwarded, Router},
    supervisor::Spawner,
};

/// Messages of one watch; the last one says how it ended.
pub(crate) type Messages = BoxStream<'static, WatchResponse>;

/// Serves watches.
pub(crate) struct Watches {
    router: Arc<Router>,
    hubs: Arc<Hubs>,
}

/// How a watch came from another node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Came {
    /// What the sender knew.
    pub(crate) forwarded: Forwarded,
    /// How often it was handed on.
    pub(crate) hops: u32,
    /// Only the home's leader will do.
    pub(crate) at_home: bool,
}

/// What a watch needs to be served.
struct Opening {
    ask: Ask,
    create: WatchCreate,
    came: Option<Came>,
    tenant: Arc<Tenant>,
}

impl Watches {
    /// Returns the watches of a node.
    pub(crate) fn new(router: Arc<Router>, spawner: Spawner) -> Self {
        let hubs = Arc::new(Hubs::new(router.host().views.clone(), spawner));
        Self { router, hubs }
    }

    /// Begins a watch.
    pub(crate) fn watch(self: &Arc<Self>, create: WatchCreate, came: Option<Came>) -> Messages {
        let (id, watches) = (create.id, self.clone());
        let begun = async move { watches.begin(create, came).await };
        let messages = stream::once(begun).flat_map(move |begun| match begun {
            Ok(messages) => messages,
            Err(error) => stream::once(ready(ended(id, Some(&error)))).boxed(),
        });
        messages.boxed()
    }

    async fn begin(self: &Arc<Self>, create: WatchCreate, came: Option<Came>) -> Result<Messages, Error> {
        let ask = ask::parse(&create)?;
        let tenant = self.router.host().resolve(&ask.tenant).await?;
        ask.is_of(tenant.number)?;
        if came.is_some_and(|came| came.forwarded.tenant != tenant.number) {
            let message = "the tenant's name is another tenant's here than at the node that handed this on: try again";
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        let opening = Opening {
            ask,
            create,
            came,
            tenant,
        };
        let need = if came.is_some_and(|came| came.at_home) {
            Need::Home
        } else {
            Need::Replica
        };
        self.open(opening, need).await
    }

    async fn open(self: &Arc<Self>, opening: Opening, need: Need) -> Result<Messages, Error> {
        let route = self.router.route_of(
            &opening.tenant,
            need,
            opening.came.map(|came| (came.forwarded, came.hops)),
        );
        match route {
            Route::Here { group } => self.here(group, opening).await,
            Route::Inside { group, nodes } | Route::Away { group, nodes, .. } => {
                self.elsewhere(&opening, (group, &nodes), need == Need::Home).await
            }
            Route::Wait { .. } => {
                let message = "this node's copy of the directory is behind the sender's: try again";
                Err(Error::new(ErrorKind::Unavailable, message))
            }
            Route::Refuse(error) => Err(error),
        }
    }

    /// Serves a watch from a replica of this node, or sends it home.
    async fn here(self: &Arc<Self>, group: GroupId, opening: Opening) -> Result<Messages, Error> {
        let host = self.router.host();
        let hosted = host.groups.get(&group).cloned().ok_or_else(not_ready)?;
        let position = match begin::wait(&hosted, &opening, group).await? {
            Reach::At(position) => position,
            Reach::NotYet { .. } if hosted.raft.is_leader() && hosted.owns(opening.tenant.number) => {
                begin::confirmed(&hosted, &opening).await?
            }
            Reach::NotYet { .. } | Reach::AtHome => return self.at_home(group, opening).await,
        };
        self.serve((group, hosted), opening, position)
    }

    fn serve(
        &self,
        (group, hosted): (GroupId, Hosted),
        opening: Opening,
        position: Revision,
    ) -> Result<Messages, Error> {
        let permit = self.router.admit_watch(&opening.tenant)?;
        let hub = (self.hubs.clone(), group);
        let host = self.router.host().clone();
        let watcher = Watcher::new((host, hosted), hub, (opening, permit), position);
        Ok(watcher.into_messages())
    }

    /// Hands a watch that cannot begin at a copy to the home's leader.
    async fn at_home(self: &Arc<Self>, copy: GroupId, opening: Opening) -> Result<Messages, Error> {
        match self.router.route_of(&opening.tenant, Need::Home, None) {
            Route::Inside { group, nodes } | Route::Away { group, nodes, .. } => {
                self.elsewhere(&opening, (group, &nodes), true).await
            }
            // This node has both, while a tenant moves between groups of one region. From home there is no way on.
            Route::Here { group } if group != copy => Box::pin(self.here(group, opening)).await,
            Route::Refuse(error) => Err(error),
            Route::Here { .. } | Route::Wait { .. } => Err(not_ready()),
        }
    }
}

fn not_ready() -> Error {
    let message = "the tenant is not ready to be watched here: try again";
    Error::new(ErrorKind::TenantMoving, message)
}

/// The last message of a watch; without an error it was cancelled.
pub(crate) fn ended(id: u64, error: Option<&Error>) -> WatchResponse {
    WatchResponse {
        id,
        response: Some(Response::Ended(WatchEnded {
            error: error.map(status::to_operation_error),
        })),
        ..WatchResponse::default()
    }
}
