//! Executor of writes at home: proposes them, waits for the outcome, and answers after the serving check.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, future::join_all, stream::FuturesUnordered};
use stead_api::proto::v1::{Answer, Role};
use stead_raft::{Proposal, ProposeError, split_into_entries};
use stead_replication::RemoteWait;
use stead_state::{
    serving::NotServing,
    shard::{
        apply_result::{ApplyResult, EvaluationPoint, GuardFailure},
        command::{DeleteRange, REMOVAL_WORK},
        range_deletion::RangeDeletion,
    },
};
use stead_types::{
    Error, ErrorKind, TenantNumber,
    planted::{self, Bug},
};
use tokio::time::Instant;

use super::{
    command,
    deletion_step::{DeletionStep, deletion_deadline, deletion_step},
    refusals,
    response::{self, WriteContext},
};
use crate::{
    config::NodeConfig,
    disk::DiskRoom,
    host::{HostedGroup, READY_WAIT},
    metrics::ServedFrom,
    response::Origin,
    router::{
        call_completion::CallCompletion,
        deadlines::group_by_deadline,
        forwarder::Forwarder,
        job::Job,
        rejections, remote,
        request::WriteRequest,
        serving::{LeaseWait, OwnerWait, ServingCheck, changed_at, wait_until_owner},
    },
};

/// Retry delay of a write that was shed because too many were queued.
const OVERLOADED_RETRY_DELAY: Duration = Duration::from_millis(100);

/// Writes and their proposals, in the same order, that fit into one entry.
struct ProposalBatch {
    jobs: Vec<Job<WriteRequest>>,
    proposals: Vec<Proposal>,
}

/// Writes that are not answered after a proposal.
#[derive(Default)]
struct RemainingWrites {
    /// Writes that did nothing: this group is not, or not yet, the owner according to its own log.
    not_owner: Vec<Job<WriteRequest>>,
    /// Range deletions with more steps to go.
    deletions: Vec<(Job<WriteRequest>, RangeDeletion)>,
}

/// Writes that were part of an entry, and their results, in the same order.
#[derive(Default)]
struct AppliedBatch {
    jobs: Vec<Job<WriteRequest>>,
    results: Vec<ApplyResult>,
}

impl AppliedBatch {
    fn push(&mut self, job: Job<WriteRequest>, result: ApplyResult) {
        self.jobs.push(job);
        self.results.push(result);
    }

    /// Splits off the writes that are answered once another region has them. A range deletion waits at its end.
    fn split_remote(self) -> (Self, Self) {
        let (mut here, mut remote) = (Self::default(), Self::default());
        for (job, result) in self.jobs.into_iter().zip(self.results) {
            let waits = remote::is_remote_write(&job) && !matches!(result, ApplyResult::DeleteRange(_));
            if waits { &mut remote } else { &mut here }.push(job, result);
        }
        (here, remote)
    }
}

impl RemainingWrites {
    fn extend(&mut self, other: Self) {
        self.not_owner.extend(other.not_owner);
        self.deletions.extend(other.deletions);
    }
}

/// Executor of writes at home: proposes each, waits for it, makes the serving check, and answers it once.
pub(crate) struct WriteExecutor {
    node: NodeConfig,
    serving: ServingCheck,
    completion: CallCompletion,
    forwarder: Arc<Forwarder>,
    room: Arc<DiskRoom>,
}

impl WriteExecutor {
    /// Returns the executor of a node; a write that another node leads goes to the forwarder.
    pub(in crate::router) fn new(
        node: NodeConfig,
        serving: ServingCheck,
        completion: CallCompletion,
        forwarder: Arc<Forwarder>,
        room: Arc<DiskRoom>,
    ) -> Self {
        Self {
            node,
            serving,
            completion,
            forwarder,
            room,
        }
    }

