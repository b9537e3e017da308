//! What writes came to, as messages.

use stead_api::{
    convert,
    proto::v1::{
        Answer, AppendResponse, DeleteRangeResponse, DeleteResponse, IncrementResponse, NotAdmitted, PutResponse,
        ResponseHeader, Role, TxnResponse, TxnResult,
        answer::Response,
        txn_result::{self, Result as StepMessage},
    },
};
use stead_state::shard::{
    answer::{Answer as Outcome, Evaluated, Made, Refusal, StepResult, TxnDone, Unfit, Written},
    command::{Effect, Operation, Step},
    deletion::Deletion,
};
use stead_types::{
    Epoch, Error, ErrorKind, Revision, Sequence,
    limits::{ANSWER_LEN_MAX, CHANGE_LEN_MAX, VALUE_LEN_MAX},
};

use super::{Job, Router, Write, request::Change};
use crate::{
    metrics::{Op, ServedFrom},
    reply::{self, Origin, Seen},
};

impl Router {
    /// Answers a write.
    pub(super) fn answer(&self, job: Job<Write>, outcome: Outcome) {
        let answer = match outcome {
            Outcome::Written(written) => self.written(&job, written),
            Outcome::Unchanged(at) => self.unchanged(&job, at),
            Outcome::Txn(done) => self.txn(&job, done),
            Outcome::TxnRefused { held, step, why, at } => self.txn_refused(&job, (held, step), why, at),
            Outcome::TxnTooLarge { len, at: _ } => {
                let message = format!(
                    "then: the answer would have {len} bytes, at most {ANSWER_LEN_MAX} are answered; read fewer keys, or \
                     without previous values"
                );
                reply::error(&Error::invalid("then", message))
            }
            Outcome::ConditionFailed { current, at: _ } => {
                let message = match current {
                    Revision::ZERO => "the precondition does not hold: the key does not exist".to_owned(),
                    current => format!("the precondition does not hold: the key was last changed at {current}"),
                };
                reply::error(&Error::new(ErrorKind::ConditionFailed { current }, message))
            }
            Outcome::Forked { epoch, kept, at: _ } => reply::error(&forked(epoch, kept)),
            Outcome::BoundReached { number, at } => self.not_admitted(&job, number, at),
            Outcome::Unfit { why, at: _ } => {
                let effect = match &job.ask.change {
                    Change::One(operation) => Some(&operation.effect),
                    Change::Txn(_) | Change::DeleteRange(..) => None,
                };
                reply::error(&unfit("", effect, why))
            }
            Outcome::KeyReused(_) => reply::error(&Error::invalid(
                "idempotency_key",
                "idempotency_key: was used for another write: use each sequence once",
            )),
            Outcome::Expired { edge, at } => {
                let now = at.time;
                let message = "whether the write was executed is no longer remembered; it was not executed now";
                reply::error(&Error::new(ErrorKind::IdempotencyExpired { edge, now }, message))
            }
            Outcome::RangeDeleted(_) | Outcome::Done | Outcome::Fed(_) | Outcome::Void(_) => strange(),
        };
        self.host.counts.request(Op::Write, ServedFrom::Home);
        job.call.reply.send(answer);
    }

    /// Answers a delete of a range, whole or not. A session has seen all of it, not only its first change.
    pub(super) fn answer_range(&self, job: Job<Write>, deletion: &Deletion) {
        let header = ResponseHeader {
            revision: Some(convert::id::from_revision(deletion.revision())),
            ..self.header(&job, deletion.last())
        };
        let answer = reply::response(Response::DeleteRange(DeleteRangeResponse {
            header: Some(header),
            deleted: deletion.keys(),
            changes: deletion.changes(),
            incomplete: !deletion.is_whole(),
            repeated_outcome: deletion.is_repeated(),
        }));
        self.host.counts.request(Op::Write, ServedFrom::Home);
        job.call.reply.send(answer);
    }

