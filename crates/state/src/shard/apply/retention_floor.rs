//! Applies `RetentionFloor`: history that no follower of this home needs any more.

use std::collections::BTreeMap;

use stead_types::{Revision, TenantNumber};

use super::{
    super::{Shard, apply_result::GuardFailure, command::RetentionFloor},
    EntryContext,
};
use crate::{
    lineage::RevisionStatus,
    rows::{Order, Unreadable, feed},
};

/// Most feed entries that one command removes, and most tenants in them before its last one; the next command
/// continues. The rows themselves are removed later: a snapshot may have to read them.
const FEED_ROWS_MAX: usize = 4096;
const FEED_TENANTS_MAX: usize = 4096;

impl Shard {
    pub(super) fn retention_floor(
        &mut self,
        context: &mut EntryContext<'_>,
        floor: RetentionFloor,
    ) -> Result<Result<(), GuardFailure>, Unreadable> {
        let own: BTreeMap<TenantNumber, Revision> = floor.tenants.into_iter().collect();
        let start = feed::key(self.prefix, self.feed_floor.saturating_add(1));
        let end = feed::key(self.prefix, floor.index.saturating_add(1));
        let mut reached: BTreeMap<TenantNumber, Revision> = BTreeMap::new();
        if start < end {
            for row in context.rows.range(&start..&end, Order::Ascending).take(FEED_ROWS_MAX) {
                let (key, value) = row?;
                for touched in feed::decode(value)?.touched {
                    reached.insert(touched.tenant, touched.revision());
                }
                self.feed_floor = feed::parse_key(key)?;
                if reached.len() >= FEED_TENANTS_MAX {
                    break;
                }
            }
            self.feed_floor_dirty = true;
            self.feed_to_trim = true;
        }
        for (tenant, last) in reached {
            if !own.contains_key(&tenant) {
                self.raise(tenant, last);
            }
        }
        for (tenant, revision) in own {
            self.raise(tenant, revision);
        }
        Ok(Ok(()))
    }

    /// Raises the retention floor of an owned tenant, never above its last change.
    fn raise(&mut self, tenant: TenantNumber, to: Revision) {
        let Some(held) = self.tenants.get_mut(&tenant) else {
            return;
        };
        // The feed may still have entries of changes that a promotion cut: their sequences are others' now.
        let is_cut = matches!(held.record.lineage.status_of(to), RevisionStatus::Cut { .. });
        if held.record.owned().is_none() || is_cut {
            return;
        }
        let live = &mut held.record.live;
        let floor = to.min(live.revision);
        if floor > live.retention_floor {
            live.retention_floor = floor;
            held.dirty = true;
            self.index_maintenance(tenant);
        }
    }
}
