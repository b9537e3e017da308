//! Watches that resume by themselves.

use std::{collections::VecDeque, time::Duration};

use futures::{StreamExt, stream};
use stead_api::{
    convert::read::duration,
    proto::v1::{
        self, WatchCreate, WatchRequest, WatchResponse, kv_service_client::KvServiceClient,
        watch_create::From as Begin, watch_response::Response,
    },
    status,
};
use stead_types::{Error, ErrorKind, Revision, SessionToken};
use tokio::time::{Instant, sleep, timeout};
use tonic::Streaming;

use super::Tenant;
use crate::{
    Header, Item, KeyRange,
    answer::{item, malformed},
    failure,
    map::Want,
    node::Node,
};

/// First wait before a broken watch is opened again, doubled.
const AGAIN_FIRST: Duration = Duration::from_millis(20);
const AGAIN_MAX: Duration = Duration::from_secs(2);
/// A node that says nothing for this many intervals of progress is left for another one.
const SILENT_INTERVALS: u32 = 3;
/// How long it may be silent on top of that.
const SILENT_SLACK: Duration = Duration::from_secs(3);
/// How often the node says that nothing happened.
const PROGRESS: Duration = Duration::from_secs(5);

/// What to watch, and from where on.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    /// Which keys; none: all.
    pub ranges: Vec<KeyRange>,
    /// Where it begins.
    pub from: WatchFrom,
    /// Events carry the key as it was before, while history has it.
    pub previous: bool,
    /// Events of these kinds are left out.
    pub exclude: Vec<EventKind>,
}

/// Where a watch begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WatchFrom {
    /// With what happens from now on.
    #[default]
    Now,
    /// Behind this revision, which an answer has shown: the changes after a read.
    After(Revision),
    /// Behind what a session or an earlier watch has seen.
    Token(SessionToken),
    /// With all keys as of one revision, then the changes after it.
    State,
}

/// What happened to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// It was put, incremented or appended to.
    Put,
    /// It was deleted.
    Delete,
    /// Its time was over.
    Expire,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The key as it is since. For a delete: its key and, as `modified`, the delete's revision.
    pub item: Item,
    /// The key as it was before, if it was wanted, existed and is still kept.
    pub previous: Option<Item>,
}

/// What a watch tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// Keys that it begins with, in several parts.
    State {
        /// Some of them.
        items: Vec<Item>,
        /// These are the first: what was told before is void.
        is_first: bool,
        /// These are the last; changes follow.
        is_last: bool,
    },
    /// Changes in their order; all of one revision are together.
    Changes(Vec<Event>),
    /// Nothing has happened up to the header's revision that was not told.
    Progress,
}

/// Changes as they come. It goes on by itself, on any node, behind what it has told last.
#[derive(Debug)]
pub struct Watcher {
    tenant: Tenant,
    watch: Watch,
    stream: Option<(Streaming<WatchResponse>, std::sync::Arc<Node>)>,
    /// Everything up to here was told.
    token: Option<SessionToken>,
    header: Option<Header>,
    /// Events of a revision of which more is to come.
    partial: Vec<Event>,
    told: VecDeque<Told>,
    is_first_state: bool,
    again: Duration,
}

impl Tenant {
    /// Watches keys, from any replica, the nearest first. Every change comes once, in order, whatever becomes of nodes
    /// and connections meanwhile. It has begun when this returns: what is written from then on is told.
    ///
    /// # Errors
    ///
    /// As [`Watcher::next`]; or the last failure when the client's timeout was over.
    pub async fn watch(&self, watch: Watch) -> Result<Watcher, Error> {
        let deadline = self.client.inner().deadline(None);
        let mut watcher = self.watcher(watch);
        while watcher.header.is_none() {
            match tokio::time::timeout_at(deadline, watcher.step()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) if is_final(&error.kind) || Instant::now() >= deadline => return Err(error),
                Ok(Err(error)) => watcher.broke(&error).await,
                Err(_) => {
                    let message = "no node began the watch in time";
                    return Err(Error::new(ErrorKind::DeadlineExceeded, message));
                }
            }
        }
        Ok(watcher)
    }

    fn watcher(&self, watch: Watch) -> Watcher {
        let token = match watch.from {
            WatchFrom::Token(token) => Some(token),
            WatchFrom::Now | WatchFrom::After(_) | WatchFrom::State => None,
        };
        Watcher {
            tenant: self.clone(),
            watch,
            stream: None,
            token,
            header: None,
            partial: Vec::new(),
            told: VecDeque::new(),
            is_first_state: true,
            again: AGAIN_FIRST,
        }
    }
}

