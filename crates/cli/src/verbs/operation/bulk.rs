//! Parts that the verbs that move many tenants share: options, the plan before, and the progress until the end.

use std::time::Duration;

use clap::{Args, ValueEnum};
use stead_client::{Admin, BulkMoveOptions, MoveSource, OperationInfo, Pace};

use super::{bulk_display, display, follow};
use crate::{
    args::Target,
    confirm, context,
    exit::{Code, CommandError},
    output::{self, Output},
};

/// Options of a bulk move.
#[derive(Clone, Debug, Args)]
pub(in crate::verbs) struct BulkArgs {
    #[command(flatten)]
    pub(in crate::verbs) pace: PaceArgs,
    /// Reason, for the audit log and the operation
    #[arg(long, default_value = "")]
    pub(in crate::verbs) reason: String,
    /// Only show what would move where, and what blocks it
    #[arg(long, conflicts_with = "no_wait")]
    pub(in crate::verbs) dry_run: bool,
    /// End as soon as it has begun; else the progress is shown, and Ctrl-C ends only the command
    #[arg(long)]
    pub(in crate::verbs) no_wait: bool,
}

/// Pace of a bulk move, on the command line.
#[derive(Clone, Copy, Debug, Args)]
pub(in crate::verbs) struct PaceArgs {
    /// Tenants of the first wave, 3 if not given; each wave may be four times as large as the one before
    #[arg(long, value_name = "TENANTS", value_parser = clap::value_parser!(u32).range(1..))]
    canaries: Option<u32>,
    /// Most tenants that move at once, 500 if not given
    #[arg(long, value_name = "TENANTS", value_parser = clap::value_parser!(u32).range(1..=1000))]
    at_once: Option<u32>,
    /// Time in which a wave must end, 60s if not given; else the operation pauses
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    wave_budget: Option<Duration>,
}

/// Role of the home before a move, afterwards, on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(in crate::verbs) enum SourceArg {
    /// It follows
    Follow,
    /// It leaves, and erases its copy
    Leave,
}

/// Question before a bulk move begins.
pub(in crate::verbs) struct Question<'a> {
    /// Description of the change.
    pub(in crate::verbs) what: String,
    /// Name to be typed as confirmation.
    pub(in crate::verbs) name: &'a str,
}

impl PaceArgs {
    pub(in crate::verbs) fn pace(self) -> Pace {
        Pace {
            canaries: self.canaries,
            at_once: self.at_once,
            wave_budget: self.wave_budget,
        }
    }

    /// Tells whether any part of it is given.
    pub(in crate::verbs) fn is_given(self) -> bool {
        self.pace() != Pace::default()
    }
}

/// Converts what the home before does afterwards.
pub(in crate::verbs) fn source(source: Option<SourceArg>) -> MoveSource {
    match source {
        None => MoveSource::Policy,
        Some(SourceArg::Follow) => MoveSource::Follow,
        Some(SourceArg::Leave) => MoveSource::Leave,
    }
}

/// Plans a bulk move, asks if there is a question, begins it, and shows it until its end.
pub(in crate::verbs) async fn run(
    target: &Target,
    args: &BulkArgs,
    source: MoveSource,
    question: Option<Question<'_>>,
    begin: impl AsyncFn(&Admin, BulkMoveOptions) -> Result<OperationInfo, stead_client::Error>,
) -> Result<(), CommandError> {
    let options = |dry_run| BulkMoveOptions {
        source,
        pace: args.pace.pace(),
        reason: args.reason.clone(),
        dry_run,
        keep_forks: false,
    };
    let begun = async {
        let client = context::connect(target).await?;
        let admin = client.admin();
        if args.dry_run || question.is_some() {
            let planned = begin(&admin, options(true)).await?;
            show_plan(&planned, args.dry_run, target.output)?;
            if let Some(refused) = follow::failure(&planned) {
                return Err(refused);
            }
        }
        if args.dry_run {
            return Ok(None);
        }
        if let Some(question) = &question {
            confirm::by_name(&question.what, question.name).await?;
        }
        let hint = "`stead operation list --in-flight` shows whether it has begun";
        let begun = begin(&admin, options(false)).await;
        let operation = begun.map_err(|error| CommandError::from(error).if_unknown(hint))?;
        Ok(Some((client, operation)))
    };
    let begun: Result<Option<(stead_client::Client, OperationInfo)>, CommandError> = tokio::select! {
        begun = begun => begun,
        _ = tokio::signal::ctrl_c() => {
            let hint = "`stead operation list --in-flight` shows whether it has begun";
            return Err(CommandError::new(Code::Interrupted, "interrupted").hint(hint));
        }
    };
    let Some((client, operation)) = begun? else {
        return Ok(());
    };
    let name = operation.name.clone();
    if !args.no_wait {
        if target.output != Output::Json {
            eprintln!("{name} has begun");
        }
        return follow::to_the_end(&client.admin(), &name, target.output).await;
    }
    display::table(&[operation]).print_one(target.output)?;
    if target.output != Output::Json {
        eprintln!("begun: `stead operation watch {name}` shows its progress");
    }
    Ok(())
}

/// Shows a plan: as the result of a dry run, else before the question.
fn show_plan(planned: &OperationInfo, is_result: bool, output: Output) -> Result<(), CommandError> {
    if is_result && output == Output::Json {
        return output::json(&display::value(planned));
    }
    let lines = planned.bulk_plan.iter().flat_map(bulk_display::plan_lines);
    if !is_result {
        lines.for_each(|line| eprintln!("{line}"));
        return Ok(());
    }
    for line in lines {
        output::line(&line)?;
    }
    eprintln!("dry run: nothing was changed");
    Ok(())
}
