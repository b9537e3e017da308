//! Writes at home: what came in one message for one tenant is one entry of the group's log.

use std::sync::Arc;

use bytes::Bytes;
use stead_api::proto::v1::{
    Answer, AppendResponse, DeleteResponse, IncrementResponse, PutResponse, ResponseHeader, Role, answer::Response,
};
use stead_raft::ProposeError;
use stead_state::{
    serving::{self, BootTime, Lease, NotServing, Standing},
    shard::{
        answer::{Answer as Outcome, Evaluated, Made, Unfit, Void, Written},
        command::{self, Effect, Operation},
    },
};
use stead_types::{Epoch, Error, ErrorKind, GroupId, IdempotencyKey, Revision, Sequence, TenantNumber, TenantTime};
use tokio::time::{Instant, timeout_at};

use super::{Job, READY_WAIT, Router, Write, too_late};
use crate::{
    host::Hosted,
    metrics::{Op, ServedFrom},
    reply::{self, Origin, Seen},
};

impl Router {
    /// Proposes writes of one tenant, and answers each.
    pub(super) async fn write(self: &Arc<Self>, group: GroupId, tenant: TenantNumber, jobs: Vec<Job<Write>>) {
        let Some(hosted) = self.host.groups.get(&group).cloned() else {
            return;
        };
        let ready_by = Instant::now() + READY_WAIT;
        let mut jobs = self.in_time(jobs);
        while !jobs.is_empty() {
            jobs = self.attempt(&hosted, tenant, jobs).await;
            if jobs.is_empty() {
                return;
            }
            // Void: this group is not, or not yet, the owner in its own log. Nothing happened.
            let until = ready_by.min(jobs.iter().map(|job| job.call.deadline).max().unwrap_or(ready_by));
            if !self.owned(&hosted, tenant, until).await {
                let message = "the tenant's home is not ready to serve it yet: try again";
                let error = Error::new(ErrorKind::TenantMoving, message);
                jobs.drain(..).for_each(|job| self.refuse(job.call, &error));
            }
            jobs = self.in_time(jobs);
        }
    }

    /// Answers those whose caller no longer waits, before they cost an entry.
    fn in_time(&self, jobs: Vec<Job<Write>>) -> Vec<Job<Write>> {
        let now = Instant::now();
        let (in_time, late): (Vec<_>, Vec<_>) = jobs.into_iter().partition(|job| job.call.deadline > now);
        late.into_iter().for_each(|job| self.refuse(job.call, &too_late()));
        in_time
    }

