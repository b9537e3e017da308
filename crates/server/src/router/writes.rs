//! Writes at home: the writes of one message for one tenant go into few entries of the group's log.

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, future::join_all, stream::FuturesUnordered};
use stead_raft::{PROPOSAL_LEN_MAX, Proposal, ProposeError, split_into_entries};
use stead_state::{
    directory::Tenant,
    serving::{self, BootTime, Lease, NotServing, ServingState},
    shard::{
        apply_result::{ApplyResult, DeleteRangeResult, GuardFailure},
        command::{self, DeleteRange, Effect, Operation, REMOVAL_WORK, Step, WindowLimits},
        range_deletion::RangeDeletion,
    },
};
use stead_store::shard::ReadView;
use stead_types::{
    Epoch, Error, ErrorKind, GroupId, IdempotencyKey, TenantNumber,
    limits::{REQUEST_LEN_MAX, TXN_STEPS_MAX},
    planted::{self, Bug},
};
use tokio::time::{Instant, timeout_at};

use super::{Job, READY_WAIT, Router, WriteRequest, deadline_exceeded, group_by_deadline, request::Mutation};
use crate::{
    admission::windows,
    host::{HostedGroup, storage_unavailable},
};

/// Share of its deadline that a delete of a large range may work; the rest is for its response.
const RANGE_TIME_SHARE: f64 = 0.75;

/// Work of a comparison or a step of a transaction beyond its bytes.
const TXN_STEP_WORK: usize = 64;

/// Work of an append beyond its bytes: it rewrites the value, up to 1 MiB. It bounds the appends of one entry so that
/// the entry's effect stays below 64 MiB.
const APPEND_WORK: usize = 4 << 10;

// The command of a request is no longer than the request, apart from the head that every command has.
const _: () = assert!(
    REQUEST_LEN_MAX + 3 * TXN_STEPS_MAX * TXN_STEP_WORK + TXN_STEPS_MAX * APPEND_WORK <= PROPOSAL_LEN_MAX
        && REMOVAL_WORK + REQUEST_LEN_MAX <= PROPOSAL_LEN_MAX,
    "a request must fit into one proposal"
);

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

impl Router {
    /// Proposes writes of one tenant. Each is answered at about its own deadline at the latest, however long others
    /// that came with it would wait.
    pub(super) async fn serve_writes(
        self: &Arc<Self>,
        group: GroupId,
        tenant: TenantNumber,
        jobs: Vec<Job<WriteRequest>>,
    ) {
        let Some(hosted) = self.host.groups.get(&group).cloned() else {
            return;
        };
        let mut running = FuturesUnordered::new();
        for jobs in group_by_deadline(self.reject_inactive(jobs), |job| job.call.deadline) {
            let proposals = build_proposals(&hosted, &jobs);
            for (jobs, proposals) in split_into_entries(jobs.into_iter().zip(proposals)) {
                let batch = ProposalBatch { jobs, proposals };
                running.push(self.propose_until_owner(&hosted, tenant, batch));
            }
        }
        while running.next().await.is_some() {}
    }

    /// Proposes a batch, again until this group is the tenant's owner according to its own log.
    async fn propose_until_owner(
        self: &Arc<Self>,
        hosted: &HostedGroup,
        tenant: TenantNumber,
        mut batch: ProposalBatch,
    ) {
        let ready_by = Instant::now() + READY_WAIT;
        while !batch.jobs.is_empty() {
            let remaining = self.propose_once(hosted, tenant, batch).await;
            // All commands of an entry meet the same owner: either deletions continue, or all jobs wait for the owner.
            let deletions = remaining.deletions.into_iter();
            join_all(deletions.map(|(job, deletion)| self.continue_deletion(hosted, job, deletion))).await;
            let mut jobs = remaining.not_owner;
            if jobs.is_empty() {
                return;
            }
            let until = ready_by.min(jobs.iter().map(|job| job.call.deadline).max().unwrap_or(ready_by));
            if !self.wait_until_owner(hosted, tenant, until).await {
                let message = "the tenant's home is not ready to serve it yet: try again";
                let error = Error::new(ErrorKind::TenantMoving, message);
                jobs.drain(..).for_each(|job| self.reject(job.call, &error));
            }
            let jobs = self.reject_inactive(jobs);
            let proposals = build_proposals(hosted, &jobs);
            batch = ProposalBatch { jobs, proposals };
        }
    }

