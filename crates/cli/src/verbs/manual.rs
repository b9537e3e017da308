//! `stead completions` and `stead man`: help of the command line for shells and for `man`.

use std::{fs, path::PathBuf};

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::{args::Cli, exit::CommandError, output};

#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Debug, Args)]
pub(crate) struct Man {
    /// Folder for the pages, such as /usr/local/share/man/man1
    folder: PathBuf,
}

impl Completions {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "stead", &mut script);
        output::line(String::from_utf8_lossy(&script).trim_end())
    }
}

impl Man {
    pub(super) fn run(self) -> Result<(), CommandError> {
        fs::create_dir_all(&self.folder)?;
        clap_mangen::generate_to(Cli::command(), &self.folder)?;
        output::line(&format!(
            "{}: read them with `man -M`, or `man stead` where they are installed",
            self.folder.display()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn man_pages_are_there_for_every_command() {
        let folder = tempfile::tempdir().unwrap();
        let man = Man {
            folder: folder.path().join("man1"),
        };
        man.run().unwrap();
        for page in ["stead.1", "stead-kv-put.1", "stead-region-promote.1"] {
            let text = fs::read_to_string(folder.path().join("man1").join(page)).unwrap();
            assert!(text.contains(".SH NAME"), "{page}");
        }
    }
}
