//! `stead cluster set`.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::display;
use crate::{
    args::{self, Target},
    context,
    exit::CommandError,
};

#[derive(Debug, Subcommand)]
pub(crate) enum Setting {
    /// Set how long a lease lasts, from 15s to 1h
    ///
    /// It means two things: how long a region may be cut off from the directory before its tenants stop (those that go on
    /// are marked then), and how long a promotion right after a failure may have to wait. Leases that run keep the ttl
    /// with which they were granted.
    LeaseTtl(LeaseTtl),
}

#[derive(Debug, Args)]
pub(crate) struct LeaseTtl {
    /// The ttl, such as 60s
    #[arg(value_parser = args::time, value_name = "TIME")]
    ttl: Duration,
    /// Reason, for the audit log
    #[arg(long, default_value = "")]
    reason: String,
}

impl Setting {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let Self::LeaseTtl(LeaseTtl { ttl, reason }) = self;
        let admin = context::connect(target).await?.admin();
        let set = admin.set_lease_ttl(ttl, &reason).await;
        let cluster = set
            .map_err(|error| CommandError::from(error).if_unknown("`stead cluster show` shows whether it was done"))?;
        display::table(&cluster).print_one(target.output)
    }
}
