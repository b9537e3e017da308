//! `BulkMoveService`: moves many tenants in waves, or says what that would do.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use stead_api::{
    convert,
    proto::{
        admin::v1::{
            BulkMovePlan, BulkMoveResponse, DrainRegionRequest, FailbackRegionRequest, ListBulkMoveTenantsRequest,
            ListBulkMoveTenantsResponse, MoveTenantsRequest, OperationMetadata, PauseBulkMoveRequest,
            RehearseRegionRequest, ResumeBulkMoveRequest, UndrainRegionRequest, bulk_move_service_server,
            operation_metadata::Kind,
        },
        google::longrunning::{self, operation},
    },
    status,
};
use stead_state::directory::{
    AuditContext, BulkMovePreview, BulkMoveRequest, Command, DirectoryOutcome, DirectoryView, ItemMove, NamedMove,
    OperationKind, RehearsalForecast, RehearsalRequest, RehearsedTenant, Rejection, Selection, SourceAfterMove,
};
use stead_types::{Error, ErrorKind, GroupId, NodeId, TenantNumber};
use tonic::{Request, Response, Status};

use super::{
    PAGE_DEFAULT, PAGE_MAX, authorize, bulk_move_figures, bulk_move_message, bulk_move_request as requests, by,
    drain_forks,
    operation::{begun, message},
    readiness, target_check, tenant_move, to_status,
};
use crate::host::Host;

/// Longest wait for this node's view to show an operation that it has just begun or changed.
const VIEW_WAIT: Duration = Duration::from_secs(1);

/// The service.
#[derive(Clone)]
pub(crate) struct BulkMoveService(Arc<Host>);

impl BulkMoveService {
    /// Returns the service.
    pub(crate) fn new(host: Arc<Host>) -> Self {
        Self(host)
    }

    /// Begins a bulk move, or plans it only.
    async fn begin(
        &self,
        by: AuditContext,
        request: BulkMoveRequest,
        validate_only: bool,
    ) -> Result<longrunning::Operation, Error> {
        if validate_only {
            let selection = request.selection.to_string();
            return self.plan(by, &request, selection).await;
        }
        self.0.directory_view.read(|view| view.settings().check_moves())?;
        if let Selection::Failback { .. } = &request.selection {
            self.0.directory_view.read(|view| view.settings().check_region_loss())?;
        }
        self.check_targets(&request).await?;
        self.propose(&Command::BeginBulkMove(by, request)).await
    }

    /// Begins a rehearsal, or plans the way there only.
    async fn rehearse(
        &self,
        by: AuditContext,
        asked: requests::AskedRehearsal,
        validate_only: bool,
    ) -> Result<longrunning::Operation, Error> {
        self.0.directory_view.read(|view| view.settings().check_region_loss())?;
        for name in &asked.tenants {
            self.0.resolve(name).await?;
        }
        let view = self.0.directory_view.read(DirectoryView::clone);
        let mut forecasts = readiness::forecasts(&self.0, &view, &asked.region).await;
        let mut tenants = Vec::new();
        for name in asked.tenants {
            let forecast = forecasts.remove(&name).unwrap_or_default();
            let to = asked.to.clone().or_else(|| {
                let chosen = forecast.home.and_then(|home| view.region_of(home));
                chosen.map(|chosen| chosen.name.clone())
            });
            let to = to.ok_or_else(|| nowhere(&name.to_string(), &forecast))?;
            tenants.push(RehearsedTenant { name, to, forecast });
        }
        let there = BulkMoveRequest {
            selection: Selection::Named,
            named: tenants
                .iter()
                .map(|tenant| NamedMove {
                    name: tenant.name.clone(),
                    to: tenant.to.clone(),
                })
                .collect(),
            source: SourceAfterMove::Follow,
            pace: asked.pace,
        };
        if validate_only {
            let selection = Selection::Rehearse { region: asked.region };
            return self.plan(by, &there, selection.to_string()).await;
        }
        self.check_targets(&there).await?;
        let request = RehearsalRequest {
            region: asked.region,
            tenants,
            pace: asked.pace,
        };
        self.propose(&Command::BeginRehearsal(by, request)).await
    }

