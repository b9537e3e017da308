//! One watch that is served here.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use stead_api::proto::v1::{
    ResponseHeader, Role, WatchCreated, WatchProgress, WatchResponse, watch_response::Response,
};
use stead_state::{
    directory::State as TenantState,
    rows::change::Change,
    shard::{
        Shard,
        read::{Reading, Refused},
    },
};
use stead_types::{Error, ErrorKind, GroupId, Revision, Sequence, TenantNumber};
use tokio::{
    sync::broadcast::error::RecvError,
    time::{Interval, MissedTickBehavior, interval},
};

use super::{
    Messages, Opening,
    ask::Ask,
    ended, events,
    hub::{BATCH_LEN_MAX, Batch, Hubs, Subscription},
    state::Pages,
};
use crate::{
    admission::WatchPermit,
    host::{Host, Hosted},
    reply::{self, Origin, Seen},
    router::refused,
};

/// A watch and how far it is.
pub(super) struct Watcher {
    host: Arc<Host>,
    hosted: Hosted,
    hub: (Arc<Hubs>, GroupId),
    id: u64,
    tenant: TenantNumber,
    /// Counts it among its tenant's watches at this node.
    _permit: WatchPermit,
    ask: Ask,
    is_forwarded: bool,
    /// Everything up to here was sent, or is queued.
    position: Revision,
    stage: Stage,
    progress: Interval,
    queue: VecDeque<WatchResponse>,
}

enum Stage {
    /// Nothing was said yet.
    New,
    /// Keys are being sent.
    State(Pages),
    /// Changes are read from history.
    Behind,
    /// Changes come from the hub.
    AtHead(Subscription),
    Over,
}

impl Watcher {
    pub(super) fn new(
        (host, hosted): (Arc<Host>, Hosted),
        hub: (Arc<Hubs>, GroupId),
        (opening, permit): (Opening, WatchPermit),
        position: Revision,
    ) -> Self {
        let mut progress = interval(opening.ask.progress);
        progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
        progress.reset();
        Self {
            host,
            hosted,
            hub,
            id: opening.create.id,
            tenant: opening.tenant.number,
            _permit: permit,
            ask: opening.ask,
            is_forwarded: opening.came.is_some(),
            position,
            stage: Stage::New,
            progress,
            queue: VecDeque::new(),
        }
    }

    /// Returns its messages; it goes on only while they are read.
    pub(super) fn into_messages(self) -> Messages {
        let messages = stream::unfold(self, |mut watcher| async move {
            let message = watcher.next().await?;
            Some((message, watcher))
        });
        messages.boxed()
    }

    async fn next(&mut self) -> Option<WatchResponse> {
        loop {
            if let Some(message) = self.queue.pop_front() {
                return Some(message);
            }
            if let Err(error) = self.step().await? {
                self.stage = Stage::Over;
                self.queue.push_back(ended(self.id, Some(&error)));
            }
        }
    }

    /// Queues what comes next; `None` behind the end.
    async fn step(&mut self) -> Option<Result<(), Error>> {
        Some(match &mut self.stage {
            Stage::Over => return None,
            Stage::New => self.created(),
            Stage::State(_) => self.state(),
            Stage::Behind => self.catch_up(),
            Stage::AtHead(subscription) => {
                tokio::select! {
                    batch = subscription.batches.recv() => self.take(batch),
                    _ = self.progress.tick() => self.progress(),
                }
            }
        })
    }

    fn created(&mut self) -> Result<(), Error> {
        self.stage = if self.ask.initial_state {
            Stage::State(Pages::new(self.position))
        } else {
            Stage::Behind
        };
        let token = !self.ask.initial_state;
        self.say(Response::Created(WatchCreated {}), token)
    }

    fn state(&mut self) -> Result<(), Error> {
        let (ask, position) = (&self.ask, self.position);
        let Stage::State(pages) = &mut self.stage else {
            return Ok(());
        };
        let page = read(&self.hosted, self.tenant, |reading| {
            // A copy that was replaced by a longer one shows the same revision, or says that it has no history of it.
            reading.can_start(position)?;
            pages.next(&ask.ranges, reading)
        })?;
        let is_last = !page.more;
        if is_last {
            self.stage = Stage::Behind;
        }
        self.say(Response::State(page), is_last)
    }

    /// Reads history up to where the hub is, then goes over to it.
    fn catch_up(&mut self) -> Result<(), Error> {
        let now = read(&self.hosted, self.tenant, |reading| {
            reading.can_start(self.position)?;
            Ok(reading.state().revision)
        })?;
        let (hubs, group) = &self.hub;
        let subscription = hubs.subscribe((*group, self.tenant), &self.hosted, now);
        if self.position < subscription.head {
            self.read_history(subscription.head.sequence())?;
        }
        // Whoever is still further behind subscribes anew, so that the hub does not keep batches for it in vain.
        if self.position >= subscription.head {
            self.stage = Stage::AtHead(subscription);
        }
        Ok(())
    }

