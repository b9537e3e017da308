//! Executor of reads: linearizable ones at home, where concurrent reads of a group share one read index, and others
//! from the copy of this node, if it is fresh enough.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, future::join_all, stream::FuturesUnordered};
use stead_api::proto::v1::{Answer, Role};
use stead_raft::ReadIndexError;
use stead_replication::{RemoteWait, SharedDirectoryView};
use stead_state::{
    freshness::gate::ReadDecision,
    lease::loss::Confirmation,
    shard::{
        apply_result::EvaluationPoint,
        read::{Scan, TenantReader},
    },
};
use stead_types::{Error, ErrorKind};
use tokio::time::{Instant, timeout_at};

use super::{
    expired_keys::{ExpiryError, remove_expired},
    query::{self, ReadOutcome, ScanProgress},
    replica_gate::{GateVerdict, ReplicaGate, ServingCopy, home_may_have_more},
    revision_waits::RevisionWaits,
    slots::{self, NoSlot, ReadSlot, ReadSlots},
};
use crate::{
    config::NodeConfig,
    host::{HostedGroup, READY_WAIT},
    metrics::ServedFrom,
    response::Origin,
    router::{
        call::Call,
        call_completion::CallCompletion,
        deadlines::group_by_deadline,
        forwarder::Forwarder,
        job::Job,
        rejections, remote,
        request::ReadRequest,
        serving::{LeaseWait, OwnerWait, ReadNotServed, ServingCheck, wait_until_owner},
    },
};

/// Longest wait for a replica to reach a session's revision, before the read is forwarded to the home.
const SESSION_WAIT: Duration = Duration::from_secs(1);

/// An answer, and the state that it depends on.
type FoundAnswer = (Answer, EvaluationPoint);

/// Executor of reads: reads at home after a read index and before the serving check, or from a copy that is fresh
/// enough.
pub(crate) struct ReadExecutor {
    node: NodeConfig,
    gate: ReplicaGate,
    serving: ServingCheck,
    completion: CallCompletion,
    forwarder: Arc<Forwarder>,
    slots: Arc<ReadSlots>,
    waits: Arc<RevisionWaits>,
}

impl ReadExecutor {
    /// Returns the executor of a node; a read that another node leads goes to the forwarder.
    pub(in crate::router) fn new(
        node: NodeConfig,
        directory_view: SharedDirectoryView,
        serving: ServingCheck,
        completion: CallCompletion,
        forwarder: Arc<Forwarder>,
        waits: Arc<RevisionWaits>,
    ) -> Self {
        Self {
            node,
            gate: ReplicaGate::new(directory_view),
            serving,
            completion,
            forwarder,
            slots: Arc::default(),
            waits,
        }
    }

    /// Serves linearizable reads of one group. Each is answered at about its own deadline at the latest, however long
    /// others that came with it would wait.
    ///
    /// Returns those whose tenant another group owns now.
    pub(in crate::router) async fn execute_linearizable(
        &self,
        hosted: &HostedGroup,
        jobs: Vec<Job<ReadRequest>>,
    ) -> Vec<Job<ReadRequest>> {
        let active = self.completion.reject_inactive(jobs);
        let parts = group_by_deadline(active, |job| job.call.deadline).into_iter();
        let moved = join_all(parts.map(|jobs| self.read_after_index(hosted, jobs))).await;
        moved.into_iter().flatten().collect()
    }

    /// Serves a read from the copy of this node, and waits for the copy if need be; returns the read if the home must
    /// serve it.
    pub(in crate::router) async fn execute_at_replica(
        &self,
        hosted: &HostedGroup,
        job: Job<ReadRequest>,
    ) -> Option<Job<ReadRequest>> {
        let until = job.call.deadline.min(Instant::now() + SESSION_WAIT);
        let (mut slot, mut wait) = (None, None);
        loop {
            if job.call.responder.is_abandoned() {
                self.completion.reject(job.call, &rejections::cancelled());
                return None;
            }
            let GateVerdict { decision, copy, late } = self.gate.decide(hosted, &job);
            match decision {
                // Only the home's leader knows what other regions have.
                ReadDecision::Serve
                    if copy.role == Role::Home && remote::is_remote_read(&job) && !hosted.raft.is_leader() =>
                {
                    return Some(job);
                }
                // The copy's age counts when it is read, after any wait.
                ReadDecision::Serve if job.request.takes_long() && slot.is_none() => match self.slot(&job).await {
                    Ok(free) => slot = Some(free),
                    Err(error) => {
                        self.completion.reject(job.call, &error);
                        return None;
                    }
                },
                ReadDecision::Serve => match self.read(hosted, &job, copy, slot).await {
                    Ok(Some(found)) => return self.answer_at_replica(hosted, job, found, copy.role).await,
                    Ok(None) => return Some(job),
                    Err(error) if error.is_transient() || home_may_have_more(&error, copy.role) => return Some(job),
                    Err(error) => {
                        self.completion.reject(job.call, &error);
                        return None;
                    }
                },
                ReadDecision::Forward => return Some(job),
                ReadDecision::Refuse(error) => {
                    self.completion.reject(job.call, &error);
                    return None;
                }
                ReadDecision::WaitFor(_) => {
                    slot = None;
                    let Some(begun) = &mut wait else {
                        // What was applied since the decision wakes nobody: it is made once more.
                        wait = Some(self.waits.begin(hosted.raft.id(), job.tenant.number));
                        continue;
                    };
                    if timeout_at(until, begun.changed()).await.is_err() {
                        let Some(error) = late else { return Some(job) };
                        self.completion.reject(job.call, &error);
                        return None;
                    }
                }
            }
        }
    }

