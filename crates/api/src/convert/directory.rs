//! Validation of jurisdictions, labels and reasons, which operators set for tenants and regions.

use std::collections::BTreeMap;

use stead_types::Error;

/// Longest name of a jurisdiction in bytes.
pub const JURISDICTION_LEN_MAX: usize = 16;
/// Most jurisdictions of a tenant.
pub const RESIDENCY_MAX: usize = 32;
/// Most labels of a tenant.
pub const LABELS_MAX: usize = 16;
/// Longest name, and longest value, of a label in bytes.
pub const LABEL_LEN_MAX: usize = 64;
/// Longest reason of a change in bytes.
pub const REASON_LEN_MAX: usize = 256;

/// Checks the name of a jurisdiction: 1 to [`JURISDICTION_LEN_MAX`] of `A-Z`, `0-9` and `-`, such as `EU`.
pub fn jurisdiction(field: &str, name: &str) -> Result<(), Error> {
    let allowed = |c: char| matches!(c, 'A'..='Z' | '0'..='9' | '-');
    if (1..=JURISDICTION_LEN_MAX).contains(&name.len()) && name.chars().all(allowed) {
        return Ok(());
    }
    let message =
        format!("{field}: a jurisdiction has 1 to {JURISDICTION_LEN_MAX} of A-Z, 0-9 and -, such as EU; got {name:?}");
    Err(Error::invalid(field, message))
}

/// Checks the jurisdictions that a tenant's policy admits.
pub fn residency(names: &[String]) -> Result<(), Error> {
    if names.len() > RESIDENCY_MAX {
        let message = format!("residency: at most {RESIDENCY_MAX} jurisdictions, not {}", names.len());
        return Err(Error::invalid("residency", message));
    }
    names
        .iter()
        .enumerate()
        .try_for_each(|(at, name)| jurisdiction(&format!("residency[{at}]"), name))
}

/// Checks labels.
pub fn labels(labels: &BTreeMap<String, String>) -> Result<(), Error> {
    if labels.len() > LABELS_MAX {
        let message = format!("labels: at most {LABELS_MAX} labels, not {}", labels.len());
        return Err(Error::invalid("labels", message));
    }
    let long = |(name, value): &(&String, &String)| {
        name.is_empty() || name.len() > LABEL_LEN_MAX || value.len() > LABEL_LEN_MAX
    };
    match labels.iter().find(long) {
        Some((name, _)) => {
            let message = format!("labels: name and value have at most {LABEL_LEN_MAX} bytes each; see {name:?}");
            Err(Error::invalid("labels", message))
        }
        None => Ok(()),
    }
}

/// Checks the reason of a change.
pub fn reason(reason: &str) -> Result<(), Error> {
    let len = reason.len();
    if len <= REASON_LEN_MAX {
        return Ok(());
    }
    let message = format!("reason: at most {REASON_LEN_MAX} bytes, not {len}");
    Err(Error::invalid("reason", message))
}
