//! The last report of a stream's heirs to the home.

use std::{collections::BTreeSet, time::Duration};

use stead_types::TenantNumber;
use tokio::time::Instant;

/// Interval between two reports of the same heirs.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// The last reports of a stream.
#[derive(Debug, Default)]
pub(super) struct ReportedHeirs {
    tenants: BTreeSet<TenantNumber>,
    at: Option<Instant>,
}

impl ReportedHeirs {
    /// Returns a report of these tenants.
    pub(super) fn new(tenants: BTreeSet<TenantNumber>, at: Instant) -> Self {
        Self { tenants, at: Some(at) }
    }

    /// Returns the tenants that were reported.
    pub(super) fn tenants(&self) -> &BTreeSet<TenantNumber> {
        &self.tenants
    }

    /// Returns the time of the next report, if there is an heir.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.at
            .map(|at| at + REPORT_INTERVAL)
            .filter(|_| !self.tenants.is_empty())
    }
}
