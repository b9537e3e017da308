//! Operators' calls that move many tenants, in waves.

use stead_api::proto::{
    admin::v1::{self, bulk_move_service_client::BulkMoveServiceClient as Service, move_tenants_request},
    google::longrunning,
};
use stead_types::Error;

use super::{
    Admin, BulkMoveOptions, BulkMoveTenant, OperationInfo, PAGE_SIZE, Pace, TenantSelection, bulk_move::tenant,
    operation::read,
};
use crate::paging::ListPage;

impl Admin {
    /// Begins the drain of a region: all its tenants move out of their homes there, to another region or, where it is
    /// `None`, wherever they fit best, and no tenant gets its home there until [`Admin::undrain_region`].
    ///
    /// # Errors
    ///
    /// An error response, or a failure that says whether it may have begun. What a planned drain would be refused for is
    /// its outcome.
    pub async fn drain_region(
        &self,
        region: &str,
        to: Option<&str>,
        options: BulkMoveOptions,
    ) -> Result<OperationInfo, Error> {
        let request = v1::DrainRegionRequest {
            region: region.to_owned(),
            to: to.unwrap_or_default().to_owned(),
            source: options.source.message().into(),
            pace: Some(options.pace.message()),
            reason: options.reason,
            validate_only: options.dry_run,
            keep_forks: options.keep_forks,
        };
        let call = async |channel, request| Service::new(channel).drain_region(request).await;
        let state = self.0.state();
        read(Some(state.unary(request, state.deadline(None), false, call).await?))
    }

    /// Opens a drained region. The tenants that its drains have moved return, unless `open_only`.
    ///
    /// # Errors
    ///
    /// As for [`Admin::drain_region`].
    pub async fn undrain_region(
        &self,
        region: &str,
        open_only: bool,
        options: BulkMoveOptions,
    ) -> Result<OperationInfo, Error> {
        let request = v1::UndrainRegionRequest {
            region: region.to_owned(),
            open_only,
            pace: Some(options.pace.message()),
            reason: options.reason,
            validate_only: options.dry_run,
        };
        let call = async |channel, request| Service::new(channel).undrain_region(request).await;
        let state = self.0.state();
        read(Some(state.unary(request, state.deadline(None), false, call).await?))
    }

    /// Begins to move the tenants back that promotions have taken from a region.
    ///
    /// # Errors
    ///
    /// As for [`Admin::drain_region`].
    pub async fn failback_region(&self, region: &str, options: BulkMoveOptions) -> Result<OperationInfo, Error> {
        let request = v1::FailbackRegionRequest {
            region: region.to_owned(),
            pace: Some(options.pace.message()),
            reason: options.reason,
            validate_only: options.dry_run,
        };
        let call = async |channel, request| Service::new(channel).failback_region(request).await;
        let state = self.0.state();
        read(Some(state.unary(request, state.deadline(None), false, call).await?))
    }

    /// Begins to move tenants of a region away and back, as if it were lost: to a region or, where it is `None`, where a
    /// promotion would put each.
    ///
    /// # Errors
    ///
    /// As for [`Admin::drain_region`].
    pub async fn rehearse_region(
        &self,
        region: &str,
        tenants: Vec<String>,
        to: Option<&str>,
        options: BulkMoveOptions,
    ) -> Result<OperationInfo, Error> {
        let request = v1::RehearseRegionRequest {
            region: region.to_owned(),
            tenants,
            to: to.unwrap_or_default().to_owned(),
            pace: Some(options.pace.message()),
            reason: options.reason,
            validate_only: options.dry_run,
        };
        let call = async |channel, request| Service::new(channel).rehearse_region(request).await;
        let state = self.0.state();
        read(Some(state.unary(request, state.deadline(None), false, call).await?))
    }

    /// Begins to move many tenants.
    ///
    /// # Errors
    ///
    /// As for [`Admin::drain_region`].
    pub async fn move_tenants(
        &self,
        selection: TenantSelection,
        options: BulkMoveOptions,
    ) -> Result<OperationInfo, Error> {
        use move_tenants_request::{Label, Named, NamedList, Selection};
        let selection = match selection {
            TenantSelection::Label { key, value, to } => Selection::Label(Label { key, value, to }),
            TenantSelection::Named(tenants) => {
                let tenants = tenants.into_iter().map(|(tenant, to)| Named { tenant, to });
                Selection::Named(NamedList {
                    tenants: tenants.collect(),
                })
            }
            TenantSelection::Spread(region) => Selection::SpreadRegion(region),
        };
        let request = v1::MoveTenantsRequest {
            selection: Some(selection),
            source: options.source.message().into(),
            pace: Some(options.pace.message()),
            reason: options.reason,
            validate_only: options.dry_run,
        };
        let call = async |channel, request| Service::new(channel).move_tenants(request).await;
        let state = self.0.state();
        read(Some(state.unary(request, state.deadline(None), false, call).await?))
    }

    /// Lets a bulk move begin no further moves until it is resumed, and returns its state.
    ///
    /// # Errors
    ///
    /// It is over or moves one tenant only, there is no such operation, or no node answers.
    pub async fn pause_operation(&self, name: &str, reason: &str) -> Result<OperationInfo, Error> {
        let request = v1::PauseBulkMoveRequest {
            name: name.to_owned(),
            reason: reason.to_owned(),
        };
        let call = async |channel, request| Service::new(channel).pause_bulk_move(request).await;
        let state = self.0.state();
        // Asked twice, nothing else happens.
        let answer: longrunning::Operation = state.unary(request, state.deadline(None), true, call).await?;
        read(Some(answer))
    }

    /// Lets a bulk move go on, with another pace if there is one, and returns its state.
    ///
    /// # Errors
    ///
    /// As for [`Admin::pause_operation`].
    pub async fn resume_operation(&self, name: &str, pace: Option<Pace>, reason: &str) -> Result<OperationInfo, Error> {
        let request = v1::ResumeBulkMoveRequest {
            name: name.to_owned(),
            pace: pace.map(|pace| pace.message()),
            reason: reason.to_owned(),
        };
        let call = async |channel, request| Service::new(channel).resume_bulk_move(request).await;
        let state = self.0.state();
        read(Some(state.unary(request, state.deadline(None), true, call).await?))
    }

    /// Returns the tenants of a bulk move that it has begun to move, has moved, or could not move.
    ///
    /// # Errors
    ///
    /// It moves one tenant only, there is no such operation, or no node answers.
    pub async fn bulk_move_tenants(&self, name: &str) -> Result<Vec<BulkMoveTenant>, Error> {
        let state = self.0.state();
        let request = v1::ListBulkMoveTenantsRequest {
            name: name.to_owned(),
            page_size: PAGE_SIZE,
            page_token: String::new(),
        };
        let tenants = state
            .list(
                request,
                state.deadline(None),
                async |channel, request| Service::new(channel).list_bulk_move_tenants(request).await,
                |request, page_token| request.page_token = page_token,
                |answer| ListPage {
                    items: answer.tenants,
                    next_page_token: answer.next_page_token,
                },
            )
            .await?;
        Ok(tenants.into_iter().map(tenant).collect())
    }
}
