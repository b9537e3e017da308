//! A node's view of the directory on its own disk: restarted while the directory is away, it still knows every route.
//!
//! # Invariants
//!
//! 1. What is on disk is the view as of one version.

use std::{io, sync::Arc};

use stead_state::{
    directory::{Change, View},
    rows::{Unreadable, view as rows},
};
use stead_types::DirectoryVersion;

use crate::{engine::Engine, table::Table};

/// The rows of a node's view.
#[derive(Clone)]
pub struct ViewRows(Arc<dyn Engine>);

/// The view could not be written; the node must stop.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The rows to replace cannot be read.
    #[error("the view of the directory cannot be read from disk")]
    Unreadable(#[from] Unreadable),
    /// The engine refused.
    #[error("the view of the directory cannot be written to disk")]
    Write(#[from] io::Error),
}

impl ViewRows {
    /// Returns the rows of a node's view in its engine.
    pub fn new(engine: Arc<dyn Engine>) -> Self {
        Self(engine)
    }

    /// Reads the view; an empty one if there is none.
    pub fn load(&self) -> Result<View, Unreadable> {
        rows::load(&Table::new(self.0.clone()))
    }

    /// Writes changes up to a version, in one batch; with `reset` they are all there is. Durable with the engine's next
    /// checkpoint; a view that lost its last changes asks for them again.
    pub fn write(&self, reset: bool, changes: &[Change], version: DirectoryVersion) -> Result<(), Error> {
        if changes.is_empty() && !reset {
            // The version alone is not worth a row: after a restart the view is asked for from an older one.
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

    fn region(name: &str) -> Change {
        Change::Region(Region {
            name: name.parse().unwrap(),
            jurisdiction: "EU".parse().unwrap(),
        })
    }

    /// What is found after the first `survivors` batches since the last checkpoint reached the disk.
    fn found(disk: &Disk, survivors: usize) -> (Vec<String>, DirectoryVersion) {
        disk.power_loss(survivors);
        let view = ViewRows::new(disk.open()).load().unwrap();
        (
            view.regions().map(|region| region.name.to_string()).collect(),
            view.version(),
        )
    }

    #[test]
    fn a_view_is_found_again_and_a_snapshot_replaces_it() {
        let disk = Disk::default();
        let rows = ViewRows::new(disk.open());
        rows.write(false, &[region("eu")], version(3)).unwrap();
        rows.write(false, &[Change::TenantGone(TenantNumber::new(7))], version(4))
            .unwrap();
        rows.write(false, &[], version(9)).unwrap();
        assert_eq!(found(&disk, 2), (vec!["eu".into()], version(4)));
        let rows = ViewRows::new(disk.open());
        rows.write(true, &[region("us")], version(12)).unwrap();
        assert_eq!(found(&disk, 1), (vec!["us".into()], version(12)));
    }
}
