//! The reconciler: on a group's leader, proposes what the directory says and the group's records lack.
//!
//! It looks at all tenants when leadership begins, and then at those that change. A tenant is looked at again until
//! nothing is to be done about it, so a proposal that was void, or a report that got lost, is made again.
//!
//! # Invariants
//!
//! 1. Nothing is proposed before the view has reached a version of the directory that was read, by read index, after
//!    leadership began: a view from before could still name a home that has moved on.
//! 2. A report that the directory does not take holds up no proposal, and no other report for longer than [`TELL_MAX`]; a
//!    proposal that stays void holds up no other.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use stead_state::{
    directory::{Command, REPORTS_MAX, Report},
    reconcile::{self, Page, STEPS_MAX, Step},
};
use stead_types::{DirectoryVersion, TenantNumber};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until, timeout},
};

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
/// The longest such pause for reports.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(10);
/// How long the directory may take for one command of reports.
const TELL_MAX: Duration = Duration::from_secs(5);
/// How long the view may take to reach a version before the directory is asked for a newer one.
const REACH_MAX: Duration = Duration::from_secs(5);
/// Whose turn the reconciler takes in the group.
const CLASS: u64 = (1 << 63) + (1 << 61);

/// Keeps the group's records as the directory says. Never returns; it is dropped when leadership ends.
pub(crate) async fn keep(local: Arc<Local>, directory: ToDirectory) {
    while !is_current(&local, &directory).await {
        sleep(RETRY_PAUSE).await;
    }
    let reports = Reports::default();
    tokio::join!(propose(&local, &reports), report(&local, &directory, &reports));
}

/// Waits until the view is as new as the directory was when this was called.
async fn is_current(local: &Local, directory: &ToDirectory) -> bool {
    match (directory.read_version)().await {
        Some(version) => local.views.reach(version, REACH_MAX).await,
        None => false,
    }
}

/// Proposes what records lack, page by page. Never returns.
async fn propose(local: &Local, reports: &Reports) {
    let mut versions = local.views.watch();
    let mut seen = *versions.borrow_and_update();
    let mut work = Work::new();
    loop {
        let retry_at = work.retry_at;
        tokio::select! {
            biased;
            changed = versions.changed() => {
                if changed.is_err() {
                    std::future::pending::<()>().await;
                }
                let now = *versions.borrow_and_update();
                work.changed(local.views.touched_since(seen));
                seen = now;
            }
            () = std::future::ready(()), if work.is_due() => {
                let commands = work.next(local, reports);
                if !commands.is_empty() {
                    match local.group.propose(CLASS, commands).await {
                        Ok(_) => local.succeeded("taking in the directory"),
                        Err(error) => local.retry("taking in the directory", &error),
                    }
                }
                tokio::task::yield_now().await;
            }
            () = sleep_until(retry_at.unwrap_or_else(Instant::now)), if retry_at.is_some() => work.retry(),
        }
    }
}

/// Tenants to look at.
struct Work {
    /// Where a pass over all tenants goes on.
    pass: Option<TenantNumber>,
    due: BTreeSet<TenantNumber>,
    /// What was proposed for a tenant last.
    tried: BTreeMap<TenantNumber, Step>,
    /// Those for whom the same would be proposed again: it was void, or the group did not take it.
    waiting: BTreeSet<TenantNumber>,
    retry_at: Option<Instant>,
}

impl Work {
    /// Returns all tenants as work.
    fn new() -> Self {
        Self {
            pass: Some(TenantNumber::new(0)),
            due: BTreeSet::new(),
            tried: BTreeMap::new(),
            waiting: BTreeSet::new(),
            retry_at: None,
        }
    }

    fn is_due(&self) -> bool {
        self.pass.is_some() || !self.due.is_empty()
    }

    /// Takes in which tenants have changed in the view; `None`: any may have.
    fn changed(&mut self, touched: Option<BTreeSet<TenantNumber>>) {
        match touched {
            Some(touched) => self.due.extend(touched),
            None => self.pass = Some(TenantNumber::new(0)),
        }
    }

    /// Lets those have another try that waited for one.
    fn retry(&mut self) {
        self.retry_at = None;
        for tenant in std::mem::take(&mut self.waiting) {
            self.tried.remove(&tenant);
            self.due.insert(tenant);
        }
    }

    /// Looks at the next tenants. Returns what is to be proposed for them; they are looked at again after it.
    fn next(&mut self, local: &Local, reports: &Reports) -> Vec<Bytes> {
        let steps = match self.pass.filter(|_| self.due.is_empty()) {
            Some(from) => {
                let page = page(local, from);
                self.pass = page.as_ref().and_then(|page| page.next);
                page.map_or_else(Vec::new, |page| page.steps)
            }
            None => {
                let mut tenants = std::mem::take(&mut self.due).into_iter();
                let some: BTreeSet<_> = tenants.by_ref().take(STEPS_MAX).collect();
                self.due.extend(tenants);
                let steps = steps(local, &some);
                let none = some
                    .iter()
                    .filter(|tenant| !steps.iter().any(|step| step.tenant() == **tenant));
                none.for_each(|tenant| drop(self.tried.remove(tenant)));
                steps
            }
        };
        steps.into_iter().filter_map(|step| self.take(step, reports)).collect()
    }

