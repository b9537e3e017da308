//! Conversion of write results into response messages. Pure.

use stead_api::{
    convert,
    proto::v1::{
        Answer, AppendResponse, DeleteRangeResponse, DeleteResponse, IncrementResponse, NotAdmitted, PutResponse,
        ResponseHeader, TxnResponse, TxnResult,
        answer::Response,
        txn_result::{self, Result as StepMessage},
    },
};
use stead_state::{
    freshness::gate,
    shard::{
        apply_result::{
            self, ApplyResult, EvaluationPoint, StepResult, ValueError, WriteFailure, WriteOutput, WriteResult,
        },
        command::{Effect, Operation, Step},
        range_deletion::RangeDeletion,
    },
};
use stead_types::{
    Error, ErrorKind, Revision, TenantNumber,
    limits::{CHANGE_LEN_MAX, RESPONSE_LEN_MAX, VALUE_LEN_MAX},
};

use crate::{
    response::{self, HeaderPosition, Origin},
    router::request::Mutation,
};

/// Facts in the response to a write besides its result.
#[derive(Clone, Copy)]
pub(super) struct WriteContext<'a> {
    /// The mutation that was executed.
    pub(super) mutation: &'a Mutation,
    /// Its tenant.
    pub(super) tenant: TenantNumber,
    /// The node that answers.
    pub(super) origin: Origin<'a>,
}

/// The step at which a transaction failed: the branch that was taken, and the index in it.
#[derive(Clone, Copy)]
struct FailedStep {
    succeeded: bool,
    step: usize,
}

/// Returns the answer to a write with this result.
pub(super) fn answer(write: WriteContext<'_>, result: ApplyResult) -> Answer {
    match result {
        ApplyResult::Write(written) => write_response(write, written),
        ApplyResult::Unchanged(at) => unchanged_response(write, at),
        ApplyResult::Txn(done) => txn_response(write, done),
        ApplyResult::TxnFailed {
            succeeded: held,
            step,
            failure: why,
            at,
        } => {
            let failed = FailedStep { succeeded: held, step };
            txn_failed_response(write, failed, why, at)
        }
        ApplyResult::TxnTooLarge { len, at: _ } => {
            let message = format!(
                "then: the answer would have {len} bytes, at most {RESPONSE_LEN_MAX} are answered; read fewer keys, or \
                 without previous values"
            );
            response::error_answer(&Error::invalid("then", message))
        }
        ApplyResult::ConditionFailed { current, at: _ } => {
            let message = match current {
                Revision::ZERO => "the precondition does not hold: the key does not exist".to_owned(),
                current => format!("the precondition does not hold: the key was last changed at {current}"),
            };
            response::error_answer(&Error::new(ErrorKind::ConditionFailed { current }, message))
        }
        ApplyResult::Forked { lost, at: _ } => response::error_answer(&gate::forked(lost)),
        ApplyResult::BoundReached { number, at } => bound_reached_response(write, number, at),
        ApplyResult::ValueError { error: why, at: _ } => {
            let effect = match write.mutation {
                Mutation::SingleKey(operation) => Some(&operation.effect),
                Mutation::Txn(_) | Mutation::DeleteRange(..) => None,
            };
            response::error_answer(&value_error("", effect, why))
        }
        ApplyResult::KeyReused(_) => response::error_answer(&Error::invalid(
            "idempotency_key",
            "idempotency_key: was used for another write: use each sequence once",
        )),
        ApplyResult::Expired { edge, at } => {
            let now = at.time;
            let message = "the idempotency record has expired: it is unknown whether the write was executed before, it was not executed now";
            response::error_answer(&Error::new(ErrorKind::IdempotencyExpired { edge, now }, message))
        }
        ApplyResult::DeleteRange(_)
        | ApplyResult::Replay(_)
        | ApplyResult::Done
        | ApplyResult::Data(_)
        | ApplyResult::GuardFailed(_) => mismatched_outcome(),
    }
}

/// Returns the answer to a range deletion, complete or not. The session token covers its last change, not only its
/// first.
pub(super) fn delete_range_answer(write: WriteContext<'_>, deletion: &RangeDeletion) -> Answer {
    response::answer(Response::DeleteRange(delete_range_response(write, deletion)))
}

/// Returns the response of a range deletion, as far as it was made here.
pub(super) fn delete_range_response(write: WriteContext<'_>, deletion: &RangeDeletion) -> DeleteRangeResponse {
    let header = ResponseHeader {
        revision: Some(convert::id::from_revision(deletion.revision())),
        ..header(write, deletion.last())
    };
    DeleteRangeResponse {
        header: Some(header),
        deleted: deletion.keys(),
        changes: deletion.changes(),
        incomplete: !deletion.is_complete(),
        repeated_outcome: deletion.is_repeated(),
    }
}

/// Returns the header of a response from the home, whose staleness is zero.
fn header(write: WriteContext<'_>, at: EvaluationPoint) -> ResponseHeader {
    let tenant_position = HeaderPosition {
        tenant: write.tenant,
        revision: at.revision,
        at,
        staleness: Some(std::time::Duration::ZERO),
    };
    response::header(write.origin, tenant_position)
}

fn write_response(write: WriteContext<'_>, written: WriteResult) -> Answer {
    let Mutation::SingleKey(Operation { key, effect, .. }) = write.mutation else {
        return mismatched_outcome();
    };
    let header = Some(header(write, written.evaluation_point()));
    let repeated_outcome = written.repeated;
    let previous = written
        .previous
        .map(|version| response::key_value(key.clone(), version));
    response::answer(match effect {
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
            value: number(written.output),
            admitted: true,
            previous,
            repeated_outcome,
        }),
        Effect::Append { .. } => Response::Append(AppendResponse {
            header,
            length: length(written.output),
            previous,
            repeated_outcome,
        }),
    })
}

