//! `stead operation report`.

use std::path::PathBuf;

use clap::Args;

use super::{name, promotion_digest, promotion_display};
use crate::{
    args::Target,
    context,
    exit::{Code, CommandError},
    output::{self, Output},
};

#[derive(Debug, Args)]
pub(crate) struct Report {
    /// Name of the operation, or its number
    #[arg(required_unless_present = "verify")]
    operation: Option<String>,
    /// As JSON, with the report of each member, the time of each step, and a digest of it all
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// As CSV, a line a tenant
    #[arg(long)]
    csv: bool,
    /// Check a report that was exported as JSON against its digest; no node is asked
    #[arg(long, value_name = "FILE", conflicts_with_all = ["operation", "json", "csv"])]
    verify: Option<PathBuf>,
}

impl Report {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        if let Some(file) = &self.verify {
            return verify(file);
        }
        let name = name(self.operation.as_deref().unwrap_or_default())?;
        let admin = context::connect(target).await?.admin();
        let report = admin.promotion_report(&name).await?;
        if self.json || (!self.csv && target.output == Output::Json) {
            return output::json(&promotion_digest::exported(&report));
        }
        if self.csv {
            let failed = |error| CommandError::new(Code::Failed, format!("the report cannot be written: {error}"));
            return output::bytes(&promotion_display::report_csv(&report).map_err(failed)?);
        }
        promotion_display::report_table(&report.tenants).print(target.output)?;
        output::line("")?;
        let lines = promotion_display::summary_lines(&report);
        lines.iter().try_for_each(|line| output::line(line))
    }
}

fn verify(file: &std::path::Path) -> Result<(), CommandError> {
    let shown = file.display();
    let unreadable = |error: std::io::Error| CommandError::new(Code::Usage, format!("cannot read {shown}: {error}"));
    let text = std::fs::read_to_string(file).map_err(unreadable)?;
    match promotion_digest::verify(&text) {
        Ok(digest) => output::line(&format!("{shown} is as it was exported: {digest}")),
        Err(mismatch) => Err(CommandError::new(Code::Failed, format!("{shown}: {mismatch}"))),
    }
}
