//! A watch that this node serves.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, stream};
use stead_api::proto::v1::{
    ResponseHeader, Role, WatchCreated, WatchEvents, WatchProgress, WatchResponse, watch_response::Response,
};
use stead_state::{
    directory::Tenant,
    freshness::gate,
    shard::{
        apply_result::EvaluationPoint,
        read::{ReadError, TenantReader},
    },
};
use stead_types::{
    Error, ErrorKind, GroupId, Revision, Sequence, TenantNumber,
    planted::{self, Bug},
};
use tokio::{
    sync::watch,
    time::{Instant, Interval, MissedTickBehavior, interval},
};

use super::{
    Messages, ResolvedWatch, ended,
    events::{self, WatchCursor},
    history::SharedHistory,
    hub::{Batch, Hubs, NextBatch, Subscription, is_tenant_active},
    initial_state::{StatePage, StatePages},
    remote_need::RemoteNeed,
    spec::WatchSpec,
};
use crate::{
    admission::WatchPermit,
    auth::Access,
    host::{Host, HostedGroup},
    response::{self, HeaderPosition, Origin},
    router::read_error,
};

/// A watch and its cursor. It keeps nothing of what it reads: each message is made when its reader is ready for it.
pub(super) struct Watcher {
    context: WatcherContext,
    id: u64,
    tenant: TenantNumber,
    /// Counts it among its tenant's watches at this node.
    permit: WatchPermit,
    spec: WatchSpec,
    access: Access,
    is_forwarded: bool,
    cursor: WatchCursor,
    /// Revision up to which messages were made.
    shown: Revision,
    stage: Stage,
    progress: Interval,
    /// Whether this node is in contact with the group.
    connected: watch::Receiver<bool>,
    /// Resume token of the last message that had one.
    token: Bytes,
}

/// Node, group and hubs from which a watcher reads.
pub(super) struct WatcherContext {
    /// The node.
    pub(super) host: Arc<Host>,
    /// The group that holds the copy.
    pub(super) hosted: HostedGroup,
    /// The hubs of the node.
    pub(super) hubs: Arc<Hubs>,
    /// History that was read last.
    pub(super) history: Arc<SharedHistory>,
    /// The group's id.
    pub(super) group: GroupId,
}

enum Stage {
    /// Nothing was sent yet.
    New,
    /// The initial state is being sent.
    State(StatePages),
    /// Changes are read from history.
    CatchingUp,
    /// Changes come from the hub.
    Following(Subscription),
    Over,
}

/// Longest time for which a watch does not start because no other region has confirmed where it begins.
const REMOTE_START_WAIT: Duration = Duration::from_secs(10);
/// Longest single wait for another region; progress is due long before.
const REMOTE_WAIT_MAX: Duration = Duration::from_secs(3600);

/// Longest wait between two pages of an initial state: a caller that gets no message for long would take the node for
/// dead, and start again.
const STATE_WAIT_MAX: Duration = Duration::from_secs(5);

fn unconfirmed_start() -> Error {
    let message = "no other region has confirmed the tenant's last changes, with which the watch begins: try again";
    Error::new(ErrorKind::Unavailable, message)
}

/// Result of one step: a message, or none if all changes were filtered.
type WatchStep = Result<Option<WatchResponse>, Error>;

impl Watcher {
    pub(super) fn new(
        context: WatcherContext,
        watch: ResolvedWatch,
        permit: WatchPermit,
        mut position: Revision,
    ) -> Self {
        let is_resumed = position.sequence() > Sequence::ZERO;
        if is_resumed && planted::is(Bug::WatchSkipsOne) {
            position = Revision::from_u64(position.to_u64() + 1);
        }
        if is_resumed && planted::is(Bug::WatchRepeatsOne) {
            position = Revision::from_u64(position.to_u64() - 1);
        }
        let mut progress = interval(watch.spec.progress_interval);
        progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
        progress.reset();
        context.host.metrics.watch_opened();
        Self {
            connected: context.hosted.raft.watch_connected(),
            token: Bytes::new(),
            context,
            id: watch.create.id,
            tenant: watch.tenant.number,
            permit,
            spec: watch.spec,
            access: watch.access,
            is_forwarded: watch.forwarded_by.is_some(),
            cursor: WatchCursor::after(position),
            shown: position,
            stage: Stage::New,
            progress,
        }
    }