    /// Proposes a command that begins an operation, and returns it.
    async fn propose(&self, command: &Command) -> Result<longrunning::Operation, Error> {
        let (outcome, version) = self.0.directory.propose(command).await?;
        let DirectoryOutcome::Operation(id) = outcome else {
            let message = "the directory returned no operation: this is a bug, please report it";
            return Err(Error::new(ErrorKind::Internal, message));
        };
        self.0.directory_view.wait_for(version, VIEW_WAIT).await;
        let operation = begun(&self.0, id, version).await?;
        Ok(self.0.directory_view.read(|view| message(view, &operation)))
    }

    /// Refuses a bulk move if anything speaks against a group to which its tenants would go now.
    async fn check_targets(&self, request: &BulkMoveRequest) -> Result<(), Error> {
        let view = self.0.directory_view.read(DirectoryView::clone);
        let returning = self.returning(&view, request).await?;
        // What the directory itself refuses, it says better.
        let Ok(preview) = BulkMovePreview::of(&view, request, &returning, &[]) else {
            return Ok(());
        };
        let targets: BTreeSet<GroupId> = preview.moves.iter().map(|one| one.to).collect();
        let targets: Vec<(GroupId, u64)> = targets.into_iter().map(|target| (target, 0)).collect();
        target_check::check(&self.0, &targets).await
    }

    /// Returns the tenants that drains of the region have moved, of an undrain by which they return.
    async fn returning(
        &self,
        view: &DirectoryView,
        request: &BulkMoveRequest,
    ) -> Result<Vec<(TenantNumber, ItemMove)>, Error> {
        match &request.selection {
            Selection::Undrain { region, returns: true } => {
                let drains = view.region(region).map(|region| region.drains.to_vec());
                self.0.directory.moved_tenants(&drains.unwrap_or_default()).await
            }
            Selection::Failback { region } => self.0.directory.ways_back(view, region).await,
            Selection::Undrain { .. }
            | Selection::Rehearse { .. }
            | Selection::Drain { .. }
            | Selection::Label { .. }
            | Selection::Named
            | Selection::Spread { .. } => Ok(Vec::new()),
        }
    }

    /// Returns what a bulk move would do, as an operation that is over and has no name.
    async fn plan(
        &self,
        by: AuditContext,
        request: &BulkMoveRequest,
        selection: String,
    ) -> Result<longrunning::Operation, Error> {
        let view = self.0.directory_view.read(DirectoryView::clone);
        let returning = self.returning(&view, request).await?;
        let unreachable = self.unreachable(&view).await;
        let (plan, result) = match BulkMovePreview::of(&view, request, &returning, &unreachable) {
            Ok(preview) => {
                let response = BulkMoveResponse {
                    moved: preview.moves.len() as u64,
                };
                let response = convert::operation::pack_bulk_move_response(&response);
                let mut plan = bulk_move_message::plan(&view, request, &preview);
                plan.selection = selection;
                bulk_move_figures::add(&self.0, &view, &request.selection, &preview, &mut plan).await;
                (plan, operation::Result::Response(response))
            }
            Err(rejection) => {
                let plan = BulkMovePlan {
                    selection,
                    ..BulkMovePlan::default()
                };
                (plan, operation::Result::Error(status::to_rpc_status(&rejection.into())))
            }
        };
        let metadata = OperationMetadata {
            kind: Kind::BulkMove.into(),
            who: by.who,
            reason: by.reason,
            bulk_plan: Some(plan),
            ..OperationMetadata::default()
        };
        Ok(longrunning::Operation {
            name: String::new(),
            metadata: Some(convert::operation::pack_metadata(&metadata)),
            done: true,
            result: Some(result),
        })
    }

