//! Watcher in a region, which checks that every revision of a tenant arrives once and in order, under any fault.

use std::time::Duration;

use stead_client::{Client, Error, ErrorKind, Revision, Tenant, WatchFrom, WatchMessage, WatchOptions, Watcher};
use tokio::{sync::watch, time::timeout};

use crate::load::{self, Phase, TENANTS};

/// Longest time for a watcher to catch up after all faults have ended.
const CATCH_UP_MAX: Duration = Duration::from_secs(30);

/// Watches a tenant from a region until the run ends.
pub(crate) async fn run(region: usize, tenant: usize, seed: u64, mut phase: watch::Receiver<Phase>) -> turmoil::Result {
    phase.wait_for(|phase| *phase != Phase::Starting).await?;
    let client = Client::lazy(load::config(region, seed))?;
    let tenant = client.tenant(TENANTS[tenant].0)?;
    let (mut watcher, mut reached) = open_watch(&tenant, Revision::ZERO).await;
    loop {
        tokio::select! {
            message = watcher.next() => match message {
                Ok(message) => check_order(&tenant, &mut reached, &message),
                Err(error) => (watcher, reached) = resume_after_compaction(&tenant, &error).await,
            },
            ended = phase.wait_for(|phase| *phase == Phase::Ending) => {
                ended?;
                break;
            }
        }
    }
    // Others may still finish their calls: all changes up to now must arrive.
    let last = loop {
        match tenant.get("a/1").await {
            Ok(got) => break got.header.revision,
            Err(error) => tracing::info!(%error, "not read yet"),
        }
    };
    let rest = async {
        while watcher.header().is_none_or(|header| header.revision < last) {
            match watcher.next().await {
                Ok(message) => check_order(&tenant, &mut reached, &message),
                Err(error) => (watcher, reached) = resume_after_compaction(&tenant, &error).await,
            }
        }
    };
    timeout(CATCH_UP_MAX, rest).await.expect("a watcher catches up in time");
    tracing::info!(tenant = %tenant.name(), %reached, "watched all");
    Ok(())
}

/// Resumes a watch that ended with `COMPACTED` at the oldest revision that is left: retention may be short.
async fn resume_after_compaction(tenant: &Tenant, error: &Error) -> (Watcher, Revision) {
    let ErrorKind::Compacted { oldest } = error.kind else {
        panic!("{} cannot be watched any more: {error}", tenant.name());
    };
    tracing::info!(tenant = %tenant.name(), %oldest, "history does not have what comes next");
    open_watch(tenant, oldest).await
}

/// Opens a watch after a revision or, where history begins later, there; returns that revision, too.
async fn open_watch(tenant: &Tenant, mut after: Revision) -> (Watcher, Revision) {
    loop {
        let watch = WatchOptions {
            from: WatchFrom::After(after),
            ..WatchOptions::default()
        };
        match tenant.watch(watch).await {
            Ok(watcher) => return (watcher, after),
            Err(error) => {
                tracing::info!(tenant = %tenant.name(), %error, "not watched yet");
                if let ErrorKind::Compacted { oldest } = error.kind {
                    after = after.max(oldest);
                }
            }
        }
    }
}

fn check_order(tenant: &Tenant, reached: &mut Revision, message: &WatchMessage) {
    let WatchMessage::Changes(events) = message else { return };
    // All events of one revision are in one message: another message is of a later one.
    let before = *reached;
    for event in events {
        let revision = event.item.modified;
        let next = reached.sequence().get() + 1;
        let is_same = revision == *reached && *reached != before;
        let is_next = revision.sequence().get() == next || is_same;
        assert!(
            is_next,
            "the watch of {} delivered {revision} after {reached}",
            tenant.name()
        );
        *reached = revision;
    }
}
