//! `stead fork`.

mod display;
mod replay;

use clap::{Args, Subcommand};
use serde_json::json;
use stead_client::{Admin, ForkInfo, ForkName};

use crate::{
    args::Target,
    confirm, context,
    exit::{Code, CommandError},
    output::{self, Output},
};

/// Keys that are asked for at a time.
const PAGE_SIZE: u32 = 500;

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List what promotions have cut off and kept
    List {
        /// Only forks of this tenant
        #[arg(default_value = "", hide_default_value = true)]
        tenant: String,
        /// Only forks in this group
        #[arg(long, value_name = "NUMBER")]
        group: Option<u32>,
        /// Only forks in groups of this region
        #[arg(long = "of", value_name = "REGION", default_value = "", hide_default_value = true)]
        of: String,
    },
    /// Show the keys of a fork beside what the tenant has instead
    Show {
        #[command(flatten)]
        fork: ForkArgs,
        /// Most keys
        #[arg(long, default_value_t = 1_000)]
        limit: usize,
    },
    /// Print all keys of a fork, one JSON object a line
    Export {
        #[command(flatten)]
        fork: ForkArgs,
    },
    /// Write changes of a fork again at the tenant's home, each once for ever
    Replay(replay::Replay),
    /// Discard a fork: what it has is lost for ever
    Discard {
        #[command(flatten)]
        fork: ForkArgs,
        /// Reason, for the audit log
        #[arg(long)]
        reason: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// Name of a fork, as `stead fork list` shows it.
#[derive(Debug, Args)]
pub(crate) struct ForkArgs {
    /// Name of the tenant
    tenant: String,
    /// Group that keeps the fork
    #[arg(long, value_name = "NUMBER")]
    group: u32,
    /// Number of the fork
    #[arg(long, value_name = "NUMBER")]
    fork: u32,
}

impl ForkArgs {
    fn name(self) -> ForkName {
        ForkName {
            tenant: self.tenant,
            group: self.group,
            number: self.fork,
        }
    }
}

impl Verb {
    pub(crate) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let admin = context::connect(target).await?.admin();
        match self {
            Self::Replay(replay) => replay.run(&admin, target.output).await,
            Self::List { tenant, group, of } => list(&admin, &tenant, group, &of, target.output).await,
            Self::Show { fork, limit } => show(&admin, &fork.name(), limit, target.output).await,
            Self::Export { fork } => export(&admin, &fork.name()).await,
            Self::Discard { fork, reason, yes } => {
                let name = fork.name();
                if !yes {
                    let found = find(&admin, &name).await?;
                    confirm::by_name(&display::loss(&found), &name.tenant).await?;
                }
                let discarded = admin.discard_fork(&name, &reason).await;
                let discarded = discarded
                    .map_err(|error| CommandError::from(error).if_unknown("`stead fork list` shows what is left"))?;
                display::forks(&[discarded]).print_one(target.output)
            }
        }
    }
}

async fn list(
    admin: &Admin,
    tenant: &str,
    group: Option<u32>,
    region: &str,
    output: Output,
) -> Result<(), CommandError> {
    let list = admin.forks(tenant, group, region).await?;
    display::forks(&list.forks).print(output)?;
    if list.silent_groups.is_empty() {
        return Ok(());
    }
    let silent: Vec<u32> = list.silent_groups.into_iter().collect();
    let what = format!(
        "the list may be incomplete: no leader answers of group {}",
        output::list(&silent)
    );
    Err(CommandError::new(Code::Unhealthy, what).hint("`stead group list`, and again when they answer"))
}

/// Returns a fork as it is listed.
async fn find(admin: &Admin, name: &ForkName) -> Result<ForkInfo, CommandError> {
    let list = admin.forks(&name.tenant, Some(name.group), "").await?;
    let (number, group) = (name.number, name.group);
    if list.silent_groups.contains(&group) {
        let what = format!("no leader of group {group} answers");
        return Err(CommandError::new(Code::Connect, what).hint("`stead group list`, and again when it answers"));
    }
    let missing = || {
        let what = format!("group {group} has no fork {number} of tenant {}", name.tenant);
        CommandError::new(Code::NotFound, what).hint("`stead fork list` shows the forks")
    };
    let found = list.forks.into_iter().find(|fork| fork.number == number);
    found.ok_or_else(missing)
}

async fn show(admin: &Admin, name: &ForkName, limit: usize, output: Output) -> Result<(), CommandError> {
    let fork = find(admin, name).await?;
    let (mut entries, mut page_token, mut live) = (Vec::new(), String::new(), None);
    loop {
        let page = admin.fork_entries(name, PAGE_SIZE, &page_token).await?;
        entries.extend(page.entries);
        (page_token, live) = (page.next_page_token, page.live_revision.or(live));
        if page_token.is_empty() || entries.len() >= limit {
            break;
        }
    }
    let is_cut = !page_token.is_empty() || entries.len() > limit;
    entries.truncate(limit);
    if output == Output::Json {
        return output::json(&json!({
            "fork": display::fork(&fork),
            "liveRevision": live.map(|live| live.to_string()),
            "entries": entries.iter().map(display::entry).collect::<Vec<_>>(),
            "more": is_cut,
        }));
    }
    display::entries(&entries).print(output)?;
    eprintln!("{}", display::notes(&fork, live, is_cut));
    Ok(())
}

async fn export(admin: &Admin, name: &ForkName) -> Result<(), CommandError> {
    let fork = find(admin, name).await?;
    let mut page_token = String::new();
    loop {
        let page = admin.fork_entries(name, PAGE_SIZE, &page_token).await?;
        for entry in &page.entries {
            output::line(&display::entry(entry).to_string())?;
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    if fork.is_whole_copy {
        eprintln!("{}", display::WHOLE_COPY);
    }
    Ok(())
}
