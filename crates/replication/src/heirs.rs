//! Readiness of heirs: what the targets of moves have told the home's leader over their feed streams.

use std::{collections::BTreeMap, time::Duration};

use parking_lot::Mutex;
use stead_api::proto::internal::v1::FeedHeir;
use stead_state::{reconcile::HeirReadiness, shard::record::OperationId};
use stead_types::{GroupId, TenantNumber};
use tokio::{sync::watch, time::Instant};

/// Age at which a report no longer counts: an heir repeats its own every second.
const REPORT_LIFETIME: Duration = Duration::from_secs(3);

/// Latest report of the heir of each tenant that is being moved away.
#[derive(Debug, Default)]
pub(crate) struct Heirs {
    reports: Mutex<BTreeMap<TenantNumber, HeirReport>>,
    changed: watch::Sender<()>,
}

#[derive(Clone, Copy, Debug)]
struct HeirReport {
    from: GroupId,
    operation: OperationId,
    at: Instant,
    lease: Duration,
    staleness: Duration,
}

impl Heirs {
    /// Records a report.
    pub(crate) fn record(&self, from: GroupId, heir: &FeedHeir) {
        let report = HeirReport {
            from,
            operation: OperationId(heir.operation),
            at: Instant::now(),
            lease: Duration::from_millis(heir.lease_ms),
            staleness: Duration::from_millis(heir.staleness_ms),
        };
        let mut reports = self.reports.lock();
        reports.retain(|_, report| report.at.elapsed() < REPORT_LIFETIME);
        reports.insert(TenantNumber::new(heir.tenant), report);
        drop(reports);
        self.changed.send_replace(());
    }

    /// Returns what is known of a tenant's heir now.
    pub(crate) fn readiness(&self, tenant: TenantNumber) -> Option<HeirReadiness> {
        let report = *self.reports.lock().get(&tenant)?;
        let age = report.at.elapsed();
        (age < REPORT_LIFETIME).then(|| HeirReadiness {
            group: report.from,
            operation: report.operation,
            lease: report.lease.saturating_sub(age),
            staleness: report.staleness + age,
        })
    }

    /// Returns the tenants with a report.
    pub(crate) fn tenants(&self) -> Vec<TenantNumber> {
        self.reports.lock().keys().copied().collect()
    }

    /// Returns a receiver that changes with each report.
    pub(crate) fn watch(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}
