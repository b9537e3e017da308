//! Files of certificates and keys, and the check of their permissions.

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
};

use crate::error::TlsError;

/// Files of one side of connections, in PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates of the CAs that are trusted; several during a roll-over.
    pub ca: PathBuf,
    /// Own certificate, followed by intermediates if there are any. A client may have none.
    pub certificate: Option<PathBuf>,
    /// Key of the own certificate.
    pub key: Option<PathBuf>,
}

/// Content of the files. It has no `Debug`: the key is in it.
pub(crate) struct FileContent {
    pub(crate) ca: Vec<u8>,
    pub(crate) certificate: Option<Vec<u8>>,
    pub(crate) key: Option<Vec<u8>>,
}

impl TlsFiles {
    /// Reads all files.
    pub(crate) fn read(&self) -> Result<FileContent, TlsError> {
        let key = self.key.as_deref().map(read_key).transpose()?;
        Ok(FileContent {
            ca: read(&self.ca)?,
            certificate: self.certificate.as_deref().map(read).transpose()?,
            key,
        })
    }
}

impl FileContent {
    /// Returns a hash of the content, by which a change is noticed.
    pub(crate) fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.ca, &self.certificate, &self.key).hash(&mut hasher);
        hasher.finish()
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Unreadable {
        file: path.to_owned(),
        source,
    })
}

fn read_key(path: &Path) -> Result<Vec<u8>, TlsError> {
    check_permissions(path)?;
    read(path)
}

/// Refuses a key that others than its owner and the owner's group may read, or that the group may change.
#[cfg(unix)]
fn check_permissions(path: &Path) -> Result<(), TlsError> {
    use std::os::unix::fs::PermissionsExt;

    /// Bits that a key must not have. The group may read: that is how a service manager hands keys out.
    const FORBIDDEN: u32 = 0o037;
    let metadata = fs::metadata(path).map_err(|source| TlsError::Unreadable {
        file: path.to_owned(),
        source,
    })?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & FORBIDDEN == 0 {
        return Ok(());
    }
    Err(TlsError::OpenKey {
        file: path.to_owned(),
        mode,
    })
}

#[cfg(not(unix))]
fn check_permissions(_path: &Path) -> Result<(), TlsError> {
    Ok(())
}
