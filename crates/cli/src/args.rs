//! Definition of the command line.

use std::{path::PathBuf, time::Duration};

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

/// Target cluster, and output format.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Target {
    /// Address of a node, host:port; may be given several times
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
    /// Region of this machine; else the region with the shortest round trip
    #[arg(long, global = true, env = "STEAD_REGION", value_name = "NAME")]
    pub(crate) region: Option<String>,
    /// File with the certificates of the cluster's CA; without it plain text is spoken
    #[arg(long, global = true, env = "STEAD_CA", value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// File with the certificate to show
    #[arg(long, global = true, env = "STEAD_CERTIFICATE", value_name = "FILE")]
    pub(crate) certificate: Option<PathBuf>,
    /// File with the key of that certificate
    #[arg(long, global = true, env = "STEAD_CERTIFICATE_KEY", value_name = "FILE")]
    pub(crate) certificate_key: Option<PathBuf>,
    /// File with a bearer token; read again when it changes
    #[arg(long, global = true, env = "STEAD_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Timeout of a call, such as 500ms or 10s
    #[arg(long, global = true, env = "STEAD_TIMEOUT", value_parser = time, value_name = "TIME")]
    pub(crate) timeout: Option<Duration>,
    /// Output format
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORM")]
    pub(crate) output: Output,
}

/// Subject of a command.
#[derive(Debug, Subcommand)]
pub(crate) enum Noun {
    /// Run a node
    Serve(verbs::serve::Serve),
    /// Ask the node of a configuration, on this machine, whether it can serve
    Health(verbs::health::HealthQuery),
    /// Run three regions on this machine, with the distances between them
    Dev(verbs::dev::Dev),
    /// Print and check configurations of nodes
    #[command(subcommand)]
    Config(verbs::config::Verb),
    /// Create, show, change, move and delete tenants
    #[command(subcommand)]
    Tenant(verbs::tenant::Verb),
    /// Show and change settings of the whole cluster
    #[command(subcommand)]
    Cluster(verbs::cluster::Verb),
    /// Show regions
    #[command(subcommand)]
    Region(verbs::region::Verb),
    /// Show nodes
    #[command(subcommand)]
    Node(verbs::node::Verb),
    /// Show Raft groups, transfer their leadership
    #[command(subcommand)]
    Group(verbs::group::Verb),
    /// Show, export and discard what promotions have cut off
    #[command(subcommand)]
    Fork(verbs::fork::Verb),
    /// Show, watch and cancel operations that take a while, such as moves
    #[command(subcommand)]
    Operation(verbs::operation::Verb),
    /// Show who changed what in the directory
    #[command(subcommand)]
    Audit(verbs::audit::Verb),
    /// Make and renew the certificates of a cluster
    #[command(subcommand)]
    Cert(verbs::cert::Verb),
    /// Grant, revoke and show roles of callers
    #[command(subcommand)]
    Role(verbs::role::Verb),
    /// Make keys and tokens, show who you are
    #[command(subcommand)]
    Auth(verbs::auth::Verb),
    /// Read and write keys
    #[command(subcommand)]
    Kv(verbs::kv::Verb),
    /// Back tenants up into a folder, and restore them from it
    #[command(subcommand)]
    Backup(verbs::backup::Verb),
    /// Show the home regions of tenants
    #[command(subcommand)]
    Directory(verbs::directory::Verb),
    /// Print completions of commands and options for a shell
    Completions(verbs::manual::Completions),
    /// Write man pages, one for each command
    Man(verbs::manual::Man),
    /// Show the meaning of exit codes
    #[command(long_about = exit::TABLE)]
    ExitCodes,
}

/// Parses a duration above zero.
pub(crate) fn time(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err("it must be longer than zero".to_owned()),
        Ok(time) => Ok(time),
        Err(_) => Err("write a time as 500ms, 30s or 2h".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn command_line_definition_is_valid() {
        Cli::command().debug_assert();
    }

    /// Returns the error message for an invalid command line.
    fn refused(line: &str) -> String {
        let words = shlex::split(line).unwrap();
        Cli::try_parse_from(words).unwrap_err().to_string()
    }

    #[test]
    fn invalid_command_line_is_explained() {
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
            ("stead kv get acme k --timeout 0s", "it must be longer than zero"),
            ("stead kv get acme --certificate-key k", "<KEY>"),
            ("stead kv put acme k v --idempotency-key 7", "no idempotency key"),
            (
                "stead tenant update acme --no-labels --label a=b",
                "cannot be used with",
            ),
            ("stead tenant move acme", "--to <REGION>"),
            ("stead tenant move acme --to us-east --group 5", "cannot be used with"),
            (
                "stead tenant move acme --to us-east --wait --no-wait",
                "cannot be used with",
            ),
            (
                "stead tenant move acme --to us-east --dry-run --wait",
                "cannot be used with",
            ),
            ("stead operation list --in-flight --done", "cannot be used with"),
            ("stead operation report 7 --json --csv", "cannot be used with"),
            (
                "stead region promote eu-west --dry-run --no-wait",
                "cannot be used with",
            ),
            ("stead region promote eu-west --graceful-for soon", "write a time as"),
            (
                "stead region promote eu-west --durability remote",
                "possible values: region",
            ),
            ("stead group promote eu-west", "invalid digit"),
            ("stead tenant promote", "<NAMES>..."),
            ("stead cluster set lease-ttl soon", "write a time as"),
            (
                "stead tenant update acme --on-lease-loss stopping",
                "possible values: stop, continue",
            ),
            ("stead fork show acme --group 3", "--fork <NUMBER>"),
            ("stead fork discard acme --group 3 --fork 5", "--reason <REASON>"),
            ("stead cert node a --region eu", "--host <HOST>"),
            ("stead cert rotate --new-ca --finish", "cannot be used with"),
            ("stead dev kill", "<NAMES>"),
            ("stead dev cut", "<REGIONS>"),
        ] {
            let message = refused(line);
            assert!(message.contains(words), "{line}: {message}");
        }
    }
}
