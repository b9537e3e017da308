//! `stead fork replay`.

use std::{ffi::OsString, io::IsTerminal, os::unix::ffi::OsStringExt};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use stead_client::{Admin, ForkClass, ForkInfo, ReplayOptions, ReplayOutcome, ReplayPage, ReplayedChange};

use super::{ForkArgs, display, find};
use crate::{
    confirm,
    exit::{Code, CommandError},
    output::{self, Output, OutputTable, display_bytes},
};

/// Changes that are written at a time.
const PAGE_SIZE: u32 = 100;
const KEY_SHOWN_MAX: usize = 60;
/// Keys of a change that a table shows.
const KEYS_SHOWN_MAX: usize = 3;

#[derive(Debug, Args)]
pub(crate) struct Replay {
    #[command(flatten)]
    fork: ForkArgs,
    /// Classes of changes that are written; conflicts replace what was written since
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_values_t = [Class::Clean, Class::Commutative],
    )]
    only: Vec<Class>,
    /// Only changes of this key; a change of several keys is written whole
    #[arg(long, conflicts_with = "prefix")]
    key: Option<OsString>,
    /// Only changes of keys that begin with this
    #[arg(long)]
    prefix: Option<OsString>,
    /// Show what would be done, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Reason, for the audit log
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
    /// Do not ask before conflicts or expired changes are written
    #[arg(long)]
    yes: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Class {
    /// Nobody has changed their keys since
    Clean,
    /// Increments and appends, done again upon what is there
    Commutative,
    /// As commutative, but the client may have sent them again
    Uncertain,
    /// They replace what was written since
    Conflict,
    /// Their time is over
    Expired,
}

impl Class {
    fn class(self) -> ForkClass {
        match self {
            Self::Clean => ForkClass::Clean,
            Self::Commutative => ForkClass::Commutative,
            Self::Uncertain => ForkClass::Uncertain,
            Self::Conflict => ForkClass::Conflict,
            Self::Expired => ForkClass::Expired,
        }
    }

    fn is_safe(self) -> bool {
        matches!(self, Self::Clean | Self::Commutative)
    }
}

impl Replay {
    pub(super) async fn run(self, admin: &Admin, output: Output) -> Result<(), CommandError> {
        let is_asked = !self.dry_run && !self.yes && !self.only.iter().all(|class| class.is_safe());
        let bytes = |text: Option<OsString>| text.map(OsString::into_vec).unwrap_or_default().into();
        let replay = ReplayOptions {
            classes: self.only.iter().map(|class| class.class()).collect(),
            key: bytes(self.key),
            prefix: bytes(self.prefix),
            dry_run: self.dry_run,
            reason: self.reason,
            page_size: PAGE_SIZE,
        };
        let fork = find(admin, &self.fork.name()).await?;
        if is_asked {
            let dry_run = ReplayOptions {
                dry_run: true,
                ..replay.clone()
            };
            let plan = run(admin, &fork, &dry_run).await?;
            confirm::by_name(&consequence(&fork, &plan.changes), &fork.tenant).await?;
        }
        let done = run(admin, &fork, &replay).await?;
        show(&fork, &done, self.dry_run, output)
    }
}

/// Carries out a replay, page by page. A command that is stopped has written the pages before: asked again, it finds them.
async fn run(admin: &Admin, fork: &ForkInfo, replay: &ReplayOptions) -> Result<ReplayPage, CommandError> {
    let name = stead_client::ForkName {
        tenant: fork.tenant.clone(),
        group: fork.group,
        number: fork.number,
    };
    let mut done: Option<ReplayPage> = None;
    loop {
        let token = done.as_ref().map_or("", |done| &done.next_page_token);
        let page = admin.replay_fork(&name, replay, token).await;
        let page = page.map_err(|error| {
            let again = "the same command again: what was written is found, and not written twice";
            CommandError::from(error).if_unknown(again)
        })?;
        let done = match &mut done {
            None => done.insert(page),
            Some(done) => {
                done.changes.extend(page.changes);
                done.next_page_token = page.next_page_token;
                done
            }
        };
        if done.next_page_token.is_empty() {
            return Ok(done.clone());
        }
        if !replay.dry_run && std::io::stderr().is_terminal() {
            eprintln!("{} of {} changes", done.changes.len(), fork.changes);
        }
    }
}

/// Returns what a replay of conflicts or expired changes replaces.
fn consequence(fork: &ForkInfo, plan: &[ReplayedChange]) -> String {
    let written = || plan.iter().filter(|change| change.outcome == ReplayOutcome::Written);
    let replaced = written().flat_map(|change| change.touched.iter().map(|(key, live)| (key, live)));
    let shown: Vec<String> = replaced
        .clone()
        .take(10)
        .map(|(key, live)| {
            let live = live.map_or_else(|| "deleted".to_owned(), |live| live.to_string());
            format!("{} (live: {live})", display_bytes(key, KEY_SHOWN_MAX))
        })
        .collect();
    let more = replaced.count().saturating_sub(shown.len());
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    format!(
        "{} changes of tenant {} would be written again, over what was written since of: {}{more}",
        written().count(),
        fork.tenant,
        if shown.is_empty() {
            "nothing".to_owned()
        } else {
            shown.join(", ")
        },
    )
}

fn show(fork: &ForkInfo, done: &ReplayPage, dry_run: bool, output: Output) -> Result<(), CommandError> {
    if output == Output::Json {
        output::json(&json!({
            "tenant": fork.tenant,
            "group": fork.group,
            "fork": fork.number,
            "dryRun": dry_run,
            "homeRegion": done.home_region,
            "homeGroup": done.home_group,
            "changes": done.changes.iter().map(change).collect::<Vec<_>>(),
        }))?;
    } else {
        table(&done.changes).print(output)?;
        eprintln!("{}", summary(&done.changes, dry_run));
    }
    let failed = done
        .changes
        .iter()
        .filter(|change| change.outcome == ReplayOutcome::Failed)
        .count();
    if failed > 0 && !dry_run {
        return Err(CommandError::new(
            Code::Conflict,
            format!("{failed} changes could not be written"),
        ));
    }
    Ok(())
}

