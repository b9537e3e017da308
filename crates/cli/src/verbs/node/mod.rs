//! `stead node`.

mod change;
mod display;

use clap::Subcommand;
use stead_client::{Admin, NodeInfo};

pub(super) use self::display::{table, value};
use crate::{
    args::Target,
    context,
    exit::{Code, CommandError},
};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Show the nodes
    List {
        /// Only nodes of this region; --region is the region of this machine
        #[arg(long = "of", value_name = "REGION", default_value = "")]
        of: String,
    },
    /// Show the status of a node
    Status {
        /// Number or name of the node
        node: String,
    },
    /// Add a node to a region: announce it, wait until it has joined, and let it vote where that bears one more loss
    Add(change::Add),
    /// Put a node in the place of another one, alive or lost: with another name, or the same machine with a new disk
    Replace(change::Replace),
    /// Remove a node, alive or lost
    Remove(change::Remove),
}

impl Verb {
    /// Tells whether the verb handles Ctrl-C itself, because what it has begun goes on.
    pub(crate) fn detaches(&self) -> bool {
        matches!(self, Self::Add(_) | Self::Replace(_) | Self::Remove(_))
    }

    pub(crate) async fn run(self, target: &Target) -> Result<(), CommandError> {
        match self {
            Self::Add(verb) => return verb.run(target).await,
            Self::Replace(verb) => return verb.run(target).await,
            Self::Remove(verb) => return verb.run(target).await,
            Self::List { .. } | Self::Status { .. } => {}
        }
        let admin = context::connect(target).await?.admin();
        match self {
            Self::List { of } => table(&admin.nodes(&of).await?).print(target.output),
            Self::Status { node } => {
                let node = find(&admin, &node).await?;
                let health_problem = health_problem(&node);
                table(&[node]).print_one(target.output)?;
                health_problem.map_or(Ok(()), |what| Err(CommandError::new(Code::Unhealthy, what)))
            }
            Self::Add(_) | Self::Replace(_) | Self::Remove(_) => Ok(()),
        }
    }
}

/// Returns the reason why a node is unhealthy.
pub(super) fn health_problem(node: &NodeInfo) -> Option<String> {
    match &node.status {
        None => Some(format!("node {} does not answer", node.name)),
        Some(status) if !status.ready => Some(format!("node {} is not ready", node.name)),
        Some(status) => status
            .warnings
            .first()
            .map(|warning| format!("node {}: {warning}", node.name)),
    }
}

async fn find(admin: &Admin, node: &str) -> Result<NodeInfo, CommandError> {
    if let Ok(number) = node.parse() {
        return Ok(admin.node(number).await?);
    }
    let named = admin.nodes("").await?.into_iter().find(|known| known.name == node);
    named.ok_or_else(|| {
        CommandError::new(Code::NotFound, format!("there is no node {node}"))
            .hint("`stead node list` shows the nodes there are")
    })
}
