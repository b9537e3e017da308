//! File with the tenants that a restore of all has begun and ended, from which the same command goes on.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Write},
    path::PathBuf,
};

use crate::exit::{Code, CommandError};

/// Tenants that were begun and ended.
#[derive(Debug)]
pub(super) struct Restored {
    path: PathBuf,
    begun: BTreeSet<String>,
    done: BTreeSet<String>,
}

impl Restored {
    /// Reads the file, or begins one.
    ///
    /// # Errors
    ///
    /// It cannot be read, or is that of another backup.
    pub(super) fn load(path: PathBuf, id: &str) -> Result<Self, CommandError> {
        let mut restored = Self {
            path,
            begun: BTreeSet::new(),
            done: BTreeSet::new(),
        };
        let text = match fs::read_to_string(&restored.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                restored.append(&format!("backup {id}"))?;
                return Ok(restored);
            }
            Err(error) => return Err(restored.failed(&error)),
        };
        let mut lines = text.lines();
        if lines.next() != Some(&format!("backup {id}")) {
            let what = format!("{} is the progress of another restore", restored.path.display());
            return Err(CommandError::new(Code::Usage, what).hint("remove it, or name another with --progress"));
        }
        for line in lines {
            match line.split_once(' ') {
                Some(("begun", tenant)) => restored.begun.insert(tenant.to_owned()),
                Some(("done", tenant)) => restored.done.insert(tenant.to_owned()),
                // Half of a line, at which the power was cut.
                Some(_) | None => false,
            };
        }
        Ok(restored)
    }

    pub(super) fn is_begun(&self, tenant: &str) -> bool {
        self.begun.contains(tenant)
    }

    pub(super) fn is_done(&self, tenant: &str) -> bool {
        self.done.contains(tenant)
    }

    /// Notes that a tenant is made from now on.
    pub(super) fn begin(&mut self, tenant: &str) -> Result<(), CommandError> {
        self.append(&format!("begun {tenant}"))
    }

    /// Notes that a tenant is whole.
    pub(super) fn end(&mut self, tenant: &str) -> Result<(), CommandError> {
        self.append(&format!("done {tenant}"))
    }

    /// Removes the file: all are restored.
    pub(super) fn remove(&self) -> Result<(), CommandError> {
        fs::remove_file(&self.path).map_err(|error| self.failed(&error))
    }

    /// Returns the file with the progress of one tenant.
    pub(super) fn progress_of(&self, tenant: &str) -> PathBuf {
        self.path.with_added_extension(format!("{tenant}.progress"))
    }

    fn append(&self, line: &str) -> Result<(), CommandError> {
        let opened = fs::OpenOptions::new().create(true).append(true).open(&self.path);
        let written = opened.and_then(|mut file| {
            writeln!(file, "{line}")?;
            file.sync_all()
        });
        written.map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &io::Error) -> CommandError {
        CommandError::new(Code::Failed, format!("{}: {error}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restore_of_all_goes_on_with_the_tenant_that_was_begun() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("one.restored");
        let mut restored = Restored::load(path.clone(), "one").unwrap();
        restored.begin("a").unwrap();
        restored.end("a").unwrap();
        restored.begin("b").unwrap();
        let again = Restored::load(path.clone(), "one").unwrap();
        assert_eq!(
            (again.is_done("a"), again.is_begun("b"), again.is_done("b")),
            (true, true, false)
        );
        assert!(!again.is_begun("c"));
        let other = Restored::load(path, "two").unwrap_err();
        assert!(other.text().contains("progress of another restore"), "{}", other.text());
    }
}
