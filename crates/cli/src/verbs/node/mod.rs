//! `stead node`.

mod shown;

use clap::Subcommand;
use stead_client::{Admin, NodeInfo};

pub(super) use self::shown::{sheet, value};
use crate::{
    args::Target,
    context,
    exit::{Code, Failure},
};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Show the nodes
    List {
        /// Only of this region; --region says where this machine stands
        #[arg(long = "of", value_name = "REGION", default_value = "")]
        of: String,
    },
    /// Show how a node is
    Status {
        /// Its number or its name
        node: String,
    },
}

impl Verb {
    pub(crate) async fn run(self, target: &Target) -> Result<(), Failure> {
        let admin = context::connect(target).await?.admin();
        match self {
            Self::List { of } => sheet(&admin.nodes(&of).await?).print(target.output),
            Self::Status { node } => {
                let node = find(&admin, &node).await?;
                let ailing = ailing(&node);
                sheet(&[node]).print_one(target.output)?;
                ailing.map_or(Ok(()), |what| Err(Failure::new(Code::Unhealthy, what)))
            }
        }
    }
}

/// Returns what keeps a node from being well.
pub(super) fn ailing(node: &NodeInfo) -> Option<String> {
    match &node.status {
        None => Some(format!("node {} does not answer", node.name)),
        Some(status) if !status.ready => Some(format!("node {} is not ready", node.name)),
        Some(status) => status
            .warnings
            .first()
            .map(|warning| format!("node {}: {warning}", node.name)),
    }
}

async fn find(admin: &Admin, node: &str) -> Result<NodeInfo, Failure> {
    if let Ok(number) = node.parse() {
        return Ok(admin.node(number).await?);
    }
    let named = admin.nodes("").await?.into_iter().find(|known| known.name == node);
    named.ok_or_else(|| {
        Failure::new(Code::NotFound, format!("there is no node {node}"))
            .hint("`stead node list` shows the nodes there are")
    })
}
