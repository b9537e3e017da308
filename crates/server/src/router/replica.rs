//! Reads from the replica of this region, home or follower, if it is fresh enough.

use std::{sync::Arc, time::Duration};

use stead_api::proto::v1::Role;
use stead_state::freshness::gate::{self, ReadDecision, ReplicaState};
use stead_types::{Error, ErrorKind, GroupId};
use tokio::time::{Instant, timeout_at};

use super::{Job, ReadRequest, Router, call::cancelled_error, freshness_level};
use crate::{host::HostedGroup, metrics::ServedFrom};

/// Longest wait for a replica to reach a session's revision, before the read is forwarded to the home.
const SESSION_WAIT: Duration = Duration::from_secs(1);

impl Router {
    /// Serves a read from a replica, waits for the replica, or forwards the read to the home.
    pub(super) async fn serve_replica_read(self: &Arc<Self>, group: GroupId, job: Job<ReadRequest>) {
        let Some(hosted) = self.host.groups.get(&group).cloned() else {
            return;
        };
        let until = job.call.deadline.min(Instant::now() + SESSION_WAIT);
        let mut applied = hosted.raft.applied();
        loop {
            applied.borrow_and_update();
            if job.call.responder.is_abandoned() {
                return self.reject(job.call, &cancelled_error());
            }
            let (verdict, role, staleness) = self.verdict(&hosted, &job);
            match verdict {
                ReadDecision::Serve => match self.execute_read(&hosted, &job, role, staleness).await {
                    Ok(Some(answer)) => {
                        let from = if role == Role::Home {
                            ServedFrom::Home
                        } else {
                            ServedFrom::Follower
                        };
                        self.host.metrics.request(super::op_label(&job.call), from);
                        return job.call.responder.send(answer);
                    }
                    Ok(None) => break,
                    Err(error) if error.is_transient() || home_may_have_more(&error, role) => break,
                    Err(error) => return self.reject(job.call, &error),
                },
                ReadDecision::Forward => break,
                ReadDecision::Refuse(error) => return self.reject(job.call, &error),
                ReadDecision::WaitFor(_) => {
                    if !matches!(timeout_at(until, applied.changed()).await, Ok(Ok(()))) {
                        break;
                    }
                }
            }
        }
        if let Some(job) = self.forward_home(job) {
            let home = job.tenant.home;
            self.serve_linearizable_reads(home, vec![job]).await;
        }
    }

    /// Returns the decision of the freshness gate, with the replica's role and staleness.
    fn verdict(&self, hosted: &HostedGroup, job: &Job<ReadRequest>) -> (ReadDecision, Role, Option<Duration>) {
        let number = job.tenant.number;
        let Some(tenant) = self.host.directory_view.read(|view| view.tenant(number).cloned()) else {
            return (ReadDecision::Forward, Role::Follower, None);
        };
        let staleness = hosted.freshness.staleness(number);
        let verdict = hosted.read_if_readable(number, |reading| match reading {
            None => (ReadDecision::Forward, Role::Follower, None),
            Some(reading) => {
                let role = if reading.record().owned().is_some() {
                    Role::Home
                } else {
                    Role::Follower
                };
                let replica = ReplicaState {
                    revision: reading.state().revision,
                    lineage: &reading.record().lineage,
                    staleness,
                };
                (
                    gate::decide(
                        freshness_level(&job.request.consistency, number),
                        job.request.pinned_revision(number),
                        &tenant,
                        replica,
                    ),
                    role,
                    staleness,
                )
            }
        });
        verdict.unwrap_or_else(|error| (ReadDecision::Refuse(error), Role::Follower, None))
    }
}

/// Tells whether the home may have the history that a replica lacks: a seeded copy has history from its seed on only.
fn home_may_have_more(error: &Error, role: Role) -> bool {
    role != Role::Home && matches!(error.kind, ErrorKind::Compacted { .. })
}
