//! File system under the log: the real one, with fault injection for syncs.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use raft_engine::env::{DefaultFileSystem, FileSystem, Handle, Permission};

type RealHandle = <DefaultFileSystem as FileSystem>::Handle;

/// Fault injection for the syncs of a log, so that tests cover a failed sync. Clones share it.
#[derive(Clone, Default)]
pub struct SyncFault(Arc<AtomicBool>);

impl SyncFault {
    /// Makes every sync fail from now on, or none.
    pub fn set(&self, fail: bool) {
        self.0.store(fail, Ordering::Relaxed);
    }

    fn check(&self) -> io::Result<()> {
        if self.0.load(Ordering::Relaxed) {
            return Err(io::Error::other("sync failed on request"));
        }
        Ok(())
    }
}

/// Real file system with injected sync faults.
pub(super) struct Files {
    pub(super) fault: SyncFault,
    pub(super) abandoned: AbandonedFlag,
}

/// Flag that a log has failed and is only being closed, so that nothing relies on its syncs. raft-engine panics at a
/// failed sync, in its destructors too, where a second panic would abort the process before the node has reported why
/// it stops.
#[derive(Clone, Default)]
pub(super) struct AbandonedFlag(Arc<AtomicBool>);

impl AbandonedFlag {
    /// Makes every sync from now on do nothing.
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Open file.
pub(super) struct File {
    real: Arc<RealHandle>,
    fault: SyncFault,
    abandoned: AbandonedFlag,
}

impl Files {
    fn wrap(&self, real: RealHandle) -> File {
        File {
            real: Arc::new(real),
            fault: self.fault.clone(),
            abandoned: self.abandoned.clone(),
        }
    }
}

impl FileSystem for Files {
    type Handle = File;
    type Reader = <DefaultFileSystem as FileSystem>::Reader;
    type Writer = <DefaultFileSystem as FileSystem>::Writer;

    fn create<P: AsRef<Path>>(&self, path: P) -> io::Result<File> {
        Ok(self.wrap(DefaultFileSystem.create(path)?))
    }

    fn open<P: AsRef<Path>>(&self, path: P, permission: Permission) -> io::Result<File> {
        Ok(self.wrap(DefaultFileSystem.open(path, permission)?))
    }

    fn delete<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        DefaultFileSystem.delete(path)
    }

    fn rename<P: AsRef<Path>>(&self, from: P, to: P) -> io::Result<()> {
        DefaultFileSystem.rename(from, to)
    }

    fn new_reader(&self, handle: Arc<File>) -> io::Result<Self::Reader> {
        DefaultFileSystem.new_reader(handle.real.clone())
    }

    fn new_writer(&self, handle: Arc<File>) -> io::Result<Self::Writer> {
        DefaultFileSystem.new_writer(handle.real.clone())
    }
}

impl Handle for File {
    fn truncate(&self, offset: usize) -> io::Result<()> {
        self.real.truncate(offset)
    }

    fn file_size(&self) -> io::Result<usize> {
        self.real.file_size()
    }

    fn sync(&self) -> io::Result<()> {
        if self.abandoned.is_set() {
            return Ok(());
        }
        self.fault.check()?;
        self.real.sync()
    }
}
