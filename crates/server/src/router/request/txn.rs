//! Transactions.

use std::collections::BTreeMap;

use bytes::Bytes;
use stead_api::{
    convert::{condition, key},
    proto::v1::{self, txn_operation::Operation as Message},
};
use stead_state::shard::command::{Branches, Comparison, Effect, Increment, Operation, Step};
use stead_types::{Error, limits::TXN_STEPS_MAX};

use super::{Mutation, WriteRequest, write::write};

pub(super) fn txn(txn: &v1::TxnRequest) -> Result<WriteRequest, Error> {
    bounded("compares", txn.compares.len())?;
    let compare =
        |(place, compare): (usize, &v1::Compare)| condition::compare(&format!("compares[{place}]"), compare.clone());
    let compares: Vec<_> = txn.compares.iter().enumerate().map(compare).collect::<Result<_, _>>()?;
    if let Some((earlier, later)) = condition::contradiction(&compares) {
        let field = format!("compares[{later}]");
        let message = format!("{field}: contradicts compares[{earlier}]: of one key both can never hold");
        return Err(Error::invalid(field, message));
    }
    let compares = compares
        .into_iter()
        .map(|(key, condition)| Comparison { key, condition });
    let branches = Branches {
        compares: compares.collect(),
        then: branch("then", &txn.then)?,
        otherwise: branch("otherwise", &txn.otherwise)?,
    };
    if branches.then.is_empty() && branches.otherwise.is_empty() && branches.compares.is_empty() {
        let message = "then: there is nothing to do; name at least one operation or compare";
        return Err(Error::invalid("then", message));
    }
    write(Mutation::Txn(branches), txn.idempotency_key.as_ref(), txn.durability)
}

fn bounded(field: &str, len: usize) -> Result<(), Error> {
    if len <= TXN_STEPS_MAX {
        return Ok(());
    }
    let message = format!("{field}: at most {TXN_STEPS_MAX} in a transaction, not {len}; split it");
    Err(Error::invalid(field, message))
}

fn branch(field: &str, operations: &[v1::TxnOperation]) -> Result<Vec<Step>, Error> {
    bounded(field, operations.len())?;
    let mut places: BTreeMap<Bytes, usize> = BTreeMap::new();
    let mut steps = Vec::with_capacity(operations.len());
    for (place, operation) in operations.iter().enumerate() {
        let at = format!("{field}[{place}]");
        let step = step(&at, operation)?;
        let key = match &step {
            Step::Get(key) => key,
            Step::Write(operation) => &operation.key,
        };
        if let Some(earlier) = places.insert(key.clone(), place) {
            let message = format!(
                "{at}.key: is that of {field}[{earlier}] too; a key stands once in a list, want_previous reads what was \
                 there before a write"
            );
            return Err(Error::invalid(format!("{at}.key"), message));
        }
        steps.push(step);
    }
    Ok(steps)
}

fn step(at: &str, operation: &v1::TxnOperation) -> Result<Step, Error> {
    let Some(operation) = &operation.operation else {
        let message = format!("{at}: names no operation; set one of get, put, delete, increment and append");
        return Err(Error::invalid(at, message));
    };
    let (name, key, previous) = match operation {
        Message::Get(get) => ("get", &get.key, false),
        Message::Put(put) => ("put", &put.key, put.want_previous),
        Message::Delete(delete) => ("delete", &delete.key, delete.want_previous),
        Message::Increment(increment) => ("increment", &increment.key, increment.want_previous),
        Message::Append(append) => ("append", &append.key, append.want_previous),
    };
    let at = format!("{at}.{name}.");
    key::key(&format!("{at}key"), key)?;
    let effect = match operation {
        Message::Get(get) => return Ok(Step::Get(get.key.clone())),
        Message::Put(put) => {
            key::value(&format!("{at}value"), &put.value)?;
            Effect::Put {
                value: put.value.clone(),
                ttl: key::ttl(&format!("{at}ttl"), put.ttl)?,
            }
        }
        Message::Delete(_) => Effect::Delete,
        Message::Increment(increment) => {
            key::increment_bounds(&format!("{at}ceiling"), increment.floor, increment.ceiling)?;
            Effect::Increment(Increment {
                delta: increment.delta,
                floor: increment.floor,
                ceiling: increment.ceiling,
                window: key::window(&format!("{at}window"), increment.window)?,
            })
        }
        Message::Append(append) => Effect::Append {
            bytes: append.value.clone(),
            len_max: key::append(&at, &append.value, append.max_length)?,
        },
    };
    Ok(Step::Write(Operation {
        previous,
        ..Operation::new(key.clone(), effect)
    }))
}
