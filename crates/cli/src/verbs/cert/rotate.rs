//! `stead cert rotate`: renews certificates, and replaces the CA in steps between which both are trusted.

use std::time::SystemTime;

use clap::Args;
use stead_cert::{LIFETIME_CA, Validity};

use super::{Folder, failed};
use crate::{exit::CommandError, output};

#[derive(Debug, Args)]
pub(crate) struct Rotate {
    /// Make a new CA and trust both: the first step of replacing it
    #[arg(long, conflicts_with = "finish")]
    new_ca: bool,
    /// Trust the new CA only: the last step
    #[arg(long)]
    finish: bool,
    #[command(flatten)]
    folder: Folder,
}

impl Rotate {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let folder = self.folder.open();
        let now = SystemTime::now();
        let ca = folder.authority().certificate;
        let ca = ca.display();
        if self.new_ca {
            let validity = Validity::from_now(now, LIFETIME_CA);
            folder.begin_roll_over(validity).map_err(failed)?;
            return output::line(&format!(
                "{ca} has the new CA and the old one\n\
                 next: bring it to every node and client, wait until stead_tls_reloads_total has grown on each node, then run \
                 `stead cert rotate`"
            ));
        }
        if self.finish {
            folder.end_roll_over().map_err(failed)?;
            return output::line(&format!(
                "{ca} has the new CA only\nnext: bring it to every node and client"
            ));
        }
        let renewed = folder.renew(now).map_err(failed)?;
        let lines: Vec<String> = renewed
            .iter()
            .map(|file| format!("{} is renewed", file.display()))
            .collect();
        output::line(&format!(
            "{}\nnext: bring each with its key to where it is used; nodes and clients load them within seconds, without a \
             restart. After `stead cert rotate --new-ca`, run `stead cert rotate --finish` then",
            lines.join("\n")
        ))
    }
}
