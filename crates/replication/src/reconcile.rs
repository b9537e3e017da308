//! The reconciler: on a group's leader, proposes what the directory says and the group's records lack.
//!
//! It looks at all tenants when leadership begins, and then at those that change. A tenant is looked at again until
//! nothing is to be done about it, so a proposal that was void, or a report that got lost, is made again.
//!
//! # Invariants
//!
//! 1. Nothing is proposed before the view has reached a version of the directory that was read, by read index, after
//!    leadership began: a view from before could still name a home that has moved on.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::BoxFuture;
use stead_state::{
    directory::{Command, REPORTS_MAX, Report},
    reconcile::{self, Page, STEPS_MAX, Step},
};
use stead_types::{DirectoryVersion, TenantNumber};
use tokio::time::sleep;

use crate::local::Local;

/// Asks the directory for its version, by read index; `None` if it does not answer.
pub type ReadVersion = Arc<dyn Fn() -> BoxFuture<'static, Option<DirectoryVersion>> + Send + Sync>;
/// Has the directory take a command; tells whether it did.
pub type Tell = Arc<dyn Fn(Command) -> BoxFuture<'static, bool> + Send + Sync>;

/// How a group reaches the directory.
#[derive(Clone)]
pub struct ToDirectory {
    /// Asks for its version.
    pub read_version: ReadVersion,
    /// Has it take a report.
    pub tell: Tell,
}

/// Pause before the directory, or the own group, is asked again.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// How long the view may take to reach a version before the directory is asked for a newer one.
const REACH_MAX: Duration = Duration::from_secs(5);
/// Whose turn the reconciler takes in the group.
const CLASS: u64 = (1 << 63) + (1 << 61);

/// Keeps the group's records as the directory says. Never returns; it is dropped when leadership ends.
pub(crate) async fn keep(local: Arc<Local>, directory: ToDirectory) {
    while !is_current(&local, &directory).await {
        sleep(RETRY_PAUSE).await;
    }
    let mut versions = local.views.watch();
    let mut seen = *versions.borrow_and_update();
    look_at_all(&local, &directory).await;
    while versions.changed().await.is_ok() {
        let now = *versions.borrow_and_update();
        match local.views.touched_since(seen) {
            Some(touched) => settle(&local, &directory, touched).await,
            None => look_at_all(&local, &directory).await,
        }
        seen = now;
    }
}

/// Waits until the view is as new as the directory was when this was called.
async fn is_current(local: &Local, directory: &ToDirectory) -> bool {
    match (directory.read_version)().await {
        Some(version) => local.views.reach(version, REACH_MAX).await,
        None => false,
    }
}

async fn look_at_all(local: &Local, directory: &ToDirectory) {
    let mut from = Some(TenantNumber::new(0));
    while let Some(number) = from {
        let page = local
            .machine
            .read(|held| local.views.read(|view| reconcile::page(view, held.shard(), number)));
        // A node whose rows are closed proposes nothing.
        let Ok(Page { steps, next }) = page else { return };
        settle(local, directory, steps.iter().map(Step::tenant).collect()).await;
        tokio::task::yield_now().await;
        from = next;
    }
}

/// Looks at tenants until nothing is to be done about any of them.
async fn settle(local: &Local, directory: &ToDirectory, mut tenants: BTreeSet<TenantNumber>) {
    let mut before = Vec::new();
    loop {
        let steps = steps(local, &tenants);
        if steps.is_empty() {
            return;
        }
        if steps == before {
            // The same as a moment ago: it was void, or somebody did not answer.
            sleep(RETRY_PAUSE).await;
        }
        tenants = take(local, directory, &steps).await;
        before = steps;
    }
}

fn steps(local: &Local, tenants: &BTreeSet<TenantNumber>) -> Vec<Step> {
    let steps = local.machine.read(|held| {
        local.views.read(|view| {
            let step = |number: &TenantNumber| reconcile::step(view, held.shard(), *number);
            tenants.iter().filter_map(step).collect()
        })
    });
    steps.unwrap_or_default()
}

/// Proposes and reports. Returns which tenants to look at again: all but those whose report the directory has, which
/// change in the view because of it.
async fn take(local: &Local, directory: &ToDirectory, steps: &[Step]) -> BTreeSet<TenantNumber> {
    let commands: Vec<Bytes> = steps.iter().filter_map(Step::command).collect();
    for commands in commands.chunks(STEPS_MAX) {
        match local.group.propose(CLASS, commands.to_vec()).await {
            Ok(_) => local.succeeded("taking in the directory"),
            Err(error) => local.retry("taking in the directory", &error),
        }
    }
    let mut again: BTreeSet<_> = steps.iter().map(Step::tenant).collect();
    let reports: Vec<Report> = steps.iter().filter_map(Step::report).collect();
    for reports in reports.chunks(REPORTS_MAX) {
        let command = Command::Report(local.id(), local.group.incarnation(), reports.to_vec());
        if (directory.tell)(command).await {
            for Report::Erased(tenant) in reports {
                again.remove(tenant);
            }
        }
    }
    again
}
