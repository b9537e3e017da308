//! Reads from the replica of this region, home or follower, if it is fresh enough.

use std::{sync::Arc, time::Duration};

use stead_api::proto::v1::Role;
use stead_state::freshness::gate::{self, Replica, Verdict};
use stead_types::{Error, ErrorKind, GroupId};
use tokio::time::{Instant, timeout_at};

use super::{Job, Read, Router, call::cancelled, level};
use crate::{host::Hosted, metrics::ServedFrom};

/// How long a read waits for its replica to reach what its session has seen, before it is sent home.
const SESSION_WAIT: Duration = Duration::from_secs(1);

impl Router {
    /// Serves a read from a replica, waits for it, or sends the read home.
    pub(super) async fn read_replica(self: &Arc<Self>, group: GroupId, job: Job<Read>) {
        let Some(hosted) = self.host.groups.get(&group).cloned() else {
            return;
        };
        let until = job.call.deadline.min(Instant::now() + SESSION_WAIT);
        let mut applied = hosted.raft.applied();
        loop {
            applied.borrow_and_update();
            if job.call.reply.is_unwanted() {
                return self.refuse(job.call, &cancelled());
            }
            let (verdict, role, staleness) = self.verdict(&hosted, &job);
            match verdict {
                Verdict::Serve => match self.find(&hosted, &job, role, staleness).await {
                    Ok(Some(answer)) => {
                        let from = if role == Role::Home {
                            ServedFrom::Home
                        } else {
                            ServedFrom::Follower
                        };
                        self.host.counts.request(super::op(&job.call), from);
                        return job.call.reply.send(answer);
                    }
                    Ok(None) => break,
                    Err(error) if error.is_transient() || is_of_copy(&error, role) => break,
                    Err(error) => return self.refuse(job.call, &error),
                },
                Verdict::Forward => break,
                Verdict::Refuse(error) => return self.refuse(job.call, &error),
                Verdict::WaitFor(_) => {
                    if !matches!(timeout_at(until, applied.changed()).await, Ok(Ok(()))) {
                        break;
                    }
                }
            }
        }
        if let Some(job) = self.forward_home(job) {
            let home = job.tenant.home;
            self.read(home, vec![job]).await;
        }
    }

    /// Asks the gate.
    fn verdict(&self, hosted: &Hosted, job: &Job<Read>) -> (Verdict, Role, Option<Duration>) {
        let number = job.tenant.number;
        let Some(tenant) = self.host.views.read(|view| view.tenant(number).cloned()) else {
            return (Verdict::Forward, Role::Follower, None);
        };
        let staleness = hosted.freshness.staleness(number);
        let verdict = hosted.readable(number, |reading| match reading {
            None => (Verdict::Forward, Role::Follower, None),
            Some(reading) => {
                let role = if reading.record().owned().is_some() {
                    Role::Home
                } else {
                    Role::Follower
                };
                let replica = Replica {
                    revision: reading.state().revision,
                    lineage: &reading.record().lineage,
                    staleness,
                };
                (
                    gate::read(
                        level(&job.ask.consistency, number),
                        job.ask.named(number),
                        &tenant,
                        replica,
                    ),
                    role,
                    staleness,
                )
            }
        });
        verdict.unwrap_or_else(|error| (Verdict::Refuse(error), Role::Follower, None))
    }
}

/// Tells whether the home may have what a copy lacks: one that was seeded has history from then on only.
fn is_of_copy(error: &Error, role: Role) -> bool {
    role != Role::Home && matches!(error.kind, ErrorKind::Compacted { .. })
}
