//! Reads of the tenants of promotions, on any node: from its own voter, else from the others, one after the other.

use std::time::Duration;

use stead_api::proto::internal::v1::{
    PromotionItem as ItemMessage, ReadPromotionItemsRequest, ReadPromotionItemsResponse,
};
use stead_state::directory::PromotionItem;
use stead_types::{Error, ErrorKind, TenantNumber};
use tokio::time::timeout;

use super::{client::DirectoryClient, local_voter::LocalVoter};
use crate::host::storage_unavailable;

/// Longest time for the answer of one voter.
const ANSWER_MAX: Duration = Duration::from_millis(500);
/// Most tenants of one read.
const READ_ITEMS_MAX: usize = 1_000;

/// Some tenants of a promotion.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PromotionTenants {
    /// The tenants, by number.
    pub(crate) tenants: Vec<(TenantNumber, PromotionItem)>,
    /// Whether others follow.
    pub(crate) more: bool,
}

impl PromotionTenants {
    /// Returns the message for another node.
    pub(crate) fn message(&self) -> ReadPromotionItemsResponse {
        let tenants = self.tenants.iter().map(|(tenant, item)| ItemMessage {
            tenant: tenant.get(),
            item: item.encode(),
        });
        ReadPromotionItemsResponse {
            tenants: tenants.collect(),
            more: self.more,
        }
    }

    fn from_message(message: ReadPromotionItemsResponse) -> Option<Self> {
        let read = |of: ItemMessage| Some((TenantNumber::new(of.tenant), PromotionItem::decode(of.item).ok()?));
        Some(Self {
            tenants: message.tenants.into_iter().map(read).collect::<Option<_>>()?,
            more: message.more,
        })
    }
}

impl LocalVoter {
    /// Reads tenants of a promotion from a number on, as of the last applied entry.
    pub(crate) fn promotion_tenants(
        &self,
        id: u64,
        from: TenantNumber,
        limit: usize,
    ) -> Result<PromotionTenants, Error> {
        let limit = limit.min(READ_ITEMS_MAX);
        let read = self.machine.read(|directory| {
            let mut items = directory.operations().promotions().from(id, from);
            let tenants = items.by_ref().take(limit).map(|(tenant, item)| (tenant, item.clone()));
            PromotionTenants {
                tenants: tenants.collect(),
                more: items.next().is_some(),
            }
        });
        read.map_err(|incomplete| storage_unavailable(&incomplete))
    }
}

impl DirectoryClient {
    /// Returns tenants of a promotion, from a number on.
    ///
    /// # Errors
    ///
    /// No voter answers in time.
    pub(crate) async fn promotion_tenants(
        &self,
        id: u64,
        from: TenantNumber,
        limit: usize,
    ) -> Result<PromotionTenants, Error> {
        if let Some(local_voter) = self.local_voter() {
            return local_voter.promotion_tenants(id, from, limit);
        }
        for at in self.voter_order() {
            let request = ReadPromotionItemsRequest {
                id,
                from: from.get(),
                limit: u32::try_from(limit).unwrap_or(u32::MAX),
            };
            let Some(mut voter) = self.voter_at(at) else { break };
            let answer = timeout(ANSWER_MAX, voter.read_promotion_items(request)).await;
            let answer = answer.ok().and_then(Result::ok).map(tonic::Response::into_inner);
            if let Some(read) = answer.and_then(PromotionTenants::from_message) {
                return Ok(read);
            }
        }
        let message = "no voter of the directory answers in time; the operation goes on meanwhile, ask again";
        Err(Error::new(ErrorKind::Unavailable, message))
    }
}
