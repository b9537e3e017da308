//! Operators' calls for long-running operations.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use stead_api::{
    convert,
    proto::{
        admin::v1::{
            self, OperationMetadata, operation_metadata::StepName as StepMessage,
            operation_service_client::OperationServiceClient,
        },
        google::longrunning::{
            self as longrunning, CancelOperationRequest, GetOperationRequest, ListOperationsRequest,
            operation::Result as OperationResult, operations_client::OperationsClient as Service,
        },
    },
    status,
};
use stead_types::Error;
use tonic::Streaming;

use super::{
    Admin, BulkMovePlan, BulkMoveProgress, PAGE_SIZE, Promoted, PromotionPlan, PromotionProgress, Replica,
    SeedProgress, TopologyProgress, bulk_move,
    place::{Place, place},
    promotion, seed,
    tenant::replica,
    topology_progress,
};
use crate::{node::Node, paging::ListPage, response::malformed};

/// Long-running operation, such as a move of a tenant.
#[derive(Clone, Debug, PartialEq)]
pub struct OperationInfo {
    /// Name, `operations/` and a number; empty if it was planned only.
    pub name: String,
    /// Tenants that it is about, by their names when it began.
    pub tenants: Vec<String>,
    /// Home before.
    pub from: Option<Place>,
    /// Home afterwards.
    pub to: Option<Place>,
    /// Steps that are done, in their order.
    pub steps: Vec<Step>,
    /// Steps still to come; empty once a cancellation was asked for.
    pub steps_left: Vec<StepName>,
    /// Identity of the caller who asked for it, as it was given.
    pub who: String,
    /// Whether the identity was checked.
    pub who_verified: bool,
    /// Reason that the caller gave.
    pub reason: String,
    /// Time of its beginning.
    pub created: Option<SystemTime>,
    /// Time of its last step.
    pub updated: Option<SystemTime>,
    /// Time of its end.
    pub ended: Option<SystemTime>,
    /// Whether a cancellation was asked for.
    pub cancel_requested: bool,
    /// Outcome; absent while it is in flight.
    pub outcome: Option<OperationOutcome>,
    /// Plan, of an operation that was planned only.
    pub plan: Option<MovePlan>,
    /// The copy for the target that is being made.
    pub seed: Option<SeedProgress>,
    /// How far it is, if it is a bulk move.
    pub progress: Option<BulkMoveProgress>,
    /// Plan, of a bulk move that was planned only.
    pub bulk_plan: Option<BulkMovePlan>,
    /// How far it is, if it is a promotion.
    pub promotion: Option<PromotionProgress>,
    /// Plan, of a promotion that was planned only.
    pub promotion_plan: Option<PromotionPlan>,
    /// How far it is, if it changes nodes or regions.
    pub topology: Option<TopologyProgress>,
}

/// Outcome of an operation.
#[derive(Clone, Debug, PartialEq)]
pub enum OperationOutcome {
    /// The tenant has its new home.
    Moved {
        /// The home.
        home: Place,
        /// Epoch in which it is the home.
        epoch: u32,
    },
    /// So many tenants have their new homes.
    TenantsMoved(u64),
    /// The promotion has given these tenants their new homes.
    Promoted(Promoted),
    /// Nodes or regions are changed, as this says.
    TopologyChanged(String),
    /// It could not be completed. A single move has moved nothing; the progress of a bulk move says what has happened.
    Failed(Error),
    /// It was given up on request. A single move has moved nothing; those of a bulk move that are done stay.
    Cancelled(String),
}

/// Step of an operation that is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Name of the step.
    pub name: StepName,
    /// When.
    pub time: Option<SystemTime>,
}

/// Name of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepName {
    /// The directory has planned the move.
    Planned,
    /// The target has caught up and is the heir.
    HeirReady,
    /// An operator has asked for the operation to be given up.
    CancelRequested,
    /// The home has refused the move.
    Refused,
    /// The directory has recorded the new home.
    Recorded,
    /// The copy for the target was given up, and with it the move.
    SeedFailed,
    /// A bulk move begins no further moves until it is resumed.
    Paused,
    /// A bulk move goes on.
    Resumed,
    /// Every node that was announced has joined.
    NodesJoined,
    /// The groups of a new region are made.
    GroupsMade,
    /// A group has new voters.
    VotersChanged,
    /// A step of a newer version.
    Other,
}

/// Preview of a move, as far as the nodes know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MovePlan {
    /// Why it would be refused now, and the way out. Empty: it can begin.
    pub blockers: Vec<String>,
    /// Groups that would hold the tenant afterwards.
    pub replicas: Vec<Replica>,
    /// Whether the target holds a copy already.
    pub target_has_copy: bool,
    /// Bytes that would be copied to another region first, if known.
    pub cross_region_bytes: Option<u64>,
    /// How far the target's copy is behind, if known.
    pub lag: Option<Duration>,
    /// Round trip between home and target, if known.
    pub round_trip: Option<Duration>,
    /// Pause of writes to expect, if known.
    pub pause: Option<Duration>,
}

