//! Health checks of a node: named checks that are evaluated on request.

use std::fmt::Write;

use parking_lot::RwLock;

/// Result of one check: a message either way.
pub(crate) type CheckResult = Result<String, String>;

struct HealthCheck {
    name: &'static str,
    severity: Severity,
    run: Box<dyn Fn() -> CheckResult + Send + Sync>,
}

/// Severity of a failed check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Severity {
    /// The node is not ready: load balancers send it nothing. What reaches it is served if it can be.
    Critical,
    /// The node serves, but an operator should look.
    Warning,
}

/// The checks of a node, in display order.
#[derive(Default)]
pub(crate) struct HealthChecks(RwLock<Vec<HealthCheck>>);

/// Results of all checks.
#[derive(Debug)]
pub(crate) struct HealthReport {
    results: Vec<(&'static str, Severity, CheckResult)>,
}

impl HealthChecks {
    /// Adds a check, which must not block. Its failure makes the node not ready.
    pub(crate) fn add(&self, name: &'static str, check: impl Fn() -> CheckResult + Send + Sync + 'static) {
        self.push(name, Severity::Critical, Box::new(check));
    }

    /// Adds a check whose failure is only a warning: the node stays ready.
    pub(crate) fn add_warning(&self, name: &'static str, check: impl Fn() -> CheckResult + Send + Sync + 'static) {
        self.push(name, Severity::Warning, Box::new(check));
    }

    fn push(&self, name: &'static str, severity: Severity, run: Box<dyn Fn() -> CheckResult + Send + Sync>) {
        self.0.write().push(HealthCheck { name, severity, run });
    }

    /// Evaluates every check.
    pub(crate) fn report(&self) -> HealthReport {
        let checks = self.0.read();
        HealthReport {
            results: checks
                .iter()
                .map(|check| (check.name, check.severity, (check.run)()))
                .collect(),
        }
    }
}

impl HealthReport {
    /// Tells whether every critical check passed.
    pub(crate) fn is_ready(&self) -> bool {
        self.failed(Severity::Critical).next().is_none()
    }

    /// Returns the failed checks that are only warnings.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let failed = self.failed(Severity::Warning);
        failed.map(|(name, why)| format!("{name}: {why}")).collect()
    }

    fn failed(&self, severity: Severity) -> impl Iterator<Item = (&'static str, &String)> {
        let of_severity = self.results.iter().filter(move |(_, of, _)| *of == severity);
        of_severity.filter_map(|(name, _, result)| Some((*name, result.as_ref().err()?)))
    }

    /// Returns one line for each check, as `/readyz?verbose` shows it; `[!]` marks a warning.
    pub(crate) fn verbose(&self) -> String {
        let mut text = String::new();
        for (name, severity, result) in &self.results {
            let line = match (result, severity) {
                (Ok(why), _) => writeln!(text, "[+] {name}: {why}"),
                (Err(why), Severity::Critical) => writeln!(text, "[-] {name}: {why}"),
                (Err(why), Severity::Warning) => writeln!(text, "[!] {name}: {why}"),
            };
            line.expect("a string takes every write");
        }
        text
    }

    /// Returns the first failed critical check in one line; `ok` if none failed.
    pub(crate) fn summary(&self) -> String {
        let failed = self.failed(Severity::Critical).next();
        failed.map_or_else(|| "ok\n".into(), |(name, why)| format!("{name}: {why}\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_names_failed_critical_check() {
        let checks = HealthChecks::default();
        checks.add("view", || Ok("at 1/7".into()));
        assert!(checks.report().is_ready());
        assert_eq!(checks.report().summary(), "ok\n");
        checks.add("group g1", || Err("no leader".into()));
        assert!(!checks.report().is_ready());
        assert_eq!(checks.report().summary(), "group g1: no leader\n");
        assert_eq!(checks.report().verbose(), "[+] view: at 1/7\n[-] group g1: no leader\n");
    }

    #[test]
    fn report_failed_warning_check_leaves_node_ready() {
        let checks = HealthChecks::default();
        checks.add("view", || Ok("at 1/7".into()));
        checks.add_warning("clocks", || Err("n2 is 7 s ahead".into()));
        let report = checks.report();
        assert!(report.is_ready());
        assert_eq!(report.summary(), "ok\n");
        assert_eq!(report.verbose(), "[+] view: at 1/7\n[!] clocks: n2 is 7 s ahead\n");
        assert_eq!(report.warnings(), ["clocks: n2 is 7 s ahead"]);
    }
}
