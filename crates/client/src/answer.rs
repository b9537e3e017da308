//! What a call gives back.

use std::time::Duration;

use bytes::Bytes;
use stead_api::{
    convert::{id, key},
    proto::v1,
};
use stead_types::{Error, ErrorKind, NodeId, RegionName, Revision, SessionToken, TenantNumber, TenantTime};

/// What a replica is to the tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It may write the tenant.
    Home,
    /// It holds an asynchronous copy.
    Follower,
}

/// Where an answer comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// For a write: its revision. For a read: the tenant's revision that the read saw.
    pub revision: Revision,
    /// The tenant's number; a name used again gets another one.
    pub tenant: TenantNumber,
    /// The tenant's logged clock.
    pub tenant_time: TenantTime,
    /// What a later read of this session must have seen.
    pub token: Option<SessionToken>,
    /// Region of the node that served the call.
    pub region: Option<RegionName>,
    /// The node that served the call.
    pub node: NodeId,
    /// What that node is to the tenant.
    pub role: Role,
    /// How far the data can be behind the home at most, where it is known; zero at the home.
    pub staleness: Option<Duration>,
    /// Whether the node that was asked handed the call on.
    pub forwarded: bool,
}

/// One key as of one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The key.
    pub key: Bytes,
    /// Its value; empty where only keys were asked for.
    pub value: Bytes,
    /// The change that made it.
    pub created: Revision,
    /// Its last change.
    pub modified: Revision,
    /// Counts its changes since it was made; the first is 1.
    pub version: u64,
    /// When it expires, by the tenant's clock, if it does.
    pub expires: Option<TenantTime>,
}

/// The answer to `get`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Got {
    /// Where it comes from.
    pub header: Header,
    /// Absent if the key does not exist.
    pub item: Option<Item>,
}

/// The answer to `batch_get`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Where it comes from.
    pub header: Header,
    /// One for each key, in their order; absent if the key does not exist.
    pub items: Vec<Option<Item>>,
}

/// The answer to `put`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Its revision is the write's.
    pub header: Header,
    /// The key as it was before, if it existed and was wanted.
    pub previous: Option<Item>,
    /// An earlier attempt had written already; this is its outcome.
    pub repeated: bool,
}

/// The answer to `delete`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deleted {
    /// Its revision is the delete's, or the tenant's where there was nothing to delete.
    pub header: Header,
    /// Whether the key existed.
    pub existed: bool,
    /// The key as it was before, if it existed and was wanted.
    pub previous: Option<Item>,
    /// An earlier attempt had deleted already; this is its outcome.
    pub repeated: bool,
}

/// The answer to `increment`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incremented {
    /// Its revision is the increment's, or the tenant's where it was not admitted.
    pub header: Header,
    /// The number afterwards; absent only if an earlier attempt had made it and it is no longer kept.
    pub value: Option<i64>,
    /// Whether it was added. Else a bound would have been passed, and nothing happened.
    pub admitted: bool,
    /// The key as it was before, if it existed and was wanted.
    pub previous: Option<Item>,
    /// An earlier attempt had added already; this is its outcome.
    pub repeated: bool,
}

/// The answer to `append`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Its revision is the append's.
    pub header: Header,
    /// The value's length afterwards; absent only if an earlier attempt had made it and it is no longer kept.
    pub length: Option<u64>,
    /// The key as it was before, if it existed and was wanted.
    pub previous: Option<Item>,
    /// An earlier attempt had appended already; this is its outcome.
    pub repeated: bool,
}

/// The answer to `delete_range`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletedRange {
    /// Its revision is that of the first change, or the tenant's where there was nothing to delete.
    pub header: Header,
    /// How many keys are gone; without those that an earlier attempt had removed.
    pub keys: u64,
    /// How many changes it took: above 1, others saw a part of the range gone.
    pub changes: u32,
    /// An earlier attempt had begun already.
    pub repeated: bool,
}

/// One page of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Its revision is the one that all pages show.
    pub header: Header,
    /// Keys in their order.
    pub items: Vec<Item>,
    /// Asks for the next page; absent at the end.
    pub next: Option<String>,
    /// Keys of this page; with `count_only`, of the whole range.
    pub count: u64,
}

/// An answer that says less than it must is a bug of the server; whether the call had an effect is not known.
pub(crate) fn malformed(what: &str) -> Error {
    Error::new(
        ErrorKind::Internal,
        format!("the node's answer has no usable {what}: its version may differ"),
    )
}