/// Filter of a list of operations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OperationFilter {
    /// Only those of this tenant; empty: all.
    pub tenant: String,
    /// Only those that are over, or only those that are not.
    pub done: Option<bool>,
}

/// Watch of an operation.
#[derive(Debug)]
pub struct OperationWatch {
    stream: Streaming<v1::WatchOperationResponse>,
    node: Arc<Node>,
}

impl OperationWatch {
    /// Returns the next state; `None` after the one in which the operation is over.
    ///
    /// # Errors
    ///
    /// The node has ended the watch: open it again.
    pub async fn next(&mut self) -> Result<Option<OperationInfo>, Error> {
        let message = self
            .stream
            .message()
            .await
            .map_err(|status| self.node.stream_failed(&status))?;
        message.map(|message| read(message.operation)).transpose()
    }
}

impl Admin {
    /// Returns an operation, by its name.
    ///
    /// # Errors
    ///
    /// No such operation, or no node answers.
    pub async fn operation(&self, name: &str) -> Result<OperationInfo, Error> {
        let request = GetOperationRequest { name: name.to_owned() };
        let call = async |channel, request| Service::new(channel).get_operation(request).await;
        let state = self.0.state();
        let answer = state.unary(request, state.deadline(None), true, call).await?;
        read(Some(answer))
    }

    /// Returns operations, newest first.
    ///
    /// # Errors
    ///
    /// No node answers.
    pub async fn operations(&self, filter: &OperationFilter) -> Result<Vec<OperationInfo>, Error> {
        let state = self.0.state();
        let tenant = (!filter.tenant.is_empty()).then(|| format!("tenant={}", filter.tenant));
        let terms: Vec<String> = tenant
            .into_iter()
            .chain(filter.done.map(|done| format!("done={done}")))
            .collect();
        let request = ListOperationsRequest {
            name: convert::operation::COLLECTION.to_owned(),
            filter: terms.join(" AND "),
            page_size: PAGE_SIZE,
            page_token: String::new(),
        };
        let operations = state
            .list(
                request,
                state.deadline(None),
                async |channel, request| Service::new(channel).list_operations(request).await,
                |request, page_token| request.page_token = page_token,
                |answer| ListPage {
                    items: answer.operations,
                    next_page_token: answer.next_page_token,
                },
            )
            .await?;
        operations.into_iter().map(|operation| read(Some(operation))).collect()
    }

    /// Asks for an operation to be given up. It may succeed all the same; [`Admin::operation`] tells.
    ///
    /// # Errors
    ///
    /// It has succeeded, there is no such operation, or a failure that says whether the request may have been taken.
    pub async fn cancel_operation(&self, name: &str) -> Result<(), Error> {
        let request = CancelOperationRequest { name: name.to_owned() };
        let call = async |channel, request| Service::new(channel).cancel_operation(request).await;
        let state = self.0.state();
        // Asked twice, nothing else happens.
        state.unary(request, state.deadline(None), true, call).await
    }

    /// Watches an operation: its state now, then each change until it is over.
    ///
    /// # Errors
    ///
    /// No such operation, or no node answers.
    pub async fn watch_operation(&self, name: &str) -> Result<OperationWatch, Error> {
        let state = self.0.state();
        let request = v1::WatchOperationRequest { name: name.to_owned() };
        let call = async |channel, request| OperationServiceClient::new(channel).watch_operation(request).await;
        let (stream, node) = state.open_stream(request, state.deadline(None), call).await?;
        Ok(OperationWatch { stream, node })
    }
}

/// Reads an operation.
pub(super) fn read(operation: Option<longrunning::Operation>) -> Result<OperationInfo, Error> {
    let operation = operation.ok_or_else(|| malformed("operation"))?;
    let metadata = operation
        .metadata
        .as_ref()
        .and_then(convert::operation::unpack_metadata);
    let metadata: OperationMetadata = metadata.ok_or_else(|| malformed("metadata of the operation"))?;
    Ok(OperationInfo {
        name: operation.name,
        steps_left: metadata.steps_left().map(step_name).collect(),
        steps: metadata.steps.iter().map(step).collect(),
        tenants: metadata.tenants,
        from: metadata.from.map(place),
        to: metadata.to.map(place),
        who: metadata.who,
        who_verified: metadata.who_verified,
        reason: metadata.reason,
        created: metadata.create_time.and_then(|time| time.try_into().ok()),
        updated: metadata.update_time.and_then(|time| time.try_into().ok()),
        ended: metadata.end_time.and_then(|time| time.try_into().ok()),
        cancel_requested: metadata.cancel_requested,
        outcome: operation.result.map(outcome).transpose()?,
        plan: metadata.plan.map(plan),
        seed: metadata.seed.map(seed::read),
        progress: metadata.progress.map(bulk_move::progress),
        bulk_plan: metadata.bulk_plan.map(bulk_move::plan),
        promotion: metadata.promotion.map(promotion::progress),
        promotion_plan: metadata.promotion_plan.map(promotion::plan).transpose()?,
        topology: metadata.topology.map(topology_progress::progress),
    })
}

