//! `stead role`.

mod grant;
mod list;

use clap::Subcommand;
use serde_json::json;
use stead_client::RoleBinding;

use crate::{args::Target, exit::CommandError, output::OutputTable};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Bind a role to an identity
    Grant(grant::Grant),
    /// Take a bound role from an identity; watches and streams that need it end
    Revoke(grant::Revoke),
    /// Show the bound roles
    List(list::List),
}

impl Verb {
    pub(crate) async fn run(self, target: &Target) -> Result<(), CommandError> {
        match self {
            Self::Grant(verb) => verb.run(target).await,
            Self::Revoke(verb) => verb.run(target).await,
            Self::List(verb) => verb.run(target).await,
        }
    }
}

fn print(bindings: Vec<RoleBinding>, target: &Target) -> Result<(), CommandError> {
    let mut table = OutputTable::new(&["IDENTITY", "ROLES"], 2);
    for RoleBinding { subject, roles } in bindings {
        let json = json!({ "subject": subject, "roles": roles });
        table.push(vec![subject, roles.join(" ")], json);
    }
    table.print(target.output)
}
