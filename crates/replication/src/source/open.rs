//! How a stream begins: who leads is asked, the follower lists what it holds, and the stream goes on with those that are
//! attached.
//!
//! # Invariants
//!
//! 1. What is not listed as attached is not attached; the listing is in force with its last page.
//! 2. A tenant that is listed as attached and that the stream cannot speak for is refused: the follower must not go on
//!    believing it.
//! 3. A stream of the same incarnation goes on, whatever is left of the feed: where it does not say any more who was
//!    touched behind the follower's offset, everything behind each tenant's own position is sent before the offset moves.

use std::{collections::BTreeMap, sync::Arc};

use stead_api::proto::internal::v1::{
    FeedListing, FeedNotLeader, FeedOpen, FeedOpened, FeedRefused, feed_refused::Reason,
};
use stead_raft::ReadIndexError;
use stead_state::{lineage::Standing, rows::Unreadable, shard::record::Record};
use stead_types::{
    FeedOffset, GroupId, NodeId, Revision, TenantNumber,
    planted::{self, Bug},
};
use tokio::{sync::oneshot, time::timeout};
use tonic::{Status, Streaming};

use super::{
    acknowledged::Stream,
    produce::UnderWay,
    sessions::{Attempt, Sessions, Span},
    stream::Source,
};
use crate::{
    local::Local,
    peers::ANSWER_TIMEOUT,
    wire::{self, Position, SubscribeRequest, ToFollower, ToHome},
};

/// What a follower says of itself when it opens a stream.
#[derive(Debug, Default)]
struct Listing {
    attached: BTreeMap<TenantNumber, Position>,
    detached: BTreeMap<TenantNumber, Position>,
}

