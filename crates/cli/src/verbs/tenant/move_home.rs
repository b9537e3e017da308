//! `stead tenant move`.

use std::path::PathBuf;

use clap::Args;
use stead_client::{MoveTarget, OperationInfo, TenantMove};

use super::move_many;
use crate::{
    args::Target,
    context,
    exit::{Code, CommandError},
    output::{self, Output},
    verbs::operation::{
        bulk::{self, BulkArgs, SourceArg},
        display, follow,
    },
};

#[derive(Debug, Args)]
pub(crate) struct Move {
    /// Name of the tenant
    #[arg(required_unless_present_any = ["label", "file"])]
    name: Option<String>,
    /// Move every tenant with this label, in waves
    #[arg(long, value_name = "KEY=VALUE", conflicts_with_all = ["name", "file", "group", "etag"])]
    label: Option<String>,
    /// Move the tenants of this file, in waves: lines of tenant,region
    #[arg(long, value_name = "FILE", conflicts_with_all = ["name", "to", "group", "etag"])]
    file: Option<PathBuf>,
    /// Region of the new home
    #[arg(long, value_name = "REGION", required_unless_present_any = ["group", "file"], conflicts_with = "group")]
    to: Option<String>,
    /// Group that is to be the home; for a move within the region, too
    #[arg(long, value_name = "GROUP")]
    group: Option<u32>,
    /// Role of the home before, after the move; else it follows where the tenant's followers name its region
    #[arg(long, value_enum)]
    source: Option<SourceArg>,
    /// Refuse unless this is the tenant's etag
    #[arg(long)]
    etag: Option<String>,
    #[command(flatten)]
    args: BulkArgs,
    /// Show the steps until the move is over, which is the default; Ctrl-C ends the command, not the move
    #[arg(long, conflicts_with_all = ["no_wait", "dry_run"])]
    wait: bool,
}

impl Move {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let source = bulk::source(self.source);
        if let Some(file) = &self.file {
            return move_many::by_file(target, &self.args, source, file).await;
        }
        let to = self.to.unwrap_or_default();
        if let Some(label) = &self.label {
            return move_many::by_label(target, &self.args, source, label, &to).await;
        }
        if self.args.pace.is_given() {
            let message = "--canaries, --at-once and --wave-budget are of moves of many tenants: --label or --file";
            return Err(CommandError::new(Code::Usage, message));
        }
        let request = TenantMove {
            name: self.name.unwrap_or_default(),
            etag: self.etag.unwrap_or_default(),
            to: self.group.map_or(MoveTarget::Region(to), MoveTarget::Group),
            source,
            reason: self.args.reason,
            dry_run: self.args.dry_run,
        };
        run(target, request, self.args.no_wait && !self.wait).await
    }
}

/// Begins a move, or plans it, and shows its steps until its end.
pub(super) async fn run(target: &Target, request: TenantMove, no_wait: bool) -> Result<(), CommandError> {
    let verify_hint = format!(
        "`stead operation list --tenant {}` shows whether it has begun",
        request.name
    );
    let dry_run = request.dry_run;
    let begin = async {
        let client = context::connect(target).await?;
        let begun = client.admin().move_tenant(request).await;
        let operation = begun.map_err(|error| CommandError::from(error).if_unknown(&verify_hint))?;
        Ok::<_, CommandError>((client, operation))
    };
    let (client, operation) = tokio::select! {
        begun = begin => begun?,
        _ = tokio::signal::ctrl_c() => {
            let message = "interrupted; whether the move has begun is not known";
            return Err(CommandError::new(Code::Interrupted, message).hint(verify_hint));
        }
    };
    if dry_run {
        return print_plan(&operation, target.output);
    }
    let name = operation.name.clone();
    if no_wait {
        display::table(&[operation]).print_one(target.output)?;
        if target.output != Output::Json {
            eprintln!("begun: `stead operation watch {name}` shows its steps");
        }
        return Ok(());
    }
    follow::to_the_end(&client.admin(), &name, target.output).await
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
