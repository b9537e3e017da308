//! Handlers of data requests, as the services of both listeners share them.

use std::sync::Arc;

use stead_api::{net::Connect, peer_codec::PeerAlarms};

use crate::{
    answers::AnswerBudget,
    auth::AccessContext,
    host::Host,
    router::{AdmissionController, ForwardLinks, RevisionWaits, RoutePlanner, Router},
    supervisor::Spawner,
    watch::{WatchContext, Watches},
};

/// The handlers of data requests, router and watches, and what they share.
#[derive(Clone)]
pub(crate) struct DataServices {
    /// Router of operations.
    pub(crate) router: Arc<Router>,
    /// Handler of watches.
    pub(crate) watches: Arc<Watches>,
    /// Links to other nodes, which both use.
    pub(crate) links: Arc<ForwardLinks>,
    /// Messages that could not be read.
    pub(crate) peer_alarms: PeerAlarms,
    /// Facts for decisions about callers.
    pub(crate) access_context: Arc<AccessContext>,
    /// Answers that wait for their readers.
    pub(crate) answers: Arc<AnswerBudget>,
}

impl DataServices {
    /// Returns the data handlers of a node.
    pub(crate) fn new(host: &Arc<Host>, connect: Connect, spawner: &Spawner) -> Self {
        let links = Arc::new(ForwardLinks::new(
            connect,
            host.directory_view.clone(),
            spawner.clone(),
            host.peer_alarms.clone(),
        ));
        let routes = Arc::new(RoutePlanner::new(host));
        let admission = Arc::new(AdmissionController::new(host.metrics.clone()));
        let waits: Arc<RevisionWaits> = Arc::default();
        for hosted in host.groups.values() {
            let (waits, hosted) = (waits.clone(), hosted.clone());
            spawner.spawn("session reads", |stop| waits.run(hosted, stop));
        }
        let router = Router::new(host.clone(), routes.clone(), admission.clone(), links.clone(), waits);
        let context = WatchContext {
            host: host.clone(),
            routes,
            admission,
            links: links.clone(),
        };
        Self {
            router: Arc::new(router),
            watches: Arc::new(Watches::new(context, spawner.clone())),
            links,
            peer_alarms: host.peer_alarms.clone(),
            access_context: host.auth.context().clone(),
            answers: host.answers.clone(),
        }
    }
}
