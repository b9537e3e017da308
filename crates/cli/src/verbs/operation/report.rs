//! `stead operation report`.

use clap::Args;

use super::{name, promotion_display, promotion_value};
use crate::{
    args::Target,
    context,
    exit::{Code, CommandError},
    output::{self, Output},
};

#[derive(Debug, Args)]
pub(crate) struct Report {
    /// Name of the operation, or its number
    operation: String,
    /// As JSON, with the report of each member and the time of each step
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// As CSV, a line a tenant
    #[arg(long)]
    csv: bool,
}

impl Report {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let name = name(&self.operation)?;
        let admin = context::connect(target).await?.admin();
        let report = admin.promotion_report(&name).await?;
        if self.json || (!self.csv && target.output == Output::Json) {
            return output::json(&promotion_value::report_value(&report));
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
