//! Finds, in debug builds, whoever reads a machine inside a reading of it.

use std::cell::RefCell;

thread_local! {
    /// The machines that this thread is reading, by address.
    static READ: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// One reading of a machine by this thread.
pub(super) struct Once(usize);

impl Once {
    /// Notes a reading.
    ///
    /// # Panics
    ///
    /// Inside another one of the same machine.
    pub(super) fn new(machine: usize) -> Self {
        READ.with_borrow_mut(|read| {
            assert!(!read.contains(&machine), "a machine is read inside a reading of it");
            read.push(machine);
        });
        Self(machine)
    }
}

impl Drop for Once {
    fn drop(&mut self) {
        READ.with_borrow_mut(|read| read.retain(|machine| *machine != self.0));
    }
}