impl Listing {
    /// Reads all pages.
    async fn read(inbound: &mut Streaming<SubscribeRequest>) -> Result<Self, Status> {
        let mut listing = Self::default();
        loop {
            let page = timeout(ANSWER_TIMEOUT, inbound.message()).await;
            let page =
                page.map_err(|_| Status::deadline_exceeded("the next page of what the follower holds is late"))?;
            let page = page?.ok_or_else(|| Status::cancelled("the follower has ended the stream"))?;
            let Some(ToHome::Listing(page)) = page.message else {
                return Err(Status::invalid_argument(
                    "a stream is opened with pages of what the follower holds",
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

    fn add(&mut self, page: &FeedListing) -> Result<(), wire::Garbled> {
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

/// Where a stream begins, and whom it speaks for.
struct Beginning {
    offset: FeedOffset,
    place: u64,
    is_new: bool,
    sessions: Sessions,
    /// What is to be sent before anything else.
    under_way: Option<UnderWay>,
    /// Listed as attached, and not to be gone on with.
    refused: Vec<(Position, Reason)>,
}

/// Begins a stream, or says in its only message who leads the group.
pub(crate) async fn open(
    local: Arc<Local>,
    open: FeedOpen,
    mut inbound: Streaming<SubscribeRequest>,
) -> Result<Source, Status> {
    let offset = wire::offset_from(open.offset).map_err(|error| Status::invalid_argument(error.to_string()))?;
    let follower = GroupId::new(open.follower_group);
    let leadership = local.group.watch_leader();
    let term = leadership.borrow().term;
    // From here on this node has applied everything that any leader before it has acknowledged, so that no proof of
    // freshness that a follower got from one is above what it will be sent.
    if !planted::is(Bug::FeedOpenedUnread)
        && let Err(error) = local.group.read_index().await
    {
        return Ok(Source::refusing(local, (inbound, leadership), not_leader(error)));
    }
    let listing = Listing::read(&mut inbound).await;
    let listing = listing.inspect_err(|status| local.not_opened(follower, status))?;
    let beginning = match beginning(&local, offset, &listing) {
        Ok(beginning) => beginning,
        Err(unreadable) => {
            local.unreadable(unreadable);
            return Err(Status::internal("storage could not be read"));
        }
    };
    let (stream, replaced) = note(&local, (follower, term), &listing, &beginning);
    let opened = FeedOpened {
        incarnation: local.group.incarnation().0,
        begins: beginning.is_new.then(|| wire::offset_to(beginning.offset)),
        capabilities: Vec::new(),
    };
    let mut source = Source::new(local, follower, (inbound, leadership));
    source.term = term;
    source.stream = Some(stream);
    source.replaced = Some(replaced);
    source.sessions = beginning.sessions;
    source.under_way = beginning.under_way;
    source.place = beginning.place;
    source.offset = beginning.offset;
    source.out.push_back(ToFollower::Opened(opened));
    let refused = beginning.refused.iter().map(|(position, reason)| FeedRefused {
        tenant: position.tenant.get(),
        epoch: position.epoch.get(),
        reason: (*reason).into(),
        attach: position.attach.0,
    });
    source.out.extend(refused.map(ToFollower::Refused));
    Ok(source)
}

/// The message that ends a stream of a group that another node leads.
pub(crate) fn not_leader(error: ReadIndexError) -> ToFollower {
    let leader = match error {
        ReadIndexError::NotLeader { leader } => leader,
        ReadIndexError::NoQuorum | ReadIndexError::Overloaded | ReadIndexError::Stopped => None,
    };
    ToFollower::NotLeader(FeedNotLeader {
        leader: leader.map_or(0, NodeId::get),
    })
}

fn beginning(local: &Local, offset: FeedOffset, listing: &Listing) -> Result<Beginning, Unreadable> {
    let incarnation = local.group.incarnation();
    local.machine.read(|held| {
        let ends = held.feed_ends()?;
        if offset.incarnation != incarnation {
            let index = ends.map_or(0, |(_, last)| last);
            return Ok(Beginning {
                offset: FeedOffset { incarnation, index },
                place: held.applied(),
                is_new: true,
                sessions: Sessions::default(),
                under_way: None,
                refused: Vec::new(),
            });
        }
        let mut beginning = Beginning {
            offset,
            place: offset.index,
            is_new: false,
            sessions: Sessions::default(),
            under_way: None,
            refused: Vec::new(),
        };
        // While the entry that the offset names is there, what is behind it is all there.
        let floor = held.shard().feed_floor();
        let forgotten = match ends {
            Some((first, last)) => (first > offset.index).then_some(last),
            None => (floor > offset.index).then_some(floor),
        };
        let mut spans = Vec::new();
        for (tenant, position) in &listing.attached {
            let attempt = Attempt::of(position);
            match goes_on_with(held.record(*tenant), position) {
                Ok(_) if forgotten.is_none() => beginning.sessions.resume(*tenant, attempt, position.revision),
                Ok(last) => {
                    beginning.sessions.resume(*tenant, attempt, last);
                    let (after, through) = (position.revision, last.sequence());
                    let span = Span {
                        attempt,
                        after,
                        through,
                    };
                    spans.extend((after < last).then_some((*tenant, span)));
                }
                Err(reason) => beginning.refused.push((*position, reason)),
            }
        }
        if let Some(index) = forgotten {
            let offset = FeedOffset { incarnation, index };
            // The stream's own place stays where the follower is until all of it is sent: pings are answered by it.
            beginning.under_way = Some(UnderWay::new(spans, held.applied(), offset));
        }
        Ok(beginning)
    })?
}

/// Returns the last change of a tenant that can be gone on with from where its follower has it, or why it cannot.
/// Whether it may be sent, and whether what is missing is kept, is checked with each batch.
fn goes_on_with(record: Option<&Record>, position: &Position) -> Result<Revision, Reason> {
    let owned = record.filter(|record| record.owned() == Some(position.epoch));
    let record = owned.ok_or(Reason::NotOwner)?;
    let last = record.live.revision;
    if position.revision <= last && record.lineage.standing(position.revision) == Standing::On {
        Ok(last)
    } else {
        Err(Reason::Forked)
    }
}

/// Notes what the follower says it has. Where the stream begins anew it speaks for nobody.
fn note(
    local: &Local,
    follower: (GroupId, u64),
    listing: &Listing,
    beginning: &Beginning,
) -> (Stream, oneshot::Receiver<()>) {
    let attached: BTreeMap<_, _> = beginning.sessions.tenants().collect();
    let all = listing.attached.iter().chain(&listing.detached);
    let others = all.filter(|(tenant, _)| !attached.contains_key(tenant));
    let detached = others.map(|(tenant, position)| (*tenant, (position.epoch, position.revision)));
    let detached = detached.collect();
    local
        .acknowledged
        .opened(follower, beginning.offset, attached, detached)
}
