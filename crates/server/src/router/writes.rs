//! Writes at home: what came in one message for one tenant goes into few entries of the group's log.

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, future::join_all, stream::FuturesUnordered};
use stead_raft::{PROPOSAL_LEN_MAX, Proposal, ProposeError, parts};
use stead_state::{
    directory::Tenant,
    serving::{self, BootTime, Lease, NotServing, Standing},
    shard::{
        answer::{Answer as Outcome, RangeDeleted, Void},
        command::{self, DeleteRange, Effect, Operation, REMOVAL_WORK, Step, WindowLimits},
        deletion::Deletion,
    },
};
use stead_store::shard::View;
use stead_types::{
    Epoch, Error, ErrorKind, GroupId, IdempotencyKey, TenantNumber,
    limits::{REQUEST_LEN_MAX, TXN_STEPS_MAX},
    planted::{self, Bug},
};
use tokio::time::{Instant, timeout_at};

use super::{Job, READY_WAIT, Router, Write, by_deadline, request::Change, too_late};
use crate::{
    admission::windows,
    host::{Hosted, storage_failed},
};

/// How much of its time a delete of a large range works: the rest is for its answer.
const RANGE_TIME_SHARE: f64 = 0.75;

/// What a compare and a step of a transaction count for beyond their bytes, as each command does.
const TXN_STEP_WORK: usize = 64;

/// What an append counts for beyond its bytes: it writes again what the key held, up to 1 MiB. So many of them are one
/// entry that it stays below 64 MiB.
const APPEND_WORK: usize = 4 << 10;

// The command of a request is no longer than the request, but for what every command has.
const _: () = assert!(
    REQUEST_LEN_MAX + 3 * TXN_STEPS_MAX * TXN_STEP_WORK + TXN_STEPS_MAX * APPEND_WORK <= PROPOSAL_LEN_MAX
        && REMOVAL_WORK + REQUEST_LEN_MAX <= PROPOSAL_LEN_MAX,
    "a request would never find room in a log"
);

/// What proposing left to do.
#[derive(Default)]
struct Attempted {
    /// Nothing happened: this group is not, or not yet, the owner in its own log.
    void: Vec<Job<Write>>,
    /// Ranges that go on behind their first step.
    begun: Vec<(Job<Write>, Deletion)>,
}

impl Router {
    /// Proposes writes of one tenant, and answers each: at about its own deadline at the latest, however long others that
    /// came with it would wait.
    pub(super) async fn write(self: &Arc<Self>, group: GroupId, tenant: TenantNumber, jobs: Vec<Job<Write>>) {
        let Some(hosted) = self.host.groups.get(&group).cloned() else {
            return;
        };
        let mut running = FuturesUnordered::new();
        for jobs in by_deadline(self.wanted(jobs), |job| job.call.deadline) {
            let proposals = proposals(&hosted, &jobs);
            for part in parts(jobs.into_iter().zip(proposals)) {
                running.push(self.write_part(&hosted, tenant, part));
            }
        }
        while running.next().await.is_some() {}
    }

    /// Proposes writes that go together, until this group is their tenant's owner in its own log.
    async fn write_part(
        self: &Arc<Self>,
        hosted: &Hosted,
        tenant: TenantNumber,
        (mut jobs, mut proposals): (Vec<Job<Write>>, Vec<Proposal>),
    ) {
        let ready_by = Instant::now() + READY_WAIT;
        while !jobs.is_empty() {
            let attempted = self.attempt(hosted, tenant, (jobs, proposals)).await;
            // Where one command of an entry met the owner all did: either ranges go on, or jobs wait for the owner.
            let begun = attempted.begun.into_iter();
            join_all(begun.map(|(job, deletion)| self.go_on(hosted, job, deletion))).await;
            jobs = attempted.void;
            if jobs.is_empty() {
                return;
            }
            let until = ready_by.min(jobs.iter().map(|job| job.call.deadline).max().unwrap_or(ready_by));
            if !self.owned(hosted, tenant, until).await {
                let message = "the tenant's home is not ready to serve it yet: try again";
                let error = Error::new(ErrorKind::TenantMoving, message);
                jobs.drain(..).for_each(|job| self.refuse(job.call, &error));
            }
            jobs = self.wanted(jobs);
            proposals = self::proposals(hosted, &jobs);
        }
    }

