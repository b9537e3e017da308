//! `stead cert ca`: makes the CA of a cluster.

use std::time::{Duration, SystemTime};

use clap::Args;
use stead_cert::{LIFETIME_CA, Validity};

use super::{Folder, failed};
use crate::{args::time, exit::CommandError, output};

#[derive(Debug, Args)]
pub(crate) struct MakeAuthority {
    /// Name of the cluster, as cluster.name has it
    #[arg(long, value_name = "NAME")]
    cluster: String,
    #[command(flatten)]
    folder: Folder,
    /// Time of validity [default: 3650d]
    #[arg(long, value_parser = time, value_name = "TIME")]
    valid_for: Option<Duration>,
}

impl MakeAuthority {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let validity = Validity::from_now(SystemTime::now(), self.valid_for.unwrap_or(LIFETIME_CA));
        let made = self.folder.open().create(&self.cluster, validity).map_err(failed)?;
        output::line(&format!(
            "{} is the CA of cluster {}: every node and client needs this file\n\
             {} can make any certificate of the cluster: keep it off the nodes\n\
             next: stead cert node NAME --region REGION --host HOST, and stead cert operator NAME",
            made.certificate.display(),
            self.cluster,
            made.key.display(),
        ))
    }
}
