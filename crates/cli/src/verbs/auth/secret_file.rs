//! Files of secrets: only their owner may read them.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use crate::exit::{Code, CommandError};

/// Writes a new file that only its owner may read.
///
/// # Errors
///
/// The file exists, or cannot be written.
pub(crate) fn create(path: &Path, text: &str) -> Result<(), CommandError> {
    let mut options = OpenOptions::new();
    let created = options.write(true).create_new(true).mode(0o600).open(path);
    let written = created.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| failed(path, "written", &error))
}

/// Reads a file that only its owner may read.
///
/// # Errors
///
/// The file cannot be read, or others may read it.
pub(crate) fn read(path: &Path) -> Result<String, CommandError> {
    let mode = fs::metadata(path).map(|data| data.permissions().mode());
    let mode = mode.map_err(|error| failed(path, "read", &error))?;
    if mode & 0o077 != 0 {
        let what = format!("{}: others than its owner may use this private key", path.display());
        return Err(CommandError::new(Code::Usage, what).hint(format!("chmod 600 {}", path.display())));
    }
    fs::read_to_string(path).map_err(|error| failed(path, "read", &error))
}

fn failed(path: &Path, what: &str, error: &std::io::Error) -> CommandError {
    CommandError::new(Code::Failed, format!("{} cannot be {what}: {error}", path.display()))
}