    /// Proposes once; returns what was not answered.
    async fn attempt(
        self: &Arc<Self>,
        hosted: &Hosted,
        tenant: TenantNumber,
        (jobs, proposals): (Vec<Job<Write>>, Vec<Proposal>),
    ) -> Attempted {
        match hosted.raft.propose_by(tenant.get(), proposals).await {
            Ok(answers) => {
                let (jobs, answers) = self.proposed(jobs, answers);
                self.answer_all(hosted, tenant, jobs, answers)
            }
            Err(error) => {
                self.not_proposed(jobs, error);
                Attempted::default()
            }
        }
    }

    /// Answers those whose deadline passed before they were part of an entry; returns the others with their answers.
    fn proposed(
        &self,
        jobs: Vec<Job<Write>>,
        answers: Vec<Option<stead_store::machine::Answer>>,
    ) -> (Vec<Job<Write>>, Vec<stead_store::machine::Answer>) {
        let mut proposed = (Vec::with_capacity(jobs.len()), Vec::with_capacity(jobs.len()));
        for (job, answer) in jobs.into_iter().zip(answers) {
            match answer {
                Some(answer) => {
                    proposed.0.push(job);
                    proposed.1.push(answer);
                }
                None => self.refuse(job.call, &too_late()),
            }
        }
        proposed
    }

    fn not_proposed(self: &Arc<Self>, jobs: Vec<Job<Write>>, error: ProposeError) {
        for job in jobs {
            match error {
                ProposeError::NotLeader { leader } => {
                    let home = job.tenant.home;
                    self.forward_to_leader(job, home, leader);
                }
                ProposeError::Overloaded => {
                    let limit = "group.proposals.bytes".to_owned();
                    let message = "the tenant's home has too much to write: wait a little and try again";
                    let wait = super::OVERLOADED_WAIT;
                    self.host.counts.refused("group.proposals.bytes");
                    self.refuse(job.call, &Error::new(ErrorKind::RateLimited { limit, wait }, message));
                }
                ProposeError::Stopped => {
                    self.refuse(
                        job.call,
                        &Error::new(ErrorKind::Unavailable, "the node is stopping: try again"),
                    );
                }
                ProposeError::TimedOut => {
                    self.unknown(job, "the deadline passed before the write was known to be committed");
                }
                ProposeError::LeaderChanged => {
                    self.unknown(
                        job,
                        "the home's leader changed before the write was known to be committed",
                    );
                }
                ProposeError::Unknown => {
                    self.unknown(job, "the node stopped before the write was known to be committed");
                }
            }
        }
    }

    pub(super) fn no_leader<A>(&self, job: Job<A>) {
        let message = format!("the home of tenant {} is electing a leader: try again", job.tenant.name);
        self.refuse(job.call, &Error::new(ErrorKind::NoLeader, message));
    }

    fn unknown(&self, job: Job<Write>, why: &str) {
        let message = format!("{why}: it may have happened, ask again with the same idempotency key");
        let key: Option<IdempotencyKey> = job.ask.idempotency;
        self.refuse(job.call, &Error::new(ErrorKind::OutcomeUnknown { key }, message));
    }

