//! Rows of a node's directory view: a node that restarts while the directory is unreachable still knows every route.
//!
//! # Invariants
//!
//! 1. The rows on disk are the view as of one version.

use std::{io, sync::Arc};

use stead_state::{
    directory::{DirectoryChange, DirectoryView},
    rows::{Unreadable, directory_view as rows},
};
use stead_types::DirectoryVersion;

use crate::{engine::Engine, table::Table};

/// Rows of a node's directory view.
#[derive(Clone)]
pub struct DirectoryViewRows(Arc<dyn Engine>);

/// Error while a directory view is written; the node must stop.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The rows to replace cannot be read.
    #[error("cannot read the directory view from disk")]
    Unreadable(#[from] Unreadable),
    /// The engine failed.
    #[error("cannot write the directory view to disk")]
    Write(#[from] io::Error),
}

impl DirectoryViewRows {
    /// Returns the rows of the directory view in an engine.
    pub fn new(engine: Arc<dyn Engine>) -> Self {
        Self(engine)
    }

    /// Reads the view; an empty one if there is none.
    pub fn load(&self) -> Result<DirectoryView, Unreadable> {
        rows::load(&Table::new(self.0.clone()))
    }

    /// Writes the changes up to a version, in one batch; with `reset` they replace the whole view. Durable with the
    /// engine's next checkpoint; a view that lost its last changes requests them again.
    pub fn write(&self, reset: bool, changes: &[DirectoryChange], version: DirectoryVersion) -> Result<(), Error> {
        if changes.is_empty() && !reset {
            // The version alone is not worth a row: after a restart the node requests the changes since an older one.
            return Ok(());
        }
        let mut table = Table::new(self.0.clone());
        if reset {
            rows::clear(&mut table)?;
        }
        for change in changes {
            rows::write(&mut table, change);
        }
        rows::write_version(&mut table, version);
        self.0.write(&mut table.freeze().changes())?;
        Ok(())
    }

    /// Makes what was written durable.
    ///
    /// # Errors
    ///
    /// The engine fails.
    pub fn checkpoint(&self) -> io::Result<()> {
        self.0.checkpoint()
    }
}

#[cfg(test)]
mod tests {
    use stead_state::directory::Region;
    use stead_types::{Incarnation, TenantNumber};

    use super::*;
    use crate::engine::memory::Disk;

    fn version(index: u64) -> DirectoryVersion {
        DirectoryVersion {
            incarnation: Incarnation::FIRST,
            index,
        }
    }

    fn region(name: &str) -> DirectoryChange {
        DirectoryChange::Region(Region::new(name.parse().unwrap(), "EU".parse().unwrap()))
    }

    /// Returns what is found after the first `survivors` batches since the last checkpoint reached the disk.
    fn found(disk: &Disk, survivors: usize) -> (Vec<String>, DirectoryVersion) {
        disk.power_loss(survivors);
        let view = DirectoryViewRows::new(disk.open()).load().unwrap();
        (
            view.regions().map(|region| region.name.to_string()).collect(),
            view.version(),
        )
    }

    #[test]
    fn directory_view_survives_and_is_reset_by_snapshot() {
        let disk = Disk::default();
        let rows = DirectoryViewRows::new(disk.open());
        rows.write(false, &[region("eu")], version(3)).unwrap();
        rows.write(false, &[DirectoryChange::TenantGone(TenantNumber::new(7))], version(4))
            .unwrap();
        rows.write(false, &[], version(9)).unwrap();
        assert_eq!(found(&disk, 2), (vec!["eu".into()], version(4)));
        let rows = DirectoryViewRows::new(disk.open());
        rows.write(true, &[region("us")], version(12)).unwrap();
        assert_eq!(found(&disk, 1), (vec!["us".into()], version(12)));
    }
}
