//! Reads of operations, on any node: from its own voter, else from the voters that answer first.
//!
//! # Invariants
//!
//! 1. A read takes at most [`READ_MAX`], whatever other nodes and the directory's leader do.
//! 2. An operation is reported as unknown only as of a version that was read after the call.

use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream::FuturesUnordered};
use stead_api::proto::internal::v1::{ReadOperationsRequest, ReadOperationsResponse};
use stead_state::directory::{Directory, Operation, OperationTenant, Rejection};
use stead_types::{DirectoryVersion, Error, ErrorKind, Incarnation, TenantName};
use tokio::time::{sleep, timeout};

use super::{client::DirectoryClient, local_voter::LocalVoter};

/// Longest time of a read.
const READ_MAX: Duration = Duration::from_millis(900);
/// Time after which the next voter is asked, too.
const HEDGE_AFTER: Duration = Duration::from_millis(150);
/// Longest wait of a voter for the version that a read asks for.
const CATCH_UP_MAX: Duration = Duration::from_millis(300);
/// Most bytes of the operations of one read, except for a single larger one: an answer stays below the limit of a
/// decoder.
const PAGE_LEN_MAX: usize = 1 << 20;

/// Query of operations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OperationQuery {
    /// Only this operation.
    pub(crate) id: Option<u64>,
    /// Only those with a lower number.
    pub(crate) below: Option<u64>,
    /// Only those of this tenant.
    pub(crate) tenant: Option<TenantName>,
    /// Only those that are over, or only those that are not.
    pub(crate) done: Option<bool>,
    /// Most operations of the result.
    pub(crate) limit: usize,
    /// Version that the result should be as new as.
    pub(crate) at_least: DirectoryVersion,
}

/// Result of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OperationPage {
    /// The operations, newest first.
    pub(crate) operations: Vec<Operation>,
    /// Version of the voter.
    pub(crate) version: DirectoryVersion,
    /// Whether others match, too, with lower numbers.
    pub(crate) more: bool,
}

impl OperationQuery {
    /// Returns the query of one operation.
    pub(crate) fn one(id: u64, at_least: DirectoryVersion) -> Self {
        Self {
            id: Some(id),
            below: None,
            tenant: None,
            done: None,
            limit: 1,
            at_least,
        }
    }

    /// Reads the message of another node.
    pub(crate) fn from_message(message: &ReadOperationsRequest) -> Result<Self, Error> {
        let tenant = match message.tenant.as_str() {
            "" => None,
            name => Some(stead_api::convert::id::tenant("tenant", name)?),
        };
        Ok(Self {
            id: message.id,
            below: message.below,
            tenant,
            done: message.done,
            limit: usize::try_from(message.limit).unwrap_or(usize::MAX),
            at_least: version(message.incarnation, message.index),
        })
    }

    fn message(&self) -> ReadOperationsRequest {
        ReadOperationsRequest {
            id: self.id,
            below: self.below,
            tenant: self.tenant.as_ref().map(ToString::to_string).unwrap_or_default(),
            done: self.done,
            limit: u32::try_from(self.limit).unwrap_or(u32::MAX),
            incarnation: self.at_least.incarnation.0,
            index: self.at_least.index,
        }
    }

    fn matches(&self, directory: &Directory, operation: &Operation) -> bool {
        self.done.is_none_or(|done| done == operation.end.is_some())
            && self.tenant.as_ref().is_none_or(|name| {
                let mut tenants = operation.tenants.iter();
                tenants.any(|of| of.name == *name) || is_in_bulk_move(directory, operation, name)
            })
    }
}

/// Tells whether an operation is a bulk move with this tenant.
fn is_in_bulk_move(directory: &Directory, operation: &Operation, name: &TenantName) -> bool {
    let tenant = directory.view().tenant_named(name);
    tenant.is_some_and(|tenant| directory.operations().item(operation.id, tenant.number).is_some())
}

impl OperationPage {
    /// Returns the message for another node.
    pub(crate) fn message(&self) -> ReadOperationsResponse {
        ReadOperationsResponse {
            operations: self.operations.iter().map(Operation::encode).collect(),
            incarnation: self.version.incarnation.0,
            index: self.version.index,
            more: self.more,
        }
    }

    /// Returns the first of these operations, as many as a page may have.
    fn first<'a>(found: impl Iterator<Item = &'a Operation>, limit: usize, version: DirectoryVersion) -> Self {
        let mut page = Self {
            operations: Vec::new(),
            version,
            more: false,
        };
        let mut len = 0;
        for operation in found {
            let text = operation.by.who.len() + operation.by.reason.len();
            len += text + size_of::<Operation>() + operation.tenants.len() * size_of::<OperationTenant>();
            if page.operations.len() >= limit || (len > PAGE_LEN_MAX && !page.operations.is_empty()) {
                page.more = true;
                break;
            }
            page.operations.push(operation.clone());
        }
        page
    }

    fn from_message(message: ReadOperationsResponse) -> Option<Self> {
        let operations = message.operations.into_iter();
        Some(Self {
            operations: operations
                .map(|operation: Bytes| Operation::decode(operation).ok())
                .collect::<Option<_>>()?,
            version: version(message.incarnation, message.index),
            more: message.more,
        })
    }
}

