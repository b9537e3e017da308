//! What an operation asks, checked once at the edge.

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
use stead_state::shard::command::{Branches, Operation, Step};
use stead_types::{Error, ErrorKind, IdempotencyKey, Revision, TenantName, TenantNumber, limits::REQUEST_LEN_MAX};

/// An operation that keeps every limit.
#[derive(Debug)]
pub(crate) struct Request {
    /// Whose data.
    pub(crate) tenant: TenantName,
    /// What is asked.
    pub(crate) ask: Ask,
}

/// What is asked.
#[derive(Debug)]
pub(crate) enum Ask {
    /// A change.
    Write(Write),
    /// Data.
    Read(Read),
}

impl Ask {
    /// Tells whether it changes something each time that it is sent: it may write, and nothing says that a repeat is one.
    pub(crate) fn happens_each_time(&self) -> bool {
        match self {
            Self::Read(_) => false,
            Self::Write(write) => write.idempotency.is_none() && write.change.may_write(),
        }
    }
}

/// A change.
#[derive(Debug)]
pub(crate) struct Write {
    /// What to do.
    pub(crate) change: Change,
    /// By which a repeat is known.
    pub(crate) idempotency: Option<IdempotencyKey>,
}

/// What a write is to do.
#[derive(Debug)]
pub(crate) enum Change {
    /// Something to one key.
    One(Operation),
    /// One branch or the other.
    Txn(Branches),
    /// Keys from the first on, up to the second.
    DeleteRange(Bytes, Option<Bytes>),
}

impl Change {
    /// Tells whether it may change a key: a transaction may only read.
    fn may_write(&self) -> bool {
        let writes = |step: &Step| matches!(step, Step::Write(_));
        match self {
            Self::One(_) | Self::DeleteRange(..) => true,
            Self::Txn(branches) => branches.then.iter().chain(&branches.otherwise).any(writes),
        }
    }
}

/// Data that is asked for.
#[derive(Debug)]
pub(crate) struct Read {
    /// How fresh.
    pub(crate) consistency: Consistency,
    /// At which revision, if not at the newest.
    pub(crate) at: Option<Revision>,
    /// Which data.
    pub(crate) query: Query,
}

impl Read {
    /// Returns the older revision that it names, by itself or by a page's token, if it does.
    pub(crate) fn named(&self, tenant: TenantNumber) -> Option<Revision> {
        match &self.query {
            Query::Get(_) | Query::BatchGet(_) => self.at,
            // A token that cannot be read is refused where the page is made.
            Query::Scan(range) => range.scan(tenant, self.at).map_or(self.at, |scan| scan.at),
        }
    }
}

/// Which data.
#[derive(Debug)]
pub(crate) enum Query {
    /// One key.
    Get(Bytes),
    /// Many keys.
    BatchGet(Vec<Bytes>),
    /// A range.
    Scan(Range),
}

/// Reads an operation.
///
/// # Errors
///
/// The first field that breaks a limit.
pub(crate) fn parse(asked: &v1::Operation) -> Result<Request, Error> {
    let missing = || Error::invalid("operations.request", "operations.request: one of get, put, … is needed");
    let message = asked.request.as_ref().ok_or_else(missing)?;
    let tenant = convert::id::tenant("tenant", operation::tenant(message))?;
    let len = operation::len(asked);
    if len > REQUEST_LEN_MAX {
        let message = format!("request: at most {REQUEST_LEN_MAX} bytes, not {len}; split it");
        return Err(Error::invalid("request", message));
    }
    let ask = match message {
        Message::Put(put) => Ask::Write(write::put(put)?),
        Message::Delete(delete) => Ask::Write(write::delete(delete)?),
        Message::Increment(increment) => Ask::Write(write::increment(increment)?),
        Message::Append(append) => Ask::Write(write::append(append)?),
        Message::DeleteRange(range) => Ask::Write(write::delete_range(range)?),
        Message::Txn(txn) => Ask::Write(txn::txn(txn)?),
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
    Ok(Request { tenant, ask })
}

fn read(consistency: Option<v1::Consistency>, at: Option<v1::Revision>, query: Query) -> Result<Ask, Error> {
    let consistency = convert::read::consistency(consistency)?;
    Ok(Ask::Read(Read {
        consistency,
        at: convert::read::at_revision(at)?,
        query,
    }))
}

/// The answer to who asks for REMOTE: refused, because a promise that is not kept is worse.
pub(crate) fn remote_unavailable() -> Error {
    let message = "durability: REMOTE is not available in this version; REGION is, and is the default";
    Error::new(ErrorKind::Unimplemented, message)
}
