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
    #[arg(long, global = true, env = "STEAD_TIMEOUT", value_parser = time, value_name = "TIME")]
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

/// Reads a time that is not over as it begins.
pub(crate) fn time(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err("it would be over as it begins".to_owned()),
        Ok(time) => Ok(time),
        Err(_) => Err("write a time as 500ms, 30s or 2h".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    /// Returns what is said about a command line that cannot be read.
    fn refused(line: &str) -> String {
        let words = shlex::split(line).unwrap();
        Cli::try_parse_from(words).unwrap_err().to_string()
    }

    #[test]
    fn what_a_command_line_lacks_or_contradicts_is_said() {
        for (line, words) in [
            (
                "stead kv delete-range acme",
                "<--prefix <PREFIX>|--start <START>|--end <END>|--all>",
            ),
            ("stead kv delete-range acme --prefix ''", "at least one byte"),
            ("stead kv delete-range acme --start '' --end b", "at least one byte"),
            ("stead kv delete-range acme --all --prefix a", "cannot be used with"),
            ("stead kv watch acme --key ''", "at least one byte"),
            ("stead kv scan acme --count --limit 3", "cannot be used with"),
            ("stead kv put acme k v --ttl -5s", "write a time as"),
            ("stead kv get acme k --timeout 0s", "it would be over as it begins"),
            ("stead kv put acme k v --idempotency-key 7", "no idempotency key"),
            (
                "stead tenant update acme --no-labels --label a=b",
                "cannot be used with",
            ),
            ("stead dev kill", "<NAMES>"),
            ("stead dev cut", "<REGIONS>"),
        ] {
            let said = refused(line);
            assert!(said.contains(words), "{line}: {said}");
        }
    }
}
