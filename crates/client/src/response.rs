//! Responses to calls.

use std::time::Duration;

use bytes::Bytes;
use stead_api::{
    convert::{id, key},
    proto::v1,
};
use stead_types::{Error, ErrorKind, NodeId, RegionName, Revision, SessionToken, TenantNumber, TenantTime};

/// Role of a replica for a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The home, which may write the tenant.
    Home,
    /// A follower, which holds an asynchronous copy.
    Follower,
}

/// Metadata of a response: revision, session token, and the node that served the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Revision of the write, or the tenant's revision that the read saw.
    pub revision: Revision,
    /// Number of the tenant; a name that is used again gets a new number.
    pub tenant: TenantNumber,
    /// Logged time of the tenant.
    pub tenant_time: TenantTime,
    /// Session token, which makes later reads of this session see at least this revision.
    pub token: Option<SessionToken>,
    /// Region of the node that served the call.
    pub region: Option<RegionName>,
    /// The node that served the call.
    pub node: NodeId,
    /// Role of that node for the tenant.
    pub role: Role,
    /// Upper bound of the staleness, where it is known; zero at the home.
    pub staleness: Option<Duration>,
    /// Whether the node that was asked forwarded the call.
    pub forwarded: bool,
    /// Whether the home answered without a lease, as its tenant's policy on lease loss says: another region may have been
    /// promoted meanwhile, and then this response is not of the tenant's history.
    pub unconfirmed: bool,
}

/// One key with its value, as of one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The key.
    pub key: Bytes,
    /// Value; empty for a read of keys only.
    pub value: Bytes,
    /// Revision that created the key.
    pub created: Revision,
    /// Revision of its last change.
    pub modified: Revision,
    /// Number of changes since the key was created; the first is 1.
    pub version: u64,
    /// Expiry in the tenant's logged time; absent if the key does not expire.
    pub expires: Option<TenantTime>,
}

/// Response to `get`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GetResponse {
    /// Metadata of the response.
    pub header: Header,
    /// The key; absent if it does not exist.
    pub item: Option<Item>,
}

/// Response to `batch_get`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchGetResponse {
    /// Metadata of the response.
    pub header: Header,
    /// One entry for each requested key, in their order; absent if the key does not exist.
    pub items: Vec<Option<Item>>,
}

/// Response to `put`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteResponse {
    /// Metadata of the response; its revision is the write's.
    pub header: Header,
    /// The key before the write, if it existed and was requested.
    pub previous: Option<Item>,
    /// Whether this is the outcome of an earlier attempt, which had written already.
    pub repeated: bool,
}

/// Response to `delete`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteResponse {
    /// Metadata; its revision is the delete's, or the tenant's where there was nothing to delete.
    pub header: Header,
    /// Whether the key existed.
    pub existed: bool,
    /// The key before the delete, if it existed and was requested.
    pub previous: Option<Item>,
    /// Whether this is the outcome of an earlier attempt, which had deleted already.
    pub repeated: bool,
}

/// Response to `increment`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncrementResponse {
    /// Metadata; its revision is the increment's, or the tenant's where the increment was not admitted.
    pub header: Header,
    /// The number afterwards; absent only for the outcome of an earlier attempt that is no longer kept.
    pub value: Option<i64>,
    /// Whether the increment was applied; otherwise a bound would have been passed, and nothing happened.
    pub admitted: bool,
    /// The key before the increment, if it existed and was requested.
    pub previous: Option<Item>,
    /// Whether this is the outcome of an earlier attempt, which had incremented already.
    pub repeated: bool,
}

/// Response to `append`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppendResponse {
    /// Metadata; its revision is the append's.
    pub header: Header,
    /// Length of the value afterwards; absent only for the outcome of an earlier attempt that is no longer kept.
    pub length: Option<u64>,
    /// The key before the append, if it existed and was requested.
    pub previous: Option<Item>,
    /// Whether this is the outcome of an earlier attempt, which had appended already.
    pub repeated: bool,
}

/// Response to `delete_range`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteRangeResponse {
    /// Metadata; its revision is that of the first change, or the tenant's where there was nothing to delete.
    pub header: Header,
    /// Number of deleted keys, without those that an earlier attempt had deleted.
    pub keys: u64,
    /// Number of changes that it took: above 1, others have seen a part of the range deleted.
    pub changes: u32,
    /// Whether an earlier attempt had begun already.
    pub repeated: bool,
}

/// One page of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Metadata; its revision is the one that all pages show.
    pub header: Header,
    /// Items in the order of their keys.
    pub items: Vec<Item>,
    /// Page token of the next page; absent at the end.
    pub next: Option<String>,
    /// Number of keys of this page; with `count_only`, of the whole range.
    pub count: u64,
}

/// Returns the error for a response that lacks a required part, which is a bug of the server; whether the call had an
/// effect is not known.
pub(crate) fn malformed(what: &str) -> Error {
    Error::new(
        ErrorKind::Internal,
        format!("the node's response has no valid {what}: its version may differ"),
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
            unconfirmed: header.unconfirmed,
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

impl GetResponse {
    pub(crate) fn read(answer: v1::GetResponse) -> Result<Self, Error> {
        let header = Header::read(answer.header)?;
        Ok(Self {
            header,
            item: answer.item.map(item).transpose()?,
        })
    }
}

impl BatchGetResponse {
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

impl WriteResponse {
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

impl DeleteResponse {
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

impl IncrementResponse {
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

impl AppendResponse {
    pub(crate) fn read(answer: v1::AppendResponse) -> Result<Self, Error> {
        Ok(Self {
            header: Header::read(answer.header)?,
            length: answer.length,
            previous: answer.previous.map(item).transpose()?,
            repeated: answer.repeated_outcome,
        })
    }
}

impl DeleteRangeResponse {
    pub(crate) fn read(answer: v1::DeleteRangeResponse) -> Result<Self, Error> {
        Ok(Self {
            header: Header::read(answer.header)?,
            keys: answer.deleted,
            changes: answer.changes,
            repeated: answer.repeated_outcome,
        })
    }

    /// Returns the sum of this response and the next one, of the call that continued it.
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
