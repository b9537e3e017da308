//! How a stream begins.

use std::{collections::BTreeSet, sync::Arc};

use stead_api::proto::internal::v1::{FeedNotLeader, FeedOpen, FeedOpened};
use stead_raft::ReadIndexError;
use stead_state::rows::Unreadable;
use stead_types::{FeedOffset, GroupId, NodeId, TenantNumber};
use tonic::{Status, Streaming};

use super::{sessions::Sessions, stream::Source};
use crate::{
    local::{Local, may_follow},
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
    // From here on this node has applied everything that any leader before it has acknowledged, so that no proof of
    // freshness that a follower got from one is above what it will be sent.
    if let Err(error) = local.group.read_index().await {
        return Ok(Source::refusing(local, inbound, not_leader(error)));
    }
    let beginning = match beginning(&local, &opening) {
        Ok(beginning) => beginning,
        Err(unreadable) => {
            local.broken.report(unreadable);
            return Err(Status::internal("storage could not be read"));
        }
    };
    note(&local, &opening, &beginning);
    let opened = FeedOpened {
        incarnation: local.group.incarnation().0,
        begins: beginning.is_new.then(|| wire::offset_to(beginning.offset)),
        capabilities: Vec::new(),
    };
    let mut source = Source::new(local, opening.follower, inbound);
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
        local.views.read(|view| {
            for (tenant, record) in held.shard().records() {
                let Some(epoch) = record.owned() else { continue };
                if !without.contains(&tenant) && may_follow(view, tenant, local.id(), opening.follower) {
                    sessions.resume(tenant, epoch);
                }
            }
        });
        let place = offset.index;
        Ok(Beginning {
            offset,
            place,
            is_new: false,
            sessions,
        })
    })
}

fn note(local: &Local, opening: &Opening, beginning: &Beginning) {
    local.acknowledged.change(opening.follower, |follower| {
        follower.offset = beginning.offset;
        follower.all_detached = beginning.is_new;
        let position = |position: &Position| (position.tenant, (position.epoch, position.revision));
        follower.detached = opening.detached.iter().map(position).collect();
        follower.connected = true;
    });
}
