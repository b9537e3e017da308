//! How to write.

use clap::Args;
use stead_client::{Durability, Precondition, Revision, Write};

/// Flags of a write.
#[derive(Debug, Args)]
pub(super) struct WriteArgs {
    /// Only if the key does not exist
    #[arg(long, conflicts_with = "if_revision")]
    if_absent: bool,
    /// Only if the key's last change is this one, such as 1.42
    #[arg(long, value_name = "REVISION")]
    if_revision: Option<Revision>,
    /// Show the key as it was before
    #[arg(long)]
    previous: bool,
    /// Only when another region has it as well; nodes of this version refuse it
    #[arg(long)]
    remote: bool,
}

impl WriteArgs {
    pub(super) fn write(&self) -> Write {
        let absent = self.if_absent.then_some(Precondition::Absent);
        Write {
            precondition: absent.or(self.if_revision.map(Precondition::Modified)),
            previous: self.previous,
            durability: self.remote.then_some(Durability::Remote),
            timeout: None,
        }
    }
}
