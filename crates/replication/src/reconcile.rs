//! Reconciler of a group's records with the directory: on the group's leader, proposes the steps that records lack.
//!
//! It checks all tenants when leadership begins, and then those that change. A tenant is checked until no step is due,
//! so a proposal that was void, or a report that got lost, is repeated.
//!
//! # Invariants
//!
//! 1. Nothing is proposed before the view has reached a version of the directory that was read, by read index, after
//!    leadership began: a view from before could still name a home that has moved on.
//! 2. A report that the directory does not take delays no proposal, and no other report for longer than
//!    [`SUBMIT_TIMEOUT`]; a proposal that stays void delays no other.

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
    directory::{Command, GroupReport, REPORTS_MAX},
    reconcile::{self, LeaderFacts, STEPS_MAX, Step, StepPage},
};
use stead_types::{DirectoryVersion, TenantNumber};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::{group_context::GroupContext, leader_facts::FactSource, proposal_class};

/// Function that reads the directory's version, by read index; `None` if the directory does not respond.
pub type ReadVersion = Arc<dyn Fn() -> BoxFuture<'static, Option<DirectoryVersion>> + Send + Sync>;
/// Function that submits a command to the directory; returns whether the directory took it.
pub type SubmitCommand = Arc<dyn Fn(Command) -> BoxFuture<'static, bool> + Send + Sync>;

/// Access of a group to the directory.
#[derive(Clone)]
pub struct DirectoryAccess {
    /// Reads its version.
    pub read_version: ReadVersion,
    /// Submits a report.
    pub submit: SubmitCommand,
}

/// Pause before a call to the directory, or a proposal, is repeated.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// Longest such pause for reports.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(10);
/// Longest time that the directory may take for one command of reports.
const SUBMIT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for the view to reach a version, before a newer version is read.
const VIEW_TIMEOUT: Duration = Duration::from_secs(5);

/// Task that reconciles the group's records with the directory. Never returns; it is dropped when leadership ends.
pub(crate) async fn run(context: Arc<GroupContext>, directory: DirectoryAccess) {
    while !wait_until_current(&context, &directory).await {
        sleep(RETRY_PAUSE).await;
    }
    let (reports, facts) = (ReportQueue::default(), FactSource::new(context.clone()));
    tokio::join!(
        propose(&context, &facts, &reports),
        report(&context, &facts, &directory, &reports)
    );
}

/// Waits until the view is as new as the directory was at the call; returns whether it is.
async fn wait_until_current(context: &GroupContext, directory: &DirectoryAccess) -> bool {
    match (directory.read_version)().await {
        Some(version) => context.directory_view.wait_for(version, VIEW_TIMEOUT).await,
        None => false,
    }
}

/// Proposes the steps that records lack, page by page. Never returns.
async fn propose(context: &GroupContext, facts: &FactSource, reports: &ReportQueue) {
    let mut versions = context.directory_view.watch();
    let mut seen = *versions.borrow_and_update();
    let mut queue = ReconcileQueue::new();
    let (mut heirs, mut taken_over) = (context.heirs.watch(), context.taken_over.subscribe());
    loop {
        let retry_at = queue.retry_at;
        tokio::select! {
            biased;
            changed = versions.changed() => {
                if changed.is_err() {
                    std::future::pending::<()>().await;
                }
                let now = *versions.borrow_and_update();
                queue.add_changed(context.directory_view.tenants_changed_since(seen));
                seen = now;
            }
            () = std::future::ready(()), if queue.is_due() => {
                let commands = queue.next(context, facts, reports);
                if !commands.is_empty() {
                    match context.group.propose(proposal_class::RECONCILE, commands).await {
                        Ok(_) => {
                            context.succeeded("taking in the directory");
                            // A tenant may be relinquished: its baton does not wait for the next change.
                            context.handovers.send_replace(());
                        }
                        Err(error) => {
                            context.record_retry("taking in the directory", &error);
                            sleep(RETRY_PAUSE).await;
                        }
                    }
                }
                tokio::task::yield_now().await;
            }
            Ok(()) = taken_over.changed() => queue.retry(),
            Ok(()) = heirs.changed() => queue.due.extend(facts.waiting(context.heirs.tenants().into_iter())),
            () = sleep_until(retry_at.unwrap_or_else(Instant::now)), if retry_at.is_some() => queue.retry(),
        }
    }
}

/// Queue of tenants to check.
struct ReconcileQueue {
    /// Next tenant of a pass over all tenants.
    pass: Option<TenantNumber>,
    due: BTreeSet<TenantNumber>,
    /// Last step that was proposed for each tenant.
    proposed: BTreeMap<TenantNumber, Step>,
    /// Tenants to check again after a pause: the same step would be proposed again, because it was void or the group did
    /// not take it; or their next step depends on facts that change without the view.
    waiting: BTreeSet<TenantNumber>,
    retry_at: Option<Instant>,
}

