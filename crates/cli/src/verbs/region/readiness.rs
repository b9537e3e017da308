//! `stead region readiness`.

use std::time::SystemTime;

use clap::Args;
use serde_json::{Value, json};
use stead_client::RegionReadiness;

use crate::{
    args::Target,
    context,
    exit::{Code, CommandError},
    output::{self, Output, OutputTable},
    verbs::operation::promotion,
};

/// Most tenants that are listed for people.
const SHOWN_TENANTS_MAX: usize = 20;

#[derive(Debug, Args)]
pub(crate) struct Readiness {
    /// Name of the region; else every region that is home to tenants
    name: Option<String>,
}

impl Readiness {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let client = context::connect(target).await?;
        let found = client.admin().readiness(self.name.as_deref()).await?;
        table(&found, SystemTime::now()).print(target.output)?;
        if target.output != Output::Json {
            for line in found.iter().flat_map(|of| lines(of, self.name.is_some())) {
                output::line(&line)?;
            }
        }
        match found.iter().find(|of| of.tenants_blocked > 0) {
            Some(of) => {
                let message = format!(
                    "{} of {} tenants would be served by no region if {} were lost",
                    of.tenants_blocked, of.tenants, of.region
                );
                let hint = format!("`stead region readiness {}` says why, for each", of.region);
                Err(CommandError::new(Code::Unhealthy, message).hint(hint))
            }
            None => Ok(()),
        }
    }
}

fn table(found: &[RegionReadiness], now: SystemTime) -> OutputTable {
    let columns = &[
        "REGION",
        "TENANTS",
        "READY",
        "AT RISK",
        "BLOCKED",
        "WAIT",
        "LOSS WINDOW",
        "OLDEST COPY",
        "REHEARSED",
        "NEEDED",
    ];
    let mut table = OutputTable::new(columns, 10);
    for of in found {
        table.push(cells(of, now), value(of));
    }
    table
}

fn cells(of: &RegionReadiness, now: SystemTime) -> Vec<String> {
    let loss = match (of.is_loss_unknown, of.loss_max) {
        (true, _) => "unknown".to_owned(),
        (false, Some(loss)) => output::duration(loss),
        (false, None) => "none".to_owned(),
    };
    vec![
        of.region.clone(),
        of.tenants.to_string(),
        of.tenants_ready.to_string(),
        of.tenants_at_risk.to_string(),
        of.tenants_blocked.to_string(),
        of.wait_max.map(output::duration).unwrap_or_default(),
        loss,
        of.lag_max.map_or_else(|| "unknown".to_owned(), output::duration),
        rehearsed(of, now),
        of.options_needed.join(" "),
    ]
}

/// Says how long ago the loss of the region was rehearsed, and by what.
fn rehearsed(of: &RegionReadiness, now: SystemTime) -> String {
    let Some(at) = of.rehearsed else {
        return "never".to_owned();
    };
    let age = now.duration_since(at).unwrap_or_default().as_secs();
    let age = match age {
        0..120 => format!("{age} s ago"),
        120..7_200 => format!("{} min ago", age / 60),
        7_200..172_800 => format!("{} h ago", age / 3_600),
        _ => format!("{} days ago", age / 86_400),
    };
    format!("{age}, {}", of.last_rehearsal)
}

/// Returns what blocks a region and, of one that is asked for by name, its tenants.
fn lines(of: &RegionReadiness, with_tenants: bool) -> Vec<String> {
    let blockers = of.blockers.iter();
    let mut lines: Vec<String> = blockers.map(|why| format!("{}: blocked: {why}", of.region)).collect();
    if !with_tenants {
        return lines;
    }
    let shown = of.items.iter().take(SHOWN_TENANTS_MAX);
    lines.extend(shown.flat_map(promotion::item_lines));
    let left = of.tenants.saturating_sub(of.items.len().min(SHOWN_TENANTS_MAX) as u64);
    if left > 0 {
        lines.push(format!("{left} more tenants: `-o json` shows {}", of.items.len()));
    }
    lines
}

fn value(of: &RegionReadiness) -> Value {
    let seconds = |duration: std::time::Duration| format!("{:.3}s", duration.as_secs_f64());
    json!({
        "region": of.region,
        "checkTime": of.checked.map(promotion::clock),
        "tenants": of.tenants.to_string(),
        "tenantsReady": of.tenants_ready.to_string(),
        "tenantsAtRisk": of.tenants_at_risk.to_string(),
        "tenantsBlocked": of.tenants_blocked.to_string(),
        "waitMax": of.wait_max.map(seconds),
        "lossMax": of.loss_max.map(seconds),
        "lossUnknown": of.is_loss_unknown,
        "lagMax": of.lag_max.map(seconds),
        "blockers": of.blockers,
        "optionsNeeded": of.options_needed,
        "items": of.items.iter().map(promotion::item_value).collect::<Vec<_>>(),
        "lastRehearsal": of.last_rehearsal,
        "lastRehearsalTime": of.rehearsed.map(promotion::clock),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn readiness() -> RegionReadiness {
        RegionReadiness {
            region: "eu-west".into(),
            checked: None,
            tenants: 9,
            tenants_ready: 7,
            tenants_at_risk: 7,
            tenants_blocked: 2,
            wait_max: Some(Duration::from_millis(60_660)),
            loss_max: Some(Duration::from_millis(60_760)),
            is_loss_unknown: false,
            lag_max: Some(Duration::from_millis(100)),
            blockers: vec!["2 tenants go on without a lease".into()],
            options_needed: vec!["--is-down".into()],
            items: Vec::new(),
            last_rehearsal: "operations/7".into(),
            rehearsed: Some(SystemTime::UNIX_EPOCH),
        }
    }

    #[test]
    fn readiness_shows_window_age_of_rehearsal_and_what_is_needed() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(3 * 86_400);
        let shown = cells(&readiness(), now);
        assert_eq!(
            shown,
            [
                "eu-west",
                "9",
                "7",
                "7",
                "2",
                "60.7 s",
                "60.8 s",
                "100 ms",
                "3 days ago, operations/7",
                "--is-down"
            ]
        );
        assert_eq!(
            lines(&readiness(), false),
            ["eu-west: blocked: 2 tenants go on without a lease"]
        );
        assert_eq!(value(&readiness())["lastRehearsal"], "operations/7");
        let unknown = RegionReadiness {
            is_loss_unknown: true,
            rehearsed: None,
            ..readiness()
        };
        let shown = cells(&unknown, now);
        assert_eq!((shown[6].as_str(), shown[8].as_str()), ("unknown", "never"));
    }
}