    /// Proposes writes of one tenant. Each is answered at about its own deadline at the latest, however long others
    /// that came with it would wait. Returns those that did nothing because another group owns the tenant now.
    pub(in crate::router) async fn execute(
        &self,
        hosted: &HostedGroup,
        tenant: TenantNumber,
        jobs: Vec<Job<WriteRequest>>,
    ) -> Vec<Job<WriteRequest>> {
        let mut running = FuturesUnordered::new();
        let jobs = refusals::reject_remote_alone(&self.completion, hosted, self.completion.reject_inactive(jobs));
        let jobs = refusals::reject_without_room(&self.completion, &self.room, hosted, jobs);
        for jobs in group_by_deadline(jobs, |job| job.call.deadline) {
            let last = jobs
                .iter()
                .map(|job| job.call.deadline)
                .max()
                .unwrap_or_else(Instant::now);
            let until = last.min(Instant::now() + READY_WAIT);
            // Without a lease they would be committed, and their outcome unknown.
            if hosted.raft.is_leader() {
                match self.serving.wait_until_leased(hosted, tenant, until).await {
                    Ok(LeaseWait::MayServe) => {}
                    Ok(LeaseWait::LedBy(leader)) => {
                        let jobs = self.completion.reject_inactive(jobs).into_iter();
                        jobs.for_each(|job| self.forwarder.forward_to_leader(job, hosted, Some(leader)));
                        continue;
                    }
                    Err(error) => {
                        let jobs = jobs.into_iter();
                        jobs.for_each(|job| self.completion.reject(job.call, &error));
                        continue;
                    }
                }
            }
            let proposals = self.proposals(hosted, &jobs);
            for (jobs, proposals) in split_into_entries(jobs.into_iter().zip(proposals)) {
                let batch = ProposalBatch { jobs, proposals };
                running.push(self.propose_until_owner(hosted, tenant, batch));
            }
        }
        let mut moved = Vec::new();
        while let Some(jobs) = running.next().await {
            moved.extend(jobs);
        }
        moved
    }

    fn proposals(&self, hosted: &HostedGroup, jobs: &[Job<WriteRequest>]) -> Vec<Proposal> {
        // A machine that cannot be read takes no proposals either.
        let group_outcomes = hosted.machine.read(|view| view.shard().outcomes()).unwrap_or_default();
        let notes_operations = self.serving.settings().has_region_loss();
        let proposal = |job| command::proposal(job, group_outcomes, notes_operations);
        jobs.iter().map(proposal).collect()
    }

    /// Proposes a batch, again until this group is the tenant's owner according to its own log; returns the writes whose
    /// tenant another group owns.
    async fn propose_until_owner(
        &self,
        hosted: &HostedGroup,
        tenant: TenantNumber,
        mut batch: ProposalBatch,
    ) -> Vec<Job<WriteRequest>> {
        let ready_by = Instant::now() + READY_WAIT;
        while !batch.jobs.is_empty() {
            let remaining = self.propose_once(hosted, tenant, batch).await;
            let deletions = remaining.deletions.into_iter();
            let deletions = deletions.map(|(job, deletion)| self.continue_deletion(hosted, job, deletion));
            let mut jobs = remaining.not_owner;
            jobs.extend(join_all(deletions).await.into_iter().flatten());
            let Some(routed) = jobs.first().map(|job| job.tenant.clone()) else {
                return Vec::new();
            };
            let until = ready_by.min(jobs.iter().map(|job| job.call.deadline).max().unwrap_or(ready_by));
            match wait_until_owner(hosted, &routed, until).await {
                OwnerWait::Owner => {}
                OwnerWait::Elsewhere => return jobs,
                OwnerWait::TimedOut => {
                    let error = rejections::not_ready();
                    jobs.drain(..).for_each(|job| self.completion.reject(job.call, &error));
                }
            }
            let jobs = self.completion.reject_inactive(jobs);
            let proposals = self.proposals(hosted, &jobs);
            batch = ProposalBatch { jobs, proposals };
        }
        Vec::new()
    }

    /// Proposes a batch once; returns the writes that are not answered.
    async fn propose_once(
        &self,
        hosted: &HostedGroup,
        tenant: TenantNumber,
        ProposalBatch { jobs, proposals }: ProposalBatch,
    ) -> RemainingWrites {
        match hosted.propose(tenant, proposals).await {
            Ok(results) => {
                let (applied, remote) = self.reject_late(jobs, results).split_remote();
                let mut remaining = self.respond_applied(hosted, tenant, applied);
                let confirmed = self.confirm(hosted, tenant, remote).await;
                remaining.extend(self.respond_applied(hosted, tenant, confirmed));
                remaining
            }
            Err(error) => {
                self.reject_unproposed(hosted, jobs, error);
                RemainingWrites::default()
            }
        }
    }

    /// Rejects writes whose deadline passed before they were part of an entry; returns the others with their results.
    fn reject_late(&self, jobs: Vec<Job<WriteRequest>>, results: Vec<Option<ApplyResult>>) -> AppliedBatch {
        let mut applied = AppliedBatch::default();
        for (job, result) in jobs.into_iter().zip(results) {
            match result {
                Some(result) => applied.push(job, result),
                None => self.completion.reject(job.call, &rejections::deadline_exceeded()),
            }
        }
        applied
    }

