//! Watches, which resume by themselves.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use stead_api::{
    convert::{key::tenant_time, read::duration},
    proto::v1::{
        self, WatchCreate, WatchRequest, WatchResponse, kv_service_client::KvServiceClient,
        watch_create::From as StartPosition, watch_response::Response,
    },
    status,
};
use stead_types::{Epoch, Error, ErrorKind, Revision, SessionToken, TenantTime};
use tokio::time::{Instant, sleep, timeout};
use tonic::Streaming;

use super::Tenant;
use crate::{
    Header, Item, KeyRange,
    cluster_map::NodePreference,
    failure,
    node::Node,
    response::{item, malformed},
};

/// First backoff before a broken watch is opened again, doubled.
const RETRY_WAIT_FIRST: Duration = Duration::from_millis(20);
const RETRY_WAIT_MAX: Duration = Duration::from_secs(2);
/// Progress intervals without a message after which the node is left for another one.
const SILENT_INTERVALS_MAX: u32 = 3;
/// Additional time before a silent node is left.
const SILENT_SLACK: Duration = Duration::from_secs(3);
/// Interval of the node's progress messages.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// Options of a watch.
#[derive(Clone, Debug, Default)]
pub struct WatchOptions {
    /// Ranges to watch; none: all keys.
    pub ranges: Vec<KeyRange>,
    /// Start position.
    pub from: WatchFrom,
    /// Whether events carry the key as it was before, while the retention still has it.
    pub previous: bool,
    /// Kinds of events to leave out.
    pub exclude: Vec<EventKind>,
}

/// Start position of a watch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WatchFrom {
    /// At the current revision.
    #[default]
    Now,
    /// After this revision, which a response has shown: the changes after a read.
    After(Revision),
    /// After the revision of a session token or of an earlier watch.
    Token(SessionToken),
    /// With all keys as of one revision, then the changes after it.
    State,
}

/// Kind of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// The key was put, incremented or appended to.
    Put,
    /// The key was deleted.
    Delete,
    /// The key expired.
    Expire,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Kind of the change.
    pub kind: EventKind,
    /// The key after the change. For a delete: its key and, as `modified`, the delete's revision.
    pub item: Item,
    /// The key before the change, if it was requested, existed and is still retained.
    pub previous: Option<Item>,
    /// Tenant time of the change; absent from nodes of earlier versions.
    pub time: Option<TenantTime>,
}

/// Message of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchMessage {
    /// Part of the initial state.
    State {
        /// Some of its keys.
        items: Vec<Item>,
        /// Whether this is the first part: everything reported before is void.
        is_first: bool,
        /// Whether this is the last part; changes follow.
        is_last: bool,
    },
    /// Changes in their order; all changes of one revision are in one message.
    Changes(Vec<Event>),
    /// Nothing has happened up to the header's revision that was not reported.
    Progress,
    /// A promotion has cut changes that were reported, or the start of the watch: those of these revisions are not part of
    /// the tenant's history. The watch goes on with what came after `kept` instead.
    Forked {
        /// Epoch that was cut.
        epoch: Epoch,
        /// First revision that was cut.
        first: Revision,
        /// Last revision that the watch had reached.
        last: Revision,
        /// Last revision that still counts.
        kept: Revision,
    },
}

/// Stream of watch messages. It resumes by itself, on any node, after the last message.
#[derive(Debug)]
pub struct Watcher {
    tenant: Tenant,
    watch: WatchOptions,
    stream: Option<(Streaming<WatchResponse>, Arc<Node>)>,
    /// Resume point: everything up to here was reported.
    token: Option<SessionToken>,
    header: Option<Header>,
    /// Events of a revision that is not complete yet.
    partial: Vec<Event>,
    pending: VecDeque<WatchMessage>,
    is_first_state: bool,
    retry_wait: Duration,
    /// Number of the token with which the stream was opened.
    token_generation: u64,
    /// Nodes whose watch failed since the last message.
    tried: Vec<Arc<Node>>,
}