impl ReconcileQueue {
    /// Returns a queue with all tenants.
    fn new() -> Self {
        Self {
            pass: Some(TenantNumber::new(0)),
            due: BTreeSet::new(),
            proposed: BTreeMap::new(),
            waiting: BTreeSet::new(),
            retry_at: None,
        }
    }

    fn is_due(&self) -> bool {
        self.pass.is_some() || !self.due.is_empty()
    }

    /// Adds the tenants that have changed in the view; `None`: any may have.
    fn add_changed(&mut self, changed_tenants: Option<BTreeSet<TenantNumber>>) {
        match changed_tenants {
            Some(changed_tenants) => self.due.extend(changed_tenants),
            None => self.pass = Some(TenantNumber::new(0)),
        }
    }

    /// Queues the waiting tenants again.
    fn retry(&mut self) {
        self.retry_at = None;
        for tenant in std::mem::take(&mut self.waiting) {
            self.proposed.remove(&tenant);
            self.due.insert(tenant);
        }
    }

    /// Checks the next tenants and returns the commands to propose for them; they are checked again afterwards.
    fn next(&mut self, context: &GroupContext, facts: &FactSource, reports: &ReportQueue) -> Vec<Bytes> {
        let steps = match self.pass.filter(|_| self.due.is_empty()) {
            Some(from) => {
                let page = page(context, from);
                self.pass = page.as_ref().and_then(|page| page.next);
                self.due.extend(waiting_from(context, facts, from, self.pass));
                page.map_or_else(Vec::new, |page| page.steps)
            }
            None => {
                let mut tenants = std::mem::take(&mut self.due).into_iter();
                let some: BTreeSet<_> = tenants.by_ref().take(STEPS_MAX).collect();
                self.due.extend(tenants);
                let steps = steps(context, facts, &some);
                let stepping: BTreeSet<_> = steps.iter().map(Step::tenant).collect();
                for tenant in some.difference(&stepping) {
                    self.proposed.remove(tenant);
                }
                // A tenant with a report, too: its next step need not wait until the directory has taken it.
                let commanded = steps.iter().filter(|step| step.command().is_some());
                let commanded: BTreeSet<_> = commanded.map(Step::tenant).collect();
                self.wait(facts.waiting(some.difference(&commanded).copied()));
                steps
            }
        };
        for step in &steps {
            if let Step::Freeze(freeze) = step {
                facts.record_freshness(freeze.tenant, freeze.operation);
            }
        }
        steps
            .into_iter()
            .filter_map(|step| self.add_step(step, reports))
            .collect()
    }

    /// Checks tenants again after a pause.
    fn wait(&mut self, tenants: impl IntoIterator<Item = TenantNumber>) {
        self.waiting.extend(tenants);
        if !self.waiting.is_empty() {
            self.retry_at.get_or_insert_with(|| Instant::now() + RETRY_PAUSE);
        }
    }

    /// Handles the due step of a tenant: returns the command to propose, or queues a report or a retry.
    fn add_step(&mut self, step: Step, reports: &ReportQueue) -> Option<Bytes> {
        let tenant = step.tenant();
        let Some(command) = step.command() else {
            self.proposed.remove(&tenant);
            reports.add(tenant);
            return None;
        };
        // Each step of a rewind is the same, and brings it further.
        let is_repeated = !matches!(step, Step::ContinueRewind(_)) && self.proposed.get(&tenant) == Some(&step);
        if is_repeated {
            self.wait([tenant]);
            return None;
        }
        self.proposed.insert(tenant, step);
        self.due.insert(tenant);
        Some(command)
    }
}

/// Returns a page of due steps from a tenant on; `None` if this node's rows are closed: such a node proposes nothing.
fn page(context: &GroupContext, from: TenantNumber) -> Option<StepPage> {
    let facts = LeaderFacts {
        epoch_seen: &|tenant| context.epochs_seen.of(tenant),
        ..LeaderFacts::NONE
    };
    let page = context.machine.read(|held| {
        context
            .directory_view
            .read(|view| reconcile::page(view, held.shard(), from, &facts))
    });
    page.ok()
}

/// Returns the tenants of a page whose next step depends on facts, which a pass does not look at.
fn waiting_from(
    context: &GroupContext,
    facts: &FactSource,
    from: TenantNumber,
    next: Option<TenantNumber>,
) -> BTreeSet<TenantNumber> {
    let tenants: Vec<TenantNumber> = context.directory_view.read(|view| {
        let numbers = view.tenants_from(from).map(|tenant| tenant.number);
        numbers
            .take_while(|tenant| next.is_none_or(|next| *tenant < next))
            .collect()
    });
    facts.waiting(tenants.into_iter())
}

