//! `stead tenant residency`.

use clap::Args;
use serde_json::{Value, json};
use stead_client::{ResidencyEvent, ResidencyRecord};

use crate::{args::Target, context, exit::CommandError, output::OutputTable};

#[derive(Debug, Args)]
pub(crate) struct Residency {
    /// Name of the tenant; tenants of this name that were erased are shown too
    name: String,
}

impl Residency {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let admin = context::connect(target).await?.admin();
        let mut table = OutputTable::new(
            &[
                "NUMBER",
                "REGION",
                "JURISDICTION",
                "EVENT",
                "FROM",
                "TO",
                "POLICY",
                "BYTES",
            ],
            7,
        );
        for record in admin.residency(&self.name).await? {
            let json = value(&record);
            let seconds = |time| humantime::format_rfc3339_seconds(time).to_string();
            let [event, from, to, policy, bytes] = match record.event {
                ResidencyEvent::Sent {
                    policy_first,
                    policy_last,
                    first,
                    last,
                    bytes,
                } => {
                    let policy = if policy_first == policy_last {
                        policy_first
                    } else {
                        format!("{policy_first} to {policy_last}")
                    };
                    [
                        "sent".to_owned(),
                        seconds(first),
                        seconds(last),
                        policy,
                        bytes.to_string(),
                    ]
                }
                ResidencyEvent::Erased { group, time } => {
                    let time = seconds(time);
                    [
                        format!("erased in g{group}"),
                        time.clone(),
                        time,
                        String::new(),
                        String::new(),
                    ]
                }
            };
            let number = record.tenant_number.to_string();
            let cells = vec![
                number,
                record.region,
                record.jurisdiction,
                event,
                from,
                to,
                policy,
                bytes,
            ];
            table.push(cells, json);
        }
        table.print(target.output)
    }
}

/// Returns a record as JSON.
pub(in crate::verbs) fn value(record: &ResidencyRecord) -> Value {
    let millis = |time| humantime::format_rfc3339_millis(time).to_string();
    let event = match &record.event {
        ResidencyEvent::Sent {
            policy_first,
            policy_last,
            first,
            last,
            bytes,
        } => json!({
            "sent": {
                "policy_first": policy_first,
                "policy_last": policy_last,
                "first_time": millis(*first),
                "last_time": millis(*last),
                "bytes": bytes,
            }
        }),
        ResidencyEvent::Erased { group, time } => json!({ "erased": { "group": group, "time": millis(*time) } }),
    };
    let mut value = json!({
        "tenant": record.tenant,
        "tenant_number": record.tenant_number,
        "region": record.region,
        "jurisdiction": record.jurisdiction,
    });
    if let (Value::Object(value), Value::Object(event)) = (&mut value, event) {
        value.extend(event);
    }
    value
}