impl Tenant {
    /// Watches keys, from any replica, the nearest first. Every change is reported once, in order, whatever fails
    /// meanwhile. The watch has begun when this returns: later writes are reported.
    ///
    /// # Errors
    ///
    /// As [`Watcher::next`]; or the last failure before the client's timeout.
    pub async fn watch(&self, watch: WatchOptions) -> Result<Watcher, Error> {
        let deadline = self.client.state().deadline(None);
        let mut watcher = self.watcher(watch);
        while watcher.header.is_none() {
            match tokio::time::timeout_at(deadline, watcher.step()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) if watcher.go_on_after_cut(&error.kind) => {}
                Ok(Err(error)) if is_final(&error.kind) || Instant::now() >= deadline => return Err(error),
                Ok(Err(error)) => watcher.reset(&error).await,
                Err(_) => {
                    let message = "no node began the watch in time";
                    return Err(Error::new(ErrorKind::DeadlineExceeded, message));
                }
            }
        }
        Ok(watcher)
    }

    fn watcher(&self, watch: WatchOptions) -> Watcher {
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
            pending: VecDeque::new(),
            is_first_state: true,
            retry_wait: RETRY_WAIT_FIRST,
            token_generation: 0,
            tried: Vec::new(),
        }
    }
}

impl Watcher {
    /// Returns the resume point: a session token from which another watch, in another process, continues.
    pub fn token(&self) -> Option<SessionToken> {
        self.token
    }

    /// Returns the metadata of the last message, with the revision up to which everything was reported.
    pub fn header(&self) -> Option<&Header> {
        self.header.as_ref()
    }

    /// Waits for the next message. Cancel-safe.
    ///
    /// # Errors
    ///
    /// An error that watching again cannot change: history that is no longer retained (`Compacted`, with the oldest
    /// revision left), a deleted tenant, an invalid request.
    pub async fn next(&mut self) -> Result<WatchMessage, Error> {
        loop {
            if let Some(pending) = self.pending.pop_front() {
                return Ok(pending);
            }
            match self.step().await {
                Ok(()) => {}
                Err(error) if self.go_on_after_cut(&error.kind) => {}
                Err(error) if is_final(&error.kind) && !self.may_go_on_with_next_token(&error.kind) => {
                    return Err(error);
                }
                Err(error) => self.reset(&error).await,
            }
        }
    }

    /// Opens the stream, or handles its next message.
    async fn step(&mut self) -> Result<(), Error> {
        let Some((stream, node)) = &mut self.stream else {
            return self.open().await;
        };
        let silent = PROGRESS_INTERVAL * SILENT_INTERVALS_MAX + SILENT_SLACK;
        let error = match timeout(silent, stream.message()).await {
            Ok(Ok(Some(message))) => return self.handle_message(message),
            Ok(Ok(None)) => unavailable(&node.address, "ended the watch"),
            Ok(Err(status)) => failure::of(&status, &node.address).error().clone(),
            Err(_) => unavailable(&node.address, "has gone silent"),
        };
        node.mark_failed();
        Err(error)
    }

    /// Goes on after the last revision that a promotion has kept, and tells the caller, if that is why the watch has ended;
    /// tells whether it is. Nodes of earlier versions do not say how far that is.
    fn go_on_after_cut(&mut self, kind: &ErrorKind) -> bool {
        let ErrorKind::Forked {
            epoch,
            first,
            last,
            kept,
        } = *kind
        else {
            return false;
        };
        if kept == Revision::ZERO && first.sequence().get() > 1 {
            return false;
        }
        match (&mut self.token, self.watch.from) {
            (Some(token), _) if token.revision != kept => token.revision = kept,
            (None, WatchFrom::After(after)) if after != kept => self.watch.from = WatchFrom::After(kept),
            // It would be answered the same again.
            (Some(_), _) | (None, _) => return false,
        }
        self.stream = None;
        self.partial.clear();
        self.is_first_state = true;
        self.tenant.session.replace_cut(last, kept);
        self.pending.push_back(WatchMessage::Forked {
            epoch,
            first,
            last,
            kept,
        });
        true
    }

    /// Tells whether the token has ended with which the watch was opened, and there is another one.
    fn may_go_on_with_next_token(&self, kind: &ErrorKind) -> bool {
        let newest = self.tenant.client.state().config.token.generation();
        *kind == ErrorKind::Unauthenticated && newest > self.token_generation
    }

    /// Drops the stream and incomplete revisions, and waits for the backoff.
    async fn reset(&mut self, error: &Error) {
        tracing::debug!(tenant = %self.tenant.name(), %error, "watch failed, reopening it");
        self.tried.extend(self.stream.take().map(|(_, node)| node));
        self.partial.clear();
        self.is_first_state = true;
        sleep(self.tenant.client.state().jitter(self.retry_wait)).await;
        self.retry_wait = (self.retry_wait * 2).min(RETRY_WAIT_MAX);
    }