    /// Answers writes that were applied, after the serving check; returns what is not done with.
    fn answer_all(
        self: &Arc<Self>,
        hosted: &Hosted,
        tenant: TenantNumber,
        jobs: Vec<Job<Write>>,
        answers: Vec<stead_store::machine::Answer>,
    ) -> Attempted {
        let outcomes: Vec<Outcome> = answers.into_iter().map(outcome).collect();
        let serves = self.serves_committed(hosted, tenant, &outcomes);
        let mut attempted = Attempted::default();
        for ((job, outcome), serves) in jobs.into_iter().zip(outcomes).zip(serves) {
            let serves = serves.or_else(|why| planted::is(Bug::ServingCheckIgnored).then_some(()).ok_or(why));
            match (outcome, serves) {
                (Outcome::Void(Void::Exhausted), _) => {
                    let limit = "tenant.revisions".to_owned();
                    let message = "the tenant has used up its revisions: an operator can move it to a new epoch";
                    self.refuse(job.call, &Error::new(ErrorKind::QuotaExceeded { limit }, message));
                }
                (Outcome::Void(_), _) => attempted.void.push(job),
                (_, Err(why)) => self.unknown(job, &format!("the home may no longer serve the tenant ({why})")),
                (Outcome::RangeDeleted(step), Ok(())) => match range(&job.tenant, &job.ask) {
                    Some(range) => attempted.begun.push((job, Deletion::begun(range, step))),
                    None => self.answer(job, Outcome::RangeDeleted(step)),
                },
                (outcome, Ok(())) => self.answer(job, outcome),
            }
        }
        attempted
    }

    /// Removes the rest of a range, step by step, and answers. Whatever stops it on the way leaves a range of which the
    /// answer says that it is not whole.
    async fn go_on(&self, hosted: &Hosted, job: Job<Write>, mut deletion: Deletion) {
        let until = answered_by(job.call.deadline, Instant::now());
        while let Some(range) = deletion.next() {
            if until <= Instant::now() || job.call.reply.is_unwanted() {
                break;
            }
            let Some(step) = self.step(hosted, &range, until).await else {
                break;
            };
            deletion.add(step);
        }
        self.answer_range(job, &deletion);
    }

    /// Proposes one step of a range; `None` if it is not known to be done.
    async fn step(&self, hosted: &Hosted, range: &DeleteRange, until: Instant) -> Option<RangeDeleted> {
        let proposal = Proposal {
            command: range.encode(),
            work: REMOVAL_WORK,
            deadline: until,
        };
        let proposed = hosted.raft.propose_by(range.tenant.get(), vec![proposal]).await;
        let outcome = outcome(proposed.ok()?.into_iter().flatten().next()?);
        let serves = self.serves_committed(hosted, range.tenant, std::slice::from_ref(&outcome));
        match (outcome, serves.first()) {
            (Outcome::RangeDeleted(step), Some(Ok(()))) => Some(step),
            (_, _) => None,
        }
    }

    /// What the serving check needs to know, after a commit in this term or after a read index.
    fn standing(&self, tenant: TenantNumber) -> Standing {
        let (fence, view_version) = self.host.views.read(|view| {
            let fence = view.tenant(tenant).map_or(Epoch::MAX, |tenant| tenant.fence());
            (fence, view.version())
        });
        // Until leases exist the lease never runs out, and the clock that it would be held against does not matter.
        let (lease, now) = (Lease::Unbounded, BootTime(0));
        Standing {
            leader_confirmed: true,
            lease,
            view_version,
            now,
            fence_epoch: fence,
        }
    }