    /// Takes in what is to be done about a tenant; returns what is to be proposed now.
    fn take(&mut self, step: Step, reports: &Reports) -> Option<Bytes> {
        let tenant = step.tenant();
        let Some(command) = step.command() else {
            self.tried.remove(&tenant);
            reports.add(tenant);
            return None;
        };
        if self.tried.get(&tenant) == Some(&step) {
            self.waiting.insert(tenant);
            self.retry_at.get_or_insert_with(|| Instant::now() + RETRY_PAUSE);
            return None;
        }
        self.tried.insert(tenant, step);
        self.due.insert(tenant);
        Some(command)
    }
}

/// Returns what is to be done from a tenant on; `None` if the own rows are closed: such a node proposes nothing.
fn page(local: &Local, from: TenantNumber) -> Option<Page> {
    let page = local
        .machine
        .read(|held| local.views.read(|view| reconcile::page(view, held.shard(), from)));
    page.ok()
}

/// Returns what is to be done about these tenants; nothing if the own rows are closed.
fn steps(local: &Local, tenants: &BTreeSet<TenantNumber>) -> Vec<Step> {
    let steps = local.machine.read(|held| {
        local.views.read(|view| {
            let step = |number: &TenantNumber| reconcile::step(view, held.shard(), *number);
            tenants.iter().filter_map(step).collect()
        })
    });
    steps.unwrap_or_default()
}

/// Tenants of which the directory is to be told and has not been. There are at most as many as the group holds.
#[derive(Default)]
struct Reports {
    new: Mutex<BTreeSet<TenantNumber>>,
    added: Notify,
}

impl Reports {
    fn add(&self, tenant: TenantNumber) {
        if self.new.lock().insert(tenant) {
            self.added.notify_one();
        }
    }

    /// Takes out as many as one command has.
    fn take(&self) -> BTreeSet<TenantNumber> {
        let mut new = self.new.lock();
        let taken: BTreeSet<_> = new.iter().take(REPORTS_MAX).copied().collect();
        new.retain(|tenant| !taken.contains(tenant));
        taken
    }
}

/// Reports that the directory has not taken, and when they are made again.
struct Failed {
    tenants: BTreeSet<TenantNumber>,
    /// Up to here they have had their turn.
    last: TenantNumber,
    /// How many make one command: fewer each time, so that one that is never taken is alone in the end.
    count: usize,
    pause: Duration,
    retry_at: Instant,
}

impl Failed {
    fn new() -> Self {
        Self {
            tenants: BTreeSet::new(),
            last: TenantNumber::new(0),
            count: REPORTS_MAX,
            pause: RETRY_PAUSE,
            retry_at: Instant::now(),
        }
    }

    /// Returns those whose turn it is.
    fn turn(&mut self) -> BTreeSet<TenantNumber> {
        let behind = (Bound::Excluded(self.last), Bound::Unbounded);
        let mut turn: BTreeSet<_> = self.tenants.range(behind).take(self.count).copied().collect();
        if turn.is_empty() {
            turn.extend(self.tenants.iter().take(self.count));
        }
        self.last = turn.last().copied().unwrap_or(TenantNumber::new(0));
        turn
    }

    /// Takes in that these were taken, or are over.
    fn done(&mut self, tenants: &BTreeSet<TenantNumber>) {
        let before = self.tenants.len();
        self.tenants.retain(|tenant| !tenants.contains(tenant));
        if self.tenants.len() < before {
            self.count = (self.count * 2).min(REPORTS_MAX);
            self.pause = RETRY_PAUSE;
            self.retry_at = Instant::now();
        }
    }

    /// Takes in that these were not taken.
    fn add(&mut self, tenants: BTreeSet<TenantNumber>) {
        self.count = (self.count.min(tenants.len()) / 2).max(1);
        self.tenants.extend(tenants);
        self.retry_at = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(RETRY_PAUSE_MAX);
    }
}

/// Tells the directory, again and again until it has taken everything. Never returns.
async fn report(local: &Local, directory: &ToDirectory, reports: &Reports) {
    let mut failed = Failed::new();
    loop {
        let mut tenants = reports.take();
        if tenants.is_empty() && failed.retry_at <= Instant::now() {
            tenants = failed.turn();
        }
        if tenants.is_empty() {
            tokio::select! {
                () = reports.added.notified() => {}
                () = sleep_until(failed.retry_at), if !failed.tenants.is_empty() => {}
            }
            continue;
        }
        // What it was to be told may be over by now.
        let still: Vec<Report> = steps(local, &tenants).iter().filter_map(Step::report).collect();
        if still.is_empty() || tell(local, directory, still).await {
            // A tenant whose report the directory has changes in the view because of it, and is looked at then.
            failed.done(&tenants);
        } else {
            failed.add(tenants);
        }
    }
}

async fn tell(local: &Local, directory: &ToDirectory, reports: Vec<Report>) -> bool {
    let command = Command::Report(local.id(), local.group.incarnation(), reports);
    matches!(timeout(TELL_MAX, (directory.tell)(command)).await, Ok(true))
}