    /// The header of an answer from home, which is behind nothing.
    fn header(&self, job: &Job<Write>, at: Evaluated) -> ResponseHeader {
        let node = &self.host.config.node;
        let origin = Origin {
            region: &node.region,
            node: node.id,
            role: Role::Home,
            forwarded: job.call.forwarded.is_some(),
        };
        let seen = Seen {
            tenant: job.tenant.number,
            revision: at.revision,
            at,
            staleness: Some(std::time::Duration::ZERO),
        };
        reply::header(origin, seen)
    }

    fn written(&self, job: &Job<Write>, written: Written) -> Answer {
        let Change::One(Operation { key, effect, .. }) = &job.ask.change else {
            return strange();
        };
        let header = Some(self.header(job, written.evaluated()));
        let repeated_outcome = written.repeated;
        let previous = written.previous.map(|version| reply::key_value(key.clone(), version));
        reply::response(match effect {
            Effect::Put { .. } => Response::Put(PutResponse {
                header,
                previous,
                repeated_outcome,
            }),
            Effect::Delete => Response::Delete(DeleteResponse {
                header,
                deleted: true,
                previous,
                repeated_outcome,
            }),
            Effect::Increment(_) => Response::Increment(IncrementResponse {
                header,
                value: number(written.made),
                admitted: true,
                previous,
                repeated_outcome,
            }),
            Effect::Append { .. } => Response::Append(AppendResponse {
                header,
                length: length(written.made),
                previous,
                repeated_outcome,
            }),
        })
    }

    /// The answer of a write that had nothing to do.
    fn unchanged(&self, job: &Job<Write>, at: Evaluated) -> Answer {
        reply::response(Response::Delete(DeleteResponse {
            header: Some(self.header(job, at)),
            ..DeleteResponse::default()
        }))
    }

    fn not_admitted(&self, job: &Job<Write>, number: i64, at: Evaluated) -> Answer {
        reply::response(Response::Increment(IncrementResponse {
            header: Some(self.header(job, at)),
            value: Some(number),
            ..IncrementResponse::default()
        }))
    }

    fn txn(&self, job: &Job<Write>, done: TxnDone) -> Answer {
        let Change::Txn(branches) = &job.ask.change else {
            return strange();
        };
        let steps = branches.branch(done.held).iter();
        let results = steps.zip(done.results.unwrap_or_default());
        reply::response(Response::Txn(TxnResponse {
            header: Some(self.header(job, done.at)),
            succeeded: done.held,
            results: results.map(|(step, result)| step_result(step, result)).collect(),
            not_admitted: None,
            repeated_outcome: done.repeated,
        }))
    }

    fn txn_refused(&self, job: &Job<Write>, (held, step): (bool, usize), why: Refusal, at: Evaluated) -> Answer {
        let Change::Txn(branches) = &job.ask.change else {
            return strange();
        };
        let unfit_at = |why| {
            let list = if held { "then" } else { "otherwise" };
            let effect = match branches.branch(held).get(step) {
                Some(Step::Write(operation)) => Some(&operation.effect),
                Some(Step::Get(_)) | None => None,
            };
            let name = effect.map_or("get", name);
            reply::error(&unfit(&format!("{list}[{step}].{name}."), effect, why))
        };
        match why {
            Refusal::Unfit(why) => unfit_at(why),
            Refusal::BoundReached(value) => reply::response(Response::Txn(TxnResponse {
                header: Some(self.header(job, at)),
                succeeded: held,
                not_admitted: Some(NotAdmitted {
                    operation: step as u32,
                    value,
                }),
                ..TxnResponse::default()
            })),
        }
    }
}

fn strange() -> Answer {
    let message = "a write got another write's answer: this is a bug, please report it";
    reply::error(&Error::new(ErrorKind::Internal, message))
}

fn number(made: Option<Made>) -> Option<i64> {
    match made {
        Some(Made::Number(number)) => Some(number),
        Some(Made::Length(_)) | None => None,
    }
}

