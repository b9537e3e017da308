//! This program's own commands, run by steps as an operator runs them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, ensure};
use tokio::process::Command;

use crate::{
    context,
    verbs::dev::{contexts, plan::REGIONS, world::World},
};

/// Working folder with the contexts of the cluster.
pub(super) struct CommandLine {
    pub(super) folder: PathBuf,
    /// Context of each region.
    contexts: BTreeMap<&'static str, String>,
}

impl CommandLine {
    /// Makes an empty working folder in the data of the cluster.
    pub(super) async fn prepare(world: &World, data: &Path, name: &str) -> anyhow::Result<Self> {
        let folder = data.join(name);
        if folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        std::fs::create_dir_all(&folder)?;
        let contexts = contexts::write(&*world.cluster.lock().await, &context::context_folder(&folder));
        let contexts = contexts.map_err(|error| anyhow::anyhow!("{}", error.text()))?;
        let of_region = |(region, _)| (region, contexts.name(region));
        let of_regions = REGIONS.map(of_region).into();
        contexts.keep();
        Ok(Self {
            folder,
            contexts: of_regions,
        })
    }

    /// Returns a command that begins with the context of the first region, without standard input.
    pub(super) fn command(&self, args: &[&str]) -> anyhow::Result<Command> {
        self.command_from(REGIONS[0].0, args)
    }

    /// Returns a command that begins with the context of a region, without standard input.
    pub(super) fn command_from(&self, region: &str, args: &[&str]) -> anyhow::Result<Command> {
        let context = self.contexts.get(region).context("there is no such region")?;
        let program = std::env::current_exe().context("this program's own path is not known")?;
        let mut command = Command::new(program);
        command.env("XDG_CONFIG_HOME", &self.folder).current_dir(&self.folder);
        command.args(["--context", context]).args(args);
        command.stdin(Stdio::null()).kill_on_drop(true);
        Ok(command)
    }

    /// Runs a command that has to succeed; returns its output.
    pub(super) async fn run(&self, args: &[&str]) -> anyhow::Result<String> {
        let ended = self.command(args)?.output().await?;
        let stderr = String::from_utf8_lossy(&ended.stderr);
        ensure!(
            ended.status.success(),
            "stead {}: {}",
            args.join(" "),
            stderr.trim_end()
        );
        Ok(String::from_utf8_lossy(&ended.stdout).into_owned())
    }

    /// Runs a command that has to fail; returns its error.
    pub(super) async fn refused(&self, args: &[&str]) -> anyhow::Result<String> {
        let ended = self.command(args)?.output().await?;
        ensure!(!ended.status.success(), "stead {} succeeded", args.join(" "));
        Ok(String::from_utf8_lossy(&ended.stderr).into_owned())
    }
}
