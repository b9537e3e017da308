//! Handle of one tenant: reads, writes, scans, transactions and watches.

mod read;
mod receipts;
mod scan_stream;
mod txn;
mod update;
mod watch;
mod write;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
pub use receipts::{Receipt, ReceiptStatus, Receipts};
pub use scan_stream::ScanStream;
use stead_api::{
    convert::{condition, id},
    proto::v1,
};
use stead_types::{Error, SessionToken, TenantName};
pub use txn::{Op, OpResult, RejectedIncrement, Txn, TxnResponse};
pub(crate) use watch::is_final;
pub use watch::{Event, EventKind, WatchFrom, WatchMessage, WatchOptions, Watcher};

use crate::{
    Client, Consistency, Header, ReadOptions, Route, WriteOptions, call::RoutePreference, session::TenantSession,
};

/// Handle of a tenant. Clones and other handles of the same client share its session.
#[derive(Clone, Debug)]
pub struct Tenant {
    client: Client,
    session: Arc<TenantSession>,
}

impl Client {
    /// Returns a handle of one tenant. All handles of a tenant share its session.
    ///
    /// # Errors
    ///
    /// A name that no tenant can have.
    pub fn tenant(&self, name: &str) -> Result<Tenant, Error> {
        let invalid = |why| Error::invalid("tenant", format!("tenant: {why}; got {name:?}"));
        let name: TenantName = name.parse().map_err(invalid)?;
        Ok(Tenant {
            client: self.clone(),
            session: self.state().session(name),
        })
    }
}

impl Tenant {
    pub(crate) fn session(&self) -> &Arc<TenantSession> {
        &self.session
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Returns the name of the tenant.
    pub fn name(&self) -> &TenantName {
        &self.session.tenant
    }

    /// Returns the tenant's route, if the client knows it.
    pub fn home(&self) -> Option<Arc<Route>> {
        self.session.route().clone()
    }

    /// Returns the session token, as bytes or, with `to_string`, as text; another client can continue the session from
    /// it. Absent before the first response: a token contains the tenant's number, which is not known before.
    pub fn token(&self) -> Option<SessionToken> {
        let own = self.session.token()?;
        Some(self.client.state().imported.newest(own))
    }

    /// Continues the session of a token: reads see at least that. A token of another tenant has no effect.
    ///
    /// # Errors
    ///
    /// As [`Client::import_tokens`].
    pub fn resume(&self, token: SessionToken) -> Result<(), Error> {
        self.client.state().imported.add(token)
    }

    /// Makes the client watch the tenant's route.
    pub(crate) fn watch_route(&self) {
        self.session.watch_route();
    }

    async fn read(&self, request: v1::operation::Request, read: &ReadOptions) -> Result<v1::answer::Response, Error> {
        let state = self.client.state();
        let preference = if needs_leader(read) {
            RoutePreference::Leader
        } else {
            RoutePreference::Nearest
        };
        state
            .operate(&self.session, preference, request, state.deadline(read.timeout))
            .await
    }

    async fn write(
        &self,
        request: v1::operation::Request,
        timeout: Option<Duration>,
    ) -> Result<v1::answer::Response, Error> {
        let state = self.client.state();
        state
            .operate(&self.session, RoutePreference::Leader, request, state.deadline(timeout))
            .await
    }

    fn observe<T>(
        &self,
        answer: Result<T, Error>,
        from_leader: bool,
        header: impl Fn(&T) -> &Header,
    ) -> Result<T, Error> {
        if let Ok(answer) = &answer {
            self.session.observe(header(answer), from_leader);
        }
        answer
    }

    fn text(&self) -> String {
        self.session.tenant.as_str().to_owned()
    }

    fn key(&self) -> v1::IdempotencyKey {
        let state = self.client.state();
        v1::IdempotencyKey {
            client_id: state.client_id.clone(),
            sequence: state.next_sequence(),
            first_sent_ms: self.session.time().0,
        }
    }

    /// Returns the idempotency key of a write: the caller's own, otherwise a new one.
    fn key_of(&self, write: &WriteOptions) -> v1::IdempotencyKey {
        let again = write.idempotency_key.map(id::from_idempotency_key);
        again.unwrap_or_else(|| self.key())
    }

    fn consistency(&self, read: &ReadOptions) -> Option<v1::Consistency> {
        use v1::consistency::{Bounded, Level, Local};
        let level = match &read.consistency {
            Consistency::Linearizable => return None,
            Consistency::Session => tokens(self.client.state().imported.required(self.session.token())),
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
        if self.session.is_unknown() {
            let nobody = TenantSession::new(self.session.tenant.clone(), Arc::default());
            let session = std::mem::replace(&mut self.session, Arc::new(nobody));
            self.client.state().release_session(session);
        }
    }
}

fn tokens(tokens: impl IntoIterator<Item = SessionToken>) -> v1::consistency::Level {
    let bytes = |token: SessionToken| Bytes::copy_from_slice(&token.to_bytes());
    v1::consistency::Level::Session(v1::consistency::Session {
        tokens: tokens.into_iter().map(bytes).collect(),
    })
}

/// Tells whether only the home's leader can serve the read.
fn needs_leader(read: &ReadOptions) -> bool {
    read.consistency == Consistency::Linearizable
}

fn precondition(write: &WriteOptions) -> Option<v1::Precondition> {
    write.precondition.as_ref().map(condition::from_precondition)
}

#[cfg(test)]
mod tests {
    use stead_types::TenantTime;

    use super::*;
    use crate::Config;

    #[tokio::test]
    async fn unknown_tenant_session_is_removed_with_last_handle() {
        let client = Client::lazy(Config::new(["127.0.0.1:1"])).unwrap();
        let names = || {
            client
                .state()
                .sessions
                .lock()
                .keys()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        let acme = client.tenant("acme").unwrap();
        let token = SessionToken {
            tenant: stead_types::TenantNumber::new(1),
            revision: "1.1".parse().unwrap(),
        };
        acme.session().observe_token(token, TenantTime(1));
        let brix = client.tenant("brix").unwrap();
        for at in 0..100 {
            let _home = client.home(&format!("nobody-{at}")).unwrap();
        }
        let other = brix.clone();
        drop((acme, brix));
        assert_eq!(names(), ["acme", "brix"]);
        drop(other);
        assert_eq!(names(), ["acme"]);
    }
}
