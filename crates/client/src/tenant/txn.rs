//! Transactions of one tenant.

use std::time::Duration;

use bytes::Bytes;
use stead_api::{
    convert::{condition, id, read::duration},
    proto::v1::{self, txn_operation as message, txn_result::Result as ResultMessage},
};
use stead_types::{Condition, Error, IdempotencyKey};

use super::Tenant;
use crate::{
    Durability, Header, Increment, Item,
    response::{item, malformed},
};

/// Builder of a transaction: conditions, the operations if all of them hold, and the operations if not.
///
/// ```no_run
/// # async fn example(acme: stead_client::Tenant) -> Result<(), stead_client::Error> {
/// use stead_client::{Condition, Op};
///
/// let moved = acme
///     .txn()
///     .when("queue/7", Condition::Exists)
///     .then(Op::delete("queue/7"))
///     .then(Op::put("done/7", "by me"))
///     .otherwise(Op::get("done/7"))
///     .send()
///     .await?;
/// assert!(moved.succeeded || moved.results.len() == 1);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing is sent before `send`"]
pub struct Txn {
    tenant: Tenant,
    compares: Vec<v1::Compare>,
    then: Vec<v1::TxnOperation>,
    otherwise: Vec<v1::TxnOperation>,
    durability: Option<Durability>,
    timeout: Option<Duration>,
    key: Option<IdempotencyKey>,
}

/// One operation of a transaction. It sees its key as it was before the transaction; each key may occur once in a list.
#[derive(Clone, Debug)]
pub struct Op(message::Operation);

/// Response to a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxnResponse {
    /// Metadata; its revision is the transaction's, or the tenant's where it changed nothing.
    pub header: Header,
    /// Whether the conditions held, and so which list was executed.
    pub succeeded: bool,
    /// One result for each operation of that list; empty where an increment was not admitted, and for the outcome of an
    /// earlier attempt that is no longer kept.
    pub results: Vec<OpResult>,
    /// The increment that would have passed its bound; then nothing of the list was executed.
    pub not_admitted: Option<RejectedIncrement>,
    /// Whether this is the outcome of an earlier attempt.
    pub repeated: bool,
}

/// Increment that was not admitted, because it would have passed its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RejectedIncrement {
    /// Index of the operation in its list, from 0.
    pub operation: usize,
    /// The number as it is.
    pub value: i64,
}

/// Result of one operation. `previous` is the key before the transaction, if it existed and was requested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpResult {
    /// Result of a get: the key, if it existed.
    Get(Option<Item>),
    /// Result of a put.
    Put {
        /// The key before.
        previous: Option<Item>,
    },
    /// Result of a delete.
    Delete {
        /// Whether the key existed.
        existed: bool,
        /// The key before.
        previous: Option<Item>,
    },
    /// Result of an increment.
    Increment {
        /// The number afterwards.
        value: i64,
        /// The key before.
        previous: Option<Item>,
    },
    /// Result of an append.
    Append {
        /// Length of the value afterwards.
        length: u64,
        /// The key before.
        previous: Option<Item>,
    },
}

impl Tenant {
    /// Returns a builder for a transaction.
    pub fn txn(&self) -> Txn {
        Txn {
            tenant: self.clone(),
            compares: Vec::new(),
            then: Vec::new(),
            otherwise: Vec::new(),
            durability: None,
            timeout: None,
            key: None,
        }
    }
}

impl Txn {
    /// Adds a condition on a key.
    pub fn when(mut self, key: impl Into<Bytes>, condition: Condition) -> Self {
        self.compares.push(condition::from_compare(key.into(), &condition));
        self
    }

    /// Adds an operation that is executed if all conditions hold.
    pub fn then(mut self, operation: Op) -> Self {
        self.then.push(operation.into());
        self
    }

    /// Adds an operation that is executed if a condition does not hold.
    pub fn otherwise(mut self, operation: Op) -> Self {
        self.otherwise.push(operation.into());
        self
    }

    /// Sets the durability; otherwise the tenant's default applies.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }

    /// Sets the timeout; otherwise the client's default applies.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets the idempotency key of an earlier call whose outcome is unknown, to ask for that outcome.
    pub fn idempotency_key(mut self, key: IdempotencyKey) -> Self {
        self.key = Some(key);
        self
    }

