//! Reading and writing one tenant.

use std::sync::Arc;

use bytes::Bytes;
use stead_api::{convert::id, proto::v1};
use stead_types::{Error, SessionToken, TenantName, TenantTime};

use crate::{
    Appended, Batch, Client, Consistency, Deleted, Durability, Got, Header, Increment, Incremented, Page, Precondition,
    Read, Route, Scan, Write, Written, answer::malformed, session::Session,
};

/// A tenant as one client uses it. Clones and other handles of the same client share its session.
#[derive(Clone, Debug)]
pub struct Tenant {
    client: Client,
    session: Arc<Session>,
}

impl Tenant {
    pub(crate) fn new(client: Client, session: Arc<Session>) -> Self {
        Self { client, session }
    }

    /// Returns its name.
    pub fn name(&self) -> &TenantName {
        &self.session.tenant
    }

    /// Returns where it lives, if the client has heard of it.
    pub fn home(&self) -> Option<Arc<Route>> {
        self.session.route.load_full()
    }

    /// Returns what this session has seen; another client can go on from it.
    pub fn token(&self) -> Option<SessionToken> {
        self.session.token()
    }

    /// Goes on from what another session has seen.
    pub fn resume(&self, token: SessionToken) {
        self.session.resume(token, TenantTime::default());
    }

    /// Reads one key, linearizably.
    ///
    /// # Errors
    ///
    /// As [`Tenant::get_with`].
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<Got, Error> {
        self.get_with(key, &Read::default()).await
    }

    /// Reads one key.
    ///
    /// # Errors
    ///
    /// A refusal, or the last failure when the time was over.
    pub async fn get_with(&self, key: impl Into<Bytes>, read: &Read) -> Result<Got, Error> {
        let request = v1::GetRequest {
            tenant: self.text(),
            key: key.into(),
            consistency: self.consistency(read),
            revision: read.revision.map(id::from_revision),
        };
        let answer = self.read(v1::operation::Request::Get(request), read).await?;
        let v1::answer::Response::Get(answer) = answer else {
            return Err(malformed("kind"));
        };
        self.seen(Got::read(answer), led(read), |got| &got.header)
    }

    /// Reads many keys at one revision.
    ///
    /// # Errors
    ///
    /// As [`Tenant::get_with`].
    pub async fn batch_get(&self, keys: Vec<Bytes>, read: &Read) -> Result<Batch, Error> {
        let request = v1::BatchGetRequest {
            tenant: self.text(),
            keys,
            consistency: self.consistency(read),
            revision: read.revision.map(id::from_revision),
        };
        let answer = self.read(v1::operation::Request::BatchGet(request), read).await?;
        let v1::answer::Response::BatchGet(answer) = answer else {
            return Err(malformed("kind"));
        };
        self.seen(Batch::read(answer), led(read), |batch| &batch.header)
    }

    /// Reads one page of keys.
    ///
    /// # Errors
    ///
    /// As [`Tenant::get_with`].
    pub async fn scan(&self, scan: &Scan) -> Result<Page, Error> {
        let request = v1::ScanRequest {
            tenant: self.text(),
            start: scan.start.clone(),
            end: scan.end.clone(),
            prefix: scan.prefix.clone(),
            reverse: scan.reverse,
            page_size: i32::try_from(scan.page_size).unwrap_or(i32::MAX),
            page_token: scan.page_token.clone(),
            keys_only: scan.keys_only,
            count_only: scan.count_only,
            consistency: self.consistency(&scan.read),
            revision: scan.read.revision.map(id::from_revision),
        };
        let answer = self.read(v1::operation::Request::Scan(request), &scan.read).await?;
        let v1::answer::Response::Scan(answer) = answer else {
            return Err(malformed("kind"));
        };
        self.seen(Page::read(answer), led(&scan.read), |page| &page.header)
    }

    /// Writes one key.
    ///
    /// # Errors
    ///
    /// As [`Tenant::put_with`].
    pub async fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<Written, Error> {
        self.put_with(key, value, &Write::default()).await
    }

    /// Writes one key. However often it is sent, it is written once.
    ///
    /// # Errors
    ///
    /// A refusal; or, when the time was over, that nothing happened, or that the outcome is unknown, with the key
    /// under which it was sent.
    pub async fn put_with(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
        write: &Write,
    ) -> Result<Written, Error> {
        let request = v1::PutRequest {
            tenant: self.text(),
            key: key.into(),
            value: value.into(),
            precondition: precondition(write),
            want_previous: write.previous,
            idempotency_key: Some(self.key()),
            durability: durability(write),
        };
        let answer = self.write(v1::operation::Request::Put(request), write).await?;
        let v1::answer::Response::Put(answer) = answer else {
            return Err(malformed("kind"));
        };
        self.seen(Written::read(answer), true, |written| &written.header)
    }

    /// Removes one key.
    ///
    /// # Errors
    ///
    /// As [`Tenant::put_with`].
    pub async fn delete(&self, key: impl Into<Bytes>) -> Result<Deleted, Error> {
        self.delete_with(key, &Write::default()).await
    }

    /// Removes one key.
    ///
    /// # Errors
    ///
    /// As [`Tenant::put_with`].
    pub async fn delete_with(&self, key: impl Into<Bytes>, write: &Write) -> Result<Deleted, Error> {
        let request = v1::DeleteRequest {
            tenant: self.text(),
            key: key.into(),
            precondition: precondition(write),
            want_previous: write.previous,
            idempotency_key: Some(self.key()),
            durability: durability(write),
        };
        let answer = self.write(v1::operation::Request::Delete(request), write).await?;
        let v1::answer::Response::Delete(answer) = answer else {
            return Err(malformed("kind"));
        };
        self.seen(Deleted::read(answer), true, |deleted| &deleted.header)
    }

