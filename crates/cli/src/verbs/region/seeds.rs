//! Output of copies of tenants that are being made.

use serde_json::{Value, json};
use stead_client::{SeedPhase, SeedProgress};

use crate::output::{self, OutputTable};

/// Returns a table of copies.
pub(super) fn table(seeds: &[SeedProgress]) -> OutputTable {
    let columns = &[
        "COPIES",
        "FROM",
        "FOR GROUP",
        "PROGRESS",
        "KEYS",
        "HISTORY",
        "COPIED",
        "WRITTEN",
    ];
    let mut table = OutputTable::new(columns, 5);
    for seed in seeds {
        table.push(cells(seed), value(seed));
    }
    table
}

fn cells(seed: &SeedProgress) -> Vec<String> {
    vec![
        seed.tenant.clone(),
        format!("{} g{}", seed.home_region, seed.home_group),
        seed.follower_group.to_string(),
        progress(seed),
        format!("{} of {}", seed.keys, seed.keys_total),
        output::size(seed.history_bytes),
        format!("{}/s", output::size(seed.copy_bytes_per_second)),
        format!("{}/s", output::size(seed.write_bytes_per_second)),
    ]
}

/// Returns how far a copy is, and how long it takes.
pub(in crate::verbs) fn progress(seed: &SeedProgress) -> String {
    let percent = seed
        .bytes
        .saturating_mul(100)
        .checked_div(seed.bytes_total)
        .unwrap_or(100);
    let done = match seed.phase {
        SeedPhase::Loading => format!("{percent} % of {}", output::size(seed.bytes_total)),
        SeedPhase::CatchingUp => "all keys".to_owned(),
        SeedPhase::Failed => return format!("given up: {}", seed.failure),
        SeedPhase::Other => "unknown".to_owned(),
    };
    let to_go = match seed.time_to_go {
        Some(time) => format!("about {} s to go", time.as_secs()),
        None => format!(
            "{} to go, which takes for ever at this rate",
            output::size(seed.bytes_to_go)
        ),
    };
    let slowed = seed.writers_slowed_to;
    let slowed = slowed.map(|rate| format!("; writers slowed to {}/s", output::size(rate)));
    format!("{done}, {to_go}{}", slowed.unwrap_or_default())
}

/// Returns a copy as JSON.
pub(in crate::verbs) fn value(seed: &SeedProgress) -> Value {
    let phase = match seed.phase {
        SeedPhase::Loading => "PHASE_LOADING",
        SeedPhase::CatchingUp => "PHASE_CATCHING_UP",
        SeedPhase::Failed => "PHASE_FAILED",
        SeedPhase::Other => "PHASE_UNSPECIFIED",
    };
    json!({
        "tenant": seed.tenant,
        "homeGroup": seed.home_group,
        "homeRegion": seed.home_region,
        "followerGroup": seed.follower_group,
        "followerRegion": seed.follower_region,
        "phase": phase,
        "keys": seed.keys.to_string(),
        "keysTotal": seed.keys_total.to_string(),
        "bytes": seed.bytes.to_string(),
        "bytesTotal": seed.bytes_total.to_string(),
        "historyBytes": seed.history_bytes.to_string(),
        "bytesToGo": seed.bytes_to_go.to_string(),
        "timeToGo": seed.time_to_go.map(|time| format!("{:.3}s", time.as_secs_f64())),
        "copyBytesPerSecond": seed.copy_bytes_per_second.to_string(),
        "writeBytesPerSecond": seed.write_bytes_per_second.to_string(),
        "writersSlowedTo": seed.writers_slowed_to.map(|rate| rate.to_string()),
        "failure": seed.failure,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn progress_names_share_time_and_slowed_writers() {
        let seed = SeedProgress {
            tenant: "acme".into(),
            home_group: 1,
            home_region: "us-east".into(),
            follower_group: 5,
            follower_region: "eu-west".into(),
            phase: SeedPhase::Loading,
            keys: 1,
            keys_total: 4,
            bytes: 256 << 20,
            bytes_total: 1 << 30,
            history_bytes: 0,
            bytes_to_go: 768 << 20,
            time_to_go: Some(Duration::from_secs(48)),
            copy_bytes_per_second: 16 << 20,
            write_bytes_per_second: 0,
            writers_slowed_to: None,
            failure: String::new(),
        };
        let text = progress(&seed);
        assert!(text.starts_with("25 % of 1"), "{text}");
        assert!(text.ends_with("about 48 s to go"), "{text}");
        let slowed = SeedProgress {
            phase: SeedPhase::CatchingUp,
            time_to_go: None,
            writers_slowed_to: Some(1 << 20),
            ..seed.clone()
        };
        let text = progress(&slowed);
        assert!(text.contains("for ever at this rate; writers slowed to"), "{text}");
        let failed = SeedProgress {
            phase: SeedPhase::Failed,
            failure: "why".into(),
            ..seed
        };
        assert_eq!(progress(&failed), "given up: why");
    }
}
