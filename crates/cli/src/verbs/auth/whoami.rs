//! `stead auth whoami`.

use clap::Args;
use serde_json::json;

use crate::{args::Target, context, exit::CommandError, output::OutputTable};

#[derive(Debug, Args)]
pub(crate) struct Whoami {}

impl Whoami {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let caller = context::connect(target).await?.admin().caller().await?;
        let mut table = OutputTable::new(
            &["IDENTITY", "ROLES OF THE CREDENTIAL", "BOUND ROLES", "CREDENTIALS"],
            4,
        );
        let needed = if caller.required { "required" } else { "not required" };
        let json = json!({
            "subject": caller.subject,
            "credential_roles": caller.credential_roles,
            "bound_roles": caller.bound_roles,
            "required": caller.required,
        });
        let cells = [
            caller.subject,
            caller.credential_roles.join(" "),
            caller.bound_roles.join(" "),
            needed.to_owned(),
        ];
        table.push(cells.into(), json);
        table.print(target.output)
    }
}
