//! One watch that is served here.

use std::{sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt, stream};
use stead_api::proto::v1::{
    ResponseHeader, Role, WatchCreated, WatchEvents, WatchProgress, WatchResponse, watch_response::Response,
};
use stead_state::shard::{
    answer::Evaluated,
    read::{Reading, Refused},
};
use stead_types::{
    Error, ErrorKind, GroupId, Revision, Sequence, TenantNumber,
    planted::{self, Bug},
};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::{
    Messages, Opening,
    ask::Ask,
    ended,
    events::{self, Place},
    hub::{BATCH_LEN_MAX, Batch, Hubs, Next, Subscription, is_active},
    state::Pages,
};
use crate::{
    admission::WatchPermit,
    host::{Host, Hosted},
    reply::{self, Origin, Seen},
    router::refused,
};

/// A watch and how far it is. It keeps nothing of what it reads: each message is made when its reader is ready for it.
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
    place: Place,
    stage: Stage,
    progress: Interval,
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

/// A message; none, where what was read is of no interest.
type Said = Result<Option<WatchResponse>, Error>;

impl Watcher {
    pub(super) fn new(
        (host, hosted): (Arc<Host>, Hosted),
        hub: (Arc<Hubs>, GroupId),
        (opening, permit): (Opening, WatchPermit),
        mut position: Revision,
    ) -> Self {
        let is_resumed = position.sequence() > Sequence::ZERO;
        if is_resumed && planted::is(Bug::WatchSkipsOne) {
            position = Revision::from_u64(position.to_u64() + 1);
        }
        if is_resumed && planted::is(Bug::WatchRepeatsOne) {
            position = Revision::from_u64(position.to_u64() - 1);
        }
        let mut progress = interval(opening.ask.progress);
        progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
        progress.reset();
        host.counts.watch_opened();
        Self {
            host,
            hosted,
            hub,
            id: opening.create.id,
            tenant: opening.tenant.number,
            _permit: permit,
            ask: opening.ask,
            is_forwarded: opening.came.is_some(),
            place: Place::behind(position),
            stage: Stage::New,
            progress,
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
            match self.step().await? {
                Ok(Some(message)) => return Some(message),
                Ok(None) => {}
                Err(error) => {
                    self.stage = Stage::Over;
                    return Some(ended(self.id, Some(&error)));
                }
            }
        }
    }

