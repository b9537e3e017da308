//! Operations as messages, and `OperationService`, which watches one.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures::{
    Stream, StreamExt,
    stream::{self, FuturesUnordered},
};
use stead_api::{
    convert,
    proto::{
        admin::v1::{
            self as admin, BulkMoveResponse, MoveTenantResponse, OperationMetadata, TopologyResponse,
            WatchOperationRequest, WatchOperationResponse,
            operation_metadata::{Kind, Step, StepName as StepMessage},
            operation_service_server,
        },
        google::longrunning::{self, operation},
    },
    status,
};
use stead_state::{
    authorization::Need,
    directory::{DirectoryView, Operation, OperationKind, OperationResult, SHOWN_FAILURES_MAX, StepName},
};
use stead_types::{DirectoryVersion, Error, ErrorKind, TenantNumber};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::{
    bulk_move_message, place, promotion_message, region_name, region_seeds::seeds_at, time, to_status,
    topology_progress,
};
use crate::{auth::Access, host::Host, services::call_metadata::access};

/// Longest time between two reads of an operation that is followed.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Shortest time between two reads: the directory may change many times meanwhile.
const READ_PAUSE: Duration = Duration::from_millis(50);

/// Longest wait for the home's leader to tell how far the copy for a target is.
const SEED_WAIT: Duration = Duration::from_millis(300);

/// Time between two messages of a watch about a copy for a target.
const SEED_INTERVAL: Duration = Duration::from_secs(2);

/// Most tenants of a promotion among which those are looked for that it cannot promote.
const FAILURES_READ_MAX: usize = 1_000;

/// Steps of a move that succeeds, in their order.
const MOVE_STEPS: [StepName; 3] = [StepName::Planned, StepName::HeirReady, StepName::Recorded];

/// Returns an operation that was begun by the command of this version.
///
/// # Errors
///
/// It cannot be read now. The call has had its effect, so that nothing may repeat it by itself.
pub(super) async fn begun(host: &Host, id: u64, version: DirectoryVersion) -> Result<Operation, Error> {
    host.directory.operation(id, version).await.map_err(|error| {
        let name = convert::operation::name(id);
        let message = format!(
            "{name} has begun, but cannot be read now ({}): read it again",
            error.message
        );
        Error::new(ErrorKind::OutcomeUnknown { key: None }, message)
    })
}

/// Converts an operation into a message.
pub(crate) fn message(view: &DirectoryView, operation: &Operation) -> longrunning::Operation {
    longrunning::Operation {
        name: convert::operation::name(operation.id),
        metadata: Some(convert::operation::pack_metadata(&metadata(view, operation))),
        done: operation.end.is_some(),
        result: result(view, operation),
    }
}

fn metadata(view: &DirectoryView, operation: &Operation) -> OperationMetadata {
    let step = |step: &stead_state::directory::OperationStep| Step {
        name: step_message(step.name).into(),
        time: Some(time(step.time)),
    };
    let has = |name| operation.steps.iter().any(|step| step.name == name);
    let cancel_requested = has(StepName::AbortRequested);
    let last_step = operation.steps.last().map(|step| step.time);
    let end_time = operation.end.as_ref().map(|end| end.time);
    let common = OperationMetadata {
        tenants: operation.tenants.iter().map(|of| of.name.to_string()).collect(),
        steps: operation.steps.iter().map(step).collect(),
        who: operation.by.who.clone(),
        who_verified: super::is_proved(&operation.by.who),
        reason: operation.by.reason.clone(),
        create_time: Some(time(operation.created)),
        update_time: Some(time(end_time.or(last_step).unwrap_or(operation.created))),
        end_time: end_time.map(time),
        cancel_requested,
        ..OperationMetadata::default()
    };
    match &operation.kind {
        OperationKind::Move { from, to, .. } => {
            let is_open = operation.end.is_none() && !cancel_requested && operation.seed_failure().is_none();
            let left = MOVE_STEPS.into_iter().filter(|name| is_open && !has(*name));
            OperationMetadata {
                kind: Kind::Move.into(),
                from: Some(place(view, *from)),
                to: Some(place(view, *to)),
                steps_left: left.map(|name| step_message(name).into()).collect(),
                ..common
            }
        }
        OperationKind::BulkMove(bulk) => OperationMetadata {
            kind: Kind::BulkMove.into(),
            progress: Some(bulk_move_message::progress(bulk)),
            ..common
        },
        OperationKind::Promotion(promotion) => OperationMetadata {
            kind: Kind::Promotion.into(),
            promotion: Some(promotion_message::progress(promotion, operation.end.is_some())),
            ..common
        },
        OperationKind::Topology(change) => OperationMetadata {
            kind: Kind::Topology.into(),
            topology: Some(topology_progress::progress(view, change)),
            ..common
        },
    }
}