    /// Returns the nodes that do not answer this one, of groups of which no majority answers.
    async fn unreachable(&self, view: &DirectoryView) -> Vec<NodeId> {
        let groups = view.groups().filter(|group| group.region.is_some());
        let groups: Vec<(GroupId, &[NodeId])> = groups.map(|group| (group.number, &group.voters[..])).collect();
        let ask = groups
            .iter()
            .map(|(group, voters)| tenant_move::silent_voters(&self.0, *group, voters));
        let silent: BTreeSet<NodeId> = futures::future::join_all(ask).await.into_iter().flatten().collect();
        silent.into_iter().collect()
    }

    /// Changes whether an operation goes on, and returns its state.
    async fn change(&self, id: u64, command: Command) -> Result<longrunning::Operation, Error> {
        self.0.directory_view.read(|view| view.settings().check_moves())?;
        let (_, version) = self.0.directory.propose(&command).await?;
        self.0.directory_view.wait_for(version, VIEW_WAIT).await;
        let operation = self.0.directory.operation(id, version).await?;
        Ok(self.0.directory_view.read(|view| message(view, &operation)))
    }

    /// Checks that the caller may change whether an operation goes on.
    async fn check<T>(&self, request: &Request<T>, id: u64) -> Result<(), Error> {
        let version = self.0.directory_view.version();
        let operation = self.0.directory.operation(id, version).await?;
        authorize::operation(request, &self.0, &operation)
    }

    async fn pause(&self, request: Request<PauseBulkMoveRequest>) -> Result<longrunning::Operation, Error> {
        let by = by(&request, &request.get_ref().reason);
        convert::directory::reason(&by.reason)?;
        let id = convert::operation::number("name", &request.get_ref().name)?;
        self.check(&request, id).await?;
        self.change(id, Command::PauseBulkMove(by, id)).await
    }

    async fn resume(&self, request: Request<ResumeBulkMoveRequest>) -> Result<longrunning::Operation, Error> {
        let by = by(&request, &request.get_ref().reason);
        convert::directory::reason(&by.reason)?;
        let id = convert::operation::number("name", &request.get_ref().name)?;
        self.check(&request, id).await?;
        let pace = request.get_ref().pace.as_ref();
        let pace = pace.map(|pace| requests::pace(Some(pace))).transpose()?;
        self.change(id, Command::ResumeBulkMove(by, id, pace)).await
    }

    async fn list(&self, request: &ListBulkMoveTenantsRequest) -> Result<ListBulkMoveTenantsResponse, Error> {
        let id = convert::operation::number("name", &request.name)?;
        let size = convert::page::size(request.page_size, PAGE_DEFAULT, PAGE_MAX)? as usize;
        let invalid = || Error::invalid("page_token", "page_token: not a token of this store");
        let from = match convert::page::position(request.name.as_bytes(), &request.page_token)? {
            Some(bytes) => u64::from_be_bytes(bytes.try_into().map_err(|_| invalid())?),
            None => 0,
        };
        let version = self.0.directory_view.version();
        let operation = self.0.directory.operation(id, version).await?;
        if !matches!(operation.kind, OperationKind::BulkMove(_)) {
            return Err(Rejection::NotBulkMove(id).into());
        }
        let read = self.0.directory.bulk_move_tenants(id, TenantNumber::new(from), size);
        let read = read.await?;
        let last = read.tenants.last().filter(|_| read.more);
        let next = last.map(|(last, _)| {
            let next = last.get().saturating_add(1);
            convert::page::token(request.name.as_bytes(), &next.to_be_bytes())
        });
        Ok(self.0.directory_view.read(|view| ListBulkMoveTenantsResponse {
            tenants: read
                .tenants
                .iter()
                .map(|(_, item)| bulk_move_message::tenant(view, item))
                .collect(),
            next_page_token: next.unwrap_or_default(),
        }))
    }
}

