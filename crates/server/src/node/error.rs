//! Error of a node.

use std::io;

use stead_store::health::NodeFailure;
use stead_types::Incarnation;

use crate::{config::ConfigError, connections::TooFewDescriptors, identity, join};

/// Error of a node that stopped itself or did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The storage cannot be used.
    #[error(transparent)]
    Store(#[from] stead_store::Error),
    /// A row could not be read at start.
    #[error("cannot read the storage")]
    Unreadable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A recovery of the directory has begun and not ended.
    #[error(
        "a recovery of the directory, as its incarnation {}, was interrupted on this node: finish it with \
         `stead directory recover`, as it was given before",
        .0.0
    )]
    RecoveryInterrupted(Incarnation),
    /// An address could not be bound.
    #[error("cannot listen on {address}, the node's {what} address: is another process using it?")]
    Bind {
        /// Name of the listener.
        what: &'static str,
        /// Its address.
        address: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// An address in the configuration cannot be dialled.
    #[error("an address of cluster.initial cannot be dialled")]
    Address(#[source] io::Error),
    /// The process may open too few files.
    #[error(transparent)]
    Descriptors(#[from] TooFewDescriptors),
    /// Certificates cannot be used.
    #[error("TLS cannot be used")]
    Tls(#[from] stead_tls::TlsError),
    /// A file of the configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The ledger of what the node has sent cannot be used.
    #[error("the ledger of what was sent cannot be opened: without it there would be no residency evidence")]
    SentLog(#[source] io::Error),
    /// A group could not be opened.
    #[error(transparent)]
    Group(#[from] stead_raft::OpenError),
    /// The record of its join cannot be used.
    #[error(transparent)]
    Join(#[from] Box<join::Error>),
    /// The node must not run.
    #[error(transparent)]
    Identity(#[from] identity::Refusal),
    /// Storage, a group or a task failed while the node ran.
    #[error("the node stopped after a failure")]
    Failed(#[from] NodeFailure),
}