    /// Goes on; `None` behind the end.
    async fn step(&mut self) -> Option<Said> {
        Some(match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Over => return None,
            Stage::New => self.created(),
            Stage::State(pages) => self.state(pages),
            Stage::Behind => self.catch_up().await,
            Stage::AtHead(subscription) => self.follow(subscription).await,
        })
    }

    fn created(&mut self) -> Said {
        self.stage = if self.ask.initial_state {
            Stage::State(Pages::new(self.place.whole()))
        } else {
            Stage::Behind
        };
        let is_whole = !self.ask.initial_state;
        self.say(Response::Created(WatchCreated {}), is_whole)
    }

    fn state(&mut self, mut pages: Pages) -> Said {
        // A copy that was replaced by a longer one shows the same revision, or says that it has no history of it.
        let page = read(&self.hosted, self.tenant, |reading| {
            pages.next(&self.ask.ranges, reading)
        })?;
        let is_last = !page.more;
        self.stage = if is_last { Stage::Behind } else { Stage::State(pages) };
        self.say(Response::State(page), is_last)
    }

    /// Reads some history; at its end the hub goes on.
    async fn catch_up(&mut self) -> Said {
        if !is_active(&self.host.views, self.tenant) {
            return Err(disabled());
        }
        let (ask, mut place) = (&self.ask, self.place);
        let (events, is_all) = read(&self.hosted, self.tenant, |reading| {
            let found = reading.changes(place.whole(), Sequence::MAX, BATCH_LEN_MAX)?;
            let previous = |change: &_| reading.replaced_by(change).map_err(Refused::from);
            let events = events::message(ask, &mut place, &found.changes, previous)?;
            Ok((events, !found.more && place.whole() == found.next))
        })?;
        self.place = place;
        let (hubs, group) = &self.hub;
        let key = (*group, self.tenant);
        let subscription = is_all.then(|| hubs.subscribe(key, &self.hosted, place.whole()));
        self.stage = subscription.flatten().map_or(Stage::Behind, Stage::AtHead);
        self.told(events).await
    }

    /// Takes what the hub has read, or waits for it.
    async fn follow(&mut self, mut subscription: Subscription) -> Said {
        match subscription.behind(self.place.whole()) {
            Next::Batch(batch) => {
                let events = self.events(&batch)?;
                self.stage = Stage::AtHead(subscription);
                self.told(events).await
            }
            Next::Nothing => {
                let is_due = tokio::select! {
                    () = subscription.moved() => false,
                    _ = self.progress.tick() => true,
                };
                self.stage = Stage::AtHead(subscription);
                if is_due { self.progress() } else { Ok(None) }
            }
            Next::Gone => {
                self.stage = Stage::Behind;
                Ok(None)
            }
        }
    }

    fn events(&mut self, batch: &Batch) -> Result<Option<WatchEvents>, Error> {
        let previous = |change: &_| read(&self.hosted, self.tenant, |reading| Ok(reading.replaced_by(change)?));
        events::message(&self.ask, &mut self.place, &batch.changes, previous)
    }

    /// Says what has happened. After changes of no interest others have their turn, and a caller who hears nothing for
    /// long is told how far the watch is: else it would take the node for dead, and begin again.
    async fn told(&mut self, events: Option<WatchEvents>) -> Said {
        if let Some(events) = events {
            self.progress.reset();
            let is_whole = !events.more;
            return self.say(Response::Events(events), is_whole);
        }
        tokio::task::yield_now().await;
        match self.progress.tick().now_or_never() {
            Some(_) => self.progress(),
            None => Ok(None),
        }
    }

    /// Says how far a quiet watch is, unless its tenant is not served any more.
    fn progress(&mut self) -> Said {
        if !is_active(&self.host.views, self.tenant) {
            return Err(disabled());
        }
        self.say(Response::Progress(WatchProgress {}), true)
    }

    /// Makes a message; `is_whole`: the watch can be resumed behind it.
    fn say(&self, response: Response, is_whole: bool) -> Said {
        // It reads the machine itself, and a machine must not be read inside a reading of it.
        let staleness = self.hosted.freshness.measured(self.tenant);
        let header = read(&self.hosted, self.tenant, |reading| Ok(self.header(reading, staleness)))?;
        let resume_token = if is_whole {
            header.session_token.clone()
        } else {
            bytes::Bytes::new()
        };
        Ok(Some(WatchResponse {
            id: self.id,
            header: Some(header),
            resume_token,
            response: Some(response),
        }))
    }

    /// The staleness was measured before: it is that of a watch which has all that the copy has.
    fn header(&self, reading: &Reading<'_>, staleness: Option<Duration>) -> ResponseHeader {
        let (node, position) = (&self.host.config.node, self.place.whole());
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
            revision: position,
            at: Evaluated {
                revision: position,
                ..reading.evaluated()
            },
            staleness: staleness.filter(|_| position >= reading.state().revision),
        };
        reply::header(origin, seen)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.host.counts.watch_closed();
    }
}

fn disabled() -> Error {
    let message = "the tenant was disabled or deleted while it was watched";
    Error::new(ErrorKind::TenantNotFound, message)
}

/// Reads a copy that may have been replaced since it was read last.
fn read<T>(
    hosted: &Hosted,
    tenant: TenantNumber,
    read: impl FnOnce(&Reading<'_>) -> Result<T, Refused>,
) -> Result<T, Error> {
    hosted.readable(tenant, |reading| of_copy(reading, read))?
}

pub(super) fn of_copy<T>(
    reading: Option<Reading<'_>>,
    read: impl FnOnce(&Reading<'_>) -> Result<T, Refused>,
) -> Result<T, Error> {
    let resume = |why| Error::new(ErrorKind::TenantMoving, format!("{why}: resume the watch"));
    let reading = reading.ok_or_else(|| resume("the tenant is not held here any more"))?;
    read(&reading).map_err(|why| match why {
        Refused::NotReached { .. } => resume("the copy that is watched was replaced"),
        // A copy that was seeded meanwhile has less history than the home.
        Refused::Compacted { .. } if reading.record().owned().is_none() => {
            resume("the copy that is watched was replaced")
        }
        Refused::Compacted { .. } | Refused::Forked { .. } | Refused::Unreadable(_) => refused(why, "resume_token"),
    })
}