/// Converts an operation in flight into a message with the progress of the copy for its target, if the home's leader
/// answers before the deadline.
pub(crate) async fn message_with_seed(host: &Host, operation: &Operation, deadline: Instant) -> longrunning::Operation {
    let deadline = deadline.min(Instant::now() + SEED_WAIT);
    let seed = match operation.end {
        None => timeout_at(deadline, seed(host, operation)).await,
        Some(_) => Ok(None),
    };
    let failures = timeout_at(deadline, promotion_failures(host, operation)).await;
    let waits = timeout_at(deadline, topology_progress::waits(host, operation)).await;
    host.directory_view.read(|view| {
        let mut metadata = OperationMetadata {
            seed: seed.ok().flatten(),
            ..metadata(view, operation)
        };
        if let Some(promotion) = &mut metadata.promotion {
            promotion.failures = failures.unwrap_or_default();
        }
        if let Some(topology) = &mut metadata.topology {
            topology.waits = waits.unwrap_or_default();
        }
        longrunning::Operation {
            metadata: Some(convert::operation::pack_metadata(&metadata)),
            ..message(view, operation)
        }
    })
}

/// Returns the first tenants that a promotion cannot promote, among the first that it has.
async fn promotion_failures(host: &Host, operation: &Operation) -> Vec<admin::MoveFailure> {
    let OperationKind::Promotion(promotion) = &operation.kind else {
        return Vec::new();
    };
    if promotion.counts.blocked + promotion.counts.failed == 0 {
        return Vec::new();
    }
    let first = TenantNumber::new(0);
    let read = host
        .directory
        .promotion_tenants(operation.id, first, FAILURES_READ_MAX)
        .await;
    let items = read.map(|read| read.tenants).unwrap_or_default();
    let failures = items.iter().filter_map(|(_, item)| promotion_message::failure(item));
    failures.take(SHOWN_FAILURES_MAX).collect()
}

/// Asks the home's voters for the progress of the copy for the target of a move.
async fn seed(host: &Host, operation: &Operation) -> Option<admin::SeedProgress> {
    let OperationKind::Move { from, to, .. } = operation.kind else {
        return None;
    };
    let tenant = operation.tenants.first()?.name.to_string();
    let (region, voters) = host.directory_view.read(|view| {
        let voters = view.group(from)?.voters.to_vec();
        Some((view.region_of(to)?.name.clone(), voters))
    })?;
    let mut asked: FuturesUnordered<_> = voters.into_iter().map(|voter| seeds_at(host, voter, &region)).collect();
    while let Some(seeds) = asked.next().await {
        let of_move = |seed: &admin::SeedProgress| {
            seed.tenant == tenant && seed.follower_group == to.get() && seed.home_group == from.get()
        };
        if let Some(found) = seeds.into_iter().find(of_move) {
            return Some(found);
        }
    }
    None
}

fn result(view: &DirectoryView, operation: &Operation) -> Option<operation::Result> {
    Some(match &operation.end.as_ref()?.result {
        OperationResult::Succeeded => operation::Result::Response(response(view, operation)),
        OperationResult::Failed { reason } => {
            operation::Result::Error(status::to_rpc_status(&Error::new(ErrorKind::Conflict, reason)))
        }
        OperationResult::Cancelled => {
            let message = match &operation.kind {
                OperationKind::Move { from, .. } => {
                    format!("cancelled: the home is still in {}", region_name(view, *from))
                }
                OperationKind::BulkMove(bulk) => bulk_move_message::cancelled(bulk),
                OperationKind::Promotion(promotion) => promotion_message::cancelled(promotion),
                OperationKind::Topology(change) => format!("cancelled, nothing has changed: {}", change.summary),
            };
            operation::Result::Error(status::cancelled(message))
        }
    })
}

