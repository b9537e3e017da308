//! Simulated disk of a node: its log and its rows in memory, under one power supply.

use crate::{engine, log, power::Power};

/// Simulated disk in memory, which survives the death of its node.
#[derive(Clone)]
pub struct Disk {
    /// The Raft log.
    pub log: log::memory::Disk,
    /// The rows.
    pub rows: engine::memory::Disk,
    power: Power,
}

impl Default for Disk {
    fn default() -> Self {
        let power = Power::default();
        Self {
            log: log::memory::Disk::powered_by(power.clone()),
            rows: engine::memory::Disk::powered_by(power.clone()),
            power,
        }
    }
}

impl Disk {
    /// Cuts the power after this many more writes and syncs of log and rows, between any two of them. The node on the
    /// disk must be dead before its responses are used; then call [`Disk::power_loss`].
    pub fn cut_after(&self, operations: u64) {
        self.power.cut_after(operations);
    }

    /// Tells whether the power is off.
    pub fn is_cut(&self) -> bool {
        self.power.is_cut()
    }

    /// Fills the disk, or frees space again.
    pub fn fill(&self, is_full: bool) {
        self.power.fill(is_full);
    }

    /// Cuts the power, unless it is off, and switches it on again: of the pending operations of log and rows this many
    /// survive.
    pub fn power_loss(&self, log_survivors: usize, rows_survivors: usize) {
        self.log.power_loss(log_survivors);
        self.rows.power_loss(rows_survivors);
        self.power.on();
    }
}
