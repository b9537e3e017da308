//! `grpc.health.v1`: health of the services, from the checks of `/readyz`.
//!
//! # Invariants
//!
//! 1. Nothing runs without a request: a watch looks again every [`POLL_INTERVAL`], for as long as it is watched.
//! 2. Overall (the empty name) and every service of the client listener have one answer: a node serves all or nothing.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures::{Stream, stream};
use stead_api::status;
use stead_types::{Error, ErrorKind};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_server::Health,
};

use crate::host::Host;

/// Interval between two checks of a watch.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The service.
#[derive(Clone)]
pub(crate) struct HealthService {
    host: Arc<Host>,
    names: Arc<[&'static str]>,
    stop: CancellationToken,
}

impl HealthService {
    /// Returns the health service of a listener with these services; watches end when the token fires.
    pub(crate) fn new(host: Arc<Host>, names: &[&'static str], stop: CancellationToken) -> Self {
        let names = names.into();
        Self { host, names, stop }
    }

    /// Returns the status of a service, or `None` if there is no such service.
    fn status(&self, service: &str) -> Option<ServingStatus> {
        if !service.is_empty() && !self.names.contains(&service) {
            return None;
        }
        Some(if self.host.readiness.node.report().is_ready() {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        })
    }
}

/// A watch of one service's status.
struct HealthWatcher {
    health: HealthService,
    service: String,
    last_sent: Option<ServingStatus>,
}

impl HealthWatcher {
    /// Waits for a change of the status. A node that stops sends that before it ends the watch.
    async fn next(self) -> Option<(Result<HealthCheckResponse, Status>, Self)> {
        while !self.health.stop.is_cancelled() {
            let status = self
                .health
                .status(&self.service)
                .unwrap_or(ServingStatus::ServiceUnknown);
            if self.last_sent != Some(status) {
                return Some(self.send(status));
            }
            tokio::select! {
                () = sleep(POLL_INTERVAL) => {}
                () = self.health.stop.cancelled() => {}
            }
        }
        let is_sent = self.last_sent == Some(ServingStatus::NotServing);
        (!is_sent).then(|| self.send(ServingStatus::NotServing))
    }

    fn send(mut self, status: ServingStatus) -> (Result<HealthCheckResponse, Status>, Self) {
        self.last_sent = Some(status);
        (Ok(response(status)), self)
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let service = &request.get_ref().service;
        match self.status(service) {
            Some(status) => Ok(Response::new(response(status))),
            None => {
                let names = self.names.join(", ");
                let message = format!("service: there is no {service:?} here; ask for one of {names}, or for none");
                Err(status::to_status(&Error::new(ErrorKind::NotFound, message)))
            }
        }
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let watcher = HealthWatcher {
            health: self.clone(),
            service: request.into_inner().service,
            last_sent: None,
        };
        Ok(Response::new(Box::pin(stream::unfold(watcher, HealthWatcher::next))))
    }
}
