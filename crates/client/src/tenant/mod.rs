//! Reading and writing one tenant.

mod read;
mod scan_stream;
mod txn;
mod update;
mod watch;
mod write;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
pub use scan_stream::ScanStream;
use stead_api::{
    convert::{condition, id},
    proto::v1,
};
use stead_types::{Error, SessionToken, TenantName};
pub use txn::{NotAdmitted, Op, OpResult, Txn, TxnDone};
pub(crate) use watch::is_final;
pub use watch::{Event, EventKind, Told, Watch, WatchFrom, Watcher};

use crate::{Client, Consistency, Header, Read, Route, Write, call::Errand, session::Session};

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

    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Returns its name.
    pub fn name(&self) -> &TenantName {
        &self.session.tenant
    }

    /// Returns where it lives, if the client has heard of it.
    pub fn home(&self) -> Option<Arc<Route>> {
        self.session.route().clone()
    }

    /// Returns what this session has seen, as bytes or, with `to_string`, as text; another client can go on from it.
    /// Absent before the first answer: a token names a number, and which one the tenant has is not known.
    pub fn token(&self) -> Option<SessionToken> {
        let own = self.session.token()?;
        Some(self.client.inner().imported.newest(own))
    }

    /// Goes on from what another session has seen: a token of another tenant does no harm and says nothing of this one.
    ///
    /// # Errors
    ///
    /// As [`Client::import_tokens`].
    pub fn resume(&self, token: SessionToken) -> Result<(), Error> {
        self.client.inner().imported.add(token)
    }

    /// Makes the client follow where it lives.
    pub(crate) fn follow(&self) {
        self.session.follow();
    }

    async fn read(&self, request: v1::operation::Request, read: &Read) -> Result<v1::answer::Response, Error> {
        let inner = self.client.inner();
        let errand = if led(read) { Errand::Led } else { Errand::Near };
        inner
            .operate(&self.session, errand, request, inner.deadline(read.timeout))
            .await
    }

    async fn write(
        &self,
        request: v1::operation::Request,
        timeout: Option<Duration>,
    ) -> Result<v1::answer::Response, Error> {
        let inner = self.client.inner();
        inner
            .operate(&self.session, Errand::Led, request, inner.deadline(timeout))
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

    /// The key of a write: the one that it is asked for again with, else a new one.
    fn key_of(&self, write: &Write) -> v1::IdempotencyKey {
        let again = write.idempotency_key.map(id::from_idempotency_key);
        again.unwrap_or_else(|| self.key())
    }

    fn consistency(&self, read: &Read) -> Option<v1::Consistency> {
        use v1::consistency::{Bounded, Level, Local};
        let level = match &read.consistency {
            Consistency::Linearizable => return None,
            Consistency::Session => tokens(self.client.inner().imported.seen(self.session.token())),
            Consistency::Token(token) => tokens([*token]),
            Consistency::Tokens(seen) => tokens(seen.iter()),
            Consistency::Bounded(bound) => Level::Bounded(Bounded {
                max_staleness: Some(stead_api::convert::read::duration(*bound)),
            }),
            Consistency::Local => Level::Local(Local {}),
        };
        Some(v1::Consistency { level: Some(level) })
    }
}

impl Drop for Tenant {
    fn drop(&mut self) {
        if self.session.is_blank() {
            let nobody = Session::new(self.session.tenant.clone(), Arc::default());
            let session = std::mem::replace(&mut self.session, Arc::new(nobody));
            self.client.inner().take_back(session);
        }
    }
}

fn tokens(tokens: impl IntoIterator<Item = SessionToken>) -> v1::consistency::Level {
    let bytes = |token: SessionToken| Bytes::copy_from_slice(&token.to_bytes());
    v1::consistency::Level::Session(v1::consistency::Session {
        tokens: tokens.into_iter().map(bytes).collect(),
    })
}

/// Tells whether only the home's leader can answer.
fn led(read: &Read) -> bool {
    read.consistency == Consistency::Linearizable
}

fn precondition(write: &Write) -> Option<v1::Precondition> {
    write.precondition.as_ref().map(condition::from_precondition)
}
