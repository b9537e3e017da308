//! `stead operation pause` and `stead operation resume`.

use clap::Args;

use super::{bulk::PaceArgs, display, name};
use crate::{args::Target, context, exit::CommandError, output::Output};

#[derive(Debug, Args)]
pub(crate) struct Pause {
    /// Name of the operation, or its number
    operation: String,
    /// Reason, for the audit log and the operation
    #[arg(long, default_value = "")]
    reason: String,
}

#[derive(Debug, Args)]
pub(crate) struct Resume {
    /// Name of the operation, or its number
    operation: String,
    #[command(flatten)]
    pace: PaceArgs,
    /// Reason, for the audit log
    #[arg(long, default_value = "")]
    reason: String,
}

impl Pause {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let name = name(&self.operation)?;
        let admin = context::connect(target).await?.admin();
        let operation = admin.pause_operation(&name, &self.reason).await?;
        display::table(&[operation]).print_one(target.output)?;
        if target.output != Output::Json {
            eprintln!("no further moves begin; those in flight go on: `stead operation resume {name}` goes on");
        }
        Ok(())
    }
}

impl Resume {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let name = name(&self.operation)?;
        let admin = context::connect(target).await?.admin();
        let pace = self.pace.is_given().then(|| self.pace.pace());
        let operation = admin.resume_operation(&name, pace, &self.reason).await?;
        display::table(&[operation]).print_one(target.output)?;
        if target.output != Output::Json {
            eprintln!("goes on with small waves: `stead operation watch {name}` shows its progress");
        }
        Ok(())
    }
}