/// Returns the response to a write that changed nothing.
fn unchanged_response(write: WriteContext<'_>, at: EvaluationPoint) -> Answer {
    response::answer(Response::Delete(DeleteResponse {
        header: Some(header(write, at)),
        ..DeleteResponse::default()
    }))
}

fn bound_reached_response(write: WriteContext<'_>, number: i64, at: EvaluationPoint) -> Answer {
    response::answer(Response::Increment(IncrementResponse {
        header: Some(header(write, at)),
        value: Some(number),
        ..IncrementResponse::default()
    }))
}

fn txn_response(write: WriteContext<'_>, done: apply_result::TxnResult) -> Answer {
    let Mutation::Txn(branches) = write.mutation else {
        return mismatched_outcome();
    };
    let steps = branches.branch(done.succeeded).iter();
    let results = steps.zip(done.results.unwrap_or_default());
    response::answer(Response::Txn(TxnResponse {
        header: Some(header(write, done.at)),
        succeeded: done.succeeded,
        results: results.map(|(step, result)| step_result(step, result)).collect(),
        not_admitted: None,
        repeated_outcome: done.repeated,
    }))
}

fn txn_failed_response(
    write: WriteContext<'_>,
    FailedStep { succeeded, step }: FailedStep,
    why: WriteFailure,
    at: EvaluationPoint,
) -> Answer {
    let Mutation::Txn(branches) = write.mutation else {
        return mismatched_outcome();
    };
    let value_error_at = |why| {
        let list = if succeeded { "then" } else { "otherwise" };
        let effect = match branches.branch(succeeded).get(step) {
            Some(Step::Write(operation)) => Some(&operation.effect),
            Some(Step::Get(_)) | None => None,
        };
        let name = effect.map_or("get", effect_name);
        response::error_answer(&value_error(&format!("{list}[{step}].{name}."), effect, why))
    };
    match why {
        WriteFailure::Value(why) => value_error_at(why),
        WriteFailure::BoundReached(value) => response::answer(Response::Txn(TxnResponse {
            header: Some(header(write, at)),
            succeeded,
            not_admitted: Some(NotAdmitted {
                operation: step as u32,
                value,
            }),
            ..TxnResponse::default()
        })),
    }
}

fn mismatched_outcome() -> Answer {
    let message = "a write got the result of another kind of write: this is a bug, please report it";
    response::error_answer(&Error::new(ErrorKind::Internal, message))
}

fn number(output: Option<WriteOutput>) -> Option<i64> {
    match output {
        Some(WriteOutput::Number(number)) => Some(number),
        Some(WriteOutput::Length(_)) | None => None,
    }
}

fn length(output: Option<WriteOutput>) -> Option<u64> {
    match output {
        Some(WriteOutput::Length(length)) => Some(length),
        Some(WriteOutput::Number(_)) | None => None,
    }
}

fn step_result(step: &Step, result: StepResult) -> TxnResult {
    let key = match step {
        Step::Get(key) => key,
        Step::Write(operation) => &operation.key,
    };
    let item = |version: Option<_>| version.map(|version| response::key_value(key.clone(), version));
    let result = match (step, result) {
        (_, StepResult::Get(version)) => StepMessage::Get(txn_result::Get { item: item(version) }),
        (
            step,
            StepResult::Write {
                changed,
                previous,
                output,
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
                        value: number(output).unwrap_or_default(),
                        previous,
                    }),
                    Effect::Append { .. } => StepMessage::Append(txn_result::Append {
                        length: length(output).unwrap_or_default(),
                        previous,
                    }),
                },
            }
        }
    };
    TxnResult { result: Some(result) }
}

fn effect_name(effect: &Effect) -> &'static str {
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

/// Describes by how much an append exceeds its limit.
fn append_too_long(held: u64, effect: Option<&Effect>) -> String {
    let Some(Effect::Append { bytes, len_max }) = effect else {
        return format!("the key holds {held} bytes already, and would exceed its limit");
    };
    let limit = if *len_max as usize == VALUE_LEN_MAX {
        format!("the {VALUE_LEN_MAX} that a value has at most")
    } else {
        format!("max_length, {len_max}")
    };
    let added = bytes.len();
    format!("the key holds {held} bytes already, and {added} more would pass {limit}; begin another key")
}

/// Converts the error of a write that the key's present value does not allow; `at` is the prefix of the field names.
fn value_error(at: &str, effect: Option<&Effect>, unfit: ValueError) -> Error {
    let (field, why) = match unfit {
        ValueError::NotANumber => (
            "key",
            "its value is not a decimal number of 64 bits; put a number first, or use another key".to_owned(),
        ),
        ValueError::Overflow { number } => {
            let by = effect.map_or(0, delta);
            ("delta", format!("{number} and {by} together exceed 64 bits"))
        }
        ValueError::TooLong { len } => ("value", append_too_long(len, effect)),
        ValueError::ChangeTooLong { len } => (
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn append_too_long_error_names_sizes_and_limit() {
        let append = |len_max| Effect::Append {
            bytes: "abc".into(),
            len_max,
        };
        let message = |len_max| value_error("", Some(&append(len_max)), ValueError::TooLong { len: 8 }).message;
        assert!(
            message(10).contains("holds 8 bytes already, and 3 more would pass max_length, 10"),
            "{}",
            message(10)
        );
        let most = message(VALUE_LEN_MAX as u32);
        assert!(most.contains("the 1048576 that a value has at most"), "{most}");
    }
}
