//! `PromotionService`: gives tenants whose home is lost another one, says what that would do, and what it has done.
//!
//! # Invariants
//!
//! 1. A home that answers is not promoted by force unless the request says so: a planned move loses nothing.

use std::{sync::Arc, time::Duration};

use stead_api::{
    convert,
    proto::{
        admin::v1::{
            GetPromotionReportRequest, PromoteRequest, PromotionReport, SetRegionLossPolicyRequest,
            SetRegionLossPolicyResponse, promotion_service_server,
        },
        google::longrunning,
    },
};
use stead_state::directory::{
    AuditContext, Command, Directory, DirectoryOutcome, DirectoryView, OperationKind, PromotionRequest,
    PromotionSelection,
};
use stead_types::{Error, ErrorKind, TenantNumber};
use tonic::{Request, Response, Status};

use super::{
    PAGE_DEFAULT, PAGE_MAX, authorize, by,
    operation::{begun, message},
    promotion_homes::{healthy_homes, refusal, unreachable},
    promotion_message, promotion_plan, promotion_request, region_loss_message, to_status,
};
use crate::host::Host;

/// Longest wait for this node's view to show a promotion that it has just begun.
const VIEW_WAIT: Duration = Duration::from_secs(1);

/// The service.
#[derive(Clone)]
pub(crate) struct PromotionService(Arc<Host>);

impl PromotionService {
    /// Returns the service.
    pub(crate) fn new(host: Arc<Host>) -> Self {
        Self(host)
    }

    async fn promote(&self, request: Request<PromoteRequest>) -> Result<longrunning::Operation, Error> {
        let by = by(&request, &request.get_ref().reason);
        let request = request.into_inner();
        let read = promotion_request::promotion(&request)?;
        if request.validate_only {
            return Ok(promotion_plan::plan(&self.0, by, read, request.even_if_healthy).await);
        }
        self.begin(by, read, request.even_if_healthy).await
    }

    async fn begin(
        &self,
        by: AuditContext,
        request: PromotionRequest,
        even_if_healthy: bool,
    ) -> Result<longrunning::Operation, Error> {
        // A wrong name is told before what a right one would cost.
        if let PromotionSelection::Tenants(names) = &request.selection {
            for name in names {
                self.0.resolve(name).await?;
            }
        }
        let view = self.0.directory_view.read(DirectoryView::clone);
        view.settings().check_promotions((self.0.wall)())?;
        let (healthy, unreachable) =
            futures::future::join(healthy_homes(&self.0, &view, &request), unreachable(&self.0, &view)).await;
        if !even_if_healthy && request.graceful_ms == 0 && !healthy.is_empty() {
            return Err(refusal(&view, &request, &healthy));
        }
        let request = PromotionRequest { unreachable, ..request };
        let (outcome, version) = self.0.directory.propose(&Command::BeginPromotion(by, request)).await?;
        let DirectoryOutcome::Operation(id) = outcome else {
            let message = "the directory returned no operation: this is a bug, please report it";
            return Err(Error::new(ErrorKind::Internal, message));
        };
        self.0.directory_view.wait_for(version, VIEW_WAIT).await;
        let operation = begun(&self.0, id, version).await?;
        Ok(self.0.directory_view.read(|view| message(view, &operation)))
    }

    async fn report(&self, request: &GetPromotionReportRequest) -> Result<PromotionReport, Error> {
        let id = convert::operation::number("name", &request.name)?;
        let size = convert::page::size(request.page_size, PAGE_DEFAULT, PAGE_MAX)? as usize;
        let invalid = || Error::invalid("page_token", "page_token: not a token of this store");
        let from = match convert::page::position(request.name.as_bytes(), &request.page_token)? {
            Some(bytes) => u64::from_be_bytes(bytes.try_into().map_err(|_| invalid())?),
            None => 0,
        };
        let version = self.0.directory_view.version();
        let operation = self.0.directory.operation(id, version).await?;
        let OperationKind::Promotion(promotion) = &operation.kind else {
            let name = convert::operation::name(id);
            let message =
                format!("name: {name} is no promotion, and has no report: `stead operation show {id}` shows it");
            return Err(Error::invalid("name", message));
        };
        let read = self
            .0
            .directory
            .promotion_tenants(id, TenantNumber::new(from), size)
            .await?;
        let last = read.tenants.last().filter(|_| read.more);
        let next = last.map(|(last, _)| {
            let next = last.get().saturating_add(1);
            convert::page::token(request.name.as_bytes(), &next.to_be_bytes())
        });
        Ok(self.0.directory_view.read(|view| PromotionReport {
            operation: Some(message(view, &operation)),
            tenants: read
                .tenants
                .iter()
                .map(|(number, item)| promotion_message::tenant(view, promotion, *number, item))
                .collect(),
            next_page_token: next.unwrap_or_default(),
        }))
    }
}

impl PromotionService {
    async fn set_policy(
        &self,
        request: Request<SetRegionLossPolicyRequest>,
    ) -> Result<SetRegionLossPolicyResponse, Error> {
        let by = by(&request, &request.get_ref().reason);
        convert::directory::reason(&by.reason)?;
        let request = request.into_inner();
        let update = region_loss_message::update(&request)?;
        self.0.resolve(&update.name).await?;
        let policy = update.policy;
        let view = self.0.directory_view.read(DirectoryView::clone);
        // Voters of earlier versions cannot read the command.
        view.settings().check_region_loss()?;
        let command = Command::SetRegionLoss(by, update);
        if request.validate_only {
            Directory::dry_run(view, command)?;
        } else {
            let (_, version) = self.0.directory.propose(&command).await?;
            self.0.directory_view.wait_for(version, VIEW_WAIT).await;
        }
        Ok(SetRegionLossPolicyResponse {
            policy: Some(region_loss_message::message(policy)),
        })
    }
}

fn respond<T>(result: Result<T, Error>) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(|error| to_status(&error))
}

#[tonic::async_trait]
impl promotion_service_server::PromotionService for PromotionService {
    async fn promote(&self, request: Request<PromoteRequest>) -> Result<Response<longrunning::Operation>, Status> {
        authorize::promote(&request, &self.0, request.get_ref().selection.as_ref())
            .map_err(|error| to_status(&error))?;
        respond(self.promote(request).await)
    }

    async fn get_promotion_report(
        &self,
        request: Request<GetPromotionReportRequest>,
    ) -> Result<Response<PromotionReport>, Status> {
        respond(self.report(request.get_ref()).await)
    }

    async fn set_region_loss_policy(
        &self,
        request: Request<SetRegionLossPolicyRequest>,
    ) -> Result<Response<SetRegionLossPolicyResponse>, Status> {
        authorize::administer_tenant(&request, &request.get_ref().tenant).map_err(|error| to_status(&error))?;
        respond(self.set_policy(request).await)
    }
}