/// Returns the due steps of these tenants; none if this node's rows are closed.
fn steps(context: &GroupContext, facts: &FactSource, tenants: &BTreeSet<TenantNumber>) -> Vec<Step> {
    let facts = facts.collect(tenants);
    let steps = context.machine.read(|held| {
        context.directory_view.read(|view| {
            facts.with(|facts| {
                let step = |number: &TenantNumber| reconcile::step(view, held.shard(), *number, facts);
                tenants.iter().filter_map(step).collect()
            })
        })
    });
    steps.unwrap_or_default()
}

/// Queue of tenants to report to the directory. It is bounded by the number of tenants that the group holds.
#[derive(Default)]
struct ReportQueue {
    new: Mutex<BTreeSet<TenantNumber>>,
    added: Notify,
}

impl ReportQueue {
    fn add(&self, tenant: TenantNumber) {
        if self.new.lock().insert(tenant) {
            self.added.notify_one();
        }
    }

    /// Takes the tenants of one command out of the queue.
    fn take(&self) -> BTreeSet<TenantNumber> {
        let mut new = self.new.lock();
        let taken: BTreeSet<_> = new.iter().take(REPORTS_MAX).copied().collect();
        new.retain(|tenant| !taken.contains(tenant));
        taken
    }
}

/// Reports that the directory has not taken, with the time of their retry.
struct ReportRetries {
    tenants: BTreeSet<TenantNumber>,
    /// Last tenant that had its turn.
    last: TenantNumber,
    /// Number of reports in one command: fewer each time, so that a report that is never taken ends up alone.
    count: usize,
    pause: Duration,
    retry_at: Instant,
}

impl ReportRetries {
    fn new() -> Self {
        Self {
            tenants: BTreeSet::new(),
            last: TenantNumber::new(0),
            count: REPORTS_MAX,
            pause: RETRY_PAUSE,
            retry_at: Instant::now(),
        }
    }

    /// Returns the tenants whose reports are due next, round robin.
    fn turn(&mut self) -> BTreeSet<TenantNumber> {
        let behind = (Bound::Excluded(self.last), Bound::Unbounded);
        let mut turn: BTreeSet<_> = self.tenants.range(behind).take(self.count).copied().collect();
        if turn.is_empty() {
            turn.extend(self.tenants.iter().take(self.count));
        }
        self.last = turn.last().copied().unwrap_or(TenantNumber::new(0));
        turn
    }

    /// Removes tenants whose reports were taken, or are not due any more.
    fn done(&mut self, tenants: &BTreeSet<TenantNumber>) {
        let before = self.tenants.len();
        self.tenants.retain(|tenant| !tenants.contains(tenant));
        if self.tenants.len() < before {
            self.count = (self.count * 2).min(REPORTS_MAX);
            self.pause = RETRY_PAUSE;
            self.retry_at = Instant::now();
        }
    }

    /// Adds tenants whose reports were not taken, and backs off.
    fn add(&mut self, tenants: BTreeSet<TenantNumber>) {
        self.count = (self.count.min(tenants.len()) / 2).max(1);
        self.tenants.extend(tenants);
        self.retry_at = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(RETRY_PAUSE_MAX);
    }
}

/// Submits reports to the directory, and retries those that it does not take. Never returns.
async fn report(context: &GroupContext, facts: &FactSource, directory: &DirectoryAccess, reports: &ReportQueue) {
    let mut failed = ReportRetries::new();
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
        // Reports may not be due any more.
        let still: Vec<GroupReport> = steps(context, facts, &tenants)
            .iter()
            .filter_map(Step::report)
            .collect();
        let frozen: BTreeSet<TenantNumber> = still
            .iter()
            .filter(|report| matches!(report, GroupReport::Frozen { .. }))
            .map(GroupReport::tenant)
            .collect();
        if still.is_empty() || submit(context, directory, still).await {
            context.pulls.told(&frozen);
            // A report that the directory has taken changes its tenant in the view, which is checked then.
            failed.done(&tenants);
        } else {
            failed.add(tenants);
        }
    }
}

async fn submit(context: &GroupContext, directory: &DirectoryAccess, reports: Vec<GroupReport>) -> bool {
    let command = Command::Report(context.id(), context.group.incarnation(), reports);
    matches!(timeout(SUBMIT_TIMEOUT, (directory.submit)(command)).await, Ok(true))
}
