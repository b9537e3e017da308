//! Bytes of answers that wait for their readers, bounded for each stream, connection, tenant and for the node: a client
//! that does not read costs a bounded amount of memory, and others are served.
//!
//! # Invariants
//!
//! 1. An answer counts from when it is ready until the transport has sent its last byte.
//! 2. Nothing is read for an answer that has no room; a write that is in a log is always answered.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use stead_types::{Error, ErrorKind, TenantNumber};

/// Most bytes of answers that wait at a node.
const NODE_LEN_MAX: u64 = 192 << 20;
/// Most bytes of them of one tenant.
const TENANT_LEN_MAX: u64 = 96 << 20;
/// Most bytes of them for one connection of a client.
const CONNECTION_LEN_MAX: u64 = 48 << 20;
/// Most bytes of them for one stream of a client.
const STREAM_LEN_MAX: u64 = 32 << 20;
/// Delay after which a call that found no room may be tried again.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// Bytes of a node's answers that wait.
#[derive(Debug, Default)]
pub(crate) struct AnswerBudget {
    node: AtomicU64,
    tenants: Mutex<BTreeMap<TenantNumber, u64>>,
}

impl AnswerBudget {
    /// Returns the bytes that wait at the node.
    pub(crate) fn len(&self) -> u64 {
        self.node.load(Ordering::Relaxed)
    }
}

/// Bytes of answers that wait for one connection of a client.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConnectionAnswers(Arc<AtomicU64>);

/// Account of the answers of one stream or call.
#[derive(Debug, Default)]
pub(crate) struct AnswerAccount {
    budget: Arc<AnswerBudget>,
    /// The client's connection; `None` for another node, whose connection carries all tenants.
    connection: Option<ConnectionAnswers>,
    stream: AtomicU64,
}

/// Limit of answers that wait, which is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AnswersFull {
    /// Name of the limit, as in errors and metrics.
    pub(crate) name: &'static str,
    max: u64,
    whose: &'static str,
}

impl AnswersFull {
    /// Converts it into the error for the caller.
    pub(crate) fn error(self) -> Error {
        let Self { name, max, whose } = self;
        let message = format!(
            "{name}: at most {max} bytes of answers may wait for their reader {whose}, and so many do; nothing happened: \
             read them, or wait {} ms and ask for less at a time",
            RETRY_DELAY.as_millis()
        );
        let (limit, wait) = (name.to_owned(), RETRY_DELAY);
        Error::new(ErrorKind::RateLimited { limit, wait }, message)
    }
}

impl AnswerAccount {
    /// Returns the account of a stream or call of a client's connection, or of another node.
    pub(crate) fn new(budget: Arc<AnswerBudget>, connection: Option<ConnectionAnswers>) -> Arc<Self> {
        Arc::new(Self {
            budget,
            connection,
            stream: AtomicU64::new(0),
        })
    }

    /// Checks that there is room for another answer.
    pub(crate) fn check(&self, tenant: TenantNumber) -> Result<(), AnswersFull> {
        let full = |name, max, whose| AnswersFull { name, max, whose };
        if let Some(ConnectionAnswers(connection)) = &self.connection {
            if self.stream.load(Ordering::Relaxed) >= STREAM_LEN_MAX {
                return Err(full("stream.answers", STREAM_LEN_MAX, "on one stream"));
            }
            if connection.load(Ordering::Relaxed) >= CONNECTION_LEN_MAX {
                return Err(full("connection.answers", CONNECTION_LEN_MAX, "on one connection"));
            }
        }
        let of_tenant = self.budget.tenants.lock().get(&tenant).copied();
        if of_tenant.unwrap_or_default() >= TENANT_LEN_MAX {
            return Err(full("tenant.answers", TENANT_LEN_MAX, "at this node for one tenant"));
        }
        if self.budget.len() >= NODE_LEN_MAX {
            return Err(full("node.answers", NODE_LEN_MAX, "at this node"));
        }
        Ok(())
    }

    /// Counts an answer until its permit is dropped.
    pub(crate) fn add(self: &Arc<Self>, tenant: TenantNumber, len: u64) -> AnswerPermit {
        self.stream.fetch_add(len, Ordering::Relaxed);
        if let Some(ConnectionAnswers(connection)) = &self.connection {
            connection.fetch_add(len, Ordering::Relaxed);
        }
        self.budget.node.fetch_add(len, Ordering::Relaxed);
        *self.budget.tenants.lock().entry(tenant).or_default() += len;
        AnswerPermit {
            account: self.clone(),
            tenant,
            len,
        }
    }
}

/// Room of one answer among those that wait, taken until it is dropped.
#[derive(Debug)]
pub(crate) struct AnswerPermit {
    account: Arc<AnswerAccount>,
    tenant: TenantNumber,
    len: u64,
}

impl AnswerPermit {
    /// Returns the bytes of the answer.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }
}

impl Drop for AnswerPermit {
    fn drop(&mut self) {
        let AnswerAccount {
            budget,
            connection,
            stream,
        } = &*self.account;
        stream.fetch_sub(self.len, Ordering::Relaxed);
        if let Some(ConnectionAnswers(connection)) = connection {
            connection.fetch_sub(self.len, Ordering::Relaxed);
        }
        budget.node.fetch_sub(self.len, Ordering::Relaxed);
        let mut tenants = budget.tenants.lock();
        if let Some(of_tenant) = tenants.get_mut(&self.tenant) {
            *of_tenant -= self.len;
            if *of_tenant == 0 {
                tenants.remove(&self.tenant);
            }
        }
    }
}

