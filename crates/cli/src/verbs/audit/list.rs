//! `stead audit list`.

use clap::Args;
use serde_json::json;
use stead_client::AuditRecord;

use crate::{args::Target, context, exit::CommandError, output::OutputTable};

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only changes of this subject, such as a tenant's name
    #[arg(long, default_value = "")]
    subject: String,
    /// Most records to show, 1 to 1000
    #[arg(long, default_value = "100", value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
}

impl List {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let admin = context::connect(target).await?.admin();
        let mut table = OutputTable::new(&["TIME", "WHO", "ACTION", "SUBJECT", "REASON"], 5);
        for record in admin.audit(&self.subject, self.limit).await? {
            let json = value(&record);
            let time = humantime::format_rfc3339_seconds(record.time).to_string();
            let cells = vec![time, record.who, record.action, record.subject, record.reason];
            table.push(cells, json);
        }
        table.print(target.output)
    }
}

pub(super) fn value(record: &AuditRecord) -> serde_json::Value {
    json!({
        "time": humantime::format_rfc3339_millis(record.time).to_string(),
        "who": record.who,
        "action": record.action,
        "subject": record.subject,
        "reason": record.reason,
        "of_calls": record.of_calls,
    })
}
