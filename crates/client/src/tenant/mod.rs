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
use stead_types::{Error, SessionToken, TenantName, TenantTime};
pub use txn::{NotAdmitted, Op, OpResult, Txn, TxnDone};
pub(crate) use watch::is_final;
pub use watch::{Event, EventKind, From, Told, Watch, Watcher};

use crate::{Client, Consistency, Durability, Header, Read, Route, Write, session::Session};

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
    pub fn token(&self) -> Option<SessionToken> {
        self.session.token()
    }

    /// Goes on from what another session has seen.
    pub fn resume(&self, token: SessionToken) {
        self.session.resume(token, TenantTime::default());
    }

    async fn read(&self, request: v1::operation::Request, read: &Read) -> Result<v1::answer::Response, Error> {
        let inner = self.client.inner();
        inner
            .operate(&self.session, led(read), request, inner.deadline(read.timeout))
            .await
    }

    async fn write(
        &self,
        request: v1::operation::Request,
        timeout: Option<Duration>,
    ) -> Result<v1::answer::Response, Error> {
        let inner = self.client.inner();
        inner
            .operate(&self.session, true, request, inner.deadline(timeout))
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

fn durability(durability: Option<Durability>) -> i32 {
    let durability = match durability {
        None => v1::Durability::Unspecified,
        Some(Durability::Region) => v1::Durability::Region,
        Some(Durability::Remote) => v1::Durability::Remote,
    };
    durability.into()
}
