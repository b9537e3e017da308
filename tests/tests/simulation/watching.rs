//! A watcher in a region: every revision of every tenant, once, in order, whatever happens meanwhile.

use std::time::Duration;

use stead_client::{Client, Error, ErrorKind, Revision, Tenant, Told, Watch, WatchFrom, Watcher};
use tokio::{sync::watch, time::timeout};

use crate::load::{self, Phase, TENANTS};

/// How long a watcher may take to be told the rest, once everything is in peace.
const REST_MAX: Duration = Duration::from_secs(30);

/// Watches a tenant from a region until the run ends.
pub(crate) async fn run(region: usize, tenant: usize, seed: u64, mut phase: watch::Receiver<Phase>) -> turmoil::Result {
    phase.wait_for(|phase| *phase != Phase::Starting).await?;
    let client = Client::lazy(load::config(region, seed))?;
    let tenant = client.tenant(TENANTS[tenant].0)?;
    let mut watcher = begin(&tenant, Revision::ZERO).await;
    let mut reached = Revision::ZERO;
    loop {
        tokio::select! {
            told = watcher.next() => match told {
                Ok(told) => take(&tenant, &mut reached, &told),
                Err(error) => (watcher, reached) = behind_history(&tenant, &error).await,
            },
            ended = phase.wait_for(|phase| *phase == Phase::Ending) => {
                ended?;
                break;
            }
        }
    }
    // Others may still finish what they have begun: what is there by now must come.
    let last = loop {
        match tenant.get("a/1").await {
            Ok(got) => break got.header.revision,
            Err(error) => tracing::info!(%error, "not read yet"),
        }
    };
    let rest = async {
        while watcher.header().is_none_or(|header| header.revision < last) {
            match watcher.next().await {
                Ok(told) => take(&tenant, &mut reached, &told),
                Err(error) => (watcher, reached) = behind_history(&tenant, &error).await,
            }
        }
    };
    timeout(REST_MAX, rest)
        .await
        .expect("a watcher is told the rest in time");
    tracing::info!(tenant = %tenant.name(), %reached, "watched all");
    Ok(())
}

/// Goes on with the oldest revision that is left, if that is why a watch ended: histories may be short.
async fn behind_history(tenant: &Tenant, error: &Error) -> (Watcher, Revision) {
    let ErrorKind::Compacted { oldest } = error.kind else {
        panic!("{} cannot be watched any more: {error}", tenant.name());
    };
    tracing::info!(tenant = %tenant.name(), %oldest, "history does not have what comes next");
    (begin(tenant, oldest).await, oldest)
}

async fn begin(tenant: &Tenant, after: Revision) -> Watcher {
    loop {
        let watch = Watch {
            from: WatchFrom::After(after),
            ..Watch::default()
        };
        match tenant.watch(watch).await {
            Ok(watcher) => return watcher,
            Err(error) => tracing::info!(tenant = %tenant.name(), %error, "not watched yet"),
        }
    }
}

fn take(tenant: &Tenant, reached: &mut Revision, told: &Told) {
    let Told::Changes(events) = told else { return };
    // All of one revision are together: what comes in another message is of a later one.
    let before = *reached;
    for event in events {
        let revision = event.item.modified;
        let next = reached.sequence().get() + 1;
        let is_same = revision == *reached && *reached != before;
        let is_next = revision.sequence().get() == next || is_same;
        assert!(is_next, "{} was told {revision} after {reached}", tenant.name());
        *reached = revision;
    }
}
