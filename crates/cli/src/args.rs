//! The command line.

use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::{exit, output::Output, verbs};

/// A gRPC key-value store in which every tenant has one home region.
#[derive(Debug, Parser)]
#[command(name = "stead", version, max_term_width = 100, after_long_help = exit::TABLE)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(subcommand)]
    pub(crate) noun: Noun,
}

/// Which cluster, and how answers are shown.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Target {
    /// A node to ask, host:port; may be given several times
    #[arg(
        long,
        global = true,
        env = "STEAD_ENDPOINT",
        value_delimiter = ',',
        value_name = "HOST:PORT"
    )]
    pub(crate) endpoint: Vec<String>,
    /// A context of ~/.config/stead/config.toml
    #[arg(long, global = true, env = "STEAD_CONTEXT", value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// Where this machine stands; else the region that answers soonest
    #[arg(long, global = true, env = "STEAD_REGION", value_name = "NAME")]
    pub(crate) region: Option<String>,
    /// How long a call may take, such as 500ms or 10s
    #[arg(long, global = true, env = "STEAD_TIMEOUT", value_parser = humantime::parse_duration, value_name = "TIME")]
    pub(crate) timeout: Option<Duration>,
    /// How answers are shown
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORM")]
    pub(crate) output: Output,
}

/// What a command is about.
#[derive(Debug, Subcommand)]
pub(crate) enum Noun {
    /// Run a node
    Serve(verbs::serve::Serve),
    /// Run three regions on this machine, with the distances between them
    Dev(verbs::dev::Dev),
    /// Show and check configurations of nodes
    #[command(subcommand)]
    Config(verbs::config::Verb),
    /// Make, show, change and delete tenants
    #[command(subcommand)]
    Tenant(verbs::tenant::Verb),
    /// Show regions
    #[command(subcommand)]
    Region(verbs::region::Verb),
    /// Show nodes
    #[command(subcommand)]
    Node(verbs::node::Verb),
    /// Show Raft groups, move their leaders
    #[command(subcommand)]
    Group(verbs::group::Verb),
    /// Read and write keys
    #[command(subcommand)]
    Kv(verbs::kv::Verb),
    /// Show which region is home to whom
    #[command(subcommand)]
    Directory(verbs::directory::Verb),
    /// Show what exit codes mean
    #[command(long_about = exit::TABLE)]
    ExitCodes,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
