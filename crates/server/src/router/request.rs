//! What an operation asks, checked once at the edge.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use stead_api::{
    convert::{self, read::Consistency},
    proto::v1::{self, operation::Request as Message},
};
use stead_state::{
    rows::Order,
    shard::{
        command::{Condition, Effect, Increment, Operation},
        read::{PageToken, Scan, arguments_hash},
    },
};
use stead_types::{
    Error, ErrorKind, IdempotencyKey, Revision, TenantName, TenantNumber,
    limits::{PAGE_KEYS_DEFAULT, PAGE_KEYS_MAX, PAGE_LEN_MAX},
};

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

/// A change.
#[derive(Debug)]
pub(crate) struct Write {
    /// What to do.
    pub(crate) operation: Operation,
    /// By which a repeat is known.
    pub(crate) idempotency: Option<IdempotencyKey>,
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

/// A range of keys, a page at a time.
#[derive(Debug)]
pub(crate) struct Range {
    start: Bytes,
    end: Option<Bytes>,
    order: Order,
    keys_only: bool,
    page_size: u32,
    page_token: Option<Bytes>,
    /// Only how many there are.
    pub(crate) count_only: bool,
}

/// Reads an operation.
///
/// # Errors
///
/// The first field that breaks a limit.
pub(crate) fn parse(operation: &v1::Operation) -> Result<Request, Error> {
    let missing = || Error::invalid("operations.request", "operations.request: one of get, put, … is needed");
    let message = operation.request.as_ref().ok_or_else(missing)?;
    let tenant = convert::id::tenant("tenant", tenant(message))?;
    let ask = match message {
        Message::Put(put) => {
            convert::key::key("key", &put.key)?;
            convert::key::value(&put.value)?;
            let operation = Operation {
                condition: condition(put.precondition)?,
                previous: put.want_previous,
                ..Operation::new(put.key.clone(), Effect::Put(put.value.clone()))
            };
            Ask::Write(write(operation, put.idempotency_key.as_ref(), put.durability)?)
        }
        Message::Delete(delete) => {
            convert::key::key("key", &delete.key)?;
            let operation = Operation {
                condition: condition(delete.precondition)?,
                previous: delete.want_previous,
                ..Operation::new(delete.key.clone(), Effect::Delete)
            };
            Ask::Write(write(operation, delete.idempotency_key.as_ref(), delete.durability)?)
        }
        Message::Increment(increment) => {
            convert::key::key("key", &increment.key)?;
            convert::key::bounds(increment.floor, increment.ceiling)?;
            let effect = Effect::Increment(Increment {
                delta: increment.delta,
                floor: increment.floor,
                ceiling: increment.ceiling,
                window: convert::key::window(increment.window)?,
            });
            let operation = Operation {
                condition: condition(increment.precondition)?,
                previous: increment.want_previous,
                ..Operation::new(increment.key.clone(), effect)
            };
            Ask::Write(write(
                operation,
                increment.idempotency_key.as_ref(),
                increment.durability,
            )?)
        }
        Message::Append(append) => {
            convert::key::key("key", &append.key)?;
            let effect = Effect::Append {
                bytes: append.value.clone(),
                len_max: convert::key::append(&append.value, append.max_length)?,
            };
            let operation = Operation {
                condition: condition(append.precondition)?,
                previous: append.want_previous,
                ..Operation::new(append.key.clone(), effect)
            };
            Ask::Write(write(operation, append.idempotency_key.as_ref(), append.durability)?)
        }
        Message::Get(get) => {
            convert::key::key("key", &get.key)?;
            read(get.consistency.clone(), get.revision, Query::Get(get.key.clone()))?
        }
        Message::BatchGet(get) => {
            convert::key::keys(&get.keys)?;
            read(get.consistency.clone(), get.revision, Query::BatchGet(get.keys.clone()))?
        }
        Message::Scan(scan) => read(scan.consistency.clone(), scan.revision, Query::Scan(range(scan)?))?,
    };
    Ok(Request { tenant, ask })
}

fn tenant(message: &Message) -> &str {
    match message {
        Message::Get(request) => &request.tenant,
        Message::BatchGet(request) => &request.tenant,
        Message::Put(request) => &request.tenant,
        Message::Delete(request) => &request.tenant,
        Message::Increment(request) => &request.tenant,
        Message::Append(request) => &request.tenant,
        Message::Scan(request) => &request.tenant,
    }
}

fn read(consistency: Option<v1::Consistency>, at: Option<v1::Revision>, query: Query) -> Result<Ask, Error> {
    let consistency = convert::read::consistency(consistency)?;
    Ok(Ask::Read(Read {
        consistency,
        at: convert::read::at_revision(at)?,
        query,
    }))
}

fn condition(precondition: Option<v1::Precondition>) -> Result<Option<Condition>, Error> {
    let condition = convert::key::precondition(precondition)?;
    Ok(condition.map(|condition| match condition {
        convert::key::Precondition::ModRevision(revision) => Condition::Revision(revision),
        convert::key::Precondition::MustNotExist => Condition::Absent,
    }))
}

fn write(operation: Operation, key: Option<&v1::IdempotencyKey>, durability: i32) -> Result<Write, Error> {
    if convert::read::durability("durability", durability)? == Some(v1::Durability::Remote) {
        return Err(remote_unavailable());
    }
    Ok(Write {
        operation,
        idempotency: key.map(convert::id::idempotency_key).transpose()?,
    })
}

/// The answer to who asks for REMOTE: refused, because a promise that is not kept is worse.
pub(crate) fn remote_unavailable() -> Error {
    let message = "durability: REMOTE is not available in this version; REGION is, and is the default";
    Error::new(ErrorKind::Unimplemented, message)
}

fn range(scan: &v1::ScanRequest) -> Result<Range, Error> {
    convert::key::bound("start", &scan.start)?;
    convert::key::bound("end", &scan.end)?;
    convert::key::bound("prefix", &scan.prefix)?;
    let prefix_end = (!scan.prefix.is_empty())
        .then(|| Scan::end_of_prefix(&scan.prefix))
        .flatten();
    let end = Some(scan.end.clone()).filter(|end| !end.is_empty());
    let end = match (end, prefix_end) {
        (Some(end), Some(prefix_end)) => Some(end.min(prefix_end)),
        (end, prefix_end) => end.or(prefix_end),
    };
    let page_token = match scan.page_token.as_str() {
        "" => None,
        token => Some(URL_SAFE_NO_PAD.decode(token).map_err(|_| invalid_token())?.into()),
    };
    Ok(Range {
        start: scan.start.clone().max(scan.prefix.clone()),
        end,
        order: if scan.reverse {
            Order::Descending
        } else {
            Order::Ascending
        },
        keys_only: scan.keys_only || scan.count_only,
        page_size: convert::page::size(scan.page_size, PAGE_KEYS_DEFAULT, PAGE_KEYS_MAX)?,
        page_token,
        count_only: scan.count_only,
    })
}

fn invalid_token() -> Error {
    let message = "page_token: not of this scan: send back next_page_token unchanged, with the same arguments";
    Error::invalid("page_token", message)
}

impl Range {
    /// Returns the scan of the next page, of a tenant whose number is now known.
    pub(crate) fn scan(&self, tenant: TenantNumber, at: Option<Revision>) -> Result<Scan, Error> {
        let mut scan = Scan {
            start: self.start.clone(),
            end: self.end.clone(),
            order: self.order,
            keys_only: self.keys_only,
            at,
            after: None,
            keys_max: self.page_size as usize,
            len_max: PAGE_LEN_MAX,
        };
        if let Some(token) = &self.page_token {
            let arguments = arguments_hash(tenant, &scan);
            let token = PageToken::from_bytes(token.clone(), arguments).map_err(|_| invalid_token())?;
            scan.at = Some(token.revision);
            scan.after = Some(token.after);
        }
        Ok(scan)
    }

    /// Writes the token of the page behind a key.
    pub(crate) fn token(tenant: TenantNumber, scan: &Scan, revision: Revision, after: Bytes) -> String {
        let token = PageToken {
            revision,
            after,
            arguments: arguments_hash(tenant, scan),
        };
        URL_SAFE_NO_PAD.encode(token.to_bytes())
    }
}
