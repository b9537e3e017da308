//! Writes to one key and to a range.

use bytes::Bytes;
use stead_api::{
    convert::{self, condition::precondition, range::bounds},
    proto::v1,
};
use stead_state::shard::command::{Effect, Increment, Operation};
use stead_types::Error;

use super::{Mutation, WriteRequest};

pub(super) fn put(put: &v1::PutRequest) -> Result<WriteRequest, Error> {
    convert::key::key("key", &put.key)?;
    convert::key::value("value", &put.value)?;
    let effect = Effect::Put {
        value: put.value.clone(),
        ttl: convert::key::ttl("ttl", put.ttl)?,
    };
    let mutation = one(&put.key, effect, put.precondition.as_ref(), put.want_previous)?;
    write(mutation, put.idempotency_key.as_ref(), put.durability)
}

pub(super) fn delete(delete: &v1::DeleteRequest) -> Result<WriteRequest, Error> {
    convert::key::key("key", &delete.key)?;
    let (condition, previous) = (delete.precondition.as_ref(), delete.want_previous);
    let mutation = one(&delete.key, Effect::Delete, condition, previous)?;
    write(mutation, delete.idempotency_key.as_ref(), delete.durability)
}

pub(super) fn increment(increment: &v1::IncrementRequest) -> Result<WriteRequest, Error> {
    convert::key::key("key", &increment.key)?;
    convert::key::increment_bounds("ceiling", increment.floor, increment.ceiling)?;
    let effect = Effect::Increment(Increment {
        delta: increment.delta,
        floor: increment.floor,
        ceiling: increment.ceiling,
        window: convert::key::window("window", increment.window)?,
    });
    let (condition, previous) = (increment.precondition.as_ref(), increment.want_previous);
    let mutation = one(&increment.key, effect, condition, previous)?;
    write(mutation, increment.idempotency_key.as_ref(), increment.durability)
}

pub(super) fn append(append: &v1::AppendRequest) -> Result<WriteRequest, Error> {
    convert::key::key("key", &append.key)?;
    let effect = Effect::Append {
        bytes: append.value.clone(),
        len_max: convert::key::append("", &append.value, append.max_length)?,
    };
    let mutation = one(&append.key, effect, append.precondition.as_ref(), append.want_previous)?;
    write(mutation, append.idempotency_key.as_ref(), append.durability)
}

fn one(key: &Bytes, effect: Effect, condition: Option<&v1::Precondition>, previous: bool) -> Result<Mutation, Error> {
    Ok(Mutation::SingleKey(Operation {
        condition: precondition(condition.cloned())?,
        previous,
        ..Operation::new(key.clone(), effect)
    }))
}

pub(super) fn delete_range(range: &v1::DeleteRangeRequest) -> Result<WriteRequest, Error> {
    let is_named = [&range.start, &range.end, &range.prefix]
        .iter()
        .any(|bound| !bound.is_empty());
    if is_named == range.all {
        let message = if range.all {
            "all: stands for every key of the tenant; leave out start, end and prefix with it"
        } else {
            "all: no range is named; set start, end or prefix, or set this to delete every key of the tenant"
        };
        return Err(Error::invalid("all", message));
    }
    let (start, end) = bounds("", &range.start, &range.end, &range.prefix)?;
    write(
        Mutation::DeleteRange(start, end),
        range.idempotency_key.as_ref(),
        range.durability,
    )
}

pub(super) fn write(
    mutation: Mutation,
    key: Option<&v1::IdempotencyKey>,
    durability: i32,
) -> Result<WriteRequest, Error> {
    let durability = convert::read::durability("durability", durability)?;
    Ok(WriteRequest {
        mutation,
        is_remote: durability == Some(v1::Durability::Remote),
        idempotency: key.map(convert::id::idempotency_key).transpose()?,
    })
}
