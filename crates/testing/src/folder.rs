//! A folder for a cluster that is not kept.
//!
//! # Invariants
//!
//! * **T1** A folder goes with its value; one whose process was killed goes when the next one is made.
//! * **T2** A folder that is in use, or was to be kept, is never removed.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use tempfile::TempDir;

use crate::cluster::lock::{self, Lock};

const PREFIX: &str = "stead-cluster-";
/// A folder with this file stays (T2).
const KEPT: &str = "kept";
/// T2: a folder that was just made may not be locked by its cluster yet.
const LEFT_AFTER: Duration = Duration::from_secs(60);

/// A folder in the system's temporary one, removed with this value.
#[derive(Debug)]
pub struct TemporaryFolder {
    /// Absent only while it is dropped.
    folder: Option<TempDir>,
    path: PathBuf,
    keep: bool,
}

impl TemporaryFolder {
    /// Makes a folder, and removes those that killed processes have left.
    ///
    /// # Errors
    ///
    /// The system's temporary folder cannot be written.
    pub fn make() -> io::Result<Self> {
        let below = env::temp_dir();
        sweep(&below, LEFT_AFTER);
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(below)?;
        Ok(Self {
            path: folder.path().to_owned(),
            folder: Some(folder),
            keep: false,
        })
    }

    /// Returns where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lets the folder stay when this value goes; its path is printed then.
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
            let _ = fs::write(path.join(KEPT), "");
            eprintln!(
                "the cluster's configurations, logs and data are kept in {}",
                path.display()
            );
        }
    }
}

/// T1: removes what killed processes have left, as far as it is ours to remove.
fn sweep(below: &Path, left_after: Duration) {
    let entries = fs::read_dir(below).into_iter().flatten().flatten();
    let ours = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX));
    for folder in ours.map(|entry| entry.path()).filter(|path| is_left(path, left_after)) {
        // Somebody else's, or gone already.
        let _ = fs::remove_dir_all(folder);
    }
}

fn is_left(folder: &Path, left_after: Duration) -> bool {
    let age = fs::metadata(folder)
        .and_then(|data| data.modified())
        .map(|time| time.elapsed());
    let is_old = matches!(age, Ok(Ok(age)) if age >= left_after);
    is_old && folder.join(lock::NAME).exists() && !folder.join(KEPT).exists() && Lock::take(folder).is_ok()
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
    fn t1_a_folder_goes_with_its_value_and_stays_on_request() {
        let folder = TemporaryFolder::make().unwrap();
        let path = folder.path().to_owned();
        assert!(path.is_dir());
        drop(folder);
        assert!(!path.exists());
        let mut folder = TemporaryFolder::make().unwrap();
        folder.keep();
        let path = folder.path().to_owned();
        drop(folder);
        assert!(path.join(KEPT).exists());
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn t2_only_what_nobody_uses_or_keeps_is_swept() {
        let below = tempfile::tempdir().unwrap();
        let left = folder(below.path(), "stead-cluster-left");
        let kept = folder(below.path(), "stead-cluster-kept");
        fs::write(kept.join(KEPT), "").unwrap();
        let used = folder(below.path(), "stead-cluster-used");
        let lock = Lock::take(&used).unwrap();
        let new = below.path().join("stead-cluster-new");
        fs::create_dir(&new).unwrap();
        let other = folder(below.path(), "other");
        sweep(below.path(), LEFT_AFTER);
        assert!(left.exists(), "it is not old");
        sweep(below.path(), Duration::ZERO);
        assert!(!left.exists());
        assert!([&kept, &used, &new, &other].iter().all(|path| path.exists()));
        drop(lock);
        sweep(below.path(), Duration::ZERO);
        assert!(!used.exists());
    }
}