impl Watcher {
    /// Returns what has been told up to now: another watch, in another process, goes on from there.
    pub fn token(&self) -> Option<SessionToken> {
        self.token
    }

    /// Returns where the last message came from, and the revision up to which everything was told.
    pub fn header(&self) -> Option<&Header> {
        self.header.as_ref()
    }

    /// Waits for what is next. It may be dropped while it waits; nothing is lost.
    ///
    /// # Errors
    ///
    /// What watching again cannot change: history that is no longer kept (`Compacted`, with the oldest revision left),
    /// a promotion that cut what was told (`Forked`), a tenant that is gone, a request that is wrong.
    pub async fn next(&mut self) -> Result<Told, Error> {
        loop {
            if let Some(told) = self.told.pop_front() {
                return Ok(told);
            }
            match self.step().await {
                Ok(()) => {}
                Err(error) if is_final(&error.kind) => return Err(error),
                Err(error) => self.broke(&error).await,
            }
        }
    }

    /// Opens the stream, or takes its next message.
    async fn step(&mut self) -> Result<(), Error> {
        let Some((stream, node)) = &mut self.stream else {
            return self.open().await;
        };
        let silent = PROGRESS * SILENT_INTERVALS + SILENT_SLACK;
        let error = match timeout(silent, stream.message()).await {
            Ok(Ok(Some(message))) => return self.take(message),
            Ok(Ok(None)) => unavailable(&node.address, "ended the watch"),
            Ok(Err(status)) => failure::of(&status, &node.address).error().clone(),
            Err(_) => unavailable(&node.address, "has gone silent"),
        };
        node.failed();
        Err(error)
    }

    /// Forgets what was not told whole, and waits before it is asked for again.
    async fn broke(&mut self, error: &Error) {
        tracing::debug!(tenant = %self.tenant.name(), %error, "a watch is opened again");
        self.stream = None;
        self.partial.clear();
        self.is_first_state = true;
        sleep(self.tenant.client.inner().jitter(self.again)).await;
        self.again = (self.again * 2).min(AGAIN_MAX);
    }

    async fn open(&mut self) -> Result<(), Error> {
        let inner = self.tenant.client.inner();
        let nobody = || Error::new(ErrorKind::Unavailable, "the cluster names no node that takes calls");
        let node = inner.map.load().pick(Want::Nearest, &[]).ok_or_else(nobody)?;
        let create = WatchRequest {
            request: Some(v1::watch_request::Request::Create(self.create())),
        };
        // The request stays open: a caller that has said all it has to say may still listen.
        let requests = stream::iter([create]).chain(stream::pending());
        let mut client = KvServiceClient::new(node.watches.clone());
        let deadline = Instant::now() + inner.config.timeout;
        let opened = tokio::time::timeout_at(deadline, client.watch(requests)).await;
        match opened {
            Ok(Ok(answers)) => {
                self.stream = Some((answers.into_inner(), node));
                Ok(())
            }
            Ok(Err(status)) => {
                node.failed();
                Err(failure::of(&status, &node.address).error().clone())
            }
            Err(_) => {
                node.failed();
                Err(unavailable(&node.address, "did not answer in time"))
            }
        }
    }

    fn create(&self) -> WatchCreate {
        let from = match (self.token, self.watch.from) {
            (Some(token), _) => Some(Begin::ResumeToken(bytes::Bytes::copy_from_slice(&token.to_bytes()))),
            (None, WatchFrom::After(revision)) => {
                Some(Begin::AfterRevision(stead_api::convert::id::from_revision(revision)))
            }
            (None, WatchFrom::Now | WatchFrom::Token(_) | WatchFrom::State) => None,
        };
        WatchCreate {
            id: 1,
            tenant: self.tenant.text(),
            ranges: self.watch.ranges.iter().map(range).collect(),
            initial_state: self.watch.from == WatchFrom::State && self.token.is_none(),
            want_previous: self.watch.previous,
            exclude: self.watch.exclude.iter().map(|kind| kind.message().into()).collect(),
            progress_interval: Some(duration(PROGRESS)),
            from,
        }
    }