/// Returns the response of an operation that has succeeded.
fn response(view: &DirectoryView, operation: &Operation) -> prost_types::Any {
    match &operation.kind {
        OperationKind::Move { to, epoch, .. } => {
            let tenant = operation.tenants.first().map(|of| of.name.to_string());
            let response = MoveTenantResponse {
                tenant: tenant.unwrap_or_default(),
                home: Some(place(view, *to)),
                epoch: epoch.get(),
            };
            convert::operation::pack_move_response(&response)
        }
        OperationKind::BulkMove(bulk) => {
            convert::operation::pack_bulk_move_response(&BulkMoveResponse { moved: bulk.moved })
        }
        OperationKind::Promotion(promotion) => {
            convert::operation::pack_promote_response(&promotion_message::response(promotion))
        }
        OperationKind::Topology(change) => convert::operation::pack_topology_response(&TopologyResponse {
            summary: change.summary.clone(),
        }),
    }
}

fn step_message(name: StepName) -> StepMessage {
    match name {
        StepName::Planned => StepMessage::Planned,
        StepName::HeirReady => StepMessage::HeirReady,
        StepName::AbortRequested => StepMessage::CancelRequested,
        StepName::Refused => StepMessage::Refused,
        StepName::Recorded => StepMessage::Recorded,
        StepName::SeedFailed(_) => StepMessage::SeedFailed,
        StepName::Paused => StepMessage::Paused,
        StepName::Resumed => StepMessage::Resumed,
        StepName::NodesJoined => StepMessage::NodesJoined,
        StepName::GroupsMade => StepMessage::GroupsMade,
        StepName::VotersChanged => StepMessage::VotersChanged,
    }
}

/// Follower of one operation: returns its states as they change.
pub(crate) struct OperationFollower {
    host: Arc<Host>,
    id: u64,
    versions: watch::Receiver<DirectoryVersion>,
    last: Option<Operation>,
}

impl OperationFollower {
    /// Returns a follower that begins with the operation as it is.
    pub(crate) fn new(host: Arc<Host>, id: u64) -> Self {
        let versions = host.directory_view.watch();
        Self {
            host,
            id,
            versions,
            last: None,
        }
    }

    /// Returns the state that was read last.
    fn last(&self) -> Option<&Operation> {
        self.last.as_ref()
    }

    /// Tells whether the operation is over, as far as it was read.
    pub(crate) fn is_over(&self) -> bool {
        self.last.as_ref().is_some_and(|last| last.end.is_some())
    }

    /// Returns the next state that differs from the last one. May be dropped at any time.
    ///
    /// # Errors
    ///
    /// There is no such operation any more, or no voter answers.
    pub(crate) async fn next(&mut self) -> Result<Operation, Error> {
        loop {
            if self.last.is_some() {
                // A step of an operation is a change of the directory; a voter that is asked may be behind it.
                tokio::select! {
                    changed = self.versions.changed() => changed.map_err(|_| stopping())?,
                    () = sleep(POLL_INTERVAL) => {}
                }
                sleep(READ_PAUSE).await;
            }
            let version = *self.versions.borrow_and_update();
            let read = self.host.directory.operation(self.id, version).await?;
            if self.last.as_ref() != Some(&read) {
                self.last = Some(read.clone());
                return Ok(read);
            }
        }
    }

    /// Returns the operation once it is over.
    ///
    /// # Errors
    ///
    /// As for [`OperationFollower::next`].
    pub(crate) async fn end(&mut self) -> Result<Operation, Error> {
        loop {
            let operation = self.next().await?;
            if operation.end.is_some() {
                return Ok(operation);
            }
        }
    }
}

fn stopping() -> Error {
    Error::new(ErrorKind::Unavailable, "this node is stopping, try another one")
}

/// The service.
#[derive(Clone)]
pub(crate) struct OperationService {
    host: Arc<Host>,
    stop: CancellationToken,
}

impl OperationService {
    /// Returns the service; watches end when the token fires.
    pub(crate) fn new(host: Arc<Host>, stop: CancellationToken) -> Self {
        Self { host, stop }
    }
}

/// A watch of one operation.
struct OperationWatcher {
    service: OperationService,
    follower: OperationFollower,
    /// Caller; decided anew before each message.
    access: Access,
    failed: bool,
}

