//! One simulated machine: its disk, its wall clock, and the end of the node that runs on it.

use std::{
    cell::{Cell, RefCell},
    error::Error,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use stead_server::{config::Checked, environment::Upkeep, node};
use stead_store::{Disk, engine::memory::Operation};
use tokio_util::sync::CancellationToken;
use turmoil::Result;

use crate::network::{self, Clock};

/// An operation of a disk that can be made to fail.
#[derive(Clone, Copy, Debug)]
pub(crate) enum DiskFault {
    /// A sync of the log.
    LogSync,
    /// An operation of the rows.
    Rows(Operation),
}

/// What survives the node, and what is known of it.
pub(crate) struct Machine {
    disk: Rc<RefCell<Disk>>,
    pub(crate) clock: Arc<Clock>,
    /// Nothing is synced.
    pub(crate) is_stalled: bool,
    /// When the node is started again that has ended by itself.
    pub(crate) restart_at: Option<Duration>,
    end: Rc<End>,
    is_full: bool,
    /// Its power goes off soon, or its disk is to fail.
    is_armed: bool,
    has_lost_disk: bool,
    /// Its node has had a reason to end by itself.
    is_excused: bool,
}

/// The end of a node by itself.
#[derive(Default)]
struct End {
    is_allowed: Cell<bool>,
    why: RefCell<Option<String>>,
}

type Software = Pin<Box<dyn Future<Output = Result>>>;

impl Machine {
    /// A machine with an empty disk.
    pub(crate) fn new() -> Self {
        Self {
            disk: Rc::new(RefCell::new(empty_disk())),
            clock: Arc::default(),
            is_stalled: false,
            restart_at: None,
            end: Rc::default(),
            is_full: false,
            is_armed: false,
            has_lost_disk: false,
            is_excused: false,
        }
    }

    /// Returns what runs on it whenever it starts.
    pub(crate) fn software(&self, config: Checked, upkeep: Upkeep) -> impl Fn() -> Software + 'static {
        let (disk, clock, end) = (self.disk.clone(), self.clock.clone(), self.end.clone());
        move || {
            let environment = network::environment(clock.clone(), upkeep);
            let (config, disk, end) = (config.clone(), disk.borrow().clone(), end.clone());
            Box::pin(async move {
                let stop = CancellationToken::new();
                let ended = node::run(config, environment, Some(disk), stop, || {}).await;
                let why = ended.map_or_else(|error| chain(&error), |()| "nothing was wrong".to_owned());
                if !end.is_allowed.get() {
                    return Err(format!("a node ended without a reason: {why}").into());
                }
                end.why.replace(Some(why));
                Ok(())
            })
        }
    }

    pub(crate) fn disk(&self) -> Disk {
        self.disk.borrow().clone()
    }

    /// Tells whether there is something to sync.
    pub(crate) fn is_busy(&self) -> bool {
        !self.is_stalled && self.disk.borrow().log.pending() > 0
    }

    /// Tells whether something is still to happen to it that was ordered.
    pub(crate) fn is_armed(&self) -> bool {
        self.is_armed
    }

    pub(crate) fn has_lost_disk(&self) -> bool {
        self.has_lost_disk
    }

    pub(crate) fn is_excused(&self) -> bool {
        self.is_excused
    }

    /// Returns why its node ended, once.
    pub(crate) fn take_end(&mut self) -> Option<String> {
        self.end.why.take()
    }

    pub(crate) fn cut_after(&mut self, operations: u64) {
        self.disk.borrow().cut_after(operations);
        self.arm();
    }

    pub(crate) fn fail(&mut self, fault: DiskFault, after: u64) {
        match fault {
            DiskFault::LogSync => self.disk.borrow().log.fail_next_sync(),
            DiskFault::Rows(operation) => self.disk.borrow().rows.fail_once(operation, after),
        }
        self.arm();
    }

    fn arm(&mut self) {
        self.is_armed = true;
        self.may_end();
    }

    pub(crate) fn fill(&mut self, is_full: bool) {
        self.disk.borrow().fill(is_full);
        if is_full {
            self.may_end();
        }
        self.is_full = is_full;
    }

    /// Its disk is exchanged for an empty one; it has no power.
    pub(crate) fn lose_disk(&mut self) {
        self.disk.replace(empty_disk());
        self.has_lost_disk = true;
    }

    fn may_end(&mut self) {
        self.is_excused = true;
        self.end.is_allowed.set(true);
    }

    pub(crate) fn lost_power(&mut self) {
        self.is_stalled = false;
        self.is_armed = false;
        self.restart_at = None;
        self.end.why.take();
    }

    /// Its node starts: it has no reason to end by itself but what is wrong still.
    pub(crate) fn starts(&mut self) {
        self.restart_at = None;
        self.is_armed = false;
        self.end.why.take();
        self.end.is_allowed.set(false);
        if self.is_full || self.has_lost_disk {
            self.may_end();
        }
    }
}

/// A disk that syncs only when it is told to.
fn empty_disk() -> Disk {
    let disk = Disk::default();
    disk.log.hold_syncs(true);
    disk
}

/// An error with its causes.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
