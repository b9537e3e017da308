//! Whether a node can serve: named checks, asked when somebody asks.

use std::fmt::Write;

use parking_lot::RwLock;

/// What one check found.
pub(crate) type Finding = Result<String, String>;

struct Check {
    name: &'static str,
    weight: Weight,
    look: Box<dyn Fn() -> Finding + Send + Sync>,
}

/// What a failed check means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weight {
    /// The node cannot serve.
    Needed,
    /// The node serves, and somebody should look.
    Advised,
}

/// The checks of a node, in the order in which they are shown.
#[derive(Default)]
pub(crate) struct Checks(RwLock<Vec<Check>>);

/// What all checks found.
#[derive(Debug)]
pub(crate) struct Report {
    findings: Vec<(&'static str, Weight, Finding)>,
}

impl Checks {
    /// Adds a check; it must answer at once.
    pub(crate) fn add(&self, name: &'static str, check: impl Fn() -> Finding + Send + Sync + 'static) {
        self.push(name, Weight::Needed, Box::new(check));
    }

    /// Adds a check whose failure is a warning: the node serves nevertheless.
    pub(crate) fn advise(&self, name: &'static str, check: impl Fn() -> Finding + Send + Sync + 'static) {
        self.push(name, Weight::Advised, Box::new(check));
    }

    fn push(&self, name: &'static str, weight: Weight, look: Box<dyn Fn() -> Finding + Send + Sync>) {
        self.0.write().push(Check { name, weight, look });
    }

    /// Asks every check.
    pub(crate) fn report(&self) -> Report {
        let checks = self.0.read();
        Report {
            findings: checks
                .iter()
                .map(|check| (check.name, check.weight, (check.look)()))
                .collect(),
        }
    }
}

impl Report {
    /// Tells whether every check passed that the node cannot serve without.
    pub(crate) fn is_ready(&self) -> bool {
        self.failed(Weight::Needed).next().is_none()
    }

    /// What somebody should look at although the node serves.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let failed = self.failed(Weight::Advised);
        failed.map(|(name, why)| format!("{name}: {why}")).collect()
    }

    fn failed(&self, weight: Weight) -> impl Iterator<Item = (&'static str, &String)> {
        let of_weight = self.findings.iter().filter(move |(_, of, _)| *of == weight);
        of_weight.filter_map(|(name, _, finding)| Some((*name, finding.as_ref().err()?)))
    }

    /// One line for each check, as `/readyz?verbose` shows it: `[!]` is a warning.
    pub(crate) fn verbose(&self) -> String {
        let mut text = String::new();
        for (name, weight, finding) in &self.findings {
            let line = match (finding, weight) {
                (Ok(why), _) => writeln!(text, "[+] {name}: {why}"),
                (Err(why), Weight::Needed) => writeln!(text, "[-] {name}: {why}"),
                (Err(why), Weight::Advised) => writeln!(text, "[!] {name}: {why}"),
            };
            line.expect("a string takes every write");
        }
        text
    }

    /// The first check that failed, in one line; `ok` if none did.
    pub(crate) fn brief(&self) -> String {
        let failed = self.failed(Weight::Needed).next();
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

    #[test]
    fn failed_advice_is_a_warning_and_the_node_is_ready() {
        let checks = Checks::default();
        checks.add("view", || Ok("at 1/7".into()));
        checks.advise("clocks", || Err("n2 is 7 s ahead".into()));
        let report = checks.report();
        assert!(report.is_ready());
        assert_eq!(report.brief(), "ok\n");
        assert_eq!(report.verbose(), "[+] view: at 1/7\n[!] clocks: n2 is 7 s ahead\n");
        assert_eq!(report.warnings(), ["clocks: n2 is 7 s ahead"]);
    }
}