fn outcome(outcome: ReplayOutcome) -> &'static str {
    match outcome {
        ReplayOutcome::Written => "WRITTEN",
        ReplayOutcome::Found => "FOUND",
        ReplayOutcome::Left => "LEFT",
        ReplayOutcome::Nothing => "NOTHING",
        ReplayOutcome::Failed => "FAILED",
        ReplayOutcome::Unknown => "UNKNOWN",
    }
}

fn table(changes: &[ReplayedChange]) -> OutputTable {
    let columns = &["CHANGE", "KEYS", "CLASS", "OUTCOME", "LIVE REVISION", "CHANGED SINCE"];
    let mut table = OutputTable::new(columns, 6);
    for change in changes {
        let keys: Vec<String> = change
            .keys
            .iter()
            .take(KEYS_SHOWN_MAX)
            .map(|key| display_bytes(key, KEY_SHOWN_MAX))
            .collect();
        let more = change.keys.len().saturating_sub(keys.len());
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        let why = if change.failure.is_empty() {
            let touched = change.touched.first().map(|(_, live)| match live {
                Some(live) => live.to_string(),
                None => "(deleted)".to_owned(),
            });
            touched.unwrap_or_default()
        } else {
            change.failure.clone()
        };
        let cells = vec![
            change.revision.to_string(),
            keys.join(" ") + &more,
            display::class(change.class).to_lowercase(),
            outcome(change.outcome).to_lowercase(),
            change.live.map_or_else(String::new, |live| live.to_string()),
            why,
        ];
        table.push(cells, self::change(change));
    }
    table
}

fn change(change: &ReplayedChange) -> Value {
    let touched = change
        .touched
        .iter()
        .map(|(key, live)| json!({ "key": output::base64(key), "liveRevision": live.map(|live| live.to_string()) }));
    json!({
        "revision": change.revision.to_string(),
        "class": display::class(change.class),
        "outcome": outcome(change.outcome),
        "liveRevision": change.live.map(|live| live.to_string()),
        "keys": change.keys.iter().map(|key| output::base64(key)).collect::<Vec<_>>(),
        "touched": touched.collect::<Vec<_>>(),
        "failure": change.failure,
    })
}

/// Returns how many changes were written, found and left, and what to do about those that were left.
fn summary(changes: &[ReplayedChange], dry_run: bool) -> String {
    let count = |of: ReplayOutcome| changes.iter().filter(|change| change.outcome == of).count();
    let (written, found) = (count(ReplayOutcome::Written), count(ReplayOutcome::Found));
    let left = |class: ForkClass| {
        let of = |change: &&ReplayedChange| change.outcome == ReplayOutcome::Left && change.class == class;
        let count = changes.iter().filter(of).count();
        (count > 0).then(|| format!("{count} {}", display::class(class).to_lowercase()))
    };
    let classes = [
        ForkClass::Clean,
        ForkClass::Commutative,
        ForkClass::Uncertain,
        ForkClass::Conflict,
        ForkClass::Expired,
    ];
    let left: Vec<String> = classes.into_iter().filter_map(left).collect();
    let verb = if dry_run { "would be written" } else { "written" };
    let mut text = format!(
        "{written} changes {verb}, {found} found there already, {} failed",
        count(ReplayOutcome::Failed)
    );
    if left.is_empty() {
        text.push_str("; none is left.");
    } else {
        text.push_str(&format!(
            "; left: {}. `stead fork show` of this fork has their values; --only names classes to write all the same.",
            left.join(", "),
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(class: ForkClass, outcome: ReplayOutcome) -> ReplayedChange {
        ReplayedChange {
            revision: "1.8".parse().unwrap(),
            class,
            outcome,
            live: None,
            keys: vec!["k".into()],
            touched: vec![("k".into(), "2.9".parse().ok())],
            failure: String::new(),
        }
    }

    fn fork() -> ForkInfo {
        ForkInfo {
            tenant: "acme".into(),
            tenant_number: 1,
            group: 3,
            region: "us-east".into(),
            number: 5,
            fork_point: 7,
            first: None,
            last: "1.9".parse().unwrap(),
            changes: 2,
            bytes: 100,
            is_whole_copy: false,
            is_filling: false,
            replayed: 0,
        }
    }

    #[test]
    fn summary_counts_and_says_what_is_left() {
        let changes = [
            changed(ForkClass::Clean, ReplayOutcome::Written),
            changed(ForkClass::Replayed, ReplayOutcome::Found),
            changed(ForkClass::Conflict, ReplayOutcome::Left),
        ];
        let text = summary(&changes, false);
        assert!(
            text.starts_with("1 changes written, 1 found there already, 0 failed; left: 1 conflict."),
            "{text}"
        );
        assert!(summary(&changes[..1], true).contains("1 changes would be written"));
        assert!(table(&changes).print(Output::Table).is_ok());
        assert_eq!(change(&changes[2])["touched"][0]["liveRevision"], "2.9");
    }

    #[test]
    fn consequence_names_what_conflicts_replace() {
        let text = consequence(&fork(), &[changed(ForkClass::Conflict, ReplayOutcome::Written)]);
        assert!(
            text.contains("1 changes of tenant acme") && text.contains("k (live: 2.9)"),
            "{text}"
        );
    }
}
