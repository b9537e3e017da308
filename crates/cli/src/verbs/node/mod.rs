//! `stead node`.

mod shown;

use clap::Subcommand;

pub(super) use self::shown::{sheet, value};
use crate::{args::Target, context, exit::Failure};

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
        /// Its number
        number: u64,
    },
}

impl Verb {
    pub(crate) async fn run(self, target: &Target) -> Result<(), Failure> {
        let admin = context::connect(target).await?.admin();
        match self {
            Self::List { of } => sheet(&admin.nodes(&of).await?).print(target.output),
            Self::Status { number } => sheet(&[admin.node(number).await?]).print_one(target.output),
        }
    }
}