    /// The serving check for what was read after a read index.
    pub(super) fn serves(&self, hosted: &Hosted, tenant: TenantNumber) -> Result<(), Error> {
        let standing = self.standing(tenant);
        let refused = |why| Error::new(ErrorKind::NoLease, format!("the home may not serve the tenant: {why}"));
        let check = |view: View<'_>| {
            let record = view.record(tenant).ok_or(NotServing::NotOwner);
            record
                .and_then(|record| serving::check(record, &standing))
                .map(drop)
                .map_err(refused)
        };
        let checked = hosted.machine.read(check);
        checked.map_err(|half_changed| storage_failed(&half_changed))?
    }

    /// The serving check for writes that were committed at these revisions.
    fn serves_committed(
        &self,
        hosted: &Hosted,
        tenant: TenantNumber,
        outcomes: &[Outcome],
    ) -> Vec<Result<(), NotServing>> {
        let standing = self.standing(tenant);
        let checked = hosted.machine.read(|view| {
            let check = |outcome: &Outcome| {
                let record = view.record(tenant).ok_or(NotServing::NotOwner)?;
                match outcome {
                    Outcome::Written(written) => serving::check_committed(record, written.revision, &standing),
                    Outcome::Txn(done) if done.changed => serving::check_committed(record, done.at.revision, &standing),
                    Outcome::RangeDeleted(deleted) if deleted.keys > 0 => {
                        serving::check_committed(record, deleted.at.revision, &standing)
                    }
                    Outcome::Txn(_)
                    | Outcome::TxnRefused { .. }
                    | Outcome::TxnTooLarge { .. }
                    | Outcome::RangeDeleted(_)
                    | Outcome::Unchanged(_)
                    | Outcome::BoundReached { .. }
                    | Outcome::Unfit { .. }
                    | Outcome::ConditionFailed { .. }
                    | Outcome::Forked { .. }
                    | Outcome::KeyReused(_)
                    | Outcome::Expired { .. }
                    | Outcome::Done
                    | Outcome::Fed(_)
                    | Outcome::Void(_) => serving::check(record, &standing),
                }
                .map(drop)
            };
            outcomes.iter().map(check).collect()
        });
        // Of rows that are closed nobody knows whether they may still be served.
        checked.unwrap_or_else(|_| outcomes.iter().map(|_| Err(NotServing::NotOwner)).collect())
    }

    /// Waits until a group owns a tenant in its own log.
    pub(super) async fn owned(&self, hosted: &Hosted, tenant: TenantNumber, until: Instant) -> bool {
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

/// Returns when an operation that can be left unfinished must end, so that its answer comes before its deadline.
fn answered_by(deadline: Instant, now: Instant) -> Instant {
    now + deadline.saturating_duration_since(now).mul_f64(RANGE_TIME_SHARE)
}

fn proposals(hosted: &Hosted, jobs: &[Job<Write>]) -> Vec<Proposal> {
    // Where it cannot be read nothing is proposed.
    let of_group = hosted.machine.read(|view| view.shard().outcomes()).unwrap_or_default();
    let proposal = |job: &Job<Write>| Proposal {
        command: command(&job.ask, job.tenant.number, windows::limits(&job.tenant, of_group)),
        work: work(&job.ask.change),
        deadline: job.call.deadline,
    };
    jobs.iter().map(proposal).collect()
}

/// What a write makes replicas do beyond what its bytes tell.
fn work(change: &Change) -> usize {
    match change {
        Change::One(operation) => operation_work(operation),
        Change::Txn(branches) => {
            let work = |steps: &[Step]| steps.iter().map(step_work).sum::<usize>();
            TXN_STEP_WORK * branches.compares.len() + work(&branches.then).max(work(&branches.otherwise))
        }
        Change::DeleteRange(..) => REMOVAL_WORK,
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

/// Writes the command of a write; of a range the first one.
fn command(write: &Write, number: TenantNumber, limits: WindowLimits) -> Bytes {
    let key = write.idempotency;
    match &write.change {
        Change::One(operation) => {
            let write = command::Write::new(number, key, operation.clone());
            command::Write { limits, ..write }.encode()
        }
        Change::Txn(branches) => {
            let txn = command::Txn::new(number, key, branches.clone());
            command::Txn { limits, ..txn }.encode()
        }
        Change::DeleteRange(start, end) => {
            let range = DeleteRange::new(number, key, (start.clone(), end.clone()));
            DeleteRange { limits, ..range }.encode()
        }
    }
}

/// Returns the range that a write removes.
fn range(tenant: &Tenant, write: &Write) -> Option<DeleteRange> {
    match &write.change {
        Change::DeleteRange(start, end) => {
            let range = (start.clone(), end.clone());
            let limits = WindowLimits::of(|limit| tenant.limit(limit));
            let range = DeleteRange::new(tenant.number, write.idempotency, range);
            Some(DeleteRange { limits, ..range })
        }
        Change::One(_) | Change::Txn(_) => None,
    }
}

pub(super) fn outcome(answer: stead_store::machine::Answer) -> Outcome {
    match answer.downcast::<Outcome>() {
        Ok(outcome) => *outcome,
        Err(_) => Outcome::Void(Void::NoRecord),
    }
}
