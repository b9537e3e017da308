//! Value from the command line, a file or standard input.

use std::{ffi::OsString, os::unix::ffi::OsStringExt, path::PathBuf};

use clap::Args;
use stead_types::limits::VALUE_LEN_MAX;
use tokio::io::AsyncReadExt;

use crate::exit::{Code, CommandError};

/// Most bytes that are read of a value: one more than it may have.
const VALUE_READ_MAX: u64 = VALUE_LEN_MAX as u64 + 1;

/// Arguments of a value.
#[derive(Debug, Args)]
pub(super) struct ValueArgs {
    /// The value; -: standard input
    #[arg(required_unless_present = "file")]
    value: Option<OsString>,
    /// File with the value
    #[arg(short, long, conflicts_with = "value")]
    file: Option<PathBuf>,
}

impl ValueArgs {
    pub(super) async fn read(self) -> Result<Vec<u8>, CommandError> {
        let mut value = Vec::new();
        match (self.value, self.file) {
            (_, Some(path)) => {
                let unreadable =
                    |error| CommandError::new(Code::Usage, format!("{} cannot be read: {error}", path.display()));
                let file = tokio::fs::File::open(&path).await.map_err(unreadable)?;
                let len = file.metadata().await.map_err(unreadable)?.len();
                file.take(VALUE_READ_MAX)
                    .read_to_end(&mut value)
                    .await
                    .map_err(unreadable)?;
                check_length(&value, Some(len))?;
            }
            (Some(argument), None) if argument == "-" => {
                tokio::io::stdin().take(VALUE_READ_MAX).read_to_end(&mut value).await?;
                check_length(&value, None)?;
            }
            (argument, None) => value = argument.unwrap_or_default().into_vec(),
        }
        Ok(value)
    }
}

/// Rejects a value that is too long; `len`: its full length, if that is known.
fn check_length(read: &[u8], len: Option<u64>) -> Result<(), CommandError> {
    if read.len() <= VALUE_LEN_MAX {
        return Ok(());
    }
    // A pipe or a device has no known length.
    let len = len.filter(|len| VALUE_READ_MAX <= *len);
    let has = len.map_or_else(|| "more".to_owned(), |len| len.to_string());
    let what =
        format!("value: a value has at most {VALUE_LEN_MAX} bytes, this one has {has}; split it over several keys");
    Err(CommandError::new(Code::Usage, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_long_value_error_names_length() {
        assert!(check_length(&vec![0; VALUE_LEN_MAX], None).is_ok());
        let long = vec![0; VALUE_LEN_MAX + 1];
        let message = |len| check_length(&long, len).unwrap_err().text().to_owned();
        assert!(
            message(Some(5_000_000)).contains("has 5000000;"),
            "{}",
            message(Some(5_000_000))
        );
        assert!(message(None).contains("has more;"), "{}", message(None));
    }
}
