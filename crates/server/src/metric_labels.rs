//! Labels that several metrics share.

use std::fmt::{self, Write};

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};

/// Kind of an operation, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum OperationLabel {
    /// Get and BatchGet.
    Read,
    /// Put, Delete, Increment, Append, Txn and DeleteRange.
    Write,
    /// Scan.
    Scan,
}

/// Server of an operation, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ServedFrom {
    /// This node, as the home.
    Home,
    /// This node, as a follower.
    Follower,
    /// Another node.
    Forwarded,
    /// None: the operation failed.
    Failed,
}

impl EncodeLabelValue for OperationLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> fmt::Result {
        encoder.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Scan => "scan",
        })
    }
}

impl EncodeLabelValue for ServedFrom {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> fmt::Result {
        encoder.write_str(match self {
            Self::Home => "home",
            Self::Follower => "follower",
            Self::Forwarded => "forwarded",
            Self::Failed => "failed",
        })
    }
}

/// A group, by its number.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct GroupLabels {
    pub(crate) group: u32,
}
