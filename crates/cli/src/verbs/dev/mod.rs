//! `stead dev`: three regions of three real nodes on this machine, with the distances between them.
//!
//! It runs the production binary: nodes are `stead serve` processes, distances are proxies that they dial through.

mod airports;
mod check;
mod contexts;
mod control;
mod demo;
mod json;
mod lost_region;
mod plan;
mod topology;
mod up;
mod world;

use clap::{Args, Subcommand};

use crate::{exit::CommandError, output::Output};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Dev {
    #[command(flatten)]
    up: up::Up,
    #[command(subcommand)]
    control: Option<Verb>,
}

/// Commands for a running cluster.
#[derive(Debug, Subcommand)]
enum Verb {
    /// Show nodes and links
    Status(control::Folder),
    /// Kill nodes with SIGKILL: a node's name, or a region's
    Kill(control::Nodes),
    /// Start nodes that do not run
    Start(control::Nodes),
    /// Freeze nodes with SIGSTOP
    Stop(control::Nodes),
    /// Continue frozen nodes
    Cont(control::Nodes),
    /// Hold all bytes between two regions, or between one and all others
    Cut(control::Cut),
    /// Open links again; all of them if none is named
    Heal(control::Heal),
    /// Change the round trip between two regions
    Delay(control::Delay),
}

impl Dev {
    pub(crate) async fn run(self, output: Output) -> Result<(), CommandError> {
        match self.control {
            None => self.up.run().await,
            Some(Verb::Status(folder)) => folder.status(output).await,
            Some(Verb::Kill(nodes)) => nodes.ask("kill", output).await,
            Some(Verb::Start(nodes)) => nodes.ask("start", output).await,
            Some(Verb::Stop(nodes)) => nodes.ask("stop", output).await,
            Some(Verb::Cont(nodes)) => nodes.ask("cont", output).await,
            Some(Verb::Cut(cut)) => cut.ask(output).await,
            Some(Verb::Heal(heal)) => heal.ask(output).await,
            Some(Verb::Delay(delay)) => delay.ask(output).await,
        }
    }
}