    async fn open(&mut self) -> Result<(), Error> {
        let state = self.tenant.client.state();
        self.token_generation = state.config.token.generation();
        // One that has ended the watch, or did not begin it, is asked again only after all others.
        let node = match state.pick(NodePreference::Nearest, &self.tried) {
            Ok(node) => node,
            Err(_) => {
                self.tried.clear();
                state.pick(NodePreference::Nearest, &[])?
            }
        };
        let create = WatchRequest {
            request: Some(v1::watch_request::Request::Create(self.create_request())),
        };
        // The request stream stays open: ending it would end the watch.
        let requests = stream::iter([create]).chain(stream::pending());
        let mut client = KvServiceClient::new(node.watches.clone());
        let deadline = state.deadline(None);
        let opened = tokio::time::timeout_at(deadline, client.watch(requests)).await;
        match opened {
            Ok(Ok(answers)) => {
                self.stream = Some((answers.into_inner(), node));
                Ok(())
            }
            Ok(Err(status)) => {
                node.mark_failed();
                let error = failure::of(&status, &node.address).error().clone();
                self.tried.push(node);
                Err(error)
            }
            Err(_) => {
                node.mark_failed();
                let error = unavailable(&node.address, "did not answer in time");
                self.tried.push(node);
                Err(error)
            }
        }
    }

    fn create_request(&self) -> WatchCreate {
        let from = match (self.token, self.watch.from) {
            (Some(token), _) => Some(StartPosition::ResumeToken(bytes::Bytes::copy_from_slice(
                &token.to_bytes(),
            ))),
            (None, WatchFrom::After(revision)) => Some(StartPosition::AfterRevision(
                stead_api::convert::id::from_revision(revision),
            )),
            (None, WatchFrom::Now | WatchFrom::Token(_) | WatchFrom::State) => None,
        };
        WatchCreate {
            id: 1,
            tenant: self.tenant.text(),
            ranges: self.watch.ranges.iter().map(range).collect(),
            initial_state: self.watch.from == WatchFrom::State && self.token.is_none(),
            want_previous: self.watch.previous,
            exclude: self.watch.exclude.iter().map(|kind| kind.message().into()).collect(),
            progress_interval: Some(duration(PROGRESS_INTERVAL)),
            from,
        }
    }

    fn handle_message(&mut self, message: WatchResponse) -> Result<(), Error> {
        let response = message.response.ok_or_else(|| malformed("response"))?;
        if let Response::Ended(ended) = response {
            let error = ended.error.map(status::from_operation_error);
            return Err(error.unwrap_or_else(|| Error::new(ErrorKind::Unavailable, "the watch was cancelled")));
        }
        let header = Header::read(message.header)?;
        let pending = match response {
            Response::Created(_) | Response::Ended(_) => None,
            Response::Progress(_) => Some(WatchMessage::Progress),
            Response::State(state) => Some(WatchMessage::State {
                items: state.items.into_iter().map(item).collect::<Result<_, _>>()?,
                is_first: std::mem::take(&mut self.is_first_state),
                is_last: !state.more,
            }),
            Response::Events(events) => {
                for event in events.events {
                    self.partial.push(Event::read(event)?);
                }
                (!events.more).then(|| WatchMessage::Changes(std::mem::take(&mut self.partial)))
            }
        };
        self.pending.extend(pending);
        if !message.resume_token.is_empty() {
            let token = SessionToken::from_bytes(&message.resume_token).map_err(|_| malformed("resume token"))?;
            self.token = Some(token);
        }
        self.tenant.session.observe(&header, false);
        self.header = Some(header);
        // A node that only begins a watch may end it at once.
        if !self.pending.is_empty() {
            self.tried.clear();
        }
        self.retry_wait = RETRY_WAIT_FIRST;
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
            time: event.time.map(tenant_time),
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

/// Tells whether an error is permanent, so that watching again would fail alike.
pub(crate) fn is_final(kind: &ErrorKind) -> bool {
    match kind {
        ErrorKind::Invalid { .. }
        | ErrorKind::Unauthenticated
        | ErrorKind::PermissionDenied
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
        | ErrorKind::NotCancellable
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