    /// Proposes a batch once; returns the writes that are not answered.
    async fn propose_once(
        self: &Arc<Self>,
        hosted: &HostedGroup,
        tenant: TenantNumber,
        ProposalBatch { jobs, proposals }: ProposalBatch,
    ) -> RemainingWrites {
        match hosted.raft.propose_by(tenant.get(), proposals).await {
            Ok(results) => {
                let (jobs, results) = self.reject_late(jobs, results);
                self.respond_applied(hosted, tenant, jobs, results)
            }
            Err(error) => {
                self.reject_unproposed(jobs, error);
                RemainingWrites::default()
            }
        }
    }

    /// Rejects writes whose deadline passed before they were part of an entry; returns the others with their results.
    fn reject_late(
        &self,
        jobs: Vec<Job<WriteRequest>>,
        results: Vec<Option<stead_store::machine::CommandResult>>,
    ) -> (Vec<Job<WriteRequest>>, Vec<stead_store::machine::CommandResult>) {
        let mut proposed = (Vec::with_capacity(jobs.len()), Vec::with_capacity(jobs.len()));
        for (job, result) in jobs.into_iter().zip(results) {
            match result {
                Some(result) => {
                    proposed.0.push(job);
                    proposed.1.push(result);
                }
                None => self.reject(job.call, &deadline_exceeded()),
            }
        }
        proposed
    }

