//! Small file system for tests that fill a disk.
//!
//! It is mounted by system calls: a process that ran `mount` would inherit the locks of the files that other tests of this
//! process have open, until it begins, and a log that is closed and opened meanwhile would be locked.

use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use tempfile::TempDir;

/// File system in memory of a fixed size, unmounted at its end.
pub(crate) struct SmallDisk(TempDir);

impl SmallDisk {
    /// Mounts one of so many bytes; `None`, with a line of output, where this process may not mount.
    pub(crate) fn mount(len: u64) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let (target, size) = (c_string(dir.path()), c_string(format!("size={len}")));
        #[expect(unsafe_code, reason = "the standard library cannot mount")]
        // SAFETY: all pointers are of C strings that live until the call has returned.
        let mounted = unsafe {
            let (source, kind) = (c"stead-test".as_ptr(), c"tmpfs".as_ptr());
            libc::mount(source, target.as_ptr(), kind, 0, size.as_ptr().cast())
        };
        if mounted == 0 {
            return Some(Self(dir));
        }
        println!("skipped: a small file system cannot be mounted here; it takes root");
        None
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Fills it with a file of its own until at most so many bytes are free.
    pub(crate) fn fill_to(&self, free: u64) {
        let path = self.path().join("filler");
        let mut file = File::options().create(true).append(true).open(path).unwrap();
        while crate::room::free_bytes(self.path()).unwrap() > free {
            // Others write meanwhile.
            if file.write_all(&[1; 4096]).is_err() {
                return;
            }
        }
    }

    /// Removes that file.
    pub(crate) fn free(&self) {
        fs::remove_file(self.path().join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Files of what the test leaves open keep it busy: it goes away with them.
        let target = c_string(self.path());
        #[expect(unsafe_code, reason = "the standard library cannot unmount")]
        // SAFETY: the pointer is of a C string that lives until the call has returned.
        let _ended = unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
    }
}

fn c_string(text: impl AsRef<OsStr>) -> CString {
    CString::new(text.as_ref().as_bytes()).unwrap()
}