    fn read_history(&mut self, up_to: Sequence) -> Result<(), Error> {
        let (ask, position) = (&self.ask, self.position);
        let (messages, next) = read(&self.hosted, self.tenant, |reading| {
            let found = reading.changes(position, up_to, BATCH_LEN_MAX)?;
            let messages = events::messages(ask, found.changes.iter(), Some(reading))?;
            Ok((messages, found.next))
        })?;
        self.send(messages, next)
    }

    /// Takes what the hub has read.
    fn take(&mut self, batch: Result<Arc<Batch>, RecvError>) -> Result<(), Error> {
        let Ok(batch) = batch else {
            // Too slow for the hub, or the hub has ended: history tells which, and what that means.
            self.stage = Stage::Behind;
            return Ok(());
        };
        let (ask, position) = (&self.ask, self.position);
        let new = |change: &&Change| change.revision > position;
        let changes = || batch.changes.iter().filter(new);
        let messages = if ask.previous && changes().any(|change| ask.ranges.contains(&change.key)) {
            read(&self.hosted, self.tenant, |reading| {
                Ok(events::messages(ask, changes(), Some(reading))?)
            })?
        } else {
            events::messages(ask, changes(), None).map_err(|unreadable| failed(Refused::from(unreadable)))?
        };
        self.send(messages, batch.next.max(position))
    }

    fn send(&mut self, messages: Vec<events::Message>, next: Revision) -> Result<(), Error> {
        let count = messages.len();
        for (place, message) in messages.into_iter().enumerate() {
            // The last message of a batch speaks for the changes behind its events too, which are not of interest.
            let is_last = place + 1 == count;
            self.position = if is_last { next } else { message.revision };
            let is_whole = !message.events.more;
            self.say(Response::Events(message.events), is_whole)?;
            self.progress.reset();
        }
        self.position = next;
        Ok(())
    }

    /// Says how far a quiet watch is, unless its tenant is not served any more.
    fn progress(&mut self) -> Result<(), Error> {
        let is_active = self.host.views.read(|view| {
            view.tenant(self.tenant)
                .is_some_and(|tenant| tenant.state == TenantState::Active)
        });
        if !is_active {
            let message = "the tenant was disabled or deleted while it was watched";
            return Err(Error::new(ErrorKind::TenantNotFound, message));
        }
        self.say(Response::Progress(WatchProgress {}), true)
    }

    /// Queues a message; `is_whole`: the watch can be resumed behind it.
    fn say(&mut self, response: Response, is_whole: bool) -> Result<(), Error> {
        // It reads the machine itself, and a machine must not be read inside a reading of it.
        let staleness = self.hosted.freshness.staleness(self.tenant);
        let header = read(&self.hosted, self.tenant, |reading| Ok(self.header(reading, staleness)))?;
        let resume_token = if is_whole {
            header.session_token.clone()
        } else {
            bytes::Bytes::new()
        };
        self.queue.push_back(WatchResponse {
            id: self.id,
            header: Some(header),
            resume_token,
            response: Some(response),
        });
        Ok(())
    }

    fn header(&self, reading: &Reading<'_>, staleness: Option<Duration>) -> ResponseHeader {
        let node = &self.host.config.node;
        let role = if reading.record().owned().is_some() {
            Role::Home
        } else {
            Role::Follower
        };
        let origin = Origin {
            region: &node.region,
            node: node.id,
            role,
            forwarded: self.is_forwarded,
        };
        let seen = Seen {
            tenant: self.tenant,
            revision: self.position,
            token: self.position,
            time: reading.state().time,
            staleness,
        };
        reply::header(origin, seen)
    }
}

/// Reads a copy that may have been replaced since it was read last.
fn read<T>(
    hosted: &Hosted,
    tenant: TenantNumber,
    read: impl FnOnce(&Reading<'_>) -> Result<T, Refused>,
) -> Result<T, Error> {
    hosted.reading(tenant, |reading| {
        let reading = reading.filter(|reading| Shard::is_readable(reading.record()));
        let gone = || {
            Error::new(
                ErrorKind::TenantMoving,
                "the tenant is not held here any more: resume the watch",
            )
        };
        read(&reading.ok_or_else(gone)?).map_err(failed)
    })
}

fn failed(why: Refused) -> Error {
    match why {
        // The copy was replaced by one that has not come as far.
        Refused::NotReached { .. } => {
            let message = "the copy that is watched was replaced: resume the watch";
            Error::new(ErrorKind::TenantMoving, message)
        }
        Refused::Compacted { .. } | Refused::Forked { .. } | Refused::Unreadable(_) => refused(why, "resume_token"),
    }
}