    fn reject_unproposed(self: &Arc<Self>, jobs: Vec<Job<WriteRequest>>, error: ProposeError) {
        for job in jobs {
            match error {
                ProposeError::NotLeader { leader } => {
                    let home = job.tenant.home;
                    self.forward_to_leader(job, home, leader);
                }
                ProposeError::Overloaded => {
                    let limit = "group.proposals.bytes".to_owned();
                    let wait = super::OVERLOADED_RETRY_DELAY;
                    let message = format!(
                        "proposal queue of group {} is full: retry in {} ms",
                        job.tenant.home,
                        wait.as_millis()
                    );
                    self.host.metrics.refused("group.proposals.bytes");
                    self.reject(job.call, &Error::new(ErrorKind::RateLimited { limit, wait }, message));
                }
                ProposeError::Stopped => {
                    self.reject(
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

    pub(super) fn reject_no_leader<A>(&self, job: Job<A>) {
        let message = format!("the home of tenant {} is electing a leader: try again", job.tenant.name);
        self.reject(job.call, &Error::new(ErrorKind::NoLeader, message));
    }

    fn reject_outcome_unknown(&self, job: Job<WriteRequest>, why: &str) {
        let message = format!("{why}: it may have been executed, retry it with the same idempotency key");
        let key: Option<IdempotencyKey> = job.request.idempotency;
        self.reject(job.call, &Error::new(ErrorKind::OutcomeUnknown { key }, message));
    }

    /// Answers applied writes after the serving check; returns those that need more.
    fn respond_applied(
        self: &Arc<Self>,
        hosted: &HostedGroup,
        tenant: TenantNumber,
        jobs: Vec<Job<WriteRequest>>,
        results: Vec<stead_store::machine::CommandResult>,
    ) -> RemainingWrites {
        let results: Vec<ApplyResult> = results.into_iter().map(apply_result).collect();
        let serving = self.check_serving_committed(hosted, tenant, &results);
        let mut remaining = RemainingWrites::default();
        for ((job, result), serving) in jobs.into_iter().zip(results).zip(serving) {
            let serving = serving.or_else(|why| planted::is(Bug::ServingCheckIgnored).then_some(()).ok_or(why));
            match (result, serving) {
                (ApplyResult::GuardFailed(GuardFailure::SequencesExhausted), _) => {
                    let limit = "tenant.revisions".to_owned();
                    let message = "the tenant has used up its revisions: an operator can move it to a new epoch";
                    self.reject(job.call, &Error::new(ErrorKind::QuotaExceeded { limit }, message));
                }
                (ApplyResult::GuardFailed(_), _) => remaining.not_owner.push(job),
                (_, Err(why)) => {
                    self.reject_outcome_unknown(job, &format!("the home may no longer serve the tenant ({why})"))
                }
                (ApplyResult::DeleteRange(step), Ok(())) => match range(&job.tenant, &job.request) {
                    Some(range) => remaining.deletions.push((job, RangeDeletion::start(range, step))),
                    None => self.respond(job, ApplyResult::DeleteRange(step)),
                },
                (result, Ok(())) => self.respond(job, result),
            }
        }
        remaining
    }

    /// Removes the rest of a range, step by step, and answers. If it is stopped before the end, the answer says that
    /// the deletion is incomplete.
    async fn continue_deletion(&self, hosted: &HostedGroup, job: Job<WriteRequest>, mut deletion: RangeDeletion) {
        let until = deletion_deadline(job.call.deadline, Instant::now());
        while let Some(range) = deletion.next() {
            if until <= Instant::now() || job.call.responder.is_abandoned() {
                break;
            }
            let Some(step) = self.propose_deletion_step(hosted, &range, until).await else {
                break;
            };
            deletion.add(step);
        }
        self.respond_delete_range(job, &deletion);
    }

    /// Proposes one step of a range deletion; `None` if it is not known to be applied.
    async fn propose_deletion_step(
        &self,
        hosted: &HostedGroup,
        range: &DeleteRange,
        until: Instant,
    ) -> Option<DeleteRangeResult> {
        let proposal = Proposal {
            command: range.encode(),
            work: REMOVAL_WORK,
            deadline: until,
        };
        let proposed = hosted.raft.propose_by(range.tenant.get(), vec![proposal]).await;
        let result = apply_result(proposed.ok()?.into_iter().flatten().next()?);
        let serving = self.check_serving_committed(hosted, range.tenant, std::slice::from_ref(&result));
        match (result, serving.first()) {
            (ApplyResult::DeleteRange(step), Some(Ok(()))) => Some(step),
            (_, _) => None,
        }
    }

    /// Returns the input of the serving check, after a commit in this term or after a read index.
    fn serving_state(&self, tenant: TenantNumber) -> ServingState {
        let (fence, view_version) = self.host.directory_view.read(|view| {
            let fence = view.tenant(tenant).map_or(Epoch::MAX, |tenant| tenant.fence());
            (fence, view.version())
        });
        // Until leases exist the lease never runs out, and the clock that it would be checked against does not matter.
        let (lease, now) = (Lease::Unbounded, BootTime(0));
        ServingState {
            leader_confirmed: true,
            lease,
            view_version,
            now,
            fence_epoch: fence,
        }
    }

    /// Makes the serving check of a read that followed a read index.
    pub(super) fn check_serving(&self, hosted: &HostedGroup, tenant: TenantNumber) -> Result<(), Error> {
        let serving_state = self.serving_state(tenant);
        let refused = |why| Error::new(ErrorKind::NoLease, format!("the home may not serve the tenant: {why}"));
        let check = |view: ReadView<'_>| {
            let record = view.record(tenant).ok_or(NotServing::NotOwner { to: None });
            record
                .and_then(|record| serving::check(record, &serving_state))
                .map(drop)
                .map_err(refused)
        };
        let checked = hosted.machine.read(check);
        checked.map_err(|incomplete| storage_unavailable(&incomplete))?
    }

    /// Makes the serving check of writes that were committed at these revisions.
    fn check_serving_committed(
        &self,
        hosted: &HostedGroup,
        tenant: TenantNumber,
        results: &[ApplyResult],
    ) -> Vec<Result<(), NotServing>> {
        let serving_state = self.serving_state(tenant);
        let checked = hosted.machine.read(|view| {
            let check = |result: &ApplyResult| {
                let record = view.record(tenant).ok_or(NotServing::NotOwner { to: None })?;
                match result {
                    ApplyResult::Write(written) => serving::check_committed(record, written.revision, &serving_state),
                    ApplyResult::Txn(done) if done.changed => {
                        serving::check_committed(record, done.at.revision, &serving_state)
                    }
                    ApplyResult::DeleteRange(deleted) if deleted.keys > 0 => {
                        serving::check_committed(record, deleted.at.revision, &serving_state)
                    }
                    ApplyResult::Txn(_)
                    | ApplyResult::TxnFailed { .. }
                    | ApplyResult::TxnTooLarge { .. }
                    | ApplyResult::DeleteRange(_)
                    | ApplyResult::Unchanged(_)
                    | ApplyResult::BoundReached { .. }
                    | ApplyResult::ValueError { .. }
                    | ApplyResult::ConditionFailed { .. }
                    | ApplyResult::Forked { .. }
                    | ApplyResult::KeyReused(_)
                    | ApplyResult::Expired { .. }
                    | ApplyResult::Done
                    | ApplyResult::Data(_)
                    | ApplyResult::GuardFailed(_) => serving::check(record, &serving_state),
                }
                .map(drop)
            };
            results.iter().map(check).collect()
        });
        // If the rows are closed it is unknown whether the tenant may still be served.
        checked.unwrap_or_else(|_| results.iter().map(|_| Err(NotServing::NotOwner { to: None })).collect())
    }

    /// Waits until a group owns a tenant according to its own log.
    pub(super) async fn wait_until_owner(&self, hosted: &HostedGroup, tenant: TenantNumber, until: Instant) -> bool {
        let mut applied = hosted.raft.applied();
        loop {
            applied.borrow_and_update();
            if hosted.owns(tenant) {
                return true;
            }
            if !matches!(timeout_at(until, applied.changed()).await, Ok(Ok(()))) {
                return false;
            }
        }
    }
}

/// Returns the time by which a deletion must stop, so that its response comes before its deadline.
fn deletion_deadline(deadline: Instant, now: Instant) -> Instant {
    now + deadline.saturating_duration_since(now).mul_f64(RANGE_TIME_SHARE)
}

fn build_proposals(hosted: &HostedGroup, jobs: &[Job<WriteRequest>]) -> Vec<Proposal> {
    // A machine that cannot be read takes no proposals either.
    let group_outcomes = hosted.machine.read(|view| view.shard().outcomes()).unwrap_or_default();
    let proposal = |job: &Job<WriteRequest>| Proposal {
        command: command(
            &job.request,
            job.tenant.number,
            windows::limits(&job.tenant, group_outcomes),
        ),
        work: work(&job.request.mutation),
        deadline: job.call.deadline,
    };
    jobs.iter().map(proposal).collect()
}

/// Returns the work of a write on each replica beyond what its length tells.
fn work(mutation: &Mutation) -> usize {
    match mutation {
        Mutation::SingleKey(operation) => operation_work(operation),
        Mutation::Txn(branches) => {
            let work = |steps: &[Step]| steps.iter().map(step_work).sum::<usize>();
            TXN_STEP_WORK * branches.compares.len() + work(&branches.then).max(work(&branches.otherwise))
        }
        Mutation::DeleteRange(..) => REMOVAL_WORK,
    }
}

fn step_work(step: &Step) -> usize {
    TXN_STEP_WORK
        + match step {
            Step::Get(_) => 0,
            Step::Write(operation) => operation_work(operation),
        }
}

fn operation_work(operation: &Operation) -> usize {
    match operation.effect {
        Effect::Append { .. } => APPEND_WORK,
        Effect::Put { .. } | Effect::Delete | Effect::Increment(_) => 0,
    }
}

/// Encodes the command of a write; of a range deletion the first one.
fn command(write: &WriteRequest, number: TenantNumber, limits: WindowLimits) -> Bytes {
    let key = write.idempotency;
    match &write.mutation {
        Mutation::SingleKey(operation) => {
            let write = command::Write::new(number, key, operation.clone());
            command::Write { limits, ..write }.encode()
        }
        Mutation::Txn(branches) => {
            let txn = command::Txn::new(number, key, branches.clone());
            command::Txn { limits, ..txn }.encode()
        }
        Mutation::DeleteRange(start, end) => {
            let range = DeleteRange::new(number, key, start.clone(), end.clone());
            DeleteRange { limits, ..range }.encode()
        }
    }
}

/// Returns the range deletion of a write, if it is one.
fn range(tenant: &Tenant, write: &WriteRequest) -> Option<DeleteRange> {
    match &write.mutation {
        Mutation::DeleteRange(start, end) => {
            let limits = WindowLimits::of(|limit| tenant.limit(limit));
            let range = DeleteRange::new(tenant.number, write.idempotency, start.clone(), end.clone());
            Some(DeleteRange { limits, ..range })
        }
        Mutation::SingleKey(_) | Mutation::Txn(_) => None,
    }
}

pub(super) fn apply_result(result: stead_store::machine::CommandResult) -> ApplyResult {
    match result.downcast::<ApplyResult>() {
        Ok(result) => *result,
        Err(_) => ApplyResult::GuardFailed(GuardFailure::NoRecord),
    }
}