    /// Adds to the number that a key holds; a key that does not exist holds 0.
    ///
    /// # Errors
    ///
    /// As [`Tenant::increment_with`].
    pub async fn increment(&self, key: impl Into<Bytes>, delta: i64) -> Result<Incremented, Error> {
        self.increment_with(key, Increment::by(delta), &Write::default()).await
    }

    /// Adds to the number that a key holds, unless a bound would be passed: then the answer is `admitted: false`, and
    /// nothing happened. However often it is sent, it counts once.
    ///
    /// # Errors
    ///
    /// As [`Tenant::put_with`]; and where the key holds no number, or the sum is beyond 64 bits.
    pub async fn increment_with(
        &self,
        key: impl Into<Bytes>,
        increment: Increment,
        write: &Write,
    ) -> Result<Incremented, Error> {
        let request = v1::IncrementRequest {
            tenant: self.text(),
            key: key.into(),
            delta: increment.delta,
            floor: increment.floor,
            ceiling: increment.ceiling,
            window: increment.window.and_then(stead_api::convert::read::duration),
            precondition: precondition(write),
            want_previous: write.previous,
            idempotency_key: Some(self.key()),
            durability: durability(write),
        };
        let answer = self.write(v1::operation::Request::Increment(request), write).await?;
        let v1::answer::Response::Increment(answer) = answer else {
            return Err(malformed("kind"));
        };
        self.seen(Incremented::read(answer), true, |incremented| &incremented.header)
    }

    /// Adds bytes behind those that a key holds; a key that does not exist is made.
    ///
    /// # Errors
    ///
    /// As [`Tenant::append_with`].
    pub async fn append(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<Appended, Error> {
        self.append_with(key, value, None, &Write::default()).await
    }

    /// Adds bytes behind those that a key holds, if the value stays within `length_max` bytes (1 MiB if absent or 0). However often
    /// it is sent, it is appended once.
    ///
    /// # Errors
    ///
    /// As [`Tenant::put_with`]; and where the value would become too long.
    pub async fn append_with(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
        length_max: Option<u32>,
        write: &Write,
    ) -> Result<Appended, Error> {
        let request = v1::AppendRequest {
            tenant: self.text(),
            key: key.into(),
            value: value.into(),
            max_length: length_max.unwrap_or(0),
            precondition: precondition(write),
            want_previous: write.previous,
            idempotency_key: Some(self.key()),
            durability: durability(write),
        };
        let answer = self.write(v1::operation::Request::Append(request), write).await?;
        let v1::answer::Response::Append(answer) = answer else {
            return Err(malformed("kind"));
        };
        self.seen(Appended::read(answer), true, |appended| &appended.header)
    }

    async fn read(&self, request: v1::operation::Request, read: &Read) -> Result<v1::answer::Response, Error> {
        let inner = self.client.inner();
        inner
            .operate(&self.session, led(read), request, inner.deadline(read.timeout))
            .await
    }

    async fn write(&self, request: v1::operation::Request, write: &Write) -> Result<v1::answer::Response, Error> {
        let inner = self.client.inner();
        inner
            .operate(&self.session, true, request, inner.deadline(write.timeout))
            .await
    }

    fn seen<T>(&self, answer: Result<T, Error>, led: bool, header: impl Fn(&T) -> &Header) -> Result<T, Error> {
        if let Ok(answer) = &answer {
            self.session.saw(header(answer), led);
        }
        answer
    }

    fn text(&self) -> String {
        self.session.tenant.as_str().to_owned()
    }

    fn key(&self) -> v1::IdempotencyKey {
        let inner = self.client.inner();
        v1::IdempotencyKey {
            client_id: inner.client_id.clone(),
            sequence: inner.next_sequence(),
            first_sent_ms: self.session.time().0,
        }
    }

    fn consistency(&self, read: &Read) -> Option<v1::Consistency> {
        use v1::consistency::{Bounded, Level, Local, Session};
        let tokens = |token: Option<SessionToken>| {
            let tokens = token.iter().map(|token| Bytes::copy_from_slice(&token.to_bytes()));
            Level::Session(Session {
                tokens: tokens.collect(),
            })
        };
        let level = match &read.consistency {
            Consistency::Linearizable => return None,
            Consistency::Session => tokens(self.session.token()),
            Consistency::Token(token) => tokens(Some(*token)),
            Consistency::Bounded(bound) => Level::Bounded(Bounded {
                max_staleness: stead_api::convert::read::duration(*bound),
            }),
            Consistency::Local => Level::Local(Local {}),
        };
        Some(v1::Consistency { level: Some(level) })
    }
}

/// Tells whether only the home's leader can answer.
fn led(read: &Read) -> bool {
    read.consistency == Consistency::Linearizable
}

fn precondition(write: &Write) -> Option<v1::Precondition> {
    use v1::precondition::Condition;
    let condition = match write.precondition? {
        Precondition::Modified(revision) => Condition::ModRevision(id::from_revision(revision)),
        Precondition::Absent => Condition::MustNotExist(true),
    };
    Some(v1::Precondition {
        condition: Some(condition),
    })
}

fn durability(write: &Write) -> i32 {
    let durability = match write.durability {
        None => v1::Durability::Unspecified,
        Some(Durability::Region) => v1::Durability::Region,
        Some(Durability::Remote) => v1::Durability::Remote,
    };
    durability.into()
}