fn length(made: Option<Made>) -> Option<u64> {
    match made {
        Some(Made::Length(length)) => Some(length),
        Some(Made::Number(_)) | None => None,
    }
}

fn step_result(step: &Step, result: StepResult) -> TxnResult {
    let key = match step {
        Step::Get(key) => key,
        Step::Write(operation) => &operation.key,
    };
    let item = |version: Option<_>| version.map(|version| reply::key_value(key.clone(), version));
    let result = match (step, result) {
        (_, StepResult::Got(version)) => StepMessage::Get(txn_result::Get { item: item(version) }),
        (
            step,
            StepResult::Wrote {
                changed,
                previous,
                made,
            },
        ) => {
            let previous = item(previous);
            match step {
                Step::Get(_) => StepMessage::Get(txn_result::Get { item: previous }),
                Step::Write(operation) => match &operation.effect {
                    Effect::Put { .. } => StepMessage::Put(txn_result::Put { previous }),
                    Effect::Delete => StepMessage::Delete(txn_result::Delete {
                        deleted: changed,
                        previous,
                    }),
                    Effect::Increment(_) => StepMessage::Increment(txn_result::Increment {
                        value: number(made).unwrap_or_default(),
                        previous,
                    }),
                    Effect::Append { .. } => StepMessage::Append(txn_result::Append {
                        length: length(made).unwrap_or_default(),
                        previous,
                    }),
                },
            }
        }
    };
    TxnResult { result: Some(result) }
}

fn name(effect: &Effect) -> &'static str {
    match effect {
        Effect::Put { .. } => "put",
        Effect::Delete => "delete",
        Effect::Increment(_) => "increment",
        Effect::Append { .. } => "append",
    }
}

fn delta(effect: &Effect) -> i64 {
    match effect {
        Effect::Increment(increment) => increment.delta,
        Effect::Put { .. } | Effect::Delete | Effect::Append { .. } => 0,
    }
}

/// Says how an append passes its limit.
fn too_long(held: u64, effect: Option<&Effect>) -> String {
    let Some(Effect::Append { bytes, len_max }) = effect else {
        return format!("the key holds {held} bytes already, and would become too long");
    };
    let limit = if *len_max as usize == VALUE_LEN_MAX {
        format!("the {VALUE_LEN_MAX} that a value has at most")
    } else {
        format!("max_length, {len_max}")
    };
    let added = bytes.len();
    format!("the key holds {held} bytes already, and {added} more would pass {limit}; begin another key")
}

/// The error of a write that what the key holds does not admit; `at` stands before the fields' names.
fn unfit(at: &str, effect: Option<&Effect>, unfit: Unfit) -> Error {
    let (field, why) = match unfit {
        Unfit::NotANumber => (
            "key",
            "what it holds is no decimal number of 64 bits; put a number first, or count under another key".to_owned(),
        ),
        Unfit::Overflow { number } => {
            let by = effect.map_or(0, delta);
            ("delta", format!("{number} and {by} are together beyond 64 bits"))
        }
        Unfit::TooLong { len } => ("value", too_long(len, effect)),
        Unfit::ChangeTooLong { len } => (
            "value",
            format!(
                "with it the transaction would change {len} bytes of keys and values, at most {CHANGE_LEN_MAX} change at \
                 once; append to shorter values, or in several transactions"
            ),
        ),
    };
    let field = format!("{at}{field}");
    let message = format!("{field}: {why}");
    Error::invalid(field, message)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_append_that_is_too_long_is_told_what_is_held_added_and_allowed() {
        let append = |len_max| Effect::Append {
            bytes: "abc".into(),
            len_max,
        };
        let said = |len_max| unfit("", Some(&append(len_max)), Unfit::TooLong { len: 8 }).message;
        assert!(
            said(10).contains("holds 8 bytes already, and 3 more would pass max_length, 10"),
            "{}",
            said(10)
        );
        let most = said(VALUE_LEN_MAX as u32);
        assert!(most.contains("the 1048576 that a value has at most"), "{most}");
    }
}
