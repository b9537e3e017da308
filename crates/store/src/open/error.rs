//! Error of a node's storage.

use std::{io, path::PathBuf};

use crate::data_dir::{DataDirError, rewrite};

/// Error while storage is opened, rebuilt or closed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// A part of the data directory cannot be opened.
    #[error("cannot open the {part} in {path}")]
    Part {
        /// The part.
        part: &'static str,
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file whose contents may not be durable cannot be rewritten.
    #[error(
        "cannot make {path} durable: its contents may be in the page cache only, because the node did not stop in order; \
         repair the disk, then start the node again"
    )]
    Rewrite {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl From<rewrite::RewriteError> for Error {
    fn from(rewrite::RewriteError { path, source }: rewrite::RewriteError) -> Self {
        Self::Rewrite { path, source }
    }
}
