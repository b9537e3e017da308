//! FUSE mount of a [`FaultInjectionDisk`]. Nothing is cached by the kernel: every call reaches the disk.

use std::{
    ffi::OsStr,
    fs::OpenOptions,
    io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, SystemTime},
};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use super::disk::{Attributes, EntryPath, FaultInjectionDisk, RawErrno};

/// Time for which the kernel may cache attributes: none.
const ATTRIBUTE_TTL: Duration = Duration::ZERO;
const BLOCK_LEN: u32 = 4096;
/// Capacity that `statfs` reports, in blocks: in effect unlimited.
const BLOCKS: u64 = 1 << 24;
const NAME_LEN_MAX: u32 = 255;

/// Returns why no disk can be mounted here; `None` if one can.
pub fn unavailable_reason() -> Option<String> {
    let device = "/dev/fuse";
    let opened = OpenOptions::new().read(true).write(true).open(device);
    opened.err().map(|error| format!("{device} cannot be opened: {error}"))
}

/// Disk mounted at a path, unmounted when this value is dropped.
#[derive(Debug)]
pub struct Mount {
    /// The disk.
    pub disk: FaultInjectionDisk,
    path: PathBuf,
    session: Option<BackgroundSession>,
}

impl Mount {
    /// Mounts an empty disk at a directory, which is created if it is missing.
    ///
    /// # Errors
    ///
    /// The system refuses; mounting needs the rights of root.
    pub fn new(path: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(path)?;
        let disk = FaultInjectionDisk::default();
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("stead-powercut".into())];
        let session = fuser::spawn_mount(DiskFilesystem(disk.clone()), path, &config)?;
        Ok(Self {
            disk,
            path: path.to_owned(),
            session: Some(session),
        })
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Some(session) = self.session.take()
            && let Err(error) = session.umount_and_join()
        {
            eprintln!("{} stays mounted: {error}", self.path.display());
        }
    }
}

/// Adapter of the disk to FUSE.
struct DiskFilesystem(FaultInjectionDisk);

fn file_attributes(attributes: Attributes) -> FileAttr {
    let Attributes {
        number,
        len,
        is_dir,
        mode,
        modified,
    } = attributes;
    FileAttr {
        ino: INodeNo(number),
        size: len,
        blocks: len.div_ceil(512),
        atime: modified,
        mtime: modified,
        ctime: modified,
        crtime: SystemTime::UNIX_EPOCH,
        kind: kind(is_dir),
        perm: mode,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: BLOCK_LEN,
        flags: 0,
    }
}

fn kind(is_dir: bool) -> FileType {
    if is_dir {
        FileType::Directory
    } else {
        FileType::RegularFile
    }
}

fn reply_entry(found: Result<Attributes, RawErrno>, reply: ReplyEntry) {
    match found {
        Ok(attributes) => reply.entry(&ATTRIBUTE_TTL, &file_attributes(attributes), Generation(0)),
        Err(error) => reply.error(Errno::from_i32(error)),
    }
}

fn reply_attributes(found: Result<Attributes, RawErrno>, reply: ReplyAttr) {
    match found {
        Ok(attributes) => reply.attr(&ATTRIBUTE_TTL, &file_attributes(attributes)),
        Err(error) => reply.error(Errno::from_i32(error)),
    }
}

fn reply_done(result: Result<(), RawErrno>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(Errno::from_i32(error)),
    }
}

impl Filesystem for DiskFilesystem {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        reply_entry(self.0.lookup(parent.0, name), reply);
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply_attributes(self.0.attributes(number.0), reply);
    }

    fn setattr(
        &self,
        _: &Request,
        number: INodeNo,
        mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mode = mode.map(permissions);
        reply_attributes(self.0.change(number.0, mode, size), reply);
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, reply: ReplyEntry) {
        reply_entry(self.0.create(parent.0, name, true, permissions(mode)), reply);
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let created = self.0.create(parent.0, name, false, permissions(mode));
        let created = created.and_then(|made| self.0.open(made.number).map(|()| made));
        match created {
            Ok(made) => {
                let handle = FileHandle(made.number);
                reply.created(
                    &ATTRIBUTE_TTL,
                    &file_attributes(made),
                    Generation(0),
                    handle,
                    FopenFlags::FOPEN_DIRECT_IO,
                );
            }
            Err(error) => reply.error(Errno::from_i32(error)),
        }
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        reply_done(self.0.remove(parent.0, name), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        reply_done(self.0.remove(parent.0, name), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let from = EntryPath { parent: parent.0, name };
        let to = EntryPath {
            parent: new_parent.0,
            name: new_name,
        };
        reply_done(self.0.rename(from, to), reply);
    }

    fn open(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.0.open(number.0) {
            Ok(()) => reply.opened(FileHandle(number.0), FopenFlags::FOPEN_DIRECT_IO),
            Err(error) => reply.error(Errno::from_i32(error)),
        }
    }

    fn release(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.0.close(number.0);
        reply.ok();
    }

    fn read(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.0.read(number.0, offset, size as usize) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(Errno::from_i32(error)),
        }
    }

    fn write(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        bytes: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.0.write(number.0, offset, bytes) {
            Ok(()) => reply.written(bytes.len() as u32),
            Err(error) => reply.error(Errno::from_i32(error)),
        }
    }

    fn fsync(&self, _: &Request, number: INodeNo, _: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        match self.0.begin_sync(number.0) {
            Err(error) => reply.error(Errno::from_i32(error)),
            Ok((sync, Duration::ZERO)) => reply_done(self.0.end_sync(&sync), reply),
            Ok((sync, time)) => {
                // Other calls go on meanwhile. There are as many of these threads as processes have syncs in flight.
                let disk = self.0.clone();
                thread::spawn(move || {
                    thread::sleep(time);
                    reply_done(disk.end_sync(&sync), reply);
                });
            }
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(
            BLOCKS,
            BLOCKS,
            BLOCKS,
            BLOCKS,
            BLOCKS,
            BLOCK_LEN,
            NAME_LEN_MAX,
            BLOCK_LEN,
        );
    }

    fn readdir(&self, _: &Request, number: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let entries = match self.0.entries(number.0) {
            Ok(entries) => entries,
            Err(error) => return reply.error(Errno::from_i32(error)),
        };
        for (at, (name, number, is_dir)) in (1..).zip(entries).skip(offset as usize) {
            if reply.add(INodeNo(number), at, kind(is_dir), name) {
                break;
            }
        }
        reply.ok();
    }
}

fn permissions(mode: u32) -> u16 {
    (mode & 0o7777) as u16
}