    /// Returns its messages; it makes progress only while they are read.
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
                Ok(Some(message)) => {
                    if !message.resume_token.is_empty() {
                        self.token = message.resume_token.clone();
                    }
                    return Some(message);
                }
                Ok(None) => {}
                Err(error) => {
                    self.stage = Stage::Over;
                    return Some(WatchResponse {
                        resume_token: self.token.clone(),
                        ..ended(self.id, Some(&error))
                    });
                }
            }
        }
    }

    /// Makes one step; `None` after the end.
    async fn step(&mut self) -> Option<WatchStep> {
        Some(match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Over => return None,
            Stage::New => self.created().await,
            Stage::State(pages) => self.state(pages).await,
            Stage::CatchingUp => self.catch_up().await,
            Stage::Following(subscription) => self.follow(subscription).await,
        })
    }

    async fn created(&mut self) -> WatchStep {
        let view = self.context.host.directory_view.clone();
        let (group, tenant) = (self.context.group, self.tenant);
        let need = read(&self.context.hosted, tenant, |reading| {
            Ok(RemoteNeed::of(&view, group, tenant, reading))
        })?;
        need.wait(&self.context.hosted, tenant, Instant::now() + REMOTE_START_WAIT)
            .await
            .and_then(|is_confirmed| is_confirmed.then_some(()).ok_or_else(unconfirmed_start))?;
        self.stage = if self.spec.initial_state {
            Stage::State(StatePages::new(self.cursor.revision()))
        } else {
            Stage::CatchingUp
        };
        let is_complete = !self.spec.initial_state;
        self.message(Response::Created(WatchCreated {}), is_complete)
    }

    async fn state(&mut self, mut pages: StatePages) -> WatchStep {
        let hosted = &self.context.hosted;
        // A copy that was replaced by a longer one shows the same revision, or reports that it has no history of it.
        let StatePage { state, len } = read(hosted, self.tenant, |reading| {
            pages.next(&self.spec.ranges, |scan| hosted.machine.scan(reading, scan))
        })?;
        // Reading costs the tenant its rate: the next page waits for it.
        if let Some(wait) = self.permit.charge(Instant::now(), len) {
            tokio::time::sleep(wait.min(STATE_WAIT_MAX)).await;
        }
        let is_last = !state.more;
        self.stage = if is_last {
            Stage::CatchingUp
        } else {
            Stage::State(pages)
        };
        self.message(Response::State(state), is_last)
    }

    /// Reads a part of the history, and subscribes to the hub at its end.
    async fn catch_up(&mut self) -> WatchStep {
        if !is_tenant_active(&self.context.host.directory_view, self.tenant) {
            return Err(tenant_disabled());
        }
        let (spec, mut cursor, history) = (&self.spec, self.cursor, &self.context.history);
        let (view, group, tenant) = (&self.context.host.directory_view, self.context.group, self.tenant);
        let (events, is_at_head, need) = read(&self.context.hosted, tenant, |reading| {
            let page = history.page_after((group, tenant), cursor.revision(), reading)?;
            let previous = |change: &_| reading.replaced_version(change).map_err(ReadError::from);
            let events = events::next_message(spec, &mut cursor, &page.batch.changes, previous)?;
            let is_at_head = !page.more && cursor.revision() == page.batch.next;
            Ok((events, is_at_head, RemoteNeed::of(view, group, tenant, reading)))
        })?;
        if !self.confirm(need).await? {
            self.stage = Stage::CatchingUp;
            return self.progress();
        }
        self.cursor = cursor;
        let WatcherContext {
            hosted, hubs, group, ..
        } = &self.context;
        let key = (*group, self.tenant);
        let subscription = is_at_head.then(|| hubs.subscribe(key, hosted, cursor.revision()));
        self.stage = subscription.flatten().map_or(Stage::CatchingUp, Stage::Following);
        self.emit(events).await
    }

    /// Takes the next batch of the hub, or waits for one.
    async fn follow(&mut self, mut subscription: Subscription) -> WatchStep {
        match subscription.batch_after(self.cursor.revision()) {
            NextBatch::Batch(batch) => {
                let (view, group, tenant) = (&self.context.host.directory_view, self.context.group, self.tenant);
                let need = read(&self.context.hosted, tenant, |reading| {
                    Ok(RemoteNeed::of(view, group, tenant, reading))
                })?;
                if !self.confirm(need).await? {
                    self.stage = Stage::Following(subscription);
                    return self.progress();
                }
                let events = self.events(&batch)?;
                self.stage = Stage::Following(subscription);
                self.emit(events).await
            }
            NextBatch::UpToDate => {
                let is_due = tokio::select! {
                    () = subscription.changed() => false,
                    _ = self.progress.tick() => true,
                    // Progress from a copy that nothing reaches any more would say that nothing happens.
                    Ok(_) = self.connected.wait_for(|connected| !connected) => {
                        return Err(no_contact(self.context.group));
                    }
                };
                self.stage = Stage::Following(subscription);
                if is_due { self.progress() } else { Ok(None) }
            }
            NextBatch::Evicted => {
                self.stage = Stage::CatchingUp;
                Ok(None)
            }
        }
    }

    /// Waits until another region has what is to be shown, where it must; false if progress is due before.
    async fn confirm(&mut self, need: RemoteNeed) -> Result<bool, Error> {
        let hosted = &self.context.hosted;
        tokio::select! {
            biased;
            is_confirmed = need.wait(hosted, self.tenant, Instant::now() + REMOTE_WAIT_MAX) => is_confirmed,
            _ = self.progress.tick() => Ok(false),
            Ok(_) = self.connected.wait_for(|connected| !connected) => Err(no_contact(self.context.group)),
        }
    }

    fn events(&mut self, batch: &Batch) -> Result<Option<WatchEvents>, Error> {
        let previous = |change: &_| {
            read(&self.context.hosted, self.tenant, |reading| {
                Ok(reading.replaced_version(change)?)
            })
        };
        events::next_message(&self.spec, &mut self.cursor, &batch.changes, previous)
    }

    /// Makes the message of events, if there are any. After filtered changes it yields to other tasks, and sends
    /// progress if it is due: a caller that gets no message for long would take the node for dead, and start again.
    async fn emit(&mut self, events: Option<WatchEvents>) -> WatchStep {
        if let Some(events) = events {
            self.progress.reset();
            let is_complete = !events.more;
            return self.message(Response::Events(events), is_complete);
        }
        tokio::task::yield_now().await;
        match self.progress.tick().now_or_never() {
            Some(_) => self.progress(),
            None => Ok(None),
        }
    }

    /// Makes a progress message, unless the tenant is no longer active.
    fn progress(&mut self) -> WatchStep {
        if !is_tenant_active(&self.context.host.directory_view, self.tenant) {
            return Err(tenant_disabled());
        }
        self.message(Response::Progress(WatchProgress {}), true)
    }

    /// Makes a message; `is_complete`: the watch can be resumed after it.
    fn message(&mut self, response: Response, is_complete: bool) -> WatchStep {
        // A role may have been taken away, or a token may have ended, since the message before.
        self.spec.check_access(&self.access)?;
        let (shown, next) = (self.shown, self.cursor.revision());
        self.context.host.directory_view.read(|view| {
            let tenant = view.tenant(self.tenant);
            tenant.map_or(Ok(()), |tenant| check_kept(shown, next, tenant))
        })?;
        self.shown = next;
        // Measured first: it reads the machine, which must not be read inside another read of it.
        let staleness = self.context.hosted.freshness.peek_staleness(self.tenant);
        let header = read(&self.context.hosted, self.tenant, |reading| {
            Ok(self.header(reading, staleness))
        })?;
        let resume_token = if is_complete {
            header.session_token.clone()
        } else {
            Bytes::new()
        };
        Ok(Some(WatchResponse {
            id: self.id,
            header: Some(header),
            resume_token,
            response: Some(response),
        }))
    }

    /// Returns the header. The staleness was measured before, and applies if the watch has all that the copy has.
    fn header(&self, reading: &TenantReader<'_>, staleness: Option<Duration>) -> ResponseHeader {
        let (node, position) = (&self.context.host.config.node, self.cursor.revision());
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
        let tenant_position = HeaderPosition {
            tenant: self.tenant,
            revision: position,
            at: EvaluationPoint {
                revision: position,
                ..reading.evaluation_point()
            },
            staleness: staleness.filter(|_| position >= reading.state().revision),
        };
        response::header(origin, tenant_position)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.context.host.metrics.watch_closed();
    }
}

