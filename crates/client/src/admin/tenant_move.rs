//! Operators' call that moves a tenant.

use stead_api::proto::admin::v1::{
    self, move_tenant_request::To, tenant_service_client::TenantServiceClient as Service,
};
use stead_types::Error;

use super::{Admin, MoveSource, OperationInfo, operation::read};

/// Description of a move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantMove {
    /// Name of the tenant.
    pub name: String,
    /// Etag that was read; empty: any.
    pub etag: String,
    /// Where its home is to be.
    pub to: MoveTarget,
    /// Role of the present home after the move.
    pub source: MoveSource,
    /// Reason, for the audit log and the operation.
    pub reason: String,
    /// Whether to plan only; the operation has a plan then, and no name.
    pub dry_run: bool,
}

/// Target of a move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MoveTarget {
    /// A group of this region, which the directory chooses.
    Region(String),
    /// This group.
    Group(u32),
    /// Another group of the home's region, which the directory chooses.
    OtherGroup,
}

impl Admin {
    /// Begins a move, which goes on whatever becomes of the caller, or plans it.
    ///
    /// # Errors
    ///
    /// An error response, or a failure that says whether the move may have begun. What a planned move would be refused
    /// for is its outcome.
    pub async fn move_tenant(&self, request: TenantMove) -> Result<OperationInfo, Error> {
        let request = v1::MoveTenantRequest {
            name: request.name,
            etag: request.etag,
            to: Some(match request.to {
                MoveTarget::Region(region) => To::Region(region),
                MoveTarget::Group(group) => To::Group(group),
                MoveTarget::OtherGroup => To::OtherGroup(true),
            }),
            source: request.source.message().into(),
            reason: request.reason,
            validate_only: request.dry_run,
        };
        let call = async |channel, request| Service::new(channel).move_tenant(request).await;
        let state = self.0.state();
        let answer = state.unary(request, state.deadline(None), false, call).await?;
        read(Some(answer))
    }
}
