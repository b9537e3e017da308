//! A value from the command line, a file or standard input.

use std::{ffi::OsString, os::unix::ffi::OsStringExt, path::PathBuf};

use clap::Args;
use stead_types::limits::VALUE_LEN_MAX;
use tokio::io::AsyncReadExt;

use crate::exit::{Code, Failure};

/// What is read of a value: one byte more than it can have.
const VALUE_READ_MAX: u64 = VALUE_LEN_MAX as u64 + 1;

/// A value.
#[derive(Debug, Args)]
pub(super) struct ValueArgs {
    /// The value; -: standard input
    #[arg(required_unless_present = "file")]
    value: Option<OsString>,
    /// The value is what this file holds
    #[arg(short, long, conflicts_with = "value")]
    file: Option<PathBuf>,
}

impl ValueArgs {
    pub(super) async fn read(self) -> Result<Vec<u8>, Failure> {
        let mut value = Vec::new();
        match (self.value, self.file) {
            (_, Some(path)) => {
                let unreadable =
                    |error| Failure::new(Code::Usage, format!("{} cannot be read: {error}", path.display()));
                let file = tokio::fs::File::open(&path).await.map_err(unreadable)?;
                let len = file.metadata().await.map_err(unreadable)?.len();
                file.take(VALUE_READ_MAX)
                    .read_to_end(&mut value)
                    .await
                    .map_err(unreadable)?;
                fits(&value, Some(len))?;
            }
            (Some(argument), None) if argument == "-" => {
                tokio::io::stdin().take(VALUE_READ_MAX).read_to_end(&mut value).await?;
                fits(&value, None)?;
            }
            (argument, None) => value = argument.unwrap_or_default().into_vec(),
        }
        Ok(value)
    }
}

/// Refuses what was not read to its end; `len`: how long it is, if that is known.
fn fits(read: &[u8], len: Option<u64>) -> Result<(), Failure> {
    if read.len() <= VALUE_LEN_MAX {
        return Ok(());
    }
    // A pipe or a device has no length to tell.
    let len = len.filter(|len| VALUE_READ_MAX <= *len);
    let has = len.map_or_else(|| "more".to_owned(), |len| len.to_string());
    let what =
        format!("value: a value has at most {VALUE_LEN_MAX} bytes, this one has {has}; split it over several keys");
    Err(Failure::new(Code::Usage, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_is_told_its_whole_length_where_it_has_one() {
        assert!(fits(&vec![0; VALUE_LEN_MAX], None).is_ok());
        let long = vec![0; VALUE_LEN_MAX + 1];
        let said = |len| fits(&long, len).unwrap_err().text().to_owned();
        assert!(
            said(Some(5_000_000)).contains("has 5000000;"),
            "{}",
            said(Some(5_000_000))
        );
        assert!(said(None).contains("has more;"), "{}", said(None));
    }
}
