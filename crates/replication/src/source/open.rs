//! Opening of a stream: leadership is confirmed, the follower lists its tenants, and the sessions of attached tenants
//! are resumed.
//!
//! # Invariants
//!
//! 1. A tenant that is not listed as attached is not attached; the listing is in force with its last page.
//! 2. A tenant that is listed as attached and that the stream cannot cover is refused: the follower must not go on
//!    believing that it is attached.
//! 3. A stream of the same incarnation is resumed, whatever is left of the feed: where the feed does not show any more
//!    which tenants changed after the follower's offset, everything after each tenant's own position is sent before the
//!    offset moves.

use std::{collections::BTreeMap, sync::Arc};

use stead_api::proto::internal::v1::{FeedListing, FeedOpen, FeedOpened, FeedRefused, feed_refused::Reason};
use stead_state::{lineage::RevisionStatus, rows::Unreadable, shard::record::TenantRecord};
use stead_types::{
    FeedOffset, GroupId, Revision, TenantNumber,
    planted::{self, Bug},
};
use tokio::time::timeout;
use tonic::{Status, Streaming};

use super::{
    pending_entries::PendingEntries,
    sessions::{ChangeRange, SourceSessions},
    stream::FeedSource,
};
use crate::{
    acknowledgements::StreamOpening,
    attach_attempt::AttachAttempt,
    feed_clients::RESPONSE_TIMEOUT,
    follower_progress::AttachedTenant,
    group_context::{GroupContext, fed_epoch},
    outgoing_seeds::SeedStart,
    wire::{self, MessageToFollower, MessageToHome, SubscribeRequest, TenantPosition},
};

/// Positions of a follower's tenants, as it lists them when it opens a stream.
#[derive(Debug, Default)]
struct FollowerListing {
    attached: BTreeMap<TenantNumber, TenantPosition>,
    detached: BTreeMap<TenantNumber, TenantPosition>,
}

impl FollowerListing {
    /// Reads all pages.
    async fn read(inbound: &mut Streaming<SubscribeRequest>) -> Result<Self, Status> {
        let mut listing = Self::default();
        loop {
            let page = timeout(RESPONSE_TIMEOUT, inbound.message()).await;
            let page =
                page.map_err(|_| Status::deadline_exceeded("the next page of the follower's listing is late"))?;
            let page = page?.ok_or_else(|| Status::cancelled("the follower has ended the stream"))?;
            let Some(MessageToHome::Listing(page)) = page.message else {
                return Err(Status::invalid_argument(
                    "the message after open is not a page of the follower's listing",
                ));
            };
            let is_last = page.last;
            listing
                .add(&page)
                .map_err(|error| Status::invalid_argument(error.to_string()))?;
            if is_last {
                return Ok(listing);
            }
        }
    }

    fn add(&mut self, page: &FeedListing) -> Result<(), wire::InvalidMessage> {
        for (known, page) in [
            (&mut self.attached, &page.attached),
            (&mut self.detached, &page.detached),
        ] {
            let page = wire::positions(page)?;
            known.extend(page.into_iter().map(|position| (position.tenant, position)));
        }
        Ok(())
    }
}

/// Start of a stream: its offset, and the sessions that it resumes.
struct StreamStart {
    offset: FeedOffset,
    scanned_index: u64,
    is_new: bool,
    sessions: SourceSessions,
    /// Changes to send before anything else.
    pending: Option<PendingEntries>,
    /// Tenants that are listed as attached and cannot be resumed.
    refused: Vec<(TenantPosition, Reason)>,
}

/// Opens a stream, or one whose only message names the group's leader.
pub(crate) async fn open(
    context: Arc<GroupContext>,
    open: FeedOpen,
    mut inbound: Streaming<SubscribeRequest>,
) -> Result<FeedSource, Status> {
    let offset = wire::offset_from(open.offset).map_err(|error| Status::invalid_argument(error.to_string()))?;
    let follower = GroupId::new(open.follower_group);
    let leadership = context.group.watch_leader();
    let term = leadership.borrow().term;
    // From here on this node has applied everything that any leader before it has acknowledged, so that no proof of
    // freshness that a follower got from one is above what it will be sent.
    if !planted::is(Bug::FeedOpenedUnread)
        && let Err(error) = context.group.read_index().await
    {
        let message = MessageToFollower::NotLeader(wire::not_leader(error));
        return Ok(FeedSource::refusing(context, inbound, leadership, message));
    }
    let listing = FollowerListing::read(&mut inbound).await;
    let listing = listing.inspect_err(|status| context.report_open_failure(follower, status))?;
    context.see_epochs(listing.attached.values().chain(listing.detached.values()));
    let start = match find_start(&context, follower, offset, &listing) {
        Ok(start) => start,
        Err(unreadable) => {
            context.fail_unreadable(unreadable);
            return Err(Status::internal("storage could not be read"));
        }
    };
    hold_for_seeds(&context, follower, &listing);
    let (stream, replaced) = context
        .acknowledgements
        .open_stream(opening(follower, term, &listing, &start));
    let opened = FeedOpened {
        incarnation: context.group.incarnation().0,
        begins: start.is_new.then(|| wire::offset_to(start.offset)),
        capabilities: Vec::new(),
    };
    let mut source = FeedSource::new(context, follower, inbound, leadership);
    source.term = term;
    source.stream = Some(stream);
    source.replaced = Some(replaced);
    source.sessions = start.sessions;
    source.pending = start.pending;
    source.scanned_index = start.scanned_index;
    source.offset = start.offset;
    source.out.push_back(MessageToFollower::Opened(opened));
    let refused = start.refused.iter().map(|(position, reason)| FeedRefused {
        tenant: position.tenant.get(),
        epoch: position.epoch.get(),
        reason: (*reason).into(),
        attach: position.attach.0,
    });
    source.out.extend(refused.map(MessageToFollower::Refused));
    Ok(source)
}

