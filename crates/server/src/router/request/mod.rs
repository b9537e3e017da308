//! Parsing of operations: every field is checked once, at the edge.

mod scan;
mod txn;
mod write;

use bytes::Bytes;
pub(crate) use scan::Range;
use stead_api::{
    convert::{self, read::Consistency},
    operation,
    proto::v1::{self, operation::Request as Message},
};
use stead_state::shard::command::{Branches, Effect, Operation, Step};
use stead_types::{Error, IdempotencyKey, Revision, TenantName, TenantNumber, limits::REQUEST_LEN_MAX};

/// A valid operation.
#[derive(Debug)]
pub(crate) struct Request {
    /// The tenant.
    pub(crate) tenant: TenantName,
    /// The read or write.
    pub(crate) action: Action,
}

/// A read or a write.
#[derive(Debug)]
pub(crate) enum Action {
    /// A write.
    Write(WriteRequest),
    /// A read.
    Read(ReadRequest),
}

impl Action {
    /// Tells whether it needs an idempotency key to be retried: it may write, and nothing identifies a retry.
    pub(crate) fn needs_idempotency_key(&self) -> bool {
        match self {
            Self::Read(_) => false,
            Self::Write(write) => write.idempotency.is_none() && write.mutation.may_write(),
        }
    }
}

/// A write.
#[derive(Debug)]
pub(crate) struct WriteRequest {
    /// The mutation.
    pub(crate) mutation: Mutation,
    /// The idempotency key, which identifies a retry.
    pub(crate) idempotency: Option<IdempotencyKey>,
    /// Whether it asks for durability `REMOTE`, whatever the tenant's default is.
    pub(crate) is_remote: bool,
}

/// A mutation of a tenant's data.
#[derive(Debug)]
pub(crate) enum Mutation {
    /// An operation on one key.
    SingleKey(Operation),
    /// A transaction with two branches.
    Txn(Branches),
    /// A deletion of the keys from the first bound, up to the second.
    DeleteRange(Bytes, Option<Bytes>),
}

impl Mutation {
    /// Tells whether it may add to the stored data. What only deletes makes room.
    pub(crate) fn needs_room(&self) -> bool {
        let adds = |operation: &Operation| !matches!(operation.effect, Effect::Delete);
        let step_adds = |step: &Step| matches!(step, Step::Write(operation) if adds(operation));
        match self {
            Self::SingleKey(operation) => adds(operation),
            Self::DeleteRange(..) => false,
            Self::Txn(branches) => branches.then.iter().chain(&branches.otherwise).any(step_adds),
        }
    }

    /// Tells whether it may change a key: a transaction may only read.
    fn may_write(&self) -> bool {
        let writes = |step: &Step| matches!(step, Step::Write(_));
        match self {
            Self::SingleKey(_) | Self::DeleteRange(..) => true,
            Self::Txn(branches) => branches.then.iter().chain(&branches.otherwise).any(writes),
        }
    }
}

/// Most keys of a batch that is read at once, without a slot.
const SHORT_BATCH_KEYS_MAX: usize = 64;

/// A read.
#[derive(Debug)]
pub(crate) struct ReadRequest {
    /// Consistency of the read.
    pub(crate) consistency: Consistency,
    /// The requested revision; `None`: the newest.
    pub(crate) at: Option<Revision>,
    /// The requested keys.
    pub(crate) query: Query,
}

impl ReadRequest {
    /// Tells whether it may take so long that it needs a slot.
    pub(crate) fn takes_long(&self) -> bool {
        match &self.query {
            Query::Get(_) => false,
            Query::BatchGet(keys) => keys.len() > SHORT_BATCH_KEYS_MAX,
            Query::Scan(_) => true,
        }
    }

    /// Returns the revision that it requests, directly or by a page token, if any.
    pub(crate) fn pinned_revision(&self, tenant: TenantNumber) -> Option<Revision> {
        match &self.query {
            Query::Get(_) | Query::BatchGet(_) => self.at,
            // A token that cannot be read is rejected where the page is read.
            Query::Scan(range) => range.scan(tenant, self.at).map_or(self.at, |scan| scan.at),
        }
    }
}

/// The keys of a read.
#[derive(Debug)]
pub(crate) enum Query {
    /// One key.
    Get(Bytes),
    /// Many keys.
    BatchGet(Vec<Bytes>),
    /// A range.
    Scan(Range),
}

/// Parses an operation.
///
/// # Errors
///
/// The first field that breaks a limit.
pub(crate) fn parse(operation_message: &v1::Operation) -> Result<Request, Error> {
    let missing = || Error::invalid("operations.request", "operations.request: one of get, put, … is needed");
    let message = operation_message.request.as_ref().ok_or_else(missing)?;
    let tenant = convert::id::tenant("tenant", operation::tenant(message))?;
    let len = operation::len(operation_message);
    if len > REQUEST_LEN_MAX {
        let message = format!("request: at most {REQUEST_LEN_MAX} bytes, not {len}; split it");
        return Err(Error::invalid("request", message));
    }
    let action = match message {
        Message::Put(put) => Action::Write(write::put(put)?),
        Message::Delete(delete) => Action::Write(write::delete(delete)?),
        Message::Increment(increment) => Action::Write(write::increment(increment)?),
        Message::Append(append) => Action::Write(write::append(append)?),
        Message::DeleteRange(range) => Action::Write(write::delete_range(range)?),
        Message::Txn(txn) => Action::Write(txn::txn(txn)?),
        Message::Get(get) => {
            convert::key::key("key", &get.key)?;
            read(get.consistency.clone(), get.revision, Query::Get(get.key.clone()))?
        }
        Message::BatchGet(get) => {
            convert::key::keys(&get.keys)?;
            read(get.consistency.clone(), get.revision, Query::BatchGet(get.keys.clone()))?
        }
        Message::Scan(scan) => read(scan.consistency.clone(), scan.revision, Query::Scan(scan::range(scan)?))?,
    };
    Ok(Request { tenant, action })
}

fn read(consistency: Option<v1::Consistency>, at: Option<v1::Revision>, query: Query) -> Result<Action, Error> {
    let consistency = convert::read::consistency(consistency)?;
    Ok(Action::Read(ReadRequest {
        consistency,
        at: convert::read::at_revision(at)?,
        query,
    }))
}
