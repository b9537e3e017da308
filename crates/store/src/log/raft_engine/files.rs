//! The file system under the log: the real one, with a switch that makes syncs fail.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use raft_engine::env::{DefaultFileSystem, FileSystem, Handle, Permission};

type RealHandle = <DefaultFileSystem as FileSystem>::Handle;

/// Makes the syncs of a log fail, so that what follows a failed sync can be rehearsed. Clones share it.
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

/// The real file system, with the switch.
pub(super) struct Files {
    pub(super) fault: SyncFault,
    pub(super) abandoned: Abandoned,
}

/// Says that a log has failed and is only closed: nobody counts on what it syncs. raft-engine panics where a sync fails, also
/// in its destructors, of which a second panic would end the process before the node has said why it ends.
#[derive(Clone, Default)]
pub(super) struct Abandoned(Arc<AtomicBool>);

impl Abandoned {
    /// Lets every sync from now on do nothing.
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// An open file.
pub(super) struct File {
    real: Arc<RealHandle>,
    fault: SyncFault,
    abandoned: Abandoned,
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
        if self.abandoned.0.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.fault.check()?;
        self.real.sync()
    }
}
