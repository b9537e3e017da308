//! Errors of clusters.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Error of a cluster that is started or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An operation on a file, directory or process failed.
    #[error("cannot {what} {path}")]
    Io {
        /// The operation.
        what: &'static str,
        /// The file, directory or program.
        path: PathBuf,
        /// Error of the system.
        source: io::Error,
    },
    /// Another cluster runs in the directory.
    #[error("another cluster runs in {0}: stop it, or choose another directory")]
    InUse(PathBuf),
    /// The directory was made for other regions or nodes.
    #[error("{0} holds a cluster of other regions or nodes: start afresh, or choose another directory")]
    OtherLayout(PathBuf),
    /// The directory to empty was not made by a cluster.
    #[error("{0} does not hold a cluster's data: it is left as it is")]
    NoCluster(PathBuf),
    /// A port that the kept data has advertised is in use.
    #[error("port {port} is in use, and the data in {data} advertises it: end what listens there, or start afresh")]
    PortInUse {
        /// The port.
        port: u16,
        /// The cluster's directory.
        data: PathBuf,
    },
    /// Credentials could not be made.
    #[error("cannot make the cluster's credentials: {0}")]
    Credentials(String),
    /// A cluster without regions.
    #[error("a cluster has at least one region: name one, and how many nodes it has")]
    NoRegions,
    /// An invalid region.
    #[error("region {name:?}: {why}")]
    Region {
        /// Its name.
        name: String,
        /// The reason.
        why: String,
    },
    /// A certificate could not be made.
    #[error("the cluster's certificates cannot be made")]
    Certificates(#[from] stead_cert::FolderError),
    /// Too many clusters, or a cluster that is too large.
    #[error("fewer than {count} ports are free between 12000 and 20000: end what listens there, such as other tests")]
    NoPortsLeft {
        /// Number of ports that are needed.
        count: usize,
    },
    /// No free range was found.
    #[error("no {count} free ports from {base} on")]
    NoPorts {
        /// Number of ports that are needed.
        count: usize,
        /// First port of the search.
        base: u16,
    },
    /// A node ended while it was waited for.
    #[error("{node} ended with {status}; the end of its log:\n{log}")]
    Ended {
        /// Its name.
        node: String,
        /// Its exit status.
        status: String,
        /// The last lines it wrote.
        log: String,
    },
    /// A node is not ready in time.
    #[error("{node} is not ready: {answer}; the end of its log:\n{log}")]
    NotReady {
        /// Its name.
        node: String,
        /// Its last response.
        answer: String,
        /// The last lines it wrote.
        log: String,
    },
    /// Neither a node nor a region, or no pair of regions.
    #[error("no node, region or pair of regions is named {0}")]
    Unknown(String),
    /// The node runs.
    #[error("{0} is running")]
    Running(String),
    /// The node does not run.
    #[error("{0} is not running")]
    NotRunning(String),
}

/// Adds the operation and the path to an error of the system.
pub(super) fn at(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::Io { what, path, source }
}
