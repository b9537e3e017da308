//! Which homes are followed: a stream for each, from the first tenant on.

use std::{collections::BTreeSet, sync::Arc};

use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use stead_types::GroupId;

use super::stream;
use crate::{local::Local, peers::Peers};

/// Follows every home that this group's records name, until they are closed. It is dropped when leadership ends.
pub(crate) async fn follow(local: Arc<Local>, peers: Arc<Peers>) {
    let mut applied = local.group.applied();
    let mut followed: BTreeSet<GroupId> = BTreeSet::new();
    let mut streams: FuturesUnordered<BoxFuture<'static, ()>> = FuturesUnordered::new();
    let known = local.machine.read(|held| {
        let shard = held.shard();
        let known: Vec<GroupId> = shard.streams().keys().copied().chain(shard.homes_detached()).collect();
        (shard.detached_changes(), known)
    });
    let Ok((mut changes, mut new)) = known else { return };
    loop {
        for home in new.drain(..) {
            if followed.insert(home) {
                streams.push(Box::pin(stream::run(local.clone(), peers.clone(), home)));
            }
        }
        tokio::select! {
            Some(()) = streams.next(), if !streams.is_empty() => {}
            Ok(()) = applied.changed() => {
                let found = local.machine.read(|held| {
                    let seen = held.shard().detached_changes();
                    if std::mem::replace(&mut changes, seen) == seen {
                        return Vec::new();
                    }
                    held.shard().homes_detached().collect()
                });
                let Ok(found) = found else { return };
                new = found;
            }
        }
    }
}