/// Returns the error of a watch at a node that has lost contact with its group.
pub(super) fn no_contact(group: GroupId) -> Error {
    let message =
        format!("this node has no contact with the majority of group {group}: resume the watch at another one");
    Error::new(ErrorKind::NoLeader, message)
}

/// Checks that a promotion has cut neither what a watch has shown nor what it is to show next, as far as the directory
/// view knows: the copy may not have been rewound yet.
///
/// # Errors
///
/// `FORKED` where it has shown something that was cut. Where only the copy goes on with what was cut, another copy has
/// the changes that follow.
fn check_kept(shown: Revision, next: Revision, tenant: &Tenant) -> Result<(), Error> {
    if gate::is_cut(shown, tenant) {
        return gate::check_revision(shown, tenant);
    }
    if gate::is_cut(next, tenant) {
        let message = "the copy that is watched goes on with changes that a promotion cut: resume the watch";
        return Err(Error::new(ErrorKind::TenantMoving, message));
    }
    Ok(())
}

fn tenant_disabled() -> Error {
    let message = "the tenant was disabled or deleted while it was watched";
    Error::new(ErrorKind::TenantNotFound, message)
}

/// Reads a copy, which may have been replaced since it was read last.
fn read<T>(
    hosted: &HostedGroup,
    tenant: TenantNumber,
    read: impl FnOnce(&TenantReader<'_>) -> Result<T, ReadError>,
) -> Result<T, Error> {
    hosted.read_if_readable(tenant, |reading| read_copy(reading, read))?
}

pub(super) fn read_copy<T>(
    reading: Option<TenantReader<'_>>,
    read: impl FnOnce(&TenantReader<'_>) -> Result<T, ReadError>,
) -> Result<T, Error> {
    let resume = |why| Error::new(ErrorKind::TenantMoving, format!("{why}: resume the watch"));
    let reading = reading.ok_or_else(|| resume("this node no longer has the tenant"))?;
    read(&reading).map_err(|why| match why {
        ReadError::NotReached { .. } => resume("the copy that is watched was replaced"),
        // A copy that was seeded meanwhile has less history than the home.
        ReadError::Compacted { .. } if reading.record().owned().is_none() => {
            resume("the copy that is watched does not hold the changes after the watch's position any more")
        }
        ReadError::Compacted { .. } | ReadError::Forked(_) | ReadError::Unreadable(_) => {
            read_error(why, "resume_token")
        }
    })
}

#[cfg(test)]
mod tests {
    use stead_types::Epoch;

    use super::*;
    use crate::tenant_fixture;

    #[test]
    fn watch_shows_nothing_that_was_cut_and_learns_what_it_has_shown_of_it() {
        let epoch = |number| Epoch::new(number).unwrap();
        let mut tenant = tenant_fixture::tenant(5, &[]);
        let check = |shown: &str, next: &str, tenant: &_| {
            check_kept(shown.parse().unwrap(), next.parse().unwrap(), tenant).map_err(|error| error.kind)
        };
        assert_eq!(check("1.12", "1.14", &tenant), Ok(()));
        tenant.epoch = epoch(2);
        tenant.lineage.record_promotion(epoch(2), Sequence::new(10).unwrap());
        assert_eq!(check("1.9", "1.10", &tenant), Ok(()));
        assert_eq!(check("1.10", "2.11", &tenant), Ok(()), "it goes on at the new home");
        assert_eq!(check("1.9", "1.11", &tenant), Err(ErrorKind::TenantMoving));
        let (first, last) = ("1.11".parse().unwrap(), "1.12".parse().unwrap());
        let forked = ErrorKind::Forked {
            epoch: Epoch::FIRST,
            first,
            last,
            kept: "1.10".parse().unwrap(),
        };
        assert_eq!(check("1.12", "1.12", &tenant), Err(forked));
    }
}
