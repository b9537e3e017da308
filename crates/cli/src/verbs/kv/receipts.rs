//! `stead kv receipts`: what became of acknowledged revisions.

use clap::Args;
use serde_json::{Value, json};
use stead_client::{Receipt, ReceiptStatus, Receipts, Revision};

use crate::{
    args::Target,
    context,
    exit::{Code, CommandError},
    output::{self, Output, OutputTable},
};

#[derive(Debug, Args)]
pub(crate) struct ReceiptsVerb {
    /// Tenant of the revisions
    tenant: String,
    /// Revisions that responses have named, such as 1.42
    #[arg(required = true, value_name = "REVISION")]
    revisions: Vec<Revision>,
}

impl ReceiptsVerb {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let tenant = context::connect(target).await?.tenant(&self.tenant)?;
        let found = tenant.check_receipts(&self.revisions).await?;
        if target.output == Output::Json {
            output::json(&json!({
                "receipts": found.receipts.iter().map(receipt).collect::<Vec<_>>(),
                "replaysUnknown": found.replays_unknown,
                "silentGroups": found.silent_groups,
            }))?;
        } else {
            table(&found.receipts).print(target.output)?;
        }
        match doubt(&found) {
            None => Ok(()),
            Some(doubt) => Err(CommandError::new(Code::Unhealthy, doubt).hint("again, when they answer")),
        }
    }
}

/// Returns what is not known of revisions that were cut.
fn doubt(found: &Receipts) -> Option<String> {
    let silent = &found.silent_groups;
    match (found.replays_unknown, silent.is_empty()) {
        (false, true) => None,
        (true, true) => Some("the home does not answer: what was cut may have been written again".to_owned()),
        (is_unknown, false) => {
            let home = if is_unknown { ", nor does the home" } else { "" };
            let groups = output::list(silent);
            Some(format!(
                "no leader answers of group {groups}{home}: they may hold what was cut"
            ))
        }
    }
}

fn status(receipt: &Receipt) -> &'static str {
    match receipt.status {
        ReceiptStatus::Survived => "SURVIVED",
        ReceiptStatus::Cut => "CUT",
        ReceiptStatus::Replayed(_) => "REPLAYED",
        ReceiptStatus::Undecided => "UNDECIDED",
        ReceiptStatus::TooOld => "TOO_OLD",
        ReceiptStatus::Unknown => "UNKNOWN",
    }
}

fn replayed(receipt: &Receipt) -> Option<String> {
    if let ReceiptStatus::Replayed(revision) = receipt.status {
        return Some(revision.to_string());
    }
    None
}

fn table(receipts: &[Receipt]) -> OutputTable {
    let mut table = OutputTable::new(&["REVISION", "STATUS", "REPLAYED AS", "FORKS"], 4);
    for one in receipts {
        let forks = one.forks.iter();
        let forks: Vec<String> = forks
            .map(|(group, region, fork)| format!("{fork} in group {group} ({region})"))
            .collect();
        let cells = vec![
            one.revision.to_string(),
            status(one).to_lowercase().replace('_', " "),
            replayed(one).unwrap_or_default(),
            forks.join(", "),
        ];
        table.push(cells, receipt(one));
    }
    table
}

fn receipt(receipt: &Receipt) -> Value {
    let forks = receipt.forks.iter();
    let forks = forks.map(|(group, region, fork)| json!({ "group": group, "region": region, "fork": fork }));
    json!({
        "revision": receipt.revision.to_string(),
        "status": status(receipt),
        "replayedRevision": replayed(receipt),
        "forks": forks.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receipt_shows_status_and_forks_and_doubt_is_told() {
        let replayed = Receipt {
            revision: "1.12".parse().unwrap(),
            status: ReceiptStatus::Replayed("2.15".parse().unwrap()),
            forks: vec![(3, "us-east".into(), 5)],
        };
        let value = receipt(&replayed);
        assert_eq!(
            (&value["status"], &value["replayedRevision"]),
            (&"REPLAYED".into(), &"2.15".into())
        );
        assert_eq!(value["forks"][0]["fork"], 5);
        assert!(table(&[replayed]).print(Output::Table).is_ok());
        assert_eq!(doubt(&Receipts::default()), None);
        let silent = Receipts {
            silent_groups: vec![3],
            replays_unknown: true,
            ..Receipts::default()
        };
        let doubt = doubt(&silent).unwrap();
        assert!(doubt.contains("group 3, nor does the home"), "{doubt}");
    }
}