impl OperationWatcher {
    async fn next(mut self) -> Option<(Result<WatchOperationResponse, Status>, Self)> {
        if self.failed || self.follower.is_over() {
            return None;
        }
        let read = loop {
            tokio::select! {
                read = self.follower.next() => break read,
                // A copy that is being made changes nothing in the directory.
                () = sleep(SEED_INTERVAL) => {
                    let Some(last) = self.follower.last().cloned() else { continue };
                    let is_topology = matches!(last.kind, OperationKind::Topology(_));
                    if is_topology || seed(&self.service.host, &last).await.is_some() {
                        break Ok(last);
                    }
                }
                () = self.service.stop.cancelled() => break Err(stopping()),
            }
        };
        let read = read.and_then(|operation| {
            self.access.check(&Need::Inspect)?;
            Ok(operation)
        });
        self.failed = read.is_err();
        let response = match read {
            Ok(operation) => {
                let deadline = Instant::now() + SEED_WAIT;
                let operation = message_with_seed(&self.service.host, &operation, deadline).await;
                Ok(WatchOperationResponse {
                    operation: Some(operation),
                })
            }
            Err(error) => Err(to_status(&error)),
        };
        Some((response, self))
    }
}

#[tonic::async_trait]
impl operation_service_server::OperationService for OperationService {
    type WatchOperationStream = Pin<Box<dyn Stream<Item = Result<WatchOperationResponse, Status>> + Send>>;

    async fn watch_operation(
        &self,
        request: Request<WatchOperationRequest>,
    ) -> Result<Response<Self::WatchOperationStream>, Status> {
        let id = convert::operation::number("name", &request.get_ref().name).map_err(|error| to_status(&error))?;
        let watcher = OperationWatcher {
            service: self.clone(),
            follower: OperationFollower::new(self.host.clone(), id),
            access: access(&request).map_err(|error| to_status(&error))?,
            failed: false,
        };
        Ok(Response::new(Box::pin(stream::unfold(watcher, OperationWatcher::next))))
    }
}

#[cfg(test)]
mod tests {
    use stead_state::{
        directory::{AuditContext, OperationEnd, OperationStep, OperationTenant},
        shard::record::OperationId,
    };
    use stead_types::{Epoch, GroupId};

    use super::*;

    fn operation(steps: &[StepName], result: Option<OperationResult>) -> Operation {
        Operation {
            id: 7,
            kind: OperationKind::Move {
                from: GroupId::new(1),
                to: GroupId::new(5),
                epoch: Epoch::FIRST,
            },
            tenants: vec![OperationTenant {
                tenant: TenantNumber::new(3),
                name: "acme".parse().unwrap(),
                operation: OperationId(1),
            }],
            by: AuditContext::default(),
            created: 1_000,
            steps: steps
                .iter()
                .zip(1_000..)
                .map(|(name, time)| OperationStep { name: *name, time })
                .collect(),
            end: result.map(|result| OperationEnd { result, time: 9_000 }),
        }
    }

    fn read(operation: &Operation) -> (longrunning::Operation, OperationMetadata) {
        let message = message(&DirectoryView::default(), operation);
        let metadata = convert::operation::unpack_metadata(message.metadata.as_ref().unwrap()).unwrap();
        (message, metadata)
    }

    #[test]
    fn move_in_flight_has_steps_left_until_cancelled() {
        let (message, metadata) = read(&operation(&[StepName::Planned], None));
        assert_eq!((message.name.as_str(), message.done), ("operations/7", false));
        assert_eq!(message.result, None);
        let left: Vec<_> = metadata.steps_left().collect();
        assert_eq!(left, [StepMessage::HeirReady, StepMessage::Recorded]);
        assert!(!metadata.who_verified && metadata.end_time.is_none());
        let (_, metadata) = read(&operation(&[StepName::Planned, StepName::AbortRequested], None));
        assert!(metadata.cancel_requested && metadata.steps_left.is_empty());
    }

    #[test]
    fn move_that_is_over_has_exactly_one_result() {
        let (message, metadata) = read(&operation(&MOVE_STEPS, Some(OperationResult::Succeeded)));
        let Some(operation::Result::Response(response)) = &message.result else {
            panic!("{message:?}")
        };
        let response = convert::operation::unpack_move_response(response).unwrap();
        assert_eq!((response.tenant.as_str(), response.home.unwrap().group), ("acme", 5));
        assert!(message.done && metadata.steps_left.is_empty());
        assert_eq!(metadata.end_time, metadata.update_time);

        let (cancelled, _) = read(&operation(&[StepName::Refused], Some(OperationResult::Cancelled)));
        let Some(operation::Result::Error(error)) = &cancelled.result else {
            panic!("{cancelled:?}")
        };
        assert!(status::is_cancelled(error));
    }
}
