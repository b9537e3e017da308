//! Whether a node can serve: named checks, asked when somebody asks.

use std::fmt::Write;

use parking_lot::RwLock;

/// What one check found.
pub(crate) type Finding = Result<String, String>;

type Check = (&'static str, Box<dyn Fn() -> Finding + Send + Sync>);

/// The checks of a node, in the order in which they are shown.
#[derive(Default)]
pub(crate) struct Checks(RwLock<Vec<Check>>);

/// What all checks found.
#[derive(Debug)]
pub(crate) struct Report {
    findings: Vec<(&'static str, Finding)>,
}

impl Checks {
    /// Adds a check; it must answer at once.
    pub(crate) fn add(&self, name: &'static str, check: impl Fn() -> Finding + Send + Sync + 'static) {
        self.0.write().push((name, Box::new(check)));
    }

    /// Asks every check.
    pub(crate) fn report(&self) -> Report {
        let checks = self.0.read();
        Report {
            findings: checks.iter().map(|(name, check)| (*name, check())).collect(),
        }
    }
}

impl Report {
    /// Tells whether every check passed.
    pub(crate) fn is_ready(&self) -> bool {
        self.findings.iter().all(|(_, finding)| finding.is_ok())
    }

    /// One line for each check, as `/readyz?verbose` shows it.
    pub(crate) fn verbose(&self) -> String {
        let mut text = String::new();
        for (name, finding) in &self.findings {
            let line = match finding {
                Ok(why) => writeln!(text, "[+] {name}: {why}"),
                Err(why) => writeln!(text, "[-] {name}: {why}"),
            };
            line.expect("a string takes every write");
        }
        text
    }

    /// The first check that failed, in one line; `ok` if none did.
    pub(crate) fn brief(&self) -> String {
        let failed = self
            .findings
            .iter()
            .find_map(|(name, finding)| Some((name, finding.as_ref().err()?)));
        failed.map_or_else(|| "ok\n".into(), |(name, why)| format!("{name}: {why}\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_ready_when_every_check_passes_and_says_which_does_not() {
        let checks = Checks::default();
        checks.add("view", || Ok("at 1/7".into()));
        assert!(checks.report().is_ready());
        assert_eq!(checks.report().brief(), "ok\n");
        checks.add("group g1", || Err("no leader".into()));
        assert!(!checks.report().is_ready());
        assert_eq!(checks.report().brief(), "group g1: no leader\n");
        assert_eq!(checks.report().verbose(), "[+] view: at 1/7\n[-] group g1: no leader\n");
    }
}
