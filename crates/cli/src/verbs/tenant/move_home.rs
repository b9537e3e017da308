//! `stead tenant move`.

use clap::{Args, ValueEnum};
use stead_client::{MoveSource, MoveTarget, OperationInfo, TenantMove};

use crate::{
    args::Target,
    context,
    exit::{Code, CommandError},
    output::{self, Output},
    verbs::operation::{display, follow},
};

#[derive(Debug, Args)]
pub(crate) struct Move {
    /// Name of the tenant
    name: String,
    #[command(flatten)]
    place: PlaceArgs,
    /// What the home before does afterwards; else it follows where the tenant's followers name its region
    #[arg(long, value_enum)]
    source: Option<SourceArg>,
    /// Refuse unless this is the tenant's etag
    #[arg(long, default_value = "")]
    etag: String,
    /// Reason, for the audit log and the operation
    #[arg(long, default_value = "")]
    reason: String,
    /// Only show what would happen, how long writes would pause, and what blocks it
    #[arg(long, conflicts_with_all = ["wait", "no_wait"])]
    dry_run: bool,
    /// Show the steps until the move is over, which is the default; Ctrl-C ends the command, not the move
    #[arg(long, conflicts_with = "no_wait")]
    wait: bool,
    /// End as soon as the move has begun
    #[arg(long)]
    no_wait: bool,
}

/// Target of a move, on the command line.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct PlaceArgs {
    /// Region of the new home
    #[arg(long, value_name = "REGION")]
    to: Option<String>,
    /// Group that is to be the home; for a move within the region, too
    #[arg(long, value_name = "GROUP")]
    group: Option<u32>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SourceArg {
    /// It follows
    Follow,
    /// It leaves, and erases its copy
    Leave,
}

impl Move {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let begun = tokio::select! {
            begun = self.begin(target) => begun?,
            _ = tokio::signal::ctrl_c() => return Err(self.interrupted()),
        };
        let Begun { client, operation } = begun;
        if self.dry_run {
            return print_plan(&operation, target.output);
        }
        let name = operation.name.clone();
        let is_followed = self.wait || !self.no_wait;
        if !is_followed {
            display::table(&[operation]).print_one(target.output)?;
            if target.output != Output::Json {
                eprintln!("begun: `stead operation watch {name}` shows its steps");
            }
            return Ok(());
        }
        follow::to_the_end(&client.admin(), &name, target.output).await
    }

    async fn begin(&self, target: &Target) -> Result<Begun, CommandError> {
        let client = context::connect(target).await?;
        let request = TenantMove {
            name: self.name.clone(),
            etag: self.etag.clone(),
            to: match (&self.place.to, self.place.group) {
                (Some(region), _) => MoveTarget::Region(region.clone()),
                (None, group) => MoveTarget::Group(group.unwrap_or_default()),
            },
            source: match self.source {
                None => MoveSource::Policy,
                Some(SourceArg::Follow) => MoveSource::Follow,
                Some(SourceArg::Leave) => MoveSource::Leave,
            },
            reason: self.reason.clone(),
            dry_run: self.dry_run,
        };
        let begun = client.admin().move_tenant(request).await;
        let operation = begun.map_err(|error| CommandError::from(error).if_unknown(&self.verify_hint()))?;
        Ok(Begun { client, operation })
    }

    fn verify_hint(&self) -> String {
        format!(
            "`stead operation list --tenant {}` shows whether it has begun",
            self.name
        )
    }

    fn interrupted(&self) -> CommandError {
        let message = "interrupted; whether the move has begun is not known";
        CommandError::new(Code::Interrupted, message).hint(self.verify_hint())
    }
}

/// A move that has begun, or was planned.
struct Begun {
    client: stead_client::Client,
    operation: OperationInfo,
}

fn print_plan(operation: &OperationInfo, output: Output) -> Result<(), CommandError> {
    if output == Output::Json {
        output::json(&display::value(operation))?;
    } else {
        let lines = operation
            .plan
            .iter()
            .flat_map(|plan| display::plan_lines(operation, plan));
        lines.into_iter().try_for_each(|line| output::line(&line))?;
        eprintln!("dry run: nothing was changed");
    }
    follow::failure(operation).map_or(Ok(()), Err)
}