    /// Sends the transaction: one of the lists is executed atomically, as one change, or nothing is. However often it
    /// is sent, it is executed once.
    ///
    /// # Errors
    ///
    /// As [`Tenant::put_with`]; and where an operation cannot be executed, such as an increment of a value that is no
    /// number: nothing happened.
    pub async fn send(self) -> Result<TxnResponse, Error> {
        let tenant = self.tenant;
        let is_read = |operation: &v1::TxnOperation| matches!(operation.operation, Some(message::Operation::Get(_)));
        // Without a key it is a plain read, whose response is valid however often it was sent.
        let writes = !self.then.iter().chain(&self.otherwise).all(is_read);
        let again = self.key.map(id::from_idempotency_key);
        let request = v1::TxnRequest {
            tenant: tenant.text(),
            compares: self.compares,
            then: self.then,
            otherwise: self.otherwise,
            idempotency_key: writes.then(|| again.unwrap_or_else(|| tenant.key())),
            durability: Durability::message(self.durability),
        };
        let answer = tenant.write(v1::operation::Request::Txn(request), self.timeout).await?;
        let v1::answer::Response::Txn(answer) = answer else {
            return Err(malformed("kind"));
        };
        tenant.observe(TxnResponse::read(answer), true, |done| &done.header)
    }
}

impl Op {
    /// Reads a key.
    pub fn get(key: impl Into<Bytes>) -> Self {
        Self(message::Operation::Get(message::Get { key: key.into() }))
    }

    /// Writes a key.
    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self(message::Operation::Put(message::Put {
            key: key.into(),
            value: value.into(),
            ..message::Put::default()
        }))
    }

    /// Writes a key with a time to live, in whole milliseconds of the tenant's logged time.
    pub fn put_expiring(key: impl Into<Bytes>, value: impl Into<Bytes>, ttl: Duration) -> Self {
        Self(message::Operation::Put(message::Put {
            key: key.into(),
            value: value.into(),
            ttl: Some(duration(ttl)),
            ..message::Put::default()
        }))
    }

    /// Deletes a key.
    pub fn delete(key: impl Into<Bytes>) -> Self {
        Self(message::Operation::Delete(message::Delete {
            key: key.into(),
            ..message::Delete::default()
        }))
    }

    /// Adds to a number; where a bound would be passed nothing of the list is executed.
    pub fn increment(key: impl Into<Bytes>, increment: Increment) -> Self {
        Self(message::Operation::Increment(message::Increment {
            key: key.into(),
            delta: increment.delta,
            floor: increment.floor,
            ceiling: increment.ceiling,
            window: increment.window.map(duration),
            want_previous: false,
        }))
    }

    /// Appends bytes to a value, if it stays within `length_max` bytes (1 MiB if absent).
    pub fn append(key: impl Into<Bytes>, value: impl Into<Bytes>, length_max: Option<u32>) -> Self {
        Self(message::Operation::Append(message::Append {
            key: key.into(),
            value: value.into(),
            max_length: length_max.unwrap_or(0),
            want_previous: false,
        }))
    }

    /// Requests the key as it was before. A get returns that anyway.
    pub fn with_previous(mut self) -> Self {
        match &mut self.0 {
            message::Operation::Get(_) => {}
            message::Operation::Put(put) => put.want_previous = true,
            message::Operation::Delete(delete) => delete.want_previous = true,
            message::Operation::Increment(increment) => increment.want_previous = true,
            message::Operation::Append(append) => append.want_previous = true,
        }
        self
    }
}

impl From<Op> for v1::TxnOperation {
    fn from(operation: Op) -> Self {
        Self {
            operation: Some(operation.0),
        }
    }
}

impl TxnResponse {
    fn read(answer: v1::TxnResponse) -> Result<Self, Error> {
        let not_admitted = answer.not_admitted.map(|refused| RejectedIncrement {
            operation: refused.operation as usize,
            value: refused.value,
        });
        Ok(Self {
            header: Header::read(answer.header)?,
            succeeded: answer.succeeded,
            results: answer
                .results
                .into_iter()
                .map(OpResult::read)
                .collect::<Result<_, _>>()?,
            not_admitted,
            repeated: answer.repeated_outcome,
        })
    }
}

impl OpResult {
    fn read(result: v1::TxnResult) -> Result<Self, Error> {
        let previous = |previous: Option<v1::KeyValue>| previous.map(item).transpose();
        Ok(match result.result.ok_or_else(|| malformed("result"))? {
            ResultMessage::Get(get) => Self::Get(previous(get.item)?),
            ResultMessage::Put(put) => Self::Put {
                previous: previous(put.previous)?,
            },
            ResultMessage::Delete(delete) => Self::Delete {
                existed: delete.deleted,
                previous: previous(delete.previous)?,
            },
            ResultMessage::Increment(increment) => Self::Increment {
                value: increment.value,
                previous: previous(increment.previous)?,
            },
            ResultMessage::Append(append) => Self::Append {
                length: append.length,
                previous: previous(append.previous)?,
            },
        })
    }
}