    /// Waits until another region has what the answers to writes depend on; rejects them if that does not come, and
    /// returns the others.
    async fn confirm(&self, hosted: &HostedGroup, tenant: TenantNumber, batch: AppliedBatch) -> AppliedBatch {
        let points = batch.results.iter().filter_map(ApplyResult::evaluation_point);
        let Some(last) = points.max_by_key(|at| (at.index, at.revision)) else {
            return batch;
        };
        let deadline = batch.jobs.iter().map(|job| job.call.deadline).min();
        let wait = self
            .wait_remote(hosted, tenant, last, deadline.unwrap_or_else(Instant::now))
            .await;
        if wait == RemoteWait::Confirmed {
            return batch;
        }
        let mut others = AppliedBatch::default();
        for (job, result) in batch.jobs.into_iter().zip(batch.results) {
            if result.evaluation_point().is_none() {
                others.push(job, result);
            } else {
                let error = match changed_at(&result) {
                    Some(revision) => remote::unconfirmed_write(revision, job.request.idempotency, wait),
                    None => remote::unconfirmed_state(wait),
                };
                self.completion.reject(job.call, &error);
            }
        }
        others
    }

    async fn wait_remote(
        &self,
        hosted: &HostedGroup,
        tenant: TenantNumber,
        at: EvaluationPoint,
        deadline: Instant,
    ) -> RemoteWait {
        let began = Instant::now();
        let wait = hosted
            .remote
            .wait(tenant, at, remote::wait_until(deadline, began))
            .await;
        self.completion.record_remote_wait(began.elapsed(), wait);
        wait
    }

    fn reject_unproposed(&self, hosted: &HostedGroup, jobs: Vec<Job<WriteRequest>>, error: ProposeError) {
        for job in jobs {
            match error {
                ProposeError::NotLeader { leader } => {
                    self.forwarder.forward_to_leader(job, hosted, leader);
                }
                ProposeError::Overloaded => {
                    let limit = "group.proposals.bytes";
                    let wait = OVERLOADED_RETRY_DELAY;
                    let message = format!(
                        "proposal queue of group {} is full: retry in {} ms",
                        hosted.raft.id(),
                        wait.as_millis()
                    );
                    let kind = ErrorKind::RateLimited {
                        limit: limit.to_owned(),
                        wait,
                    };
                    self.completion.shed(job.call, limit, &Error::new(kind, message));
                }
                ProposeError::Stopped => {
                    self.completion.reject(
                        job.call,
                        &Error::new(ErrorKind::Unavailable, "the node is stopping: try again"),
                    );
                }
                ProposeError::TimedOut => {
                    self.reject_outcome_unknown(job, "the deadline passed before the write was known to be committed");
                }
                ProposeError::LeaderChanged => {
                    self.reject_outcome_unknown(
                        job,
                        "the home's leader changed before the write was known to be committed",
                    );
                }
                ProposeError::Unknown => {
                    self.reject_outcome_unknown(job, "the node stopped before the write was known to be committed");
                }
            }
        }
    }

    fn reject_outcome_unknown(&self, job: Job<WriteRequest>, why: &str) {
        let message = format!("{why}: it may have been executed, retry it with the same idempotency key");
        let key = job.request.idempotency;
        self.completion
            .reject(job.call, &Error::new(ErrorKind::OutcomeUnknown { key }, message));
    }

    /// Answers applied writes after the serving check; returns those that need more.
    fn respond_applied(
        &self,
        hosted: &HostedGroup,
        tenant: TenantNumber,
        AppliedBatch { jobs, results }: AppliedBatch,
    ) -> RemainingWrites {
        let serving = self.serving.check_committed(hosted, tenant, &results);
        let mut remaining = RemainingWrites::default();
        for ((mut job, result), serving) in jobs.into_iter().zip(results).zip(serving) {
            let serving = serving.map(|confirmation| job.call.confirmation = confirmation);
            let serving = serving.or_else(|why| planted::is(Bug::ServingCheckIgnored).then_some(()).ok_or(why));
            match (result, serving) {
                (ApplyResult::GuardFailed(GuardFailure::SequencesExhausted), _) => {
                    let limit = "tenant.revisions".to_owned();
                    let message = "the tenant has used up its revisions: an operator can move it to a new epoch";
                    self.completion
                        .reject(job.call, &Error::new(ErrorKind::QuotaExceeded { limit }, message));
                }
                (ApplyResult::GuardFailed(_), _) => remaining.not_owner.push(job),
                // It changed nothing before the tenant was handed over, and is evaluated again at its home.
                (result, Err(NotServing::NotOwner { .. })) if changed_at(&result).is_none() => {
                    remaining.not_owner.push(job)
                }
                (_, Err(why)) => {
                    self.reject_outcome_unknown(job, &format!("the home may no longer serve the tenant ({why})"))
                }
                (ApplyResult::DeleteRange(step), Ok(())) => match command::range(&job.tenant, &job.request) {
                    Some(range) => remaining.deletions.push((job, RangeDeletion::start(range, step))),
                    None => self.respond(job, ApplyResult::DeleteRange(step)),
                },
                (result, Ok(())) => self.respond(job, result),
            }
        }
        remaining
    }

