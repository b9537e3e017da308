//! `stead tenant where`.

use clap::Args;
use serde_json::json;
use stead_client::{OperationFilter, Role};

use crate::{
    args::Target,
    context,
    exit::CommandError,
    output::{self, Output, OutputTable},
    verbs::operation::display,
};

#[derive(Debug, Args)]
pub(crate) struct Where {
    /// Name of the tenant
    name: String,
}

impl Where {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let admin = context::connect(target).await?.admin();
        let tenant = admin.tenant(&self.name).await?;
        let in_flight = OperationFilter {
            tenant: self.name,
            done: Some(false),
        };
        let operation = match tenant.moving {
            Some(_) => admin.operations(&in_flight).await?.into_iter().next(),
            None => None,
        };
        if target.output == Output::Json {
            return output::json(&json!({
                "name": tenant.name,
                "homeRegion": tenant.home_region,
                "homeGroup": tenant.home_group,
                "epoch": tenant.epoch.get(),
                "replicas": tenant.replicas.iter().map(display::replica_value).collect::<Vec<_>>(),
                "moving": tenant.moving.as_ref().map(super::display::moving_value),
                "operation": operation.as_ref().map(display::value),
            }));
        }
        let mut replicas = tenant.replicas;
        replicas.sort_by_key(|replica| replica.role != Role::Home);
        let mut table = OutputTable::new(&["REGION", "GROUP", "ROLE", "EPOCH"], 4);
        for replica in &replicas {
            let (role, epoch) = match (replica.role, replica.leaving) {
                (Role::Home, _) => ("home", tenant.epoch.to_string()),
                (Role::Follower, false) => ("follower", String::new()),
                (Role::Follower, true) => ("leaving", String::new()),
            };
            let cells = vec![
                replica.region.clone(),
                replica.group.to_string(),
                role.to_owned(),
                epoch,
            ];
            table.push(cells, display::replica_value(replica));
        }
        table.print(target.output)?;
        let Some(moving) = &tenant.moving else { return Ok(()) };
        output::line("")?;
        let name = operation.as_ref().map_or("a move", |operation| operation.name.as_str());
        output::line(&format!("{name} {}", super::display::moving_text(moving)))?;
        let lines = operation.iter().flat_map(display::lines);
        lines.into_iter().try_for_each(|line| output::line(&line))
    }
}