    fn take(&mut self, message: WatchResponse) -> Result<(), Error> {
        let response = message.response.ok_or_else(|| malformed("response"))?;
        if let Response::Ended(ended) = response {
            let error = ended.error.map(status::from_operation_error);
            return Err(error.unwrap_or_else(|| Error::new(ErrorKind::Unavailable, "the watch was cancelled")));
        }
        let header = Header::read(message.header)?;
        let told = match response {
            Response::Created(_) | Response::Ended(_) => None,
            Response::Progress(_) => Some(Told::Progress),
            Response::State(state) => Some(Told::State {
                items: state.items.into_iter().map(item).collect::<Result<_, _>>()?,
                is_first: std::mem::take(&mut self.is_first_state),
                is_last: !state.more,
            }),
            Response::Events(events) => {
                for event in events.events {
                    self.partial.push(Event::read(event)?);
                }
                (!events.more).then(|| Told::Changes(std::mem::take(&mut self.partial)))
            }
        };
        self.told.extend(told);
        if !message.resume_token.is_empty() {
            let token = SessionToken::from_bytes(&message.resume_token).map_err(|_| malformed("resume token"))?;
            self.token = Some(token);
        }
        self.tenant.session.saw(&header, false);
        self.header = Some(header);
        self.again = AGAIN_FIRST;
        Ok(())
    }
}

impl EventKind {
    fn message(self) -> v1::EventType {
        match self {
            Self::Put => v1::EventType::Put,
            Self::Delete => v1::EventType::Delete,
            Self::Expire => v1::EventType::Expire,
        }
    }
}

impl Event {
    fn read(event: v1::Event) -> Result<Self, Error> {
        let kind = match event.r#type() {
            v1::EventType::Put => EventKind::Put,
            v1::EventType::Delete => EventKind::Delete,
            v1::EventType::Expire => EventKind::Expire,
            v1::EventType::Unspecified => return Err(malformed("type of event")),
        };
        Ok(Self {
            kind,
            item: item(event.item.ok_or_else(|| malformed("key"))?)?,
            previous: event.previous.map(item).transpose()?,
        })
    }
}

fn range(range: &KeyRange) -> v1::KeyRange {
    v1::KeyRange {
        start: range.start.clone(),
        end: range.end.clone(),
        prefix: range.prefix.clone(),
    }
}

fn unavailable(address: &str, what: &str) -> Error {
    Error::new(ErrorKind::Unavailable, format!("{address} {what}"))
}

/// Tells whether watching again comes to the same.
pub(crate) fn is_final(kind: &ErrorKind) -> bool {
    match kind {
        ErrorKind::Invalid { .. }
        | ErrorKind::TenantNotFound
        | ErrorKind::NotFound
        | ErrorKind::AlreadyExists
        | ErrorKind::KeyNotFound
        | ErrorKind::Forked { .. }
        | ErrorKind::Compacted { .. }
        | ErrorKind::ConditionFailed { .. }
        | ErrorKind::QuotaExceeded { .. }
        | ErrorKind::Residency { .. }
        | ErrorKind::IdempotencyExpired { .. }
        | ErrorKind::IdempotencyKeyMissing
        | ErrorKind::Conflict
        | ErrorKind::Unimplemented => true,
        ErrorKind::NotHome { .. }
        | ErrorKind::NoLeader
        | ErrorKind::NoLease
        | ErrorKind::TenantMoving
        | ErrorKind::Unavailable
        | ErrorKind::OutcomeUnknown { .. }
        | ErrorKind::StaleBeyondBound { .. }
        | ErrorKind::RateLimited { .. }
        | ErrorKind::DurabilityUnmet { .. }
        | ErrorKind::DeadlineExceeded
        | ErrorKind::Internal => false,
    }
}
