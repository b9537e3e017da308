//! The homes that a group follows: a stream for each, from the first tenant on.

use std::{collections::BTreeSet, sync::Arc};

use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use stead_types::GroupId;

use super::reopen;
use crate::{feed_clients::FeedClients, group_context::GroupContext};

/// Task that follows every home that this group's records name, until its rows are closed. It is dropped when
/// leadership ends.
pub(crate) async fn follow(context: Arc<GroupContext>, feed_clients: Arc<FeedClients>) {
    let mut applied = context.group.applied();
    let mut followed: BTreeSet<GroupId> = BTreeSet::new();
    let mut streams: FuturesUnordered<BoxFuture<'static, ()>> = FuturesUnordered::new();
    let known = context.machine.read(|held| {
        let shard = held.shard();
        let known: Vec<GroupId> = shard
            .streams()
            .keys()
            .copied()
            .chain(shard.homes_with_detached())
            .collect();
        (shard.detachment_version(), known)
    });
    let Ok((mut changes, mut new)) = known else { return };
    loop {
        for home in new.drain(..) {
            if followed.insert(home) {
                streams.push(Box::pin(reopen::run(context.clone(), feed_clients.clone(), home)));
            }
        }
        tokio::select! {
            Some(()) = streams.next(), if !streams.is_empty() => {}
            Ok(()) = applied.changed() => {
                let found = context.machine.read(|held| {
                    let seen = held.shard().detachment_version();
                    if std::mem::replace(&mut changes, seen) == seen {
                        return Vec::new();
                    }
                    held.shard().homes_with_detached().collect()
                });
                let Ok(found) = found else { return };
                new = found;
            }
        }
    }
}