impl Header {
    pub(crate) fn read(header: Option<v1::ResponseHeader>) -> Result<Self, Error> {
        let header = header.ok_or_else(|| malformed("header"))?;
        let role = match header.role() {
            v1::Role::Home => Role::Home,
            v1::Role::Follower | v1::Role::Unspecified => Role::Follower,
        };
        let forwarded = matches!(header.via(), v1::Via::Forwarded);
        Ok(Self {
            revision: revision(header.revision)?,
            tenant: TenantNumber::new(header.tenant_number),
            tenant_time: TenantTime(header.tenant_time_ms),
            token: SessionToken::from_bytes(&header.session_token).ok(),
            region: header.region.parse().ok(),
            node: NodeId::new(header.node),
            role,
            staleness: header.staleness.and_then(|staleness| staleness.try_into().ok()),
            forwarded,
        })
    }
}

fn revision(revision: Option<v1::Revision>) -> Result<Revision, Error> {
    let revision = revision.unwrap_or_default();
    id::revision("header.revision", revision).map_err(|_| malformed("revision"))
}

pub(crate) fn item(item: v1::KeyValue) -> Result<Item, Error> {
    Ok(Item {
        created: revision(item.create_revision)?,
        modified: revision(item.mod_revision)?,
        key: item.key,
        value: item.value,
        version: item.version,
        expires: item.expire_time.map(key::tenant_time),
    })
}

impl Got {
    pub(crate) fn read(answer: v1::GetResponse) -> Result<Self, Error> {
        let header = Header::read(answer.header)?;
        Ok(Self {
            header,
            item: answer.item.map(item).transpose()?,
        })
    }
}

impl Batch {
    pub(crate) fn read(answer: v1::BatchGetResponse) -> Result<Self, Error> {
        let header = Header::read(answer.header)?;
        let items = answer
            .results
            .into_iter()
            .map(|result| result.item.map(item).transpose());
        Ok(Self {
            header,
            items: items.collect::<Result<_, _>>()?,
        })
    }
}

impl Written {
    pub(crate) fn read(answer: v1::PutResponse) -> Result<Self, Error> {
        let header = Header::read(answer.header)?;
        let previous = answer.previous.map(item).transpose()?;
        Ok(Self {
            header,
            previous,
            repeated: answer.repeated_outcome,
        })
    }
}

impl Deleted {
    pub(crate) fn read(answer: v1::DeleteResponse) -> Result<Self, Error> {
        let header = Header::read(answer.header)?;
        let previous = answer.previous.map(item).transpose()?;
        Ok(Self {
            header,
            existed: answer.deleted,
            previous,
            repeated: answer.repeated_outcome,
        })
    }
}

impl Incremented {
    pub(crate) fn read(answer: v1::IncrementResponse) -> Result<Self, Error> {
        Ok(Self {
            header: Header::read(answer.header)?,
            value: answer.value,
            admitted: answer.admitted,
            previous: answer.previous.map(item).transpose()?,
            repeated: answer.repeated_outcome,
        })
    }
}

impl Appended {
    pub(crate) fn read(answer: v1::AppendResponse) -> Result<Self, Error> {
        Ok(Self {
            header: Header::read(answer.header)?,
            length: answer.length,
            previous: answer.previous.map(item).transpose()?,
            repeated: answer.repeated_outcome,
        })
    }
}

impl DeletedRange {
    pub(crate) fn read(answer: v1::DeleteRangeResponse) -> Result<Self, Error> {
        Ok(Self {
            header: Header::read(answer.header)?,
            keys: answer.deleted,
            changes: answer.changes,
            repeated: answer.repeated_outcome,
        })
    }

    /// Returns what this call and the next one, which went on behind it, came to together.
    pub(crate) fn and(self, next: Self) -> Self {
        Self {
            keys: self.keys + next.keys,
            changes: self.changes + next.changes,
            ..self
        }
    }
}

impl Page {
    pub(crate) fn read(answer: v1::ScanResponse) -> Result<Self, Error> {
        let header = Header::read(answer.header)?;
        let items = answer.items.into_iter().map(item).collect::<Result<_, _>>()?;
        let next = Some(answer.next_page_token).filter(|token| !token.is_empty());
        Ok(Self {
            header,
            items,
            next,
            count: answer.count,
        })
    }
}