/// Holds the history that the copies need that the follower is building, until it goes on with them.
fn hold_for_seeds(context: &GroupContext, follower: GroupId, listing: &FollowerListing) {
    for (tenant, position) in &listing.detached {
        let is_known = context.seeds.is_seeding(*tenant, follower);
        if let Some(first) = position.seed.filter(|_| !is_known) {
            let (epoch, keys, bytes) = (position.epoch, 0, 0);
            let start = SeedStart {
                epoch,
                first,
                keys,
                bytes,
                state: None,
            };
            // One that has failed holds nothing.
            context.seeds.begin(*tenant, follower, start).ok();
        }
    }
}

/// Returns where a stream of a follower at this offset starts.
fn find_start(
    context: &GroupContext,
    follower: GroupId,
    offset: FeedOffset,
    listing: &FollowerListing,
) -> Result<StreamStart, Unreadable> {
    let incarnation = context.group.incarnation();
    context.machine.read(|held| {
        let ends = held.feed_bounds()?;
        if offset.incarnation != incarnation {
            let index = ends.map_or(0, |(_, last)| last);
            return Ok(StreamStart {
                offset: FeedOffset { incarnation, index },
                scanned_index: held.applied(),
                is_new: true,
                sessions: SourceSessions::default(),
                pending: None,
                refused: Vec::new(),
            });
        }
        let mut start = StreamStart {
            offset,
            scanned_index: offset.index,
            is_new: false,
            sessions: SourceSessions::default(),
            pending: None,
            refused: Vec::new(),
        };
        let dropped = held
            .has_dropped_feed_after(offset.index)
            .then(|| ends.map_or_else(|| held.shard().feed_floor(), |(_, last)| last));
        let mut ranges = Vec::new();
        for (tenant, position) in &listing.attached {
            let attempt = AttachAttempt::of(position);
            match check_resume(held.record(*tenant), follower, position) {
                Ok(_) if dropped.is_none() => start.sessions.resume(*tenant, attempt, position.revision),
                Ok(last) => {
                    start.sessions.resume(*tenant, attempt, last);
                    let (after, through) = (position.revision, last.sequence());
                    let range = ChangeRange {
                        attempt,
                        after,
                        through,
                    };
                    ranges.extend((after < last).then_some((*tenant, range)));
                }
                Err(reason) => start.refused.push((*position, reason)),
            }
        }
        if let Some(index) = dropped {
            let offset = FeedOffset { incarnation, index };
            // The scanned index stays at the follower's offset until all of it is sent: pings are answered by it.
            start.pending = Some(PendingEntries::new(ranges, held.applied(), offset));
        }
        Ok(start)
    })?
}

/// Returns the last change of a tenant whose session can be resumed at its follower's position, or why it cannot.
/// Admission and retention are checked with each batch.
fn check_resume(
    record: Option<&TenantRecord>,
    follower: GroupId,
    position: &TenantPosition,
) -> Result<Revision, Reason> {
    let fed = record.filter(|record| fed_epoch(record, follower) == Some(position.epoch));
    let record = fed.ok_or(Reason::NotOwner)?;
    let last = record.live.revision;
    if position.revision <= last && record.lineage.status_of(position.revision) == RevisionStatus::OnLineage {
        Ok(last)
    } else {
        Err(Reason::Forked)
    }
}

/// Returns the follower's progress as it lists it. A stream of a new incarnation covers no tenant.
fn opening(follower: GroupId, term: u64, listing: &FollowerListing, start: &StreamStart) -> StreamOpening {
    let resumed = |position: &&TenantPosition| start.sessions.attempt(position.tenant).is_some();
    let resumed = listing.attached.values().filter(resumed);
    let attached: BTreeMap<_, _> = resumed
        .map(|position| (position.tenant, AttachedTenant::at(position)))
        .collect();
    let all = listing.attached.iter().chain(&listing.detached);
    let others = all.filter(|(tenant, _)| !attached.contains_key(tenant));
    let detached = others.map(|(tenant, position)| (*tenant, (position.epoch, position.revision)));
    StreamOpening {
        follower,
        term,
        offset: start.offset,
        detached: detached.collect(),
        attached,
    }
}
