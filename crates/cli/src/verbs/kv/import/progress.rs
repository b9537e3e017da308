//! File with the progress of an import, from which the same command goes on after an interruption.
//!
//! # Invariants
//!
//! 1. No row at or beyond [`Progress::sent_below`] was ever sent: such a row is written without asking whether it is
//!    there.
//! 2. The file is replaced as a whole and synced first: it is never half written.

use std::{
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::records::Position;
use crate::{
    exit::{Code, CommandError},
    output,
};

/// Version of the file.
const VERSION: u32 = 1;
/// Bytes at the beginning of the input that identify it, beside its length.
const SAMPLE_LEN: u64 = 64 << 10;

/// Progress of an import.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    version: u32,
    /// Digest of the input's length and beginning, and of the options that decide what is written.
    identity: String,
    /// Place before which every row is acknowledged or rejected.
    pub(super) finished: Position,
    /// Number of the first record that was certainly never sent.
    pub(super) sent_below: u64,
    /// Length of the file of rejected records up to `finished`.
    pub(super) rejects_len: u64,
    /// Counts up to `finished`.
    pub(super) counts: Counts,
}

/// Number of records by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counts {
    /// Rows that were written.
    pub(super) written: u64,
    /// Rows whose key had the value already, written before an interruption.
    pub(super) unchanged: u64,
    /// Records that were rejected.
    pub(super) rejected: u64,
}

impl Progress {
    /// Returns the progress of an import that begins at `start`.
    pub(super) fn begin(identity: String, start: Position) -> Self {
        Self {
            version: VERSION,
            identity,
            finished: start,
            sent_below: 0,
            rejects_len: 0,
            counts: Counts::default(),
        }
    }
}

/// Path of a progress file.
#[derive(Clone, Debug)]
pub(super) struct ProgressFile(PathBuf);

impl ProgressFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Returns what an earlier import has left; `None`: none was interrupted.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or belongs to another input or to other options.
    pub(super) fn load(&self, identity: &str) -> Result<Option<Progress>, CommandError> {
        let path = self.0.display();
        let text = match fs::read_to_string(&self.0) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(CommandError::new(
                    Code::Failed,
                    format!("{path} cannot be read: {error}"),
                ));
            }
        };
        let restart = "--restart begins the import anew";
        let progress: Progress = serde_json::from_str(&text).map_err(|error| {
            CommandError::new(Code::Usage, format!("{path} is no progress of an import: {error}")).hint(restart)
        })?;
        if progress.version != VERSION || progress.identity != identity {
            let what = format!("{path} is the progress of another input, or of other options");
            return Err(CommandError::new(Code::Usage, what).hint(restart));
        }
        Ok(Some(progress))
    }

    /// Replaces the file.
    pub(super) fn store(&self, progress: &Progress) -> io::Result<()> {
        let next = self.0.with_added_extension("new");
        let mut file = fs::File::create(&next)?;
        file.write_all(serde_json::to_string(progress)?.as_bytes())?;
        file.sync_all()?;
        fs::rename(next, &self.0)
    }

    /// Removes the file: the import is over, and the same command would be a new one.
    pub(super) fn remove(&self) -> io::Result<()> {
        match fs::remove_file(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

/// Returns the identity of an input and of the options that decide what is written.
pub(super) fn identity(input: &Path, options: &str) -> io::Result<String> {
    let file = fs::File::open(input)?;
    let len = file.metadata()?.len();
    let mut sample = Vec::new();
    file.take(SAMPLE_LEN).read_to_end(&mut sample)?;
    let mut digest = Sha256::new();
    digest.update(len.to_be_bytes());
    digest.update((sample.len() as u64).to_be_bytes());
    digest.update(&sample);
    digest.update(options.as_bytes());
    Ok(output::hex(&digest.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_read_back_for_the_same_input_only() {
        let folder = tempfile::tempdir().unwrap();
        let file = ProgressFile::new(folder.path().join("airports.csv.progress"));
        assert_eq!(file.load("a").unwrap(), None);
        let mut progress = Progress::begin("a".to_owned(), Position::default());
        progress.counts.written = 7;
        file.store(&progress).unwrap();
        assert_eq!(file.load("a").unwrap(), Some(progress));
        let other = file.load("b").unwrap_err();
        assert!(other.text().contains("of another input"), "{}", other.text());
        file.remove().unwrap();
        file.remove().unwrap();
        assert_eq!(file.load("b").unwrap(), None);
    }

    #[test]
    fn identity_depends_on_content_and_options() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("input");
        fs::write(&path, "a").unwrap();
        let before = identity(&path, "--key id").unwrap();
        assert_ne!(before, identity(&path, "--key name").unwrap());
        fs::write(&path, "b").unwrap();
        assert_ne!(before, identity(&path, "--key id").unwrap());
    }
}
