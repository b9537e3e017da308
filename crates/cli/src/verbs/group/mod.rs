//! `stead group`.

mod shown;

use clap::Subcommand;

pub(super) use self::shown::{sheet, value};
use crate::{args::Target, context, exit::Failure};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Show the groups; 0 is the directory
    List {
        /// Only of this region
        #[arg(long = "of", value_name = "REGION", default_value = "")]
        of: String,
    },
    /// Show how a group is
    Status {
        /// Its number
        number: u32,
    },
    /// Hand a group's leadership to another voter
    MoveLeader {
        /// The group's number
        number: u32,
        /// The node's number; else any other voter that is up to date
        #[arg(long, value_name = "NODE")]
        to: Option<u64>,
        /// Why, for the audit
        #[arg(long, default_value = "")]
        reason: String,
    },
}

impl Verb {
    pub(crate) async fn run(self, target: &Target) -> Result<(), Failure> {
        let admin = context::connect(target).await?.admin();
        match self {
            Self::List { of } => sheet(&admin.groups(&of).await?).print(target.output),
            Self::Status { number } => sheet(&[admin.group(number).await?]).print_one(target.output),
            Self::MoveLeader { number, to, reason } => {
                sheet(&[admin.move_leader(number, to, &reason).await?]).print_one(target.output)
            }
        }
    }
}
