//! Small file system for tests that fill a disk.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// File system in memory of a fixed size, unmounted at its end.
pub(crate) struct SmallDisk(TempDir);

impl SmallDisk {
    /// Mounts one of so many bytes; `None`, with a line of output, where this process may not mount.
    pub(crate) fn mount(len: u64) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={len}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "stead-test"])
            .arg(dir.path())
            .status();
        if mounted.is_ok_and(|status| status.success()) {
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
        let _ended = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}
