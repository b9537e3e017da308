//! Rewrite of all files with the same bytes, so that everything that a start reads is durable.
//!
//! After a failed sync the kernel counts the data as written: it is read back from the page cache, a later sync
//! succeeds, and the next power cut loses it. A start that does not know how the last use ended can therefore trust
//! nothing that it reads, before the same bytes were written and synced once more.
//!
//! Files are written in place: no second copy must fit on the disk, no name changes, and each sector holds the same
//! bytes before and after, so that a power cut in the middle changes nothing. An interrupted rewrite starts again. Holes
//! stay holes: nothing was written there, and on a full disk there is no room to fill them.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

/// Bytes that are read and written at a time.
const STEP_LEN: usize = 1 << 20;

/// Counts of rewritten files and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RewriteStats {
    pub(crate) files: u64,
    pub(crate) bytes: u64,
}

/// Error of a file or directory that cannot be read, written or synced.
#[derive(Debug)]
pub(crate) struct RewriteError {
    pub(crate) path: PathBuf,
    pub(crate) source: io::Error,
}

/// Rewrites and syncs every file below a directory, except for those that are known to be durable.
pub(crate) fn rewrite(dir: &Path, mut is_on_disk: impl FnMut(&Path) -> bool) -> Result<RewriteStats, RewriteError> {
    let mut stats = RewriteStats::default();
    visit(dir, &mut |path| {
        if !is_on_disk(path) {
            stats.bytes += rewrite_file(path)?;
            stats.files += 1;
        }
        Ok(())
    })?;
    Ok(stats)
}

/// Syncs every file and directory below a directory.
pub(crate) fn sync(dir: &Path) -> Result<(), RewriteError> {
    visit(dir, &mut |path| File::open(path)?.sync_all())
}

fn rewrite_file(path: &Path) -> io::Result<u64> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut step = vec![0; STEP_LEN];
    let (mut at, mut bytes) = (0, 0);
    while let Some((start, end)) = next_data(&file, at)? {
        at = start;
        while at < end {
            let len = usize::try_from(end - at).map_or(STEP_LEN, |left| left.min(STEP_LEN));
            file.read_exact_at(&mut step[..len], at)?;
            file.write_all_at(&step[..len], at)?;
            at += len as u64;
            bytes += len as u64;
        }
    }
    file.sync_all()?;
    Ok(bytes)
}

/// Returns the begin and the end of the data of a file from an offset on; `None` where only a hole follows.
fn next_data(file: &File, from: u64) -> io::Result<Option<(u64, u64)>> {
    match seek(file, SeekFrom::Data(from)) {
        Err(Errno::NXIO) => Ok(None),
        found => {
            let start = found?;
            Ok(Some((start, seek(file, SeekFrom::Hole(start))?)))
        }
    }
}

/// Calls `each` with every file below a directory, and syncs the directories. A missing directory is skipped; opening
/// it reports the error.
fn visit(dir: &Path, each: &mut dyn FnMut(&Path) -> io::Result<()>) -> Result<(), RewriteError> {
    let failed = |path: &Path, source| RewriteError {
        path: path.to_owned(),
        source,
    };
    let entries = match fs::read_dir(dir) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(()),
        Err(error) => return Err(failed(dir, error)),
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())),
    };
    let mut paths = entries
        .collect::<io::Result<Vec<PathBuf>>>()
        .map_err(|error| failed(dir, error))?;
    paths.sort();
    for path in paths {
        match path.is_dir() {
            true => visit(&path, each)?,
            false => each(&path).map_err(|error| failed(&path, error))?,
        }
    }
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(|error| failed(dir, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rewrite_leaves_holes() {
        use std::os::unix::fs::MetadataExt;

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sparse");
        let file = File::create(&path).unwrap();
        file.write_all_at(b"begin", 0).unwrap();
        file.write_all_at(b"middle", 20 << 20).unwrap();
        file.set_len(64 << 20).unwrap();
        let before = fs::read(&path).unwrap();
        let stats = rewrite(dir.path(), |_| false).unwrap();
        assert!(stats.bytes >= 11, "{stats:?}");
        assert_eq!(fs::read(&path).unwrap(), before);
        let used = fs::metadata(&path).unwrap().blocks() * 512;
        assert!(used < 1 << 20, "{used} bytes are used");
    }

    #[test]
    fn rewrite_keeps_bytes_and_skips_exempt_files() {
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("a/b");
        fs::create_dir_all(&below).unwrap();
        let large: Vec<u8> = (0..STEP_LEN + 77).map(|at| at as u8).collect();
        let files = [
            (dir.path().join("small"), b"small".to_vec()),
            (below.join("large"), large.clone()),
            (below.join("empty"), Vec::new()),
            (below.join("table"), b"table".to_vec()),
        ];
        for (path, bytes) in &files {
            fs::write(path, bytes).unwrap();
        }
        let stats = rewrite(dir.path(), |path| path.ends_with("table")).unwrap();
        let bytes = large.len() as u64 + 5;
        assert_eq!(stats, RewriteStats { files: 3, bytes });
        for (path, bytes) in &files {
            assert_eq!(&fs::read(path).unwrap(), bytes);
        }
        sync(dir.path()).unwrap();
        assert_eq!(
            rewrite(&dir.path().join("none"), |_| false).unwrap(),
            RewriteStats::default()
        );
    }
}
