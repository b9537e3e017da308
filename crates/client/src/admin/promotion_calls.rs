//! Operators' calls that give tenants whose home is lost another one.

use stead_api::proto::admin::v1::{self, promotion_service_client::PromotionServiceClient as Service};
use stead_types::Error;

use super::{
    Admin, OperationInfo, PAGE_SIZE, PromotionReport, PromotionRequest, operation::read, promotion_report::promoted,
};
use crate::paging::ListPage;

impl Admin {
    /// Begins a promotion, which goes on whatever becomes of the caller, or plans it.
    ///
    /// # Errors
    ///
    /// An error response, or a failure that says whether it may have begun. What a planned promotion would be refused for is
    /// its outcome.
    pub async fn promote(&self, request: PromotionRequest) -> Result<OperationInfo, Error> {
        let request = request.message();
        let call = async |channel, request| Service::new(channel).promote(request).await;
        let state = self.0.state();
        read(Some(state.unary(request, state.deadline(None), false, call).await?))
    }

    /// Returns what a promotion has decided, tenant by tenant.
    ///
    /// # Errors
    ///
    /// It is no promotion, there is no such operation, or no node answers.
    pub async fn promotion_report(&self, name: &str) -> Result<PromotionReport, Error> {
        let state = self.0.state();
        let request = v1::GetPromotionReportRequest {
            name: name.to_owned(),
            page_size: PAGE_SIZE,
            page_token: String::new(),
        };
        let tenants = state
            .list(
                request,
                state.deadline(None),
                async |channel, request| Service::new(channel).get_promotion_report(request).await,
                |request, page_token| request.page_token = page_token,
                |answer| ListPage {
                    items: answer.tenants,
                    next_page_token: answer.next_page_token,
                },
            )
            .await?;
        Ok(PromotionReport {
            operation: self.operation(name).await?,
            tenants: tenants.into_iter().map(promoted).collect::<Result<_, _>>()?,
        })
    }
}
