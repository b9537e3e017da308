//! `stead directory recover`.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use serde_json::{Value, json};
use stead_server::{
    environment::Environment,
    recovery::{Error, Options, Plan, Recovery},
};

use crate::{
    args::{self, Target},
    confirm,
    exit::{Code, CommandError},
    output::{self, Output, list},
    verbs::serve,
};

#[derive(Debug, Args)]
pub(crate) struct Recover {
    /// The configuration of the stopped node
    #[arg(long, env = "STEAD_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Name of the stopped node in cluster.initial
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Your word that this voter is lost for good and never started again with its disk; once for each other voter
    #[arg(long, value_name = "NAME")]
    lost: Vec<String>,
    /// Longest lease ttl that was ever set, where it was raised shortly before the loss: so long is waited before tenants are
    /// served again
    #[arg(long, value_name = "TIME", value_parser = args::time)]
    lease_ttl: Option<Duration>,
    /// Also if other nodes have seen changes of the directory that this voter does not have
    #[arg(long)]
    allow_loss: bool,
    /// Only show what would be taken, who answers and what stands against it
    #[arg(long)]
    dry_run: bool,
    /// Reason, for the audit log and the operation
    #[arg(long, default_value = "")]
    reason: String,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

impl Recover {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let mut config = serve::load(self.config.as_deref(), std::env::vars())?;
        if let Some(node) = &self.node {
            config.node.name.clone_from(node);
        }
        let config = config
            .validate()
            .map_err(|error| serve::invalid(self.config.as_deref(), &error))?;
        let options = Options {
            lost: self.lost.clone(),
            lease_ttl: self.lease_ttl,
            allow_loss: self.allow_loss,
            who: format!("operator of {}", config.node.name),
            reason: self.reason.clone(),
        };
        let environment = Environment::real(config.dial.clone());
        let recovery = Recovery::open(&config, &environment, &options).await.map_err(failed)?;
        let checked = recovery.check(&options).map_err(failed);
        let plan = recovery.plan().clone();
        if self.dry_run {
            recovery.close().map_err(failed)?;
            print(&plan, false, target.output)?;
            return checked;
        }
        if checked.is_err() {
            recovery.close().map_err(failed)?;
            return checked;
        }
        if !self.yes {
            confirm::by_name(&consequence(&plan), &config.cluster).await?;
        }
        let plan = recovery.run().await.map_err(failed)?;
        print(&plan, true, target.output)
    }
}

/// Says what a recovery costs.
fn consequence(plan: &Plan) -> String {
    format!(
        "the directory would go on from the state {} of {} alone, as incarnation {}: what {} knew beyond that is lost, and \
         {} tenants stop until their groups have told what they hold",
        plan.version,
        plan.node,
        plan.incarnation.0,
        list(&plan.others),
        plan.tenants
    )
}

fn failed(error: Error) -> CommandError {
    let code = match &error {
        Error::NotNamed(_) => Code::Usage,
        Error::OnlyVoter(_)
        | Error::VoterAnswers(_)
        | Error::Newer { .. }
        | Error::NotVoter { .. }
        | Error::Rejected(_) => Code::Conflict,
        Error::Storage(_) | Error::Log(_) | Error::Rows(_) | Error::Interrupted(_) => Code::Failed,
    };
    let hint = match &error {
        Error::Interrupted(_) => "the node does not start before it is finished",
        Error::OnlyVoter(_)
        | Error::VoterAnswers(_)
        | Error::Newer { .. }
        | Error::NotVoter { .. }
        | Error::NotNamed(_)
        | Error::Rejected(_)
        | Error::Storage(_)
        | Error::Log(_)
        | Error::Rows(_) => "nothing was done",
    };
    CommandError::new(code, format!("{:#}", anyhow::Error::from(error))).hint(hint)
}

fn print(plan: &Plan, is_done: bool, output: Output) -> Result<(), CommandError> {
    if output == Output::Json {
        return output::json(&value(plan, is_done));
    }
    let seen = plan
        .seen
        .iter()
        .map(|seen| format!("{} at {}", seen.node, seen.version));
    let operation = plan
        .operation
        .map_or_else(|| "none".to_owned(), |id| format!("operations/{id}"));
    let rows = [
        ("node", plan.node.clone()),
        ("incarnation", plan.incarnation.0.to_string()),
        ("state taken", plan.version.to_string()),
        (
            "end of its log",
            format!("term {}, entry {}", plan.log_end.term, plan.log_end.index),
        ),
        ("logged time", time(plan.time)),
        ("other voters", list(&plan.others)),
        ("seen by", list(&seen.collect::<Vec<_>>())),
        ("silent", list(&plan.silent)),
        (
            "tenants",
            format!(
                "{} are fenced until their groups have told what they hold",
                plan.tenants
            ),
        ),
        ("promotion", operation),
        (
            "wait for leases",
            format!("{:.0} s from the start of the node", plan.lease_wait.as_secs_f64()),
        ),
    ];
    for (name, text) in rows {
        output::line(&format!("{name:<16} {}", if text.is_empty() { "-" } else { &text }))?;
    }
    if is_done {
        eprintln!(
            "recovered: start {}, then watch `stead operation list --in-flight`; tenants of groups that do not answer stay \
             blocked until you promote them",
            plan.node
        );
    }
    Ok(())
}

fn time(ms: u64) -> String {
    let time = std::time::UNIX_EPOCH + Duration::from_millis(ms);
    humantime::format_rfc3339_seconds(time).to_string()
}

fn value(plan: &Plan, is_done: bool) -> Value {
    let seen = plan
        .seen
        .iter()
        .map(|seen| json!({ "node": seen.node, "version": seen.version.to_string() }));
    json!({
        "node": plan.node,
        "incarnation": plan.incarnation.0,
        "version": plan.version.to_string(),
        "log_term": plan.log_end.term.to_string(),
        "log_index": plan.log_end.index.to_string(),
        "other_voters": plan.others,
        "seen": seen.collect::<Vec<_>>(),
        "silent": plan.silent,
        "tenants": plan.tenants.to_string(),
        "operation": plan.operation.map(|id| format!("operations/{id}")),
        "lease_wait_ms": plan.lease_wait.as_millis().to_string(),
        "done": is_done,
    })
}
