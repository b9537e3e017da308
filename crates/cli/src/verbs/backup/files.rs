//! Files of one backup: how they are written, and read and compared with what was written.

use std::io::{self, BufRead, BufReader, Read};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{place::Place, seal::Key};
use crate::{
    exit::{Code, CommandError},
    output,
};

/// Bytes that are read at once.
const BUFFER_LEN: usize = 256 << 10;

/// File of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part {
    /// Path in the backup's folder.
    pub(super) file: String,
    /// Length in bytes.
    pub(super) len: u64,
    /// SHA-256 of the file.
    pub(super) sha256: String,
}

/// Backup that is written.
#[derive(Clone, Debug)]
pub(super) struct Sink {
    pub(super) place: Place,
    /// Name of the backup.
    pub(super) id: String,
    /// Key, if it is encrypted.
    pub(super) key: Option<Key>,
}

impl Sink {
    /// Writes compressed content as a file, encrypted if the backup is.
    pub(super) fn write(&self, file: &str, content: Vec<u8>) -> Result<Part, CommandError> {
        let path = format!("{}/{file}", self.id);
        let bytes = match &self.key {
            Some(key) => key.seal(&path, &content),
            None => content,
        };
        let part = Part {
            file: file.to_owned(),
            len: bytes.len() as u64,
            sha256: output::hex(&Sha256::digest(&bytes)),
        };
        self.place.write(&path, bytes)?;
        Ok(part)
    }

    /// Removes a file that is not needed.
    pub(super) fn remove(&self, part: &Part) -> Result<(), CommandError> {
        self.place.remove(&format!("{}/{}", self.id, part.file))
    }
}

/// Backup that is read.
#[derive(Clone, Debug)]
pub(super) struct Source {
    place: Place,
    id: String,
    key: Option<Key>,
}

impl Source {
    /// `key`: that of an encrypted backup.
    pub(super) fn new(place: Place, id: String, key: Option<Key>) -> Self {
        Self { place, id, key }
    }

    /// Opens the content of a file.
    ///
    /// # Errors
    ///
    /// It cannot be read; what is damaged within it shows when it is read.
    pub(super) fn open(&self, part: &Part) -> Result<Box<dyn BufRead + Send>, CommandError> {
        let path = self.path(part);
        let file = BufReader::with_capacity(BUFFER_LEN, self.place.open(&path, part.len)?);
        let decoder: Box<dyn Read + Send> = match &self.key {
            Some(key) => {
                let opened = key.open(&path, file).map_err(|error| self.failed(part, &error))?;
                Box::new(zstd::Decoder::new(opened)?)
            }
            None => Box::new(zstd::Decoder::with_buffer(file)?),
        };
        Ok(Box::new(BufReader::with_capacity(BUFFER_LEN, decoder)))
    }

    /// Compares a file with its length and digest; with the key of an encrypted backup it is opened, too.
    pub(super) fn verify(&self, part: &Part) -> Result<(), CommandError> {
        let damaged = |what: String| CommandError::new(Code::Failed, format!("{}: {what}", self.address(part)));
        let mut file = self.place.open(&self.path(part), part.len)?;
        let (mut digest, mut len, mut buffer) = (Sha256::new(), 0, vec![0; BUFFER_LEN]);
        loop {
            let read = file.read(&mut buffer).map_err(|error| self.failed(part, &error))?;
            if read == 0 {
                break;
            }
            len += read as u64;
            digest.update(&buffer[..read]);
        }
        if len != part.len {
            return Err(damaged(format!(
                "it has {len} bytes, and was written with {}",
                part.len
            )));
        }
        if output::hex(&digest.finalize()) != part.sha256 {
            return Err(damaged("its bytes differ from those that were written".to_owned()));
        }
        if self.key.is_some() {
            let read = io::copy(&mut self.open(part)?, &mut io::sink());
            read.map_err(|error| self.failed(part, &error))?;
        }
        Ok(())
    }

    /// Returns the error of reading a file.
    pub(super) fn failed(&self, part: &Part, error: &io::Error) -> CommandError {
        CommandError::new(Code::Failed, format!("{}: {error}", self.address(part)))
    }

    fn path(&self, part: &Part) -> String {
        format!("{}/{}", self.id, part.file)
    }

    fn address(&self, part: &Part) -> String {
        self.place.address(&self.path(part))
    }
}
