//! Metrics of authentication and authorization. Identities are too many for labels; the audit log has those of operators.

use prometheus_client::{metrics::counter::Counter, registry::Registry};

/// Counts of callers by what became of them.
#[derive(Debug, Default)]
pub(crate) struct AuthMetrics {
    unauthenticated: Counter,
    denied: Counter,
    anonymous: Counter,
    emergency: Counter,
}

impl AuthMetrics {
    /// Registers the metrics.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let help = "Calls refused because they had no credential, or one that does not count";
        registry.register("unauthenticated_calls", help, self.unauthenticated.clone());
        let help = "Calls refused because their caller lacks a role";
        registry.register("denied_calls", help, self.denied.clone());
        let help = "Calls without a credential, refused or not";
        registry.register("anonymous_calls", help, self.anonymous.clone());
        let help = "Calls with an emergency credential: each is an alarm";
        registry.register("emergency_calls", help, self.emergency.clone());
    }

    /// Counts a call without a credential that counts.
    pub(crate) fn unauthenticated(&self) {
        self.unauthenticated.inc();
    }

    /// Counts a call whose caller lacks a role.
    pub(crate) fn denied(&self) {
        self.denied.inc();
    }

    /// Counts a call without a credential.
    pub(crate) fn anonymous(&self) {
        self.anonymous.inc();
    }

    /// Counts a call with an emergency credential.
    pub(crate) fn emergency(&self) {
        self.emergency.inc();
    }
}
