//! How a stream begins.

use std::{collections::BTreeSet, sync::Arc};

use stead_api::proto::internal::v1::{FeedNotLeader, FeedOpen, FeedOpened};
use stead_raft::ReadIndexError;
use stead_state::rows::Unreadable;
use stead_types::{
    FeedOffset, GroupId, NodeId, TenantNumber,
    planted::{self, Bug},
};
use tonic::{Status, Streaming};

use super::{acknowledged::Stream, sessions::Sessions, stream::Source};
use crate::{
    local::Local,
    wire::{self, Position, SubscribeRequest, ToFollower},
};

/// What a follower says of itself when it opens a stream.
struct Opening {
    follower: GroupId,
    offset: FeedOffset,
    detached: Vec<Position>,
    all_detached: bool,
}

impl Opening {
    fn read(open: &FeedOpen) -> Result<Self, wire::Garbled> {
        Ok(Self {
            follower: GroupId::new(open.follower_group),
            offset: wire::offset_from(open.offset)?,
            detached: open
                .detached
                .iter()
                .map(Position::from_message)
                .collect::<Result<_, _>>()?,
            all_detached: open.all_detached,
        })
    }
}

/// Where a stream begins, and whom it speaks for.
struct Beginning {
    offset: FeedOffset,
    place: u64,
    is_new: bool,
    sessions: Sessions,
}

/// Begins a stream, or says in its only message who leads the group.
pub(crate) async fn open(
    local: Arc<Local>,
    open: FeedOpen,
    inbound: Streaming<SubscribeRequest>,
) -> Result<Source, Status> {
    let garbled = |error: wire::Garbled| Status::invalid_argument(error.to_string());
    let opening = Opening::read(&open).map_err(garbled)?;
    let leadership = local.group.watch_leader();
    let term = leadership.borrow().term;
    // From here on this node has applied everything that any leader before it has acknowledged, so that no proof of
    // freshness that a follower got from one is above what it will be sent.
    if !planted::is(Bug::FeedOpenedUnread)
        && let Err(error) = local.group.read_index().await
    {
        return Ok(Source::refusing(local, (inbound, leadership), not_leader(error)));
    }
    let beginning = match beginning(&local, &opening) {
        Ok(beginning) => beginning,
        Err(unreadable) => {
            local.unreadable(unreadable);
            return Err(Status::internal("storage could not be read"));
        }
    };
    let stream = note(&local, term, &opening, &beginning);
    let opened = FeedOpened {
        incarnation: local.group.incarnation().0,
        begins: beginning.is_new.then(|| wire::offset_to(beginning.offset)),
        capabilities: Vec::new(),
    };
    let mut source = Source::new(local, opening.follower, (inbound, leadership));
    source.term = term;
    source.stream = Some(stream);
    source.sessions = beginning.sessions;
    source.place = beginning.place;
    source.offset = beginning.offset;
    source.out.push_back(ToFollower::Opened(opened));
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

fn beginning(local: &Local, opening: &Opening) -> Result<Beginning, Unreadable> {
    let incarnation = local.group.incarnation();
    local.machine.read(|held| {
        let ends = held.feed_ends()?;
        let offset = opening.offset;
        // The entry that the offset names is kept until every follower is past it: what is behind it is all there.
        let goes_on = !opening.all_detached
            && offset.incarnation == incarnation
            && ends.is_none_or(|(first, _)| first <= offset.index);
        let mut sessions = Sessions::default();
        if !goes_on {
            let index = ends.map_or(0, |(_, last)| last);
            let offset = FeedOffset { incarnation, index };
            let place = held.applied();
            return Ok(Beginning {
                offset,
                place,
                is_new: true,
                sessions,
            });
        }
        let without: BTreeSet<TenantNumber> = opening.detached.iter().map(|position| position.tenant).collect();
        // All that this group owns: whether one may be sent is checked with each batch, and the follower is told then.
        // It must not take for attached whom this view knows too little of.
        for (tenant, record) in held.shard().records() {
            if let Some(epoch) = record.owned().filter(|_| !without.contains(&tenant)) {
                sessions.resume(tenant, epoch);
            }
        }
        let place = offset.index;
        Ok(Beginning {
            offset,
            place,
            is_new: false,
            sessions,
        })
    })?
}

/// Notes what the follower says it has. Where the stream begins anew it speaks for nobody, and where those are that are
/// not listed is not known.
fn note(local: &Local, term: u64, opening: &Opening, beginning: &Beginning) -> Stream {
    let attached = beginning.sessions.tenants().collect();
    let position = |position: &Position| (position.tenant, (position.epoch, position.revision));
    let detached = opening.detached.iter().map(position).collect();
    let follower = (opening.follower, term);
    local
        .acknowledged
        .opened(follower, beginning.offset, attached, detached)
}