    async fn read_after_index(&self, hosted: &HostedGroup, jobs: Vec<Job<ReadRequest>>) -> Vec<Job<ReadRequest>> {
        let mut moved = Vec::new();
        let deadline = jobs
            .iter()
            .map(|job| job.call.deadline)
            .max()
            .unwrap_or_else(Instant::now);
        match timeout_at(deadline, hosted.raft.read_index()).await {
            Ok(Ok(_)) => {
                let mut reading: FuturesUnordered<_> =
                    jobs.into_iter().map(|job| self.read_at_home(hosted, job)).collect();
                while let Some(job) = reading.next().await {
                    moved.extend(job);
                }
            }
            Ok(Err(ReadIndexError::NotLeader { leader })) => {
                jobs.into_iter()
                    .for_each(|job| self.forwarder.forward_to_leader(job, hosted, leader));
            }
            Ok(Err(ReadIndexError::NoQuorum)) => jobs
                .into_iter()
                .for_each(|job| self.completion.reject(job.call, &rejections::no_leader(&job.tenant))),
            Ok(Err(error @ (ReadIndexError::Overloaded | ReadIndexError::Stopped))) => {
                let error = Error::new(ErrorKind::Unavailable, format!("{error}: try again"));
                jobs.into_iter()
                    .for_each(|job| self.completion.reject(job.call, &error));
            }
            Err(_) => jobs
                .into_iter()
                .for_each(|job| self.completion.reject(job.call, &rejections::deadline_exceeded())),
        }
        moved
    }

    /// Serves one read after a read index was confirmed, then makes the serving check; returns it if another group owns
    /// its tenant.
    async fn read_at_home(&self, hosted: &HostedGroup, job: Job<ReadRequest>) -> Option<Job<ReadRequest>> {
        let until = job.call.deadline.min(Instant::now() + READY_WAIT);
        match wait_until_owner(hosted, &job.tenant, until).await {
            OwnerWait::Owner => {}
            OwnerWait::Elsewhere => return Some(job),
            OwnerWait::TimedOut => {
                self.completion.reject(job.call, &rejections::not_ready());
                return None;
            }
        }
        let waited = self.serving.wait_until_leased(hosted, job.tenant.number, until).await;
        match waited.and_then(|waited| job.check_active().map(|()| waited)) {
            Ok(LeaseWait::MayServe) => {}
            Ok(LeaseWait::LedBy(leader)) => {
                self.forwarder.forward_to_leader(job, hosted, Some(leader));
                return None;
            }
            Err(error) => {
                self.completion.reject(job.call, &error);
                return None;
            }
        }
        let removed = remove_expired(hosted, &job).await;
        // Relinquished meanwhile: neither the removal nor the read happened here.
        if hosted.knows_other_home(job.tenant.number, job.tenant.epoch) {
            return Some(job);
        }
        match removed {
            Ok(()) => {}
            Err(ExpiryError::NotLeader(leader)) => {
                self.forwarder.forward_to_leader(job, hosted, leader);
                return None;
            }
            Err(ExpiryError::Failed(error)) => {
                self.completion.reject(job.call, &error);
                return None;
            }
        }
        let found = match self.slot_if_long(&job).await {
            Ok(slot) => self.read(hosted, &job, ServingCopy::HOME, slot).await,
            Err(error) => Err(error),
        };
        self.answer_at_home(hosted, job, found).await
    }

    /// Waits for a slot, until the call's deadline.
    async fn slot(&self, job: &Job<ReadRequest>) -> Result<ReadSlot, Error> {
        let slot = self.slots.acquire(job.tenant.number, job.call.deadline).await;
        job.check_active()?;
        let slot = slot.map_err(|refusal| {
            if matches!(refusal, NoSlot::Crowded(_)) {
                self.completion.count_refused(slots::LIMIT);
            }
            refusal.error()
        })?;
        // Other answers may have become ready meanwhile.
        job.call.responder.check_room(job.tenant.number).map_err(|full| {
            self.completion.count_refused(full.name);
            full.error()
        })?;
        Ok(slot)
    }

