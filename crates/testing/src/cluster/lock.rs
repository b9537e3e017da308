//! Lock on the directory of a cluster (C3).

use std::{
    fs::{File, TryLockError},
    path::Path,
};

use super::{Error, error::at};

/// Name of the lock file.
pub(crate) const NAME: &str = "lock";

/// Lock held by the process that runs the cluster of a directory.
#[derive(Debug)]
pub(crate) struct LockFile(File);

impl LockFile {
    pub(crate) fn take(data: &Path) -> Result<Self, Error> {
        let path = data.join(NAME);
        let lock = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(at("open", &path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self(lock)),
            Err(TryLockError::WouldBlock) => Err(Error::InUse(data.to_owned())),
            Err(TryLockError::Error(error)) => Err(at("lock", &path)(error)),
        }
    }
}

impl Drop for LockFile {
    /// Unlocks the file. Closing it is not enough: a process that another thread is starting has it open until it runs.
    fn drop(&mut self) {
        // A file that cannot be unlocked is unlocked when all have closed it.
        let _ = self.0.unlock();
    }
}
