//! `stead tenant verify`.

use std::time::Duration;

use clap::Args;
use serde_json::json;
use stead_client::{CopyComparison, TenantVerification, VerifiedCopy};

use crate::{
    args::{self, Target},
    context,
    exit::{Code, CommandError},
    output::{self, Output, OutputTable},
};

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Name of the tenant
    name: String,
    /// How long copies that are behind are waited for, at most 60s
    #[arg(long, value_parser = args::time, value_name = "TIME", default_value = "10s")]
    wait: Duration,
}

impl Verify {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let admin = context::connect(target).await?.admin();
        let verified = admin.verify_tenant(&self.name, self.wait).await?;
        let time = humantime::format_rfc3339_seconds(verified.time).to_string();
        if target.output == Output::Json {
            output::json(&json!({
                "name": self.name,
                "time": time,
                "copies": verified.copies.iter().map(value).collect::<Vec<_>>(),
            }))?;
        } else {
            table(&verified).print(target.output)?;
            output::line(&format!("compared until {time}"))?;
        }
        verdict(&self.name, &verified)
    }
}

fn table(verified: &TenantVerification) -> OutputTable {
    let mut table = OutputTable::new(&["REGION", "GROUP", "NODE", "RESULT", "AT", "WHY"], 6);
    for copy in &verified.copies {
        let cells = vec![
            copy.region.clone(),
            copy.group.to_string(),
            copy.node.to_string(),
            text(copy.result).1.to_owned(),
            copy.revision.map(|revision| revision.to_string()).unwrap_or_default(),
            copy.reason.clone(),
        ];
        table.push(cells, value(copy));
    }
    table
}

fn value(copy: &VerifiedCopy) -> serde_json::Value {
    json!({
        "region": copy.region,
        "group": copy.group,
        "node": copy.node.get().to_string(),
        "result": text(copy.result).0,
        "revision": copy.revision.map(|revision| json!({
            "epoch": revision.epoch().get(),
            "sequence": revision.sequence().get().to_string(),
        })),
        "reason": copy.reason,
    })
}

/// Returns the name of a result for programs and for people.
fn text(result: CopyComparison) -> (&'static str, &'static str) {
    match result {
        CopyComparison::Reference => ("RESULT_REFERENCE", "home's leader"),
        CopyComparison::Equal => ("RESULT_EQUAL", "equal"),
        CopyComparison::Different => ("RESULT_DIFFERENT", "DIFFERENT"),
        CopyComparison::NotCompared => ("RESULT_NOT_COMPARED", "not compared"),
    }
}

/// Returns an error unless every copy is equal.
fn verdict(name: &str, verified: &TenantVerification) -> Result<(), CommandError> {
    let count = |result| verified.copies.iter().filter(|copy| copy.result == result).count();
    let all = verified.copies.len();
    match (count(CopyComparison::Different), count(CopyComparison::NotCompared)) {
        (0, 0) => Ok(()),
        (0, missing) => Err(CommandError::new(
            Code::Failed,
            format!("{missing} of {all} copies of {name} were not compared"),
        )),
        (different, _) => Err(CommandError::new(
            Code::Unhealthy,
            format!("{different} of {all} copies of {name} differ from the home's"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn verified(results: &[CopyComparison]) -> TenantVerification {
        let copy = |result: &CopyComparison| VerifiedCopy {
            region: "eu-west".into(),
            group: 2,
            node: stead_types::NodeId::new(1),
            result: *result,
            revision: None,
            reason: String::new(),
        };
        TenantVerification {
            copies: results.iter().map(copy).collect(),
            time: SystemTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn only_equality_of_all_copies_succeeds() {
        use CopyComparison::{Different, Equal, NotCompared, Reference};
        assert!(verdict("acme", &verified(&[Reference, Equal, Equal])).is_ok());
        for results in [
            &[Reference, NotCompared, Equal][..],
            &[Reference, Different, NotCompared],
        ] {
            assert!(verdict("acme", &verified(results)).is_err(), "{results:?}");
        }
    }
}
