//! Parts that the verbs that promote share: options, the plan before, and the progress until the end.

use std::time::Duration;

use clap::{Args, ValueEnum};
use stead_client::{Admin, Client, Durability, OperationInfo, PromotionRequest, PromotionSelection};

use super::{display, follow, promotion_display};
use crate::{
    args::{self, Target},
    confirm, context,
    exit::{Code, CommandError},
    output::{self, Output},
};

/// Options of a promotion.
#[derive(Clone, Debug, Args)]
pub(in crate::verbs) struct PromoteArgs {
    /// Region of the new homes; else each tenant goes to the group that has most of it
    #[arg(long, value_name = "REGION")]
    to: Option<String>,
    /// Only show where each tenant would go, what it would lose and what blocks it
    #[arg(long, conflicts_with = "no_wait")]
    dry_run: bool,
    /// Also where a group that does not answer may hold acknowledged writes that the others lack: they are cut
    #[arg(long)]
    allow_loss: bool,
    /// Take the place of a promotion that is in flight; the wait begins anew
    #[arg(long)]
    replace: bool,
    /// Try planned moves first, which lose nothing, for so long, such as 10s; what has not moved then is promoted
    #[arg(long, value_name = "TIME", value_parser = args::time)]
    graceful_for: Option<Duration>,
    /// region: also where a tenant with the durability remote is left without a follower elsewhere, and has it no more
    #[arg(long, value_enum, value_name = "LEVEL")]
    durability: Option<PromotedDurability>,
    /// Also if its homes answer: what their followers have not received yet is cut, where a planned move loses nothing
    #[arg(long)]
    even_if_healthy: bool,
    /// Your word that the homes are down: tenants that go on without a lease need it, and lose what they acknowledge until
    /// they hear of it
    #[arg(long)]
    is_down: bool,
    /// Reason, for the audit log and the operation
    #[arg(long, default_value = "")]
    reason: String,
    /// End as soon as it has begun; else the progress is shown, and Ctrl-C ends only the command
    #[arg(long)]
    no_wait: bool,
    /// Do not show the plan and ask
    #[arg(long)]
    yes: bool,
}

/// Durability that tenants may be left with.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum PromotedDurability {
    /// Committed by a majority of the home's nodes
    Region,
}

impl PromoteArgs {
    fn request(&self, selection: PromotionSelection, dry_run: bool) -> PromotionRequest {
        PromotionRequest {
            selection,
            to: self.to.clone(),
            allow_loss: self.allow_loss,
            replace: self.replace,
            durability: self.durability.map(|PromotedDurability::Region| Durability::Region),
            graceful_for: self.graceful_for,
            even_if_healthy: self.even_if_healthy,
            is_down: self.is_down,
            reason: self.reason.clone(),
            dry_run,
        }
    }
}

/// Plans a promotion, asks for `typed` unless that is confirmed, begins it, and shows it until its end.
pub(in crate::verbs) async fn run(
    target: &Target,
    args: &PromoteArgs,
    selection: PromotionSelection,
    what: &str,
    typed: &str,
) -> Result<(), CommandError> {
    let hint = "`stead operation list --in-flight` shows whether it has begun";
    let begun = tokio::select! {
        begun = begin(target, args, selection, what, typed) => begun,
        _ = tokio::signal::ctrl_c() => return Err(CommandError::new(Code::Interrupted, "interrupted").hint(hint)),
    };
    let Some((client, operation)) = begun? else {
        return Ok(());
    };
    let (name, admin) = (operation.name.clone(), client.admin());
    if args.no_wait {
        display::table(&[operation]).print_one(target.output)?;
        if target.output != Output::Json {
            eprintln!("begun: `stead operation watch {name}` shows its progress");
        }
        return Ok(());
    }
    if target.output != Output::Json {
        let what = match args.graceful_for {
            Some(_) => "planned moves are tried first",
            None => "the homes before serve no more from now on",
        };
        eprintln!("{name} has begun: {what}, whatever becomes of this command");
    }
    let ended = follow::to_the_end(&admin, &name, target.output).await;
    if target.output != Output::Json {
        summarize(&admin, &name).await;
    }
    ended
}

/// Shows the plan and asks, if that is to be, and begins.
async fn begin(
    target: &Target,
    args: &PromoteArgs,
    selection: PromotionSelection,
    what: &str,
    typed: &str,
) -> Result<Option<(Client, OperationInfo)>, CommandError> {
    let client = context::connect(target).await?;
    let admin = client.admin();
    if args.dry_run || !args.yes {
        let planned = admin.promote(args.request(selection.clone(), true)).await?;
        show_plan(&planned, args.dry_run, target.output)?;
        if let Some(refused) = follow::failure(&planned) {
            return Err(refused);
        }
    }
    if args.dry_run {
        return Ok(None);
    }
    if !args.yes {
        confirm::by_name(what, typed).await?;
    }
    let hint = "`stead operation list --in-flight` shows whether it has begun";
    let begun = admin.promote(args.request(selection, false)).await;
    let operation = begun.map_err(|error| CommandError::from(error).if_unknown(hint))?;
    Ok(Some((client, operation)))
}

/// Shows a plan: as the result of a dry run, else before the question.
fn show_plan(planned: &OperationInfo, is_result: bool, output: Output) -> Result<(), CommandError> {
    if is_result && output == Output::Json {
        return output::json(&display::value(planned));
    }
    let lines = planned.promotion_plan.iter().flat_map(promotion_display::plan_lines);
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

/// Shows what a promotion has done. Its outcome is known without.
async fn summarize(admin: &Admin, name: &str) {
    match admin.promotion_report(name).await {
        Ok(report) => promotion_display::summary_lines(&report)
            .iter()
            .for_each(|line| eprintln!("{line}")),
        Err(error) => eprintln!("its report cannot be read now ({error}): `stead operation report {name}` shows it"),
    }
}