fn outcome(result: OperationResult) -> Result<OperationOutcome, Error> {
    match result {
        OperationResult::Response(response) => {
            if let Some(bulk) = convert::operation::unpack_bulk_move_response(&response) {
                return Ok(OperationOutcome::TenantsMoved(bulk.moved));
            }
            if let Some(done) = convert::operation::unpack_promote_response(&response) {
                return Ok(OperationOutcome::Promoted(Promoted {
                    promoted: done.promoted,
                    moved: done.moved,
                    replaced: done.replaced,
                }));
            }
            if let Some(changed) = convert::operation::unpack_topology_response(&response) {
                return Ok(OperationOutcome::TopologyChanged(changed.summary));
            }
            let moved = convert::operation::unpack_move_response(&response);
            let moved = moved.ok_or_else(|| malformed("response of the operation"))?;
            Ok(OperationOutcome::Moved {
                home: moved.home.map(place).ok_or_else(|| malformed("home"))?,
                epoch: moved.epoch,
            })
        }
        OperationResult::Error(error) if status::is_cancelled(&error) => Ok(OperationOutcome::Cancelled(error.message)),
        OperationResult::Error(error) => Ok(OperationOutcome::Failed(status::from_rpc_status(&error))),
    }
}

fn step(step: &v1::operation_metadata::Step) -> Step {
    Step {
        name: step_name(step.name()),
        time: step.time.and_then(|time| time.try_into().ok()),
    }
}

fn step_name(name: StepMessage) -> StepName {
    match name {
        StepMessage::Planned => StepName::Planned,
        StepMessage::HeirReady => StepName::HeirReady,
        StepMessage::CancelRequested => StepName::CancelRequested,
        StepMessage::Refused => StepName::Refused,
        StepMessage::Recorded => StepName::Recorded,
        StepMessage::SeedFailed => StepName::SeedFailed,
        StepMessage::Paused => StepName::Paused,
        StepMessage::Resumed => StepName::Resumed,
        StepMessage::NodesJoined => StepName::NodesJoined,
        StepMessage::GroupsMade => StepName::GroupsMade,
        StepMessage::VotersChanged => StepName::VotersChanged,
        StepMessage::Unspecified => StepName::Other,
    }
}

fn plan(plan: v1::MovePlan) -> MovePlan {
    MovePlan {
        blockers: plan.blockers,
        replicas: plan.replicas.into_iter().map(replica).collect(),
        target_has_copy: plan.target_has_copy,
        cross_region_bytes: plan.cross_region_bytes,
        lag: plan.lag.and_then(|lag| lag.try_into().ok()),
        round_trip: plan.round_trip.and_then(|round_trip| round_trip.try_into().ok()),
        pause: plan.pause.and_then(|pause| pause.try_into().ok()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(result: Option<OperationResult>) -> longrunning::Operation {
        let metadata = OperationMetadata {
            tenants: vec!["acme".into()],
            steps_left: vec![StepMessage::Recorded.into(), 99],
            ..OperationMetadata::default()
        };
        longrunning::Operation {
            name: "operations/7".into(),
            metadata: Some(convert::operation::pack_metadata(&metadata)),
            done: result.is_some(),
            result,
        }
    }

    #[test]
    fn operation_is_read_with_its_outcome() {
        let in_flight = read(Some(message(None))).unwrap();
        assert_eq!((in_flight.name.as_str(), &in_flight.outcome), ("operations/7", &None));
        assert_eq!(in_flight.steps_left[0], StepName::Recorded);
        let response = v1::MoveTenantResponse {
            tenant: "acme".into(),
            home: Some(v1::Place {
                region: "us-east".into(),
                group: 5,
            }),
            epoch: 2,
        };
        let response = convert::operation::pack_move_response(&response);
        let moved = read(Some(message(Some(OperationResult::Response(response))))).unwrap();
        let home = Place {
            region: "us-east".into(),
            group: 5,
        };
        assert_eq!(moved.outcome, Some(OperationOutcome::Moved { home, epoch: 2 }));
        let cancelled = OperationResult::Error(status::cancelled("cancelled"));
        let cancelled = read(Some(message(Some(cancelled)))).unwrap();
        assert_eq!(cancelled.outcome, Some(OperationOutcome::Cancelled("cancelled".into())));
    }
}