    /// Removes the rest of a range, step by step, and answers. If it is stopped before the end, the answer says that
    /// the deletion is incomplete. Returns the job if the tenant was handed over meanwhile: under its idempotency key the
    /// deletion goes on at the new home, and what was removed here is added to its answer.
    async fn continue_deletion(
        &self,
        hosted: &HostedGroup,
        mut job: Job<WriteRequest>,
        mut deletion: RangeDeletion,
    ) -> Option<Job<WriteRequest>> {
        let until = deletion_deadline(job.call.deadline, Instant::now());
        while let Some(range) = deletion.next() {
            if until <= Instant::now() || job.call.responder.is_abandoned() {
                break;
            }
            match self.propose_deletion_step(hosted, &range, until).await {
                DeletionStep::Applied(step) => deletion.add(step),
                DeletionStep::NotOwner if !deletion.has_begun() => return Some(job),
                DeletionStep::NotOwner if job.request.idempotency.is_some() => {
                    let part = response::delete_range_response(self.context(&job), &deletion);
                    job.call.responder.add_part(part);
                    return Some(job);
                }
                DeletionStep::NotOwner | DeletionStep::Unknown => break,
            }
        }
        if remote::is_remote_write(&job) {
            let (tenant, last) = (job.tenant.number, deletion.last());
            let wait = self.wait_remote(hosted, tenant, last, job.call.deadline).await;
            if wait != RemoteWait::Confirmed {
                let error = if deletion.has_begun() {
                    remote::unconfirmed_write(last.revision, job.request.idempotency, wait)
                } else {
                    remote::unconfirmed_state(wait)
                };
                self.completion.reject(job.call, &error);
                return None;
            }
        }
        // An owner that is not fenced and has a lease confirms the steps before, too. A lease alone does not.
        if let Ok(confirmation) = self.serving.check(hosted, job.tenant.number) {
            job.call.confirmation = confirmation;
        }
        self.respond_delete_range(job, &deletion);
        None
    }

    async fn propose_deletion_step(&self, hosted: &HostedGroup, range: &DeleteRange, until: Instant) -> DeletionStep {
        let proposal = Proposal {
            command: range.encode(),
            work: REMOVAL_WORK,
            deadline: until,
        };
        let proposed = hosted.propose(range.tenant, vec![proposal]).await;
        let Some(result) = proposed.ok().into_iter().flatten().flatten().next() else {
            return DeletionStep::Unknown;
        };
        let serving = self
            .serving
            .check_committed(hosted, range.tenant, std::slice::from_ref(&result));
        deletion_step(result, serving.into_iter().next().map(|checked| checked.map(drop)))
    }

    fn respond(&self, job: Job<WriteRequest>, result: ApplyResult) {
        let answer = response::answer(self.context(&job), result);
        self.send(job, answer);
    }

    fn respond_delete_range(&self, job: Job<WriteRequest>, deletion: &RangeDeletion) {
        let answer = response::delete_range_answer(self.context(&job), deletion);
        self.send(job, answer);
    }

    fn send(&self, job: Job<WriteRequest>, answer: Answer) {
        self.completion.answer(job.call, ServedFrom::Home, answer);
    }

    fn context<'a>(&'a self, job: &'a Job<WriteRequest>) -> WriteContext<'a> {
        WriteContext {
            mutation: &job.request.mutation,
            tenant: job.tenant.number,
            origin: Origin {
                region: &self.node.region,
                node: self.node.id,
                role: Role::Home,
                forwarded: job.call.forwarded.is_some(),
            },
        }
    }
}