    async fn slot_if_long(&self, job: &Job<ReadRequest>) -> Result<Option<ReadSlot>, Error> {
        Ok(match job.request.takes_long() {
            true => Some(self.slot(job).await?),
            false => None,
        })
    }

    /// Answers a read from a copy, at the home once another region has what it shows, where it must; returns it if the
    /// home must serve it after all.
    async fn answer_at_replica(
        &self,
        hosted: &HostedGroup,
        job: Job<ReadRequest>,
        (answer, at): FoundAnswer,
        role: Role,
    ) -> Option<Job<ReadRequest>> {
        if role != Role::Home {
            self.completion.answer(job.call, ServedFrom::Follower, answer);
            return None;
        }
        match self.confirm(hosted, &job, at).await {
            RemoteWait::Confirmed => self.completion.answer(job.call, ServedFrom::Home, answer),
            RemoteWait::LeaderChanged | RemoteWait::NotOwner => return Some(job),
            RemoteWait::TimedOut => {
                let error = remote::unconfirmed_state(RemoteWait::TimedOut);
                self.completion.reject(job.call, &error);
            }
        }
        None
    }

    /// Waits until another region has what a read shows, if it must: it is never answered from an older state.
    async fn confirm(&self, hosted: &HostedGroup, job: &Job<ReadRequest>, at: EvaluationPoint) -> RemoteWait {
        if !remote::is_remote_read(job) {
            return RemoteWait::Confirmed;
        }
        let began = Instant::now();
        let until = remote::wait_until(job.call.deadline, began);
        let wait = hosted.remote.wait(job.tenant.number, at, until).await;
        self.completion.record_remote_wait(began.elapsed(), wait);
        wait
    }

    /// Answers a read at home after the serving check, which comes after any wait for another region.
    async fn answer_at_home(
        &self,
        hosted: &HostedGroup,
        job: Job<ReadRequest>,
        found: Result<Option<FoundAnswer>, Error>,
    ) -> Option<Job<ReadRequest>> {
        let wait = match &found {
            Ok(Some((_, at))) => self.confirm(hosted, &job, *at).await,
            Ok(None) | Err(_) => RemoteWait::Confirmed,
        };
        if wait == RemoteWait::LeaderChanged {
            return Some(job);
        }
        match (found, self.serving.check(hosted, job.tenant.number)) {
            (_, Err(ReadNotServed::NotOwner)) => return Some(job),
            (Ok(Some(_)), Ok(_)) if wait != RemoteWait::Confirmed => {
                self.completion.reject(job.call, &remote::unconfirmed_state(wait));
            }
            (Ok(Some((answer, _))), Ok(confirmation)) => {
                let call = Call {
                    confirmation,
                    ..job.call
                };
                self.completion.answer(call, ServedFrom::Home, answer);
            }
            // Another group may have reached it.
            (Ok(None), Ok(Confirmation::Unconfirmed)) => {
                self.completion.reject(job.call, &self.serving.no_lease(hosted))
            }
            (Ok(None), Ok(Confirmation::Leased)) => {
                let message = "revision: the tenant has not reached it: use one that a response has returned";
                self.completion.reject(job.call, &Error::invalid("revision", message));
            }
            (Err(error), _) | (Ok(_), Err(ReadNotServed::Refused(error))) => self.completion.reject(job.call, &error),
        }
        None
    }

    /// Reads from a copy, in the slot that a long read has, and returns the state that the answer depends on; `None` if it
    /// has not reached the requested revision.
    async fn read(
        &self,
        hosted: &HostedGroup,
        job: &Job<ReadRequest>,
        copy: ServingCopy,
        _slot: Option<ReadSlot>,
    ) -> Result<Option<FoundAnswer>, Error> {
        let origin = Origin {
            region: &self.node.region,
            node: self.node.id,
            role: copy.role,
            forwarded: job.call.forwarded.is_some(),
        };
        let mut progress = ScanProgress::default();
        let read_scan = |reading: &TenantReader<'_>, scan: &Scan| hosted.machine.scan(reading, scan);
        loop {
            let reading = |reading: Option<TenantReader<'_>>| {
                let gone = || Error::new(ErrorKind::TenantMoving, "this node no longer has the tenant: try again");
                let reading = reading.ok_or_else(gone)?;
                let progress = std::mem::take(&mut progress);
                let outcome = query::run(&reading, &read_scan, job, origin, copy.staleness, progress)?;
                Ok::<_, Error>((outcome, reading.evaluation_point()))
            };
            let (outcome, at) = hosted.read_if_readable(job.tenant.number, reading)??;
            match outcome {
                ReadOutcome::Answer(answer) => return Ok(Some((answer, at))),
                ReadOutcome::NotReached => return Ok(None),
                ReadOutcome::Partial(partial) => {
                    job.check_active()?;
                    progress = partial;
                    tokio::task::yield_now().await;
                }
            }
        }
    }
}
