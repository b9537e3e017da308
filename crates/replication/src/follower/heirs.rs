//! Reports of readiness: the home is told, every second, for which tenants this group is the heir of a move.

use std::{collections::BTreeSet, time::Duration};

use stead_api::proto::internal::v1::FeedHeir;
use stead_state::shard::record::Role;
use stead_types::TenantNumber;
use tokio::time::Instant;

use super::{
    reported_heirs::ReportedHeirs,
    stream::{FollowerStream, StreamEnd},
};
use crate::wire::MessageToHome;

impl FollowerStream {
    /// Reports the heirs of this home: new ones at once, all of them again after a while. Without a lease this group could
    /// not serve, and reports nothing.
    pub(super) fn report_heirs(&mut self) -> Result<(), StreamEnd> {
        let home = self.home;
        let heirs: Vec<(TenantNumber, u64)> = self.context.machine.read(|held| {
            let shard = held.shard();
            let of_home = shard.heirs().filter(|(_, of)| *of == home);
            let heir = |tenant| match shard.record(tenant)?.role {
                Role::Heir { operation, .. } => Some((tenant, operation.0)),
                Role::Owner
                | Role::Follower { .. }
                | Role::Relinquished { .. }
                | Role::Frozen { .. }
                | Role::Erased => None,
            };
            of_home.filter_map(|(tenant, _)| heir(tenant)).collect()
        })?;
        let tenants: BTreeSet<TenantNumber> = heirs.iter().map(|(tenant, _)| *tenant).collect();
        let is_new = !tenants.is_subset(self.reported_heirs.tenants());
        let is_due = self.reported_heirs.next_due().is_some_and(|due| due <= Instant::now());
        if !is_new && !is_due {
            if tenants.is_empty() {
                self.reported_heirs = ReportedHeirs::default();
            }
            return Ok(());
        }
        let Some(lease) = self.context.lease() else {
            return Ok(());
        };
        for (tenant, operation) in heirs {
            let Some(staleness) = self.context.freshness.staleness(tenant) else {
                continue;
            };
            let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
            self.send(MessageToHome::Heir(FeedHeir {
                tenant: tenant.get(),
                operation,
                lease_ms: ms(lease),
                staleness_ms: ms(staleness),
            }))?;
        }
        self.reported_heirs = ReportedHeirs::new(tenants, Instant::now());
        Ok(())
    }
}
