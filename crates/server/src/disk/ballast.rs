//! File that takes up disk space until that is needed: without any the node could not start, elect, or delete.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use tracing::{info, warn};

/// Bytes of the file.
pub(super) const BALLAST_LEN: u64 = 32 << 20;

/// Free space below which the file is removed.
pub(super) const BALLAST_NEEDED: u64 = 16 << 20;

const NAME: &str = "BALLAST";

/// The ballast of a data directory.
#[derive(Clone, Debug)]
pub(crate) struct Ballast(PathBuf);

/// Next step for the ballast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BallastStep {
    Keep,
    Remove,
    Create,
}

impl Ballast {
    /// Returns the ballast of a data directory, which need not exist yet.
    pub(crate) fn new(data_dir: &Path) -> Self {
        Self(data_dir.join(NAME))
    }

    /// Removes or creates the file as the free space asks for.
    pub(crate) fn adjust(&self, free: u64, reserve: u64) {
        match decide(self.0.exists(), free, reserve) {
            BallastStep::Keep => {}
            BallastStep::Remove => self.remove(free),
            BallastStep::Create => self.create(),
        }
    }

    fn remove(&self, free: u64) {
        match fs::remove_file(&self.0) {
            Ok(()) => warn!(
                free_mib = free >> 20,
                file = %self.0.display(),
                "disk is full: the ballast is removed, free disk space"
            ),
            Err(error) => warn!(%error, file = %self.0.display(), "the ballast cannot be removed"),
        }
    }

    fn create(&self) {
        match allocate(&self.0) {
            Ok(()) => info!(file = %self.0.display(), mib = BALLAST_LEN >> 20, "ballast created"),
            Err(error) => {
                // The next look tries again. A file that takes no space is of no use.
                let _absent = fs::remove_file(&self.0);
                warn!(%error, file = %self.0.display(), "the ballast cannot be created");
            }
        }
    }
}

fn decide(exists: bool, free: u64, reserve: u64) -> BallastStep {
    // Twice its length, so that it does not bring the node below the reserve, to be removed and created in turn.
    let enough = reserve.saturating_add(2 * BALLAST_LEN);
    if exists && free < BALLAST_NEEDED {
        BallastStep::Remove
    } else if !exists && enough <= free {
        BallastStep::Create
    } else {
        BallastStep::Keep
    }
}

fn allocate(path: &Path) -> io::Result<()> {
    let file = File::create(path)?;
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, BALLAST_LEN)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESERVE: u64 = 256 << 20;

    #[test]
    fn ballast_goes_on_full_disk_and_returns_with_room() {
        let enough = RESERVE + 2 * BALLAST_LEN;
        assert_eq!(decide(true, BALLAST_NEEDED - 1, RESERVE), BallastStep::Remove);
        assert_eq!(decide(true, BALLAST_NEEDED, RESERVE), BallastStep::Keep);
        assert_eq!(decide(false, enough - 1, RESERVE), BallastStep::Keep);
        assert_eq!(decide(false, enough, RESERVE), BallastStep::Create);
        assert_eq!(decide(false, 0, RESERVE), BallastStep::Keep);
        assert_eq!(decide(true, u64::MAX, u64::MAX), BallastStep::Keep);
    }

    #[test]
    fn ballast_takes_up_space() {
        use std::os::unix::fs::MetadataExt;

        let dir = tempfile::tempdir().unwrap();
        let ballast = Ballast::new(dir.path());
        ballast.adjust(u64::MAX, RESERVE);
        let file = fs::metadata(dir.path().join(NAME)).unwrap();
        assert!(BALLAST_LEN <= file.blocks() * 512, "{} blocks", file.blocks());
        ballast.adjust(0, RESERVE);
        assert!(!dir.path().join(NAME).exists());
    }
}
