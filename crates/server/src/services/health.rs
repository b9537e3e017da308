//! `grpc.health.v1`: whether a service of this node can serve, answered from the checks of `/readyz` when somebody asks.
//!
//! # Invariants
//!
//! 1. Nothing runs while nobody asks: a watch looks again every [`LOOK_EVERY`], for as long as it is watched.
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

/// Between two looks of a watch.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The service.
#[derive(Clone)]
pub(crate) struct HealthService {
    host: Arc<Host>,
    names: Arc<[&'static str]>,
    stop: CancellationToken,
}

impl HealthService {
    /// Returns the service of a listener with these services; watches end when the token fires.
    pub(crate) fn new(host: Arc<Host>, names: &[&'static str], stop: CancellationToken) -> Self {
        let names = names.into();
        Self { host, names, stop }
    }

    /// Returns how a service is, `None` if there is no such service.
    fn status(&self, service: &str) -> Option<ServingStatus> {
        if !service.is_empty() && !self.names.contains(&service) {
            return None;
        }
        Some(if self.host.ready.report().is_ready() {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        })
    }
}

/// One watch.
struct Watcher {
    health: HealthService,
    service: String,
    told: Option<ServingStatus>,
}

impl Watcher {
    /// Waits until there is something to tell; a node that stops tells that before it ends the watch.
    async fn next(self) -> Option<(Result<HealthCheckResponse, Status>, Self)> {
        while !self.health.stop.is_cancelled() {
            let status = self
                .health
                .status(&self.service)
                .unwrap_or(ServingStatus::ServiceUnknown);
            if self.told != Some(status) {
                return Some(self.tell(status));
            }
            tokio::select! {
                () = sleep(LOOK_EVERY) => {}
                () = self.health.stop.cancelled() => {}
            }
        }
        let is_told = self.told == Some(ServingStatus::NotServing);
        (!is_told).then(|| self.tell(ServingStatus::NotServing))
    }

    fn tell(mut self, status: ServingStatus) -> (Result<HealthCheckResponse, Status>, Self) {
        self.told = Some(status);
        (Ok(answer(status)), self)
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let service = &request.get_ref().service;
        match self.status(service) {
            Some(status) => Ok(Response::new(answer(status))),
            None => {
                let names = self.names.join(", ");
                let message = format!("service: there is no {service:?} here; ask for one of {names}, or for none");
                Err(status::to_status(&Error::new(ErrorKind::NotFound, message)))
            }
        }
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let watcher = Watcher {
            health: self.clone(),
            service: request.into_inner().service,
            told: None,
        };
        Ok(Response::new(Box::pin(stream::unfold(watcher, Watcher::next))))
    }
}
