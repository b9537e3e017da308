//! Place of backups: a folder, or a prefix of a bucket. Files have the same names in both.
//!
//! # Invariants
//!
//! 1. A file is written as a whole or not at all, and it outlives a power cut once it is written.

use std::{
    fmt, fs,
    io::{self, Read, Write},
    path::PathBuf,
};

use super::bucket::{Bucket, BucketArgs};
use crate::exit::{Code, CommandError};

/// Beginning of the address of a bucket.
const BUCKET_SCHEME: &str = "s3://";

/// Place of backups.
#[derive(Clone, Debug)]
pub(super) enum Place {
    Folder(PathBuf),
    Bucket(Bucket),
}

impl Place {
    /// Parses the value of `--to` or `--from`; nothing is read yet.
    pub(super) fn parse(address: &str, options: &BucketArgs) -> Result<Self, CommandError> {
        match address.strip_prefix(BUCKET_SCHEME) {
            Some(bucket) => Bucket::new(bucket, options).map(Self::Bucket),
            None if address.contains("://") => {
                let error = CommandError::new(Code::Usage, format!("{address} is no place of backups"));
                Err(error.hint("a folder, or s3://BUCKET/PREFIX"))
            }
            None => Ok(Self::Folder(address.into())),
        }
    }

    /// Makes the folder, if it is one.
    pub(super) fn prepare(&self) -> Result<(), CommandError> {
        match self {
            Self::Bucket(_) => Ok(()),
            Self::Folder(folder) => fs::create_dir_all(folder).map_err(|error| self.failed("", &error)),
        }
    }

    /// Returns the names of all folders in it, sorted: backups, finished or not.
    pub(super) fn folders(&self) -> Result<Vec<String>, CommandError> {
        let mut names = match self {
            Self::Bucket(bucket) => bucket.folders()?,
            Self::Folder(folder) => {
                let unreadable =
                    |error: io::Error| CommandError::new(Code::Usage, format!("{}: {error}", folder.display()));
                let mut names = Vec::new();
                for entry in fs::read_dir(folder).map_err(unreadable)? {
                    let path = entry.map_err(unreadable)?.path();
                    if path.is_dir() {
                        names.extend(path.file_name().map(|name| name.to_string_lossy().into_owned()));
                    }
                }
                names
            }
        };
        names.sort();
        Ok(names)
    }

    /// Reads a small file as a whole.
    ///
    /// # Errors
    ///
    /// `NotFound`: it is not there.
    pub(super) fn read(&self, file: &str) -> Result<Vec<u8>, CommandError> {
        match self {
            Self::Bucket(bucket) => bucket.read(file),
            Self::Folder(folder) => fs::read(folder.join(file)).map_err(|error| self.failed(file, &error)),
        }
    }

    /// Opens a file of a known length.
    pub(super) fn open(&self, file: &str, len: u64) -> Result<Box<dyn Read + Send>, CommandError> {
        match self {
            Self::Bucket(bucket) => Ok(Box::new(bucket.open(file, len))),
            Self::Folder(folder) => {
                let opened = fs::File::open(folder.join(file)).map_err(|error| self.failed(file, &error))?;
                Ok(Box::new(opened))
            }
        }
    }

    /// Writes a file as a whole.
    pub(super) fn write(&self, file: &str, bytes: Vec<u8>) -> Result<(), CommandError> {
        match self {
            Self::Bucket(bucket) => bucket.write(file, bytes),
            Self::Folder(folder) => write_synced(&folder.join(file), &bytes).map_err(|error| self.failed(file, &error)),
        }
    }

    /// Removes a file; that it is not there is no error.
    pub(super) fn remove(&self, file: &str) -> Result<(), CommandError> {
        match self {
            Self::Bucket(bucket) => bucket.remove(file),
            Self::Folder(folder) => match fs::remove_file(folder.join(file)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.failed(file, &error)),
                Ok(()) | Err(_) => Ok(()),
            },
        }
    }

    /// Removes a folder with all files.
    pub(super) fn remove_folder(&self, name: &str) -> Result<(), CommandError> {
        match self {
            Self::Bucket(bucket) => bucket.remove_folder(name),
            Self::Folder(folder) => fs::remove_dir_all(folder.join(name)).map_err(|error| self.failed(name, &error)),
        }
    }

    /// Returns the address of a file, for people.
    pub(super) fn address(&self, file: &str) -> String {
        match self {
            Self::Bucket(bucket) => bucket.address(file),
            Self::Folder(folder) => folder.join(file).display().to_string(),
        }
    }

    fn failed(&self, file: &str, error: &io::Error) -> CommandError {
        let kind = error.kind();
        let code = if kind == io::ErrorKind::NotFound {
            Code::NotFound
        } else if kind == io::ErrorKind::PermissionDenied {
            Code::NotAllowed
        } else {
            Code::Failed
        };
        CommandError::new(code, format!("{}: {error}", self.address(file)))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bucket(bucket) => write!(f, "{BUCKET_SCHEME}{bucket}"),
            Self::Folder(folder) => write!(f, "{}", folder.display()),
        }
    }
}

/// Writes a file beside its name first, so that the name never has half of it.
fn write_synced(path: &std::path::Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder)?;
    let next = path.with_added_extension("new");
    let mut file = fs::File::create(&next)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(next, path)?;
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_is_a_folder_or_a_bucket() {
        let parse = |address: &str| Place::parse(address, &BucketArgs::default());
        assert_eq!(parse("/backups").unwrap().address("a/b"), "/backups/a/b");
        let refused = parse("gs://bucket").unwrap_err();
        assert_eq!(refused.text(), "gs://bucket is no place of backups");
    }

    #[test]
    fn files_of_a_folder_are_whole_and_go_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::Folder(folder.path().to_owned());
        place.write("one/a/1", b"text".to_vec()).unwrap();
        assert_eq!(place.folders().unwrap(), ["one"]);
        assert_eq!(place.read("one/a/1").unwrap(), b"text");
        assert_eq!(place.read("one/a/2").unwrap_err().code(), Code::NotFound);
        place.remove("one/a/2").unwrap();
        place.remove_folder("one").unwrap();
        assert_eq!(place.folders().unwrap(), [""; 0]);
    }
}
