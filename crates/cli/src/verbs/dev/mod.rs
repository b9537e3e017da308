//! `stead dev`: three regions of three real nodes on this machine, with the distances between them.
//!
//! What is rehearsed is what runs: nodes are `stead serve` processes, distances are proxies that they dial through.

mod airports;
mod check;
mod contexts;
mod control;
mod disk;
mod json;
mod load;
mod plan;
mod story;
mod up;
mod world;

use clap::{Args, Subcommand};

use crate::exit::Failure;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Dev {
    #[command(flatten)]
    up: up::Up,
    #[command(subcommand)]
    control: Option<Verb>,
}

/// What can be done to a cluster that is up.
#[derive(Debug, Subcommand)]
enum Verb {
    /// Show nodes and links
    Status(control::Names),
    /// End nodes with SIGKILL: a node's name, or a region's
    Kill(control::Names),
    /// Start nodes that were killed
    Start(control::Names),
    /// Freeze nodes with SIGSTOP
    Stop(control::Names),
    /// Let frozen nodes go on
    Cont(control::Names),
    /// Hold all bytes between two regions, or between one and all others
    Cut(control::Names),
    /// Open links again; all of them if none is named
    Heal(control::Names),
    /// Change the round trip between two regions
    Delay(control::Delay),
}

impl Dev {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        match self.control {
            None => self.up.run().await,
            Some(Verb::Status(names)) => names.ask("status").await,
            Some(Verb::Kill(names)) => names.ask("kill").await,
            Some(Verb::Start(names)) => names.ask("start").await,
            Some(Verb::Stop(names)) => names.ask("stop").await,
            Some(Verb::Cont(names)) => names.ask("cont").await,
            Some(Verb::Cut(names)) => names.ask("cut").await,
            Some(Verb::Heal(names)) => names.ask("heal").await,
            Some(Verb::Delay(delay)) => delay.ask().await,
        }
    }
}
