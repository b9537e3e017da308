//! Digest of a promotion's report: by it an exported report can be checked later, and compared with another export.
//!
//! It is the SHA-256 of the report as JSON without the digest, with the keys of objects in alphabetical order and no white
//! space. It tells damage, and an edit that did not renew it; it proves nothing against somebody who computes it anew, so
//! write it down elsewhere.

use serde_json::Value;
use sha2::{Digest, Sha256};
use stead_client::PromotionReport;

use super::promotion_value::report_value;
use crate::output;

/// Name of the field with the digest.
const FIELD: &str = "digest";
/// Beginning of each digest: how it is computed.
const ALGORITHM: &str = "sha256:";

/// Reason why an exported report is not what was exported.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Mismatch {
    /// It is no JSON.
    #[error("it is no JSON: {0}")]
    NotJson(String),
    /// It has no digest.
    #[error("it has no field \"digest\": export it with `stead operation report NUMBER --json`")]
    NoDigest,
    /// The digest differs.
    #[error("it says {stated}, and what it has is {computed}: it was damaged or changed after it was exported")]
    Differs {
        /// Digest in the file.
        stated: String,
        /// Digest of the content.
        computed: String,
    },
}

/// Returns the digest of a report.
pub(super) fn of(report: &PromotionReport) -> String {
    digest(&report_value(report))
}

/// Returns a report as JSON, with its digest.
pub(super) fn exported(report: &PromotionReport) -> Value {
    let mut value = report_value(report);
    let digest = digest(&value);
    if let Value::Object(fields) = &mut value {
        fields.insert(FIELD.to_owned(), Value::String(digest));
    }
    value
}

/// Checks an exported report, and returns its digest.
pub(super) fn verify(text: &str) -> Result<String, Mismatch> {
    let mut value: Value = serde_json::from_str(text).map_err(|error| Mismatch::NotJson(error.to_string()))?;
    let stated = value.as_object_mut().and_then(|fields| fields.remove(FIELD));
    let stated = stated.as_ref().and_then(Value::as_str).ok_or(Mismatch::NoDigest)?;
    let computed = digest(&value);
    if stated == computed {
        return Ok(computed);
    }
    Err(Mismatch::Differs {
        stated: stated.to_owned(),
        computed,
    })
}

fn digest(value: &Value) -> String {
    let mut canonical = String::new();
    write_canonical(value, &mut canonical);
    ALGORITHM.to_owned() + &output::hex(&Sha256::digest(canonical.as_bytes()))
}

/// Writes a value with the keys of objects in alphabetical order, whatever order the value keeps.
fn write_canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut names: Vec<&String> = fields.keys().collect();
            names.sort_unstable();
            text.push('{');
            for (at, name) in names.into_iter().enumerate() {
                text.push_str(if at == 0 { "" } else { "," });
                text.push_str(&Value::String(name.clone()).to_string());
                text.push(':');
                write_canonical(&fields[name], text);
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for (at, item) in items.iter().enumerate() {
                text.push_str(if at == 0 { "" } else { "," });
                write_canonical(item, text);
            }
            text.push(']');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => text.push_str(&value.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::promotion_display::tests::sample_report, *};

    #[test]
    fn exported_report_is_verified_whatever_its_white_space() {
        let report = sample_report();
        let exported = exported(&report);
        for text in [exported.to_string(), serde_json::to_string_pretty(&exported).unwrap()] {
            assert_eq!(verify(&text), Ok(of(&report)));
        }
        assert!(of(&report).starts_with("sha256:"));
    }

    #[test]
    fn changed_report_is_told_from_what_was_exported() {
        let text = exported(&sample_report()).to_string();
        let changed = text.replace("it has the longest history", "it has the longest histori");
        assert_ne!(changed, text);
        assert!(matches!(verify(&changed), Err(Mismatch::Differs { .. })));
        let mut without: Value = serde_json::from_str(&text).unwrap();
        without.as_object_mut().unwrap().remove(FIELD);
        assert_eq!(verify(&without.to_string()), Err(Mismatch::NoDigest));
        assert!(matches!(verify("tenant,number"), Err(Mismatch::NotJson(_))));
    }
}