    /// Proposes once; returns what was void.
    async fn attempt(
        self: &Arc<Self>,
        hosted: &Hosted,
        tenant: TenantNumber,
        jobs: Vec<Job<Write>>,
    ) -> Vec<Job<Write>> {
        let command =
            |job: &Job<Write>| command::Write::new(tenant, job.ask.idempotency, job.ask.operation.clone()).encode();
        let commands: Vec<(Bytes, Instant)> = jobs.iter().map(|job| (command(job), job.call.deadline)).collect();
        match hosted.raft.propose_by(tenant.get(), commands).await {
            Ok(answers) => {
                let (jobs, answers) = self.proposed(jobs, answers);
                self.answer_all(hosted, tenant, jobs, answers)
            }
            Err(error) => {
                self.not_proposed(jobs, error);
                Vec::new()
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
                ProposeError::NotLeader { leader: Some(leader) } if leader != self.host.config.node.id => {
                    let home = job.tenant.home;
                    if job.call.hops < stead_types::limits::HOPS_MAX {
                        self.forward(job, home, &[leader]);
                    } else {
                        self.no_leader(job);
                    }
                }
                ProposeError::NotLeader { .. } => self.no_leader(job),
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
                ProposeError::LeaderChanged | ProposeError::Unknown => {
                    self.unknown(
                        job,
                        "the home's leader changed before the write was known to be committed",
                    );
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

    /// Answers writes that were applied, after the serving check; returns what was void.
    fn answer_all(
        self: &Arc<Self>,
        hosted: &Hosted,
        tenant: TenantNumber,
        jobs: Vec<Job<Write>>,
        answers: Vec<stead_store::machine::Answer>,
    ) -> Vec<Job<Write>> {
        let outcome = |answer: stead_store::machine::Answer| match answer.downcast::<Outcome>() {
            Ok(outcome) => *outcome,
            Err(_) => Outcome::Void(Void::NoRecord),
        };
        let outcomes: Vec<Outcome> = answers.into_iter().map(outcome).collect();
        let serves = self.serves_committed(hosted, tenant, &outcomes);
        let mut void = Vec::new();
        for ((job, outcome), serves) in jobs.into_iter().zip(outcomes).zip(serves) {
            match (outcome, serves) {
                (Outcome::Void(Void::Exhausted), _) => {
                    let limit = "tenant.revisions".to_owned();
                    let message = "the tenant has used up its revisions: an operator can move it to a new epoch";
                    self.refuse(job.call, &Error::new(ErrorKind::QuotaExceeded { limit }, message));
                }
                (Outcome::Void(_), _) => void.push(job),
                (_, Err(why)) => self.unknown(job, &format!("the home may no longer serve the tenant ({why})")),
                (outcome, Ok(())) => self.answer(job, outcome),
            }
        }
        void
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
        hosted.machine.read(|view| {
            let record = view.record(tenant).ok_or(NotServing::NotOwner);
            record
                .and_then(|record| serving::check(record, &standing))
                .map(drop)
                .map_err(refused)
        })
    }

    /// The serving check for writes that were committed at these revisions.
    fn serves_committed(
        &self,
        hosted: &Hosted,
        tenant: TenantNumber,
        outcomes: &[Outcome],
    ) -> Vec<Result<(), NotServing>> {
        let standing = self.standing(tenant);
        hosted.machine.read(|view| {
            let check = |outcome: &Outcome| {
                let record = view.record(tenant).ok_or(NotServing::NotOwner)?;
                match outcome {
                    Outcome::Written(written) => serving::check_committed(record, written.revision, &standing),
                    Outcome::Unchanged(_)
                    | Outcome::BoundReached { .. }
                    | Outcome::Unfit(_)
                    | Outcome::ConditionFailed { .. }
                    | Outcome::Forked { .. }
                    | Outcome::KeyReused
                    | Outcome::Expired { .. }
                    | Outcome::Done
                    | Outcome::Fed(_)
                    | Outcome::Void(_) => serving::check(record, &standing),
                }
                .map(drop)
            };
            outcomes.iter().map(check).collect()
        })
    }

    fn answer(&self, job: Job<Write>, outcome: Outcome) {
        let answer = match outcome {
            Outcome::Written(written) => self.written(&job, written),
            Outcome::Unchanged(at) => self.unchanged(&job, at),
            Outcome::ConditionFailed { current, at: _ } => {
                let message = match current {
                    Revision::ZERO => "the precondition does not hold: the key does not exist".to_owned(),
                    current => format!("the precondition does not hold: the key was last changed at {current}"),
                };
                reply::error(&Error::new(ErrorKind::ConditionFailed { current }, message))
            }
            Outcome::Forked { epoch, kept } => reply::error(&forked(epoch, kept)),
            Outcome::BoundReached { number, at } => self.not_admitted(&job, number, at),
            Outcome::Unfit(reason) => reply::error(&unfit(&job.ask.operation.effect, reason)),
            Outcome::KeyReused => reply::error(&Error::invalid(
                "idempotency_key",
                "idempotency_key: was used for another write: use each sequence once",
            )),
            Outcome::Expired { edge, now } => {
                let message = "whether the write was executed is no longer remembered; it was not executed now";
                reply::error(&Error::new(ErrorKind::IdempotencyExpired { edge, now }, message))
            }
            Outcome::Done | Outcome::Fed(_) | Outcome::Void(_) => reply::error(&Error::new(
                ErrorKind::Internal,
                "a write got no write's answer: this is a bug",
            )),
        };
        self.host.counts.request(Op::Write, ServedFrom::Home);
        job.call.reply.send(answer);
    }

    /// The header of an answer from home, which is behind nothing.
    fn header(&self, job: &Job<Write>, revision: Revision, time: TenantTime) -> ResponseHeader {
        let node = &self.host.config.node;
        let origin = Origin {
            region: &node.region,
            node: node.id,
            role: Role::Home,
            forwarded: job.call.forwarded.is_some(),
        };
        let seen = Seen {
            tenant: job.tenant.number,
            revision,
            token: revision,
            time,
            staleness: Some(std::time::Duration::ZERO),
        };
        reply::header(origin, seen)
    }

    fn written(&self, job: &Job<Write>, written: Written) -> Answer {
        let header = Some(self.header(job, written.revision, written.time));
        let repeated_outcome = written.repeated;
        let Operation { key, effect, .. } = &job.ask.operation;
        let previous = written.previous.map(|version| reply::key_value(key.clone(), version));
        reply::response(match (effect, written.made) {
            (Effect::Put(_), _) => Response::Put(PutResponse {
                header,
                previous,
                repeated_outcome,
            }),
            (Effect::Delete, _) => Response::Delete(DeleteResponse {
                header,
                deleted: true,
                previous,
                repeated_outcome,
            }),
            (Effect::Increment(_), made) => Response::Increment(IncrementResponse {
                header,
                value: match made {
                    Some(Made::Number(number)) => Some(number),
                    Some(Made::Length(_)) | None => None,
                },
                admitted: true,
                previous,
                repeated_outcome,
            }),
            (Effect::Append { .. }, made) => Response::Append(AppendResponse {
                header,
                length: match made {
                    Some(Made::Length(length)) => Some(length),
                    Some(Made::Number(_)) | None => None,
                },
                previous,
                repeated_outcome,
            }),
        })
    }

    /// The answer of a write that had nothing to do.
    fn unchanged(&self, job: &Job<Write>, at: Evaluated) -> Answer {
        let header = Some(self.header(job, at.revision, at.time));
        reply::response(Response::Delete(DeleteResponse {
            header,
            ..DeleteResponse::default()
        }))
    }

    fn not_admitted(&self, job: &Job<Write>, number: i64, at: Evaluated) -> Answer {
        let header = Some(self.header(job, at.revision, at.time));
        reply::response(Response::Increment(IncrementResponse {
            header,
            value: Some(number),
            ..IncrementResponse::default()
        }))
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

/// The error of a write that what the key holds does not admit.
fn unfit(effect: &Effect, unfit: Unfit) -> Error {
    let by = match effect {
        Effect::Increment(increment) => increment.delta,
        Effect::Put(_) | Effect::Delete | Effect::Append { .. } => 0,
    };
    match unfit {
        Unfit::NotANumber => Error::invalid(
            "key",
            "key: what it holds is no decimal number of 64 bits; put a number first, or count under another key",
        ),
        Unfit::Overflow { number } => {
            Error::invalid("delta", format!("delta: {number} and {by} are together beyond 64 bits"))
        }
        Unfit::TooLong { len } => Error::invalid(
            "value",
            format!(
                "value: the key holds {len} bytes already, and would become longer than max_length; begin another key"
            ),
        ),
    }
}

/// The error of a revision that a promotion cut.
pub(super) fn forked(epoch: Epoch, kept: Sequence) -> Error {
    let first = kept.next().unwrap_or(Sequence::MAX);
    let kind = ErrorKind::Forked {
        epoch,
        first: Revision::new(epoch, first),
        last: Revision::new(epoch, first),
    };
    let message = format!("epoch {epoch} was cut after sequence {kept}: read again before you write");
    Error::new(kind, message)
}
