//! Temporary folder of a cluster.
//!
//! # Invariants
//!
//! * **T1** A folder is removed with its value; one whose process was killed is removed when the next one is made.
//! * **T2** A folder that is in use, or was to be kept, is never removed.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use tempfile::TempDir;

use crate::cluster::lock::{self, LockFile};

const PREFIX: &str = "stead-cluster-";
/// File that marks a folder as kept (T2).
const KEEP_FILE: &str = "kept";
/// Age from which a folder counts as abandoned (T2): a new one may not be locked by its cluster yet.
const ABANDONED_AFTER: Duration = Duration::from_secs(60);

/// A folder in the system's temporary folder, removed when this value is dropped.
#[derive(Debug)]
pub struct TemporaryFolder {
    /// `None` only while it is dropped.
    folder: Option<TempDir>,
    path: PathBuf,
    keep: bool,
}

impl TemporaryFolder {
    /// Creates a folder, and removes those that killed processes have left.
    ///
    /// # Errors
    ///
    /// The system's temporary folder cannot be written.
    pub fn make() -> io::Result<Self> {
        let below = env::temp_dir();
        sweep(&below, ABANDONED_AFTER);
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(below)?;
        Ok(Self {
            path: folder.path().to_owned(),
            folder: Some(folder),
            keep: false,
        })
    }

    /// Returns its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps the folder when this value is dropped; its path is printed then.
    pub fn keep(&mut self) {
        self.keep = true;
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        let Some(folder) = self.folder.take() else {
            return;
        };
        if self.keep {
            let path = folder.keep();
            // Without the file it is kept until the next sweep.
            let _ = fs::write(path.join(KEEP_FILE), "");
            eprintln!(
                "the cluster's configurations, logs and data are kept in {}",
                path.display()
            );
        }
    }
}

/// Removes the folders that killed processes have left (T1).
fn sweep(below: &Path, abandoned_after: Duration) {
    let entries = fs::read_dir(below).into_iter().flatten().flatten();
    let ours = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX));
    for folder in ours
        .map(|entry| entry.path())
        .filter(|path| is_abandoned(path, abandoned_after))
    {
        // It belongs to another user, or is gone already.
        let _ = fs::remove_dir_all(folder);
    }
}

fn is_abandoned(folder: &Path, abandoned_after: Duration) -> bool {
    let age = fs::metadata(folder)
        .and_then(|data| data.modified())
        .map(|time| time.elapsed());
    let is_old = matches!(age, Ok(Ok(age)) if age >= abandoned_after);
    is_old && folder.join(lock::NAME).exists() && !folder.join(KEEP_FILE).exists() && LockFile::take(folder).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(below: &Path, name: &str) -> PathBuf {
        let path = below.join(name);
        fs::create_dir(&path).unwrap();
        fs::write(path.join(lock::NAME), "").unwrap();
        path
    }

    #[test]
    fn t1_folder_is_removed_on_drop_unless_kept() {
        let folder = TemporaryFolder::make().unwrap();
        let path = folder.path().to_owned();
        assert!(path.is_dir());
        drop(folder);
        assert!(!path.exists());
        let mut folder = TemporaryFolder::make().unwrap();
        folder.keep();
        let path = folder.path().to_owned();
        drop(folder);
        assert!(path.join(KEEP_FILE).exists());
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn t2_sweep_removes_only_unused_folders() {
        let below = tempfile::tempdir().unwrap();
        let left = folder(below.path(), "stead-cluster-left");
        let kept = folder(below.path(), "stead-cluster-kept");
        fs::write(kept.join(KEEP_FILE), "").unwrap();
        let used = folder(below.path(), "stead-cluster-used");
        let lock = LockFile::take(&used).unwrap();
        let new = below.path().join("stead-cluster-new");
        fs::create_dir(&new).unwrap();
        let other = folder(below.path(), "other");
        sweep(below.path(), ABANDONED_AFTER);
        assert!(left.exists(), "it is not old");
        sweep(below.path(), Duration::ZERO);
        assert!(!left.exists());
        assert!([&kept, &used, &new, &other].iter().all(|path| path.exists()));
        drop(lock);
        sweep(below.path(), Duration::ZERO);
        assert!(!used.exists());
    }
}