/// Returns the error of a tenant of a rehearsal that has nowhere to go.
fn nowhere(tenant: &str, forecast: &RehearsalForecast) -> Error {
    let why = match forecast.blocker.as_str() {
        "" => "it is not at home in the region, or is being promoted",
        blocker => blocker,
    };
    let message = format!("tenants: a promotion would not give {tenant} another home: {why}; name `to` to rehearse it");
    Error::invalid("tenants", message)
}

fn respond<T>(result: Result<T, Error>) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(|error| to_status(&error))
}

#[tonic::async_trait]
impl bulk_move_service_server::BulkMoveService for BulkMoveService {
    async fn drain_region(
        &self,
        request: Request<DrainRegionRequest>,
    ) -> Result<Response<longrunning::Operation>, Status> {
        authorize::operate_region(&request, &request.get_ref().region).map_err(|error| to_status(&error))?;
        let by = by(&request, &request.get_ref().reason);
        let begun = async {
            let request = request.get_ref();
            let read = requests::drain(request)?;
            let refusal = match request.keep_forks {
                true => None,
                false => drain_forks::refusal(&self.0, &request.region).await,
            };
            match (refusal, request.validate_only) {
                (Some(refusal), false) => Err(refusal),
                (Some(refusal), true) => {
                    let planned = self.begin(by, read, true).await?;
                    let result = Some(operation::Result::Error(status::to_rpc_status(&refusal)));
                    Ok(longrunning::Operation { result, ..planned })
                }
                (None, validate_only) => self.begin(by, read, validate_only).await,
            }
        };
        respond(begun.await)
    }

    async fn undrain_region(
        &self,
        request: Request<UndrainRegionRequest>,
    ) -> Result<Response<longrunning::Operation>, Status> {
        authorize::operate_region(&request, &request.get_ref().region).map_err(|error| to_status(&error))?;
        let by = by(&request, &request.get_ref().reason);
        let begun = async {
            let read = requests::undrain(request.get_ref())?;
            self.begin(by, read, request.get_ref().validate_only).await
        };
        respond(begun.await)
    }

    async fn failback_region(
        &self,
        request: Request<FailbackRegionRequest>,
    ) -> Result<Response<longrunning::Operation>, Status> {
        authorize::operate_region(&request, &request.get_ref().region).map_err(|error| to_status(&error))?;
        let by = by(&request, &request.get_ref().reason);
        let begun = async {
            let read = requests::failback(request.get_ref())?;
            self.begin(by, read, request.get_ref().validate_only).await
        };
        respond(begun.await)
    }

    async fn rehearse_region(
        &self,
        request: Request<RehearseRegionRequest>,
    ) -> Result<Response<longrunning::Operation>, Status> {
        authorize::operate_region(&request, &request.get_ref().region).map_err(|error| to_status(&error))?;
        let by = by(&request, &request.get_ref().reason);
        let begun = async {
            let read = requests::rehearsal(request.get_ref())?;
            self.rehearse(by, read, request.get_ref().validate_only).await
        };
        respond(begun.await)
    }

    async fn move_tenants(
        &self,
        request: Request<MoveTenantsRequest>,
    ) -> Result<Response<longrunning::Operation>, Status> {
        let by = by(&request, &request.get_ref().reason);
        let begun = async {
            let read = requests::moves(request.get_ref())?;
            self.begin(by, read, request.get_ref().validate_only).await
        };
        respond(begun.await)
    }

    async fn pause_bulk_move(
        &self,
        request: Request<PauseBulkMoveRequest>,
    ) -> Result<Response<longrunning::Operation>, Status> {
        respond(self.pause(request).await)
    }

    async fn resume_bulk_move(
        &self,
        request: Request<ResumeBulkMoveRequest>,
    ) -> Result<Response<longrunning::Operation>, Status> {
        respond(self.resume(request).await)
    }

    async fn list_bulk_move_tenants(
        &self,
        request: Request<ListBulkMoveTenantsRequest>,
    ) -> Result<Response<ListBulkMoveTenantsResponse>, Status> {
        respond(self.list(request.get_ref()).await)
    }
}