/// Permits of the answers of a response that are not with the transport yet. As an extension of the response it makes
/// [`hold`] keep them until their bytes are sent.
#[derive(Clone, Debug, Default)]
pub(crate) struct UnsentAnswers(Arc<Mutex<Vec<AnswerPermit>>>);

impl UnsentAnswers {
    /// Adds permits, of answers that the response's next bytes contain.
    pub(crate) fn extend(&self, permits: impl IntoIterator<Item = AnswerPermit>) {
        self.0.lock().extend(permits);
    }

    /// Returns a response that holds the permits.
    pub(crate) fn attach<T>(self, message: T) -> tonic::Response<T> {
        let mut response = tonic::Response::new(message);
        response.extensions_mut().insert(self);
        response
    }
}

/// Keeps the permits of a response's answers until the transport has sent their bytes, or has given them up.
pub(crate) async fn hold(mut response: Response) -> Response {
    match response.extensions_mut().remove::<UnsentAnswers>() {
        Some(unsent) => response.map(|body| Body::new(HeldBody { body, unsent })),
        None => response,
    }
}

/// Body whose bytes hold the permits of the answers in them.
struct HeldBody {
    body: Body,
    unsent: UnsentAnswers,
}

/// Bytes with the permits of the answers in them.
struct HeldBytes {
    bytes: Bytes,
    _permits: Vec<AnswerPermit>,
}

impl AsRef<[u8]> for HeldBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl HttpBody for HeldBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        polled.map_ok(|frame| {
            let permits = std::mem::take(&mut *self.unsent.0.lock());
            if permits.is_empty() {
                return frame;
            }
            frame.map_data(|bytes| {
                Bytes::from_owner(HeldBytes {
                    bytes,
                    _permits: permits,
                })
            })
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures::{StreamExt, stream};

    use super::*;

    const TENANT: TenantNumber = TenantNumber::new(1);
    const OTHER: TenantNumber = TenantNumber::new(2);

    fn full(account: &AnswerAccount, tenant: TenantNumber) -> Option<&'static str> {
        account.check(tenant).err().map(|full| full.name)
    }

    #[test]
    fn each_limit_is_reached_by_its_name_and_lifted_by_reading() {
        let budget = Arc::new(AnswerBudget::default());
        let connection = || Some(ConnectionAnswers::default());
        let one = AnswerAccount::new(budget.clone(), connection());
        let answer = one.add(TENANT, STREAM_LEN_MAX - 1);
        assert_eq!(full(&one, TENANT), None);
        let more = one.add(TENANT, 1);
        assert_eq!(full(&one, TENANT), Some("stream.answers"));
        let shared = one.connection.clone();
        let two = AnswerAccount::new(budget.clone(), shared);
        assert_eq!(full(&two, TENANT), None);
        let rest = two.add(TENANT, CONNECTION_LEN_MAX - STREAM_LEN_MAX);
        assert_eq!(full(&two, TENANT), Some("connection.answers"));
        let node = AnswerAccount::new(budget.clone(), None);
        assert_eq!(full(&node, TENANT), None, "another node's connection is shared");
        let of_tenant = node.add(TENANT, TENANT_LEN_MAX - CONNECTION_LEN_MAX);
        assert_eq!(full(&node, TENANT), Some("tenant.answers"));
        assert_eq!(full(&node, OTHER), None);
        let others = node.add(OTHER, NODE_LEN_MAX - TENANT_LEN_MAX - 1);
        let last = node.add(TenantNumber::new(3), 1);
        assert_eq!(full(&node, TenantNumber::new(4)), Some("node.answers"));
        let error = node.check(TenantNumber::new(4)).unwrap_err().error();
        assert!(
            error.message.contains("node.answers: at most 201326592 bytes"),
            "{error}"
        );
        drop((answer, more, rest, of_tenant, others, last));
        assert_eq!(budget.len(), 0);
        assert!(budget.tenants.lock().is_empty());
        assert_eq!(full(&one, TENANT), None);
    }

    /// Invariant 1.
    #[tokio::test]
    async fn answer_counts_until_its_bytes_are_dropped() {
        let account = AnswerAccount::new(Arc::default(), None);
        let unsent = UnsentAnswers::default();
        unsent.extend([account.add(TENANT, 7)]);
        let source = unsent.clone();
        let frames = stream::iter([Ok::<_, axum::Error>(Bytes::from_static(b"answer"))])
            .chain(stream::once(async { Ok(Bytes::from_static(b"more")) }));
        let mut response = Response::new(Body::from_stream(frames));
        response.extensions_mut().insert(source);
        let mut sent = hold(response).await.into_body().into_data_stream();
        let bytes = sent.next().await.unwrap().unwrap();
        assert_eq!(&bytes[..], b"answer");
        let part = bytes.slice(3..);
        drop(bytes);
        assert_eq!(account.budget.len(), 7, "a part of the bytes is not sent yet");
        drop(part);
        assert_eq!(account.budget.len(), 0);
        unsent.extend([account.add(TENANT, 7)]);
        drop((sent, unsent));
        assert_eq!(account.budget.len(), 0, "a reader that has gone leaves nothing");
    }
}
