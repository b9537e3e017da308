//! Freshness gate of a copy: whether a read may be served from it.

use std::time::Duration;

use stead_api::{convert::read::Consistency, proto::v1::Role};
use stead_replication::SharedDirectoryView;
use stead_state::{
    directory::Tenant,
    freshness::gate::{self, FreshnessLevel, ReadDecision, ReplicaState},
    shard::read::TenantReader,
};
use stead_types::{Error, ErrorKind, Revision, TenantNumber};

use crate::{
    host::HostedGroup,
    router::{job::Job, remote, request::ReadRequest},
};

/// Copy of a tenant from which a read is served.
#[derive(Clone, Copy)]
pub(super) struct ServingCopy {
    /// Role of its group for the tenant.
    pub(super) role: Role,
    /// Staleness, where it is known.
    pub(super) staleness: Option<Duration>,
}

impl ServingCopy {
    /// The home's own copy, after a read index.
    pub(super) const HOME: Self = Self {
        role: Role::Home,
        staleness: Some(Duration::ZERO),
    };

    /// A copy of which nothing is known.
    const UNKNOWN: Self = Self {
        role: Role::Follower,
        staleness: None,
    };
}

/// Decision about a read, and the copy that it is about.
pub(super) struct GateVerdict {
    /// Decision about the read.
    pub(super) decision: ReadDecision,
    /// The copy of this node.
    pub(super) copy: ServingCopy,
    /// Error if the copy does not come in time; without it the home serves the read then.
    pub(super) late: Option<Error>,
}

impl GateVerdict {
    fn without_copy(decision: ReadDecision) -> Self {
        Self {
            decision,
            copy: ServingCopy::UNKNOWN,
            late: None,
        }
    }

    /// Decides about a read at a copy that has no data yet: it is empty although its home need not be. A tenant that is
    /// just being attached is waited for, one that is being seeded is not.
    fn without_data(consistency: &Consistency, tenant: &Tenant, is_seeded: bool) -> Self {
        let decision = match consistency {
            Consistency::Local if is_seeded => ReadDecision::Refuse(no_copy(tenant)),
            Consistency::Local => ReadDecision::WaitFor(Revision::ZERO),
            Consistency::Linearizable | Consistency::Session(_) | Consistency::Bounded(_) => ReadDecision::Forward,
        };
        Self {
            late: matches!(decision, ReadDecision::WaitFor(_)).then(|| no_copy(tenant)),
            ..Self::without_copy(decision)
        }
    }
}

fn no_copy(tenant: &Tenant) -> Error {
    let message = format!(
        "no copy yet: the copy of tenant {} that this node is to serve is still being made; wait for it (stead region \
         status), or read with another consistency, which goes to the home",
        tenant.name
    );
    Error::new(ErrorKind::StaleBeyondBound { staleness: None }, message)
}

/// Freshness gate of the copies of this node.
pub(super) struct ReplicaGate {
    directory_view: SharedDirectoryView,
}

impl ReplicaGate {
    /// Returns the gate, which reads tenants from a directory view.
    pub(super) fn new(directory_view: SharedDirectoryView) -> Self {
        Self { directory_view }
    }

    fn shows_only_remote(&self, hosted: &HostedGroup, tenant: &Tenant, reading: &TenantReader<'_>) -> bool {
        let group = hosted.raft.id();
        self.directory_view
            .read(|view| remote::shows_only_remote(view, tenant, group, reading.record()))
    }

    /// Compares what a read needs with a group's copy.
    pub(super) fn decide(&self, hosted: &HostedGroup, job: &Job<ReadRequest>) -> GateVerdict {
        let number = job.tenant.number;
        let Some(tenant) = self.directory_view.read(|view| view.tenant(number).cloned()) else {
            return GateVerdict::without_copy(ReadDecision::Forward);
        };
        let staleness = hosted.freshness.staleness(number);
        let verdict = hosted.read_if_readable(number, |reading| {
            let Some(reading) = reading else {
                return GateVerdict::without_copy(ReadDecision::Forward);
            };
            if !reading.record().has_data() {
                let is_seeded = reading.record().shadow.is_some();
                return GateVerdict::without_data(&job.request.consistency, &tenant, is_seeded);
            }
            let role = if reading.record().owned().is_some() {
                Role::Home
            } else {
                Role::Follower
            };
            if role == Role::Follower
                && remote::is_remote_read(job)
                && !self.shows_only_remote(hosted, &tenant, &reading)
            {
                return GateVerdict::without_copy(ReadDecision::Forward);
            }
            let replica = ReplicaState {
                revision: reading.state().revision,
                lineage: &reading.record().lineage,
                staleness,
            };
            let decision = gate::decide(
                freshness_level(&job.request.consistency, number),
                job.request.pinned_revision(number),
                &tenant,
                replica,
            );
            GateVerdict {
                decision,
                copy: ServingCopy { role, staleness },
                late: None,
            }
        });
        verdict.unwrap_or_else(|error| GateVerdict::without_copy(ReadDecision::Refuse(error)))
    }
}

/// Returns the freshness that a read needs of a replica.
fn freshness_level(consistency: &Consistency, tenant: TenantNumber) -> FreshnessLevel {
    match consistency {
        Consistency::Bounded(bound) => FreshnessLevel::Bounded(*bound),
        Consistency::Session(tokens) => tokens.of(tenant).map_or(FreshnessLevel::Local, FreshnessLevel::Session),
        Consistency::Linearizable | Consistency::Local => FreshnessLevel::Local,
    }
}

/// Tells whether the home may have the history that a replica lacks: a seeded copy has history from its seed on only.
pub(super) fn home_may_have_more(error: &Error, role: Role) -> bool {
    role != Role::Home && matches!(error.kind, ErrorKind::Compacted { .. })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant_fixture;

    #[test]
    fn copy_without_data_answers_no_read() {
        let tenant = tenant_fixture::tenant(5, &[]);
        let verdict = |consistency, is_seeded| GateVerdict::without_data(&consistency, &tenant, is_seeded);
        let ReadDecision::Refuse(error) = verdict(Consistency::Local, true).decision else {
            panic!("it was served")
        };
        assert_eq!(error.kind, ErrorKind::StaleBeyondBound { staleness: None });
        assert!(error.message.starts_with("no copy yet: "), "{error}");
        let attaching = verdict(Consistency::Local, false);
        assert_eq!(attaching.decision, ReadDecision::WaitFor(Revision::ZERO));
        assert_eq!(attaching.late, Some(error));
        let bounded = verdict(Consistency::Bounded(Duration::from_secs(60)), true);
        assert_eq!((bounded.decision, bounded.late), (ReadDecision::Forward, None));
    }
}