impl LocalVoter {
    /// Reads operations as of the last applied entry, after a bounded wait for the version that is asked for.
    pub(crate) async fn read_operations(&self, query: &OperationQuery) -> Result<OperationPage, Error> {
        let mut versions = self.machine.version();
        // A voter that is cut off answers with what it has.
        let _ = timeout(CATCH_UP_MAX, versions.wait_for(|reached| *reached >= query.at_least)).await;
        let page = self.machine.read(|directory| {
            let (all, version) = (directory.operations(), directory.view().version());
            match query.id {
                Some(id) => OperationPage::first(all.get(id).into_iter(), 1, version),
                None => {
                    let found = all
                        .newest_first(query.below)
                        .filter(|one| query.matches(directory, one));
                    OperationPage::first(found, query.limit, version)
                }
            }
        });
        page.map_err(|incomplete| {
            let message = format!("this node is stopping, try another one: {incomplete}");
            Error::new(ErrorKind::Unavailable, message)
        })
    }
}

impl DirectoryClient {
    /// Returns an operation.
    ///
    /// # Errors
    ///
    /// There is no such operation, or no voter answers in time.
    pub(crate) async fn operation(&self, id: u64, at_least: DirectoryVersion) -> Result<Operation, Error> {
        let read = async {
            if let Some(found) = self
                .ask_for_operations(&OperationQuery::one(id, at_least))
                .await?
                .operations
                .pop()
            {
                return Ok(found);
            }
            // The voter may be behind the one that has begun the operation.
            let now = self.version().await?;
            let mut page = self.ask_for_operations(&OperationQuery::one(id, now)).await?;
            match page.operations.pop() {
                Some(found) => Ok(found),
                None if page.version >= now => Err(Rejection::OperationUnknown(id).into()),
                None => Err(no_voter()),
            }
        };
        timeout(READ_MAX, read).await.unwrap_or_else(|_| Err(no_voter()))
    }

    /// Returns operations, newest first.
    ///
    /// # Errors
    ///
    /// No voter answers in time.
    pub(crate) async fn read_operations(&self, query: &OperationQuery) -> Result<OperationPage, Error> {
        let read = self.ask_for_operations(query);
        timeout(READ_MAX, read).await.unwrap_or_else(|_| Err(no_voter()))
    }

    /// Asks this node's own voter, or the others one after the other, each a little later, until one answers.
    async fn ask_for_operations(&self, query: &OperationQuery) -> Result<OperationPage, Error> {
        if let Some(local_voter) = self.local_voter() {
            return local_voter.read_operations(query).await;
        }
        let ask = async |at: usize| {
            let mut voter = self.voter_at(at)?;
            let answer = voter.read_operations(query.message()).await.ok()?;
            OperationPage::from_message(answer.into_inner())
        };
        let mut left = self.voter_order();
        let mut pending = FuturesUnordered::new();
        loop {
            match left.next() {
                Some(at) => pending.push(ask(at)),
                None if pending.is_empty() => return Err(no_voter()),
                None => {}
            }
            tokio::select! {
                Some(answer) = pending.next() => {
                    if let Some(page) = answer {
                        return Ok(page);
                    }
                }
                () = sleep(HEDGE_AFTER) => {}
            }
        }
    }
}

fn version(incarnation: u32, index: u64) -> DirectoryVersion {
    DirectoryVersion {
        incarnation: Incarnation(incarnation),
        index,
    }
}

fn no_voter() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "no voter of the directory answers in time; operations go on meanwhile, ask again",
    )
}

#[cfg(test)]
mod tests {
    use stead_state::{
        directory::{AuditContext, OperationEnd, OperationKind, OperationResult},
        shard::record::OperationId,
    };
    use stead_types::{Epoch, GroupId, TenantNumber};

    use super::*;

    fn operation(end: Option<OperationEnd>) -> Operation {
        Operation {
            id: 7,
            kind: OperationKind::Move {
                from: GroupId::new(1),
                to: GroupId::new(5),
                epoch: Epoch::FIRST,
            },
            tenants: vec![OperationTenant {
                tenant: TenantNumber::new(3),
                name: "acme".parse().unwrap(),
                operation: OperationId(1),
            }],
            by: AuditContext::default(),
            created: 1,
            steps: Vec::new(),
            end,
        }
    }

    #[test]
    fn query_and_page_round_trip_between_nodes() {
        let query = OperationQuery {
            id: Some(7),
            below: Some(9),
            tenant: Some("acme".parse().unwrap()),
            done: Some(false),
            limit: 20,
            at_least: version(1, 40),
        };
        assert_eq!(OperationQuery::from_message(&query.message()), Ok(query));
        let page = OperationPage {
            operations: vec![operation(None)],
            version: version(1, 41),
            more: true,
        };
        assert_eq!(OperationPage::from_message(page.message()), Some(page));
    }

    #[test]
    fn query_matches_by_tenant_and_end() {
        let end = OperationEnd {
            result: OperationResult::Cancelled,
            time: 2,
        };
        let (in_flight, over) = (operation(None), operation(Some(end)));
        let query = |tenant: Option<&str>, done| OperationQuery {
            tenant: tenant.map(|name| name.parse().unwrap()),
            done,
            ..OperationQuery::one(7, DirectoryVersion::ZERO)
        };
        let directory = Directory::default();
        assert!(query(None, None).matches(&directory, &over));
        assert!(query(Some("acme"), Some(false)).matches(&directory, &in_flight));
        assert!(!query(Some("acme"), Some(false)).matches(&directory, &over));
        assert!(!query(Some("other"), None).matches(&directory, &in_flight));
    }
}
