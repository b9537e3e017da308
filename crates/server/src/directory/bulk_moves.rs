//! Reads of the tenants of bulk moves, on any node: from its own voter, else from the others, one after the other.

use std::time::Duration;

use stead_api::proto::internal::v1::{BulkMoveTenant, ReadBulkMoveTenantsRequest, ReadBulkMoveTenantsResponse};
use stead_state::directory::{BulkMoveItem, ItemMove, ItemState};
use stead_types::{Error, ErrorKind, TenantNumber};
use tokio::time::timeout;

use super::{client::DirectoryClient, local_voter::LocalVoter};
use crate::host::storage_unavailable;

/// Longest time for the answer of one voter.
const ANSWER_MAX: Duration = Duration::from_millis(500);
/// Most tenants of one read.
const READ_TENANTS_MAX: usize = 1_000;

/// Some tenants of a bulk move.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BulkMoveTenants {
    /// The tenants, by number.
    pub(crate) tenants: Vec<(TenantNumber, BulkMoveItem)>,
    /// Whether others follow.
    pub(crate) more: bool,
}

impl BulkMoveTenants {
    /// Returns the message for another node.
    pub(crate) fn message(&self) -> ReadBulkMoveTenantsResponse {
        let tenants = self.tenants.iter().map(|(tenant, item)| BulkMoveTenant {
            tenant: tenant.get(),
            item: item.encode(),
        });
        ReadBulkMoveTenantsResponse {
            tenants: tenants.collect(),
            more: self.more,
        }
    }

    fn from_message(message: ReadBulkMoveTenantsResponse) -> Option<Self> {
        let read = |of: BulkMoveTenant| Some((TenantNumber::new(of.tenant), BulkMoveItem::decode(of.item).ok()?));
        Some(Self {
            tenants: message.tenants.into_iter().map(read).collect::<Option<_>>()?,
            more: message.more,
        })
    }
}

impl LocalVoter {
    /// Reads tenants of a bulk move from a number on, as of the last applied entry.
    pub(crate) fn bulk_move_tenants(
        &self,
        id: u64,
        from: TenantNumber,
        limit: usize,
    ) -> Result<BulkMoveTenants, Error> {
        let limit = limit.min(READ_TENANTS_MAX);
        let read = self.machine.read(|directory| {
            let mut items = directory.operations().items_from(id, from);
            let tenants = items.by_ref().take(limit).map(|(tenant, item)| (tenant, item.clone()));
            BulkMoveTenants {
                tenants: tenants.collect(),
                more: items.next().is_some(),
            }
        });
        read.map_err(|incomplete| storage_unavailable(&incomplete))
    }
}

impl DirectoryClient {
    /// Returns tenants of a bulk move, from a number on.
    ///
    /// # Errors
    ///
    /// No voter answers in time.
    pub(crate) async fn bulk_move_tenants(
        &self,
        id: u64,
        from: TenantNumber,
        limit: usize,
    ) -> Result<BulkMoveTenants, Error> {
        if let Some(local_voter) = self.local_voter() {
            return local_voter.bulk_move_tenants(id, from, limit);
        }
        for at in self.voter_order() {
            let request = ReadBulkMoveTenantsRequest {
                id,
                from: from.get(),
                limit: u32::try_from(limit).unwrap_or(u32::MAX),
            };
            let Some(mut voter) = self.voter_at(at) else { break };
            let answer = timeout(ANSWER_MAX, voter.read_bulk_move_tenants(request)).await;
            let answer = answer.ok().and_then(Result::ok).map(tonic::Response::into_inner);
            if let Some(read) = answer.and_then(BulkMoveTenants::from_message) {
                return Ok(read);
            }
        }
        let message = "no voter of the directory answers in time; the operation goes on meanwhile, ask again";
        Err(Error::new(ErrorKind::Unavailable, message))
    }

    /// Returns the tenants that bulk moves have moved.
    ///
    /// # Errors
    ///
    /// No voter answers in time.
    pub(crate) async fn moved_tenants(&self, ids: &[u64]) -> Result<Vec<(TenantNumber, ItemMove)>, Error> {
        let mut moved = Vec::new();
        for id in ids {
            let mut from = TenantNumber::new(0);
            loop {
                let read = self.bulk_move_tenants(*id, from, READ_TENANTS_MAX).await?;
                moved.extend(read.tenants.iter().filter_map(|(tenant, item)| match item.state {
                    ItemState::Moved(of) => Some((*tenant, of)),
                    ItemState::Waiting(_) | ItemState::Moving(_) | ItemState::Failed { .. } => None,
                }));
                match read.tenants.last().filter(|_| read.more) {
                    Some((last, _)) => from = TenantNumber::new(last.get() + 1),
                    None => break,
                }
            }
        }
        Ok(moved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_round_trip_between_nodes() {
        let reason = "the tenant was erased".into();
        let item = BulkMoveItem::new("acme".parse().unwrap(), ItemState::Failed { reason });
        let tenants = BulkMoveTenants {
            tenants: vec![(TenantNumber::new(7), item)],
            more: true,
        };
        assert_eq!(BulkMoveTenants::from_message(tenants.message()), Some(tenants));
    }
}
