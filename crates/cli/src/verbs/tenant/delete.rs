//! `stead tenant delete`: two steps, of which the second cannot be undone.

use std::io::{IsTerminal, Write};

use clap::Args;

use super::shown;
use crate::{
    args::Target,
    context,
    exit::{Code, Failure},
};

#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// Its name
    name: String,
    /// The second step: erase a disabled tenant in every region
    #[arg(long)]
    erase: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Why, for the audit
    #[arg(long, default_value = "")]
    reason: String,
}

impl Delete {
    pub(super) async fn run(self, target: &Target) -> Result<(), Failure> {
        if !self.yes {
            let lost = if self.erase {
                "all its data, in every region, for ever"
            } else {
                "its service, until it is enabled"
            };
            confirm(&self.name, lost).await?;
        }
        let client = context::connect(target).await?;
        let tenant = client
            .admin()
            .delete_tenant(&self.name, self.erase, &self.reason)
            .await?;
        shown::sheet(&[tenant]).print_one(target.output)
    }
}

/// Asks for the name to be typed. A script is never kept waiting.
async fn confirm(name: &str, lost: &str) -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new(Code::Usage, format!("tenant {name} would lose {lost}"))
            .hint("say --yes where nobody can be asked"));
    }
    eprint!("tenant {name} loses {lost}. Type its name: ");
    let _ = std::io::stderr().flush();
    let typed = tokio::task::spawn_blocking(|| {
        let mut typed = String::new();
        std::io::stdin().read_line(&mut typed).map(|_| typed)
    });
    let typed = typed.await.map_err(anyhow::Error::from)??;
    if typed.trim() == name {
        Ok(())
    } else {
        Err(Failure::new(Code::Usage, "that is another name; nothing was done"))
    }
}
