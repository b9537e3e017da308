//! Reads of the tenants that promotions have taken from a region, on any node.

use std::collections::BTreeMap;

use stead_state::directory::{DirectoryView, ItemMove, OperationKind, way_back};
use stead_types::{Error, RegionName, TenantNumber};

use super::{client::DirectoryClient, operations::OperationQuery};

/// Most operations of one read, and tenants.
const READ_MAX: usize = 1_000;

impl DirectoryClient {
    /// Returns the moves that bring tenants back which promotions have taken from a region, by tenant.
    ///
    /// # Errors
    ///
    /// No voter answers in time.
    pub(crate) async fn ways_back(
        &self,
        view: &DirectoryView,
        region: &RegionName,
    ) -> Result<Vec<(TenantNumber, ItemMove)>, Error> {
        let mut back = BTreeMap::new();
        for id in self.finished_promotions(view).await? {
            let mut from = TenantNumber::new(0);
            loop {
                let read = self.promotion_tenants(id, from, READ_MAX).await?;
                for (number, item) in &read.tenants {
                    if let Some(way) = way_back(view, region, *number, item) {
                        back.entry(*number).or_insert(way);
                    }
                }
                match read.tenants.last().filter(|_| read.more) {
                    Some((last, _)) => from = TenantNumber::new(last.get().saturating_add(1)),
                    None => break,
                }
            }
        }
        Ok(back.into_iter().collect())
    }

    /// Returns the numbers of the promotions that are over, the oldest first.
    async fn finished_promotions(&self, view: &DirectoryView) -> Result<Vec<u64>, Error> {
        let mut found = Vec::new();
        let mut below = None;
        loop {
            let query = OperationQuery {
                id: None,
                below,
                tenant: None,
                done: Some(true),
                limit: READ_MAX,
                at_least: view.version(),
            };
            let page = self.read_operations(&query).await?;
            let promotions = page.operations.iter();
            let promotions = promotions.filter(|operation| matches!(operation.kind, OperationKind::Promotion(_)));
            found.extend(promotions.map(|operation| operation.id));
            match page.operations.last().filter(|_| page.more) {
                Some(last) => below = Some(last.id),
                None => break,
            }
        }
        found.reverse();
        Ok(found)
    }
}
