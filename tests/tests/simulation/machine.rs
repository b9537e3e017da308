//! Simulated machine: its disk, its wall clock, and the exit of the node that runs on it.

use std::{
    cell::{Cell, RefCell},
    error::Error,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use stead_server::{config::ValidatedConfig, environment::RetentionConfig, node};
use stead_store::{Disk, engine::memory::DiskOperation};
use tokio_util::sync::CancellationToken;
use turmoil::Result;

use crate::network::{self, SimulatedClock};

/// Disk operation that can be made to fail.
#[derive(Clone, Copy, Debug)]
pub(crate) enum DiskFault {
    /// A sync of the log.
    LogSync,
    /// An operation of the rows.
    Rows(DiskOperation),
}

/// State of a machine that outlives its node.
pub(crate) struct Machine {
    disk: Rc<RefCell<Disk>>,
    pub(crate) clock: Arc<SimulatedClock>,
    /// Whether the disk syncs nothing.
    pub(crate) syncs_stalled: bool,
    /// When the node is restarted after it ended by itself.
    pub(crate) restart_at: Option<Duration>,
    exit: Rc<NodeExit>,
    is_full: bool,
    /// Whether a power loss or a disk failure is still to come.
    has_pending_fault: bool,
    has_lost_disk: bool,
    /// Whether its node has had a reason to log errors or to end by itself.
    may_log_errors: bool,
}

/// Exit of a node by itself.
#[derive(Default)]
struct NodeExit {
    is_allowed: Cell<bool>,
    reason: RefCell<Option<String>>,
}

type Software = Pin<Box<dyn Future<Output = Result>>>;

impl Machine {
    /// Returns a machine with an empty disk.
    pub(crate) fn new() -> Self {
        Self {
            disk: Rc::new(RefCell::new(empty_disk())),
            clock: Arc::default(),
            syncs_stalled: false,
            restart_at: None,
            exit: Rc::default(),
            is_full: false,
            has_pending_fault: false,
            has_lost_disk: false,
            may_log_errors: false,
        }
    }

    /// Returns the program that runs on it at each start.
    pub(crate) fn software(
        &self,
        config: ValidatedConfig,
        retention: RetentionConfig,
    ) -> impl Fn() -> Software + 'static {
        let (disk, clock, exit) = (self.disk.clone(), self.clock.clone(), self.exit.clone());
        move || {
            let environment = network::environment(clock.clone(), retention);
            let (config, disk, exit) = (config.clone(), disk.borrow().clone(), exit.clone());
            Box::pin(async move {
                let stop = CancellationToken::new();
                let ended = node::run(config, environment, Some(disk), stop, Box::new(|| {})).await;
                let reason = ended.map_or_else(|error| error_chain(&error), |_end| "nothing was wrong".to_owned());
                if !exit.is_allowed.get() {
                    return Err(format!("a node ended without a reason: {reason}").into());
                }
                exit.reason.replace(Some(reason));
                Ok(())
            })
        }
    }

    pub(crate) fn disk(&self) -> Disk {
        self.disk.borrow().clone()
    }

    /// Returns whether there is something to sync.
    pub(crate) fn has_pending_syncs(&self) -> bool {
        !self.syncs_stalled && self.disk.borrow().log.pending() > 0
    }

    /// Returns whether a fault that was scheduled is still to come.
    pub(crate) fn has_pending_fault(&self) -> bool {
        self.has_pending_fault
    }

    pub(crate) fn has_lost_disk(&self) -> bool {
        self.has_lost_disk
    }

    pub(crate) fn may_log_errors(&self) -> bool {
        self.may_log_errors
    }

    /// Takes the reason why its node ended by itself.
    pub(crate) fn take_exit_reason(&mut self) -> Option<String> {
        self.exit.reason.take()
    }

    pub(crate) fn power_loss_after(&mut self, operations: u64) {
        self.disk.borrow().cut_after(operations);
        self.note_pending_fault();
    }

    pub(crate) fn fail_disk(&mut self, fault: DiskFault, after: u64) {
        match fault {
            DiskFault::LogSync => self.disk.borrow().log.fail_next_sync(),
            DiskFault::Rows(operation) => self.disk.borrow().rows.fail_once(operation, after),
        }
        self.note_pending_fault();
    }

    fn note_pending_fault(&mut self) {
        self.has_pending_fault = true;
        self.allow_exit();
    }

    pub(crate) fn fill_disk(&mut self, is_full: bool) {
        self.disk.borrow().fill(is_full);
        if is_full {
            self.allow_exit();
        }
        self.is_full = is_full;
    }

    /// Replaces its disk by an empty one; the power is off.
    pub(crate) fn lose_disk(&mut self) {
        self.disk.replace(empty_disk());
        self.has_lost_disk = true;
    }

    fn allow_exit(&mut self) {
        self.may_log_errors = true;
        self.exit.is_allowed.set(true);
    }

    pub(crate) fn note_power_loss(&mut self) {
        self.syncs_stalled = false;
        self.has_pending_fault = false;
        self.restart_at = None;
        self.exit.reason.take();
    }

    /// Resets its state for a start of the node, which may end by itself only for faults that are still there.
    pub(crate) fn note_start(&mut self) {
        self.restart_at = None;
        self.has_pending_fault = false;
        self.exit.reason.take();
        self.exit.is_allowed.set(false);
        if self.is_full || self.has_lost_disk {
            self.allow_exit();
        }
    }
}

/// Returns an empty disk that syncs only on request.
fn empty_disk() -> Disk {
    let disk = Disk::default();
    disk.log.hold_syncs(true);
    disk
}

/// Formats an error with its causes.
fn error_chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
