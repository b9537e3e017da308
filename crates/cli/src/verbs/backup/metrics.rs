//! Metrics of `stead backup run`, as a file for a textfile collector.

use std::{
    fmt::Write,
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

use super::manifest::Manifest;
use crate::exit::{Code, CommandError};

/// Figures of the process so far.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    /// Backups that have failed since it was started.
    pub(super) failures: u64,
    /// Duration of the last one that it has made.
    pub(super) duration: Option<Duration>,
}

impl Metrics {
    /// Returns the text for Prometheus; `kept`: number of backups.
    pub(super) fn text(&self, newest: Option<&Manifest>, started: Option<SystemTime>, kept: usize) -> String {
        let mut text = String::new();
        let mut metric = |name: &str, kind: &str, help: &str, value: Option<u64>| {
            let Some(value) = value else { return };
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
        };
        let started = started.and_then(|started| started.duration_since(SystemTime::UNIX_EPOCH).ok());
        metric(
            "stead_backup_time_seconds",
            "gauge",
            "Beginning of the newest finished backup, in seconds since 1970; absent: there is none.",
            started.map(|started| started.as_secs()),
        );
        metric(
            "stead_backup_failures_total",
            "counter",
            "Backups that have failed since the process was started.",
            Some(self.failures),
        );
        metric(
            "stead_backup_duration_seconds",
            "gauge",
            "Duration of the last backup that the process has made.",
            self.duration.map(|duration| duration.as_secs()),
        );
        metric(
            "stead_backup_kept",
            "gauge",
            "Backups that are kept.",
            Some(kept as u64),
        );
        metric(
            "stead_backup_bytes",
            "gauge",
            "Bytes of the newest backup.",
            newest.map(|newest| newest.files().map(|part| part.len).sum()),
        );
        let tenants = newest.filter(|newest| newest.is_open()).map(|newest| &newest.tenants);
        metric(
            "stead_backup_tenants",
            "gauge",
            "Tenants of the newest backup.",
            tenants.map(|tenants| tenants.len() as u64),
        );
        let full = |tenants: &std::collections::BTreeMap<_, super::manifest::TenantBackup>| {
            tenants.values().filter(|tenant| tenant.full_because.is_some()).count() as u64
        };
        metric(
            "stead_backup_full_tenants",
            "gauge",
            "Tenants of the newest backup with all keys although changes were asked for.",
            tenants.map(full),
        );
        text
    }

    /// Replaces the file as a whole: a collector never reads half of it.
    pub(super) fn store(&self, path: &Path, text: &str) -> Result<(), CommandError> {
        let next = path.with_added_extension("new");
        let stored = fs::write(&next, text).and_then(|()| fs::rename(&next, path));
        stored.map_err(|error| CommandError::new(Code::Failed, format!("--metrics-file: {}: {error}", path.display())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_have_the_time_of_the_newest_backup_only_if_there_is_one() {
        let metrics = Metrics {
            failures: 2,
            duration: None,
        };
        let none = metrics.text(None, None, 0);
        assert!(
            !none.contains("stead_backup_time_seconds") && none.contains("stead_backup_failures_total 2\n"),
            "{none}"
        );
        let manifest = Manifest::new("one".to_owned(), String::new(), None);
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(99);
        let text = metrics.text(Some(&manifest), Some(at), 1);
        assert!(
            text.contains("# TYPE stead_backup_time_seconds gauge\nstead_backup_time_seconds 99\n"),
            "{text}"
        );
    }
}
