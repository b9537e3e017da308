//! Files of certificates and keys: keys for their owner's eyes only, nothing overwritten unless asked.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use crate::authority::Issued;

/// Files of a certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairFiles {
    /// Certificate, `NAME.crt`.
    pub certificate: PathBuf,
    /// Key, `NAME.key`.
    pub key: PathBuf,
}

impl PairFiles {
    /// Returns the files of a name in a folder.
    pub fn of(folder: &Path, name: &str) -> Self {
        Self {
            certificate: folder.join(format!("{name}.crt")),
            key: folder.join(format!("{name}.key")),
        }
    }
}

/// Treatment of a file that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overwrite {
    /// It is an error.
    Refused,
    /// It is replaced in one step.
    Allowed,
}

/// Error of a file that is not written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It is there already.
    #[error("{} is there already: move it away, or replace certificates with `stead cert rotate`", .0.display())]
    Exists(PathBuf),
    /// It cannot be written.
    #[error("{} cannot be written: {source}", file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// Writes a certificate and its key. A reader between the two writes finds a key that does not match, and reads again.
///
/// # Errors
///
/// A file that is there already, or that cannot be written.
pub fn write_pair(files: &PairFiles, issued: &Issued, overwrite: Overwrite) -> Result<(), FileError> {
    if overwrite == Overwrite::Refused
        && let Some(there) = [&files.certificate, &files.key].into_iter().find(|file| file.exists())
    {
        return Err(FileError::Exists(there.clone()));
    }
    write(&files.key, &issued.key, 0o600)?;
    write(&files.certificate, &issued.certificate, 0o644)
}

/// Writes certificates, of one or several CAs.
///
/// # Errors
///
/// A file that cannot be written.
pub fn write_certificate(file: &Path, certificates: &str) -> Result<(), FileError> {
    write(file, certificates, 0o644)
}

/// Writes a file beside its place, then puts it there in one step.
fn write(file: &Path, text: &str, mode: u32) -> Result<(), FileError> {
    let failed = |source| FileError::Write {
        file: file.to_owned(),
        source,
    };
    let mut new = file.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    // One that an interrupted run left may have other permissions.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    let mut written = open(&new, mode).map_err(failed)?;
    written.write_all(text.as_bytes()).map_err(failed)?;
    written.sync_all().map_err(failed)?;
    fs::rename(&new, file).map_err(failed)
}

#[cfg(unix)]
fn open(file: &Path, mode: u32) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;

    File::options().write(true).create_new(true).mode(mode).open(file)
}

#[cfg(not(unix))]
fn open(file: &Path, _mode: u32) -> io::Result<File> {
    File::options().write(true).create_new(true).open(file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn key_file_is_private_and_never_overwritten_silently() {
        let folder = tempfile::tempdir().unwrap();
        let files = PairFiles::of(folder.path(), "node");
        let issued = Issued {
            certificate: "certificate".into(),
            key: "key".into(),
        };
        write_pair(&files, &issued, Overwrite::Refused).unwrap();
        let mode = fs::metadata(&files.key).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        let refused = write_pair(&files, &issued, Overwrite::Refused).unwrap_err();
        assert!(refused.to_string().contains("is there already"), "{refused}");
        write_pair(&files, &issued, Overwrite::Allowed).unwrap();
    }
}
