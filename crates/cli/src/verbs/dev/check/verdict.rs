//! What a step has found: figures against budgets.

use std::time::Duration;

/// A debug build may take this many times its budget.
const DEBUG_ALLOWANCE: f64 = if cfg!(debug_assertions) { 5.0 } else { 1.0 };

/// What a step has found.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    parts: Vec<String>,
    over: bool,
    failed: bool,
}

impl Verdict {
    /// The step could not be run to its end.
    pub(crate) fn failed(error: &anyhow::Error) -> Self {
        Self {
            parts: vec![format!("{error:#}")],
            over: false,
            failed: true,
        }
    }

    /// Holds a time against its budget.
    pub(crate) fn time(self, what: &str, measured: Duration, budget: Duration) -> Self {
        let text = format!("{what} {} of {}", shown(measured), shown(budget));
        self.held(text, measured.as_secs_f64() / budget.as_secs_f64())
    }

    /// Holds a number against its budget.
    pub(crate) fn number(self, what: &str, measured: f64, budget: f64, unit: &str) -> Self {
        self.held(format!("{what} {measured:.1} of {budget:.0} {unit}"), measured / budget)
    }

    /// Something that must be none at all, in any build.
    pub(crate) fn none(mut self, what: &str, count: usize) -> Self {
        self.failed |= count > 0;
        self.parts.push(format!("{count} {what}"));
        self
    }

    /// Something to know.
    pub(crate) fn note(mut self, text: impl Into<String>) -> Self {
        self.parts.push(text.into());
        self
    }

    fn held(mut self, text: String, share: f64) -> Self {
        self.over |= share > 1.0;
        self.failed |= share > DEBUG_ALLOWANCE;
        self.parts.push(text);
        self
    }

    pub(crate) fn passed(&self) -> bool {
        !self.failed
    }

    /// Returns the step's line.
    pub(crate) fn line(&self, step: &str, fdatasync_p99: Duration) -> String {
        let word = if self.failed { "FAIL" } else { "PASS" };
        let allowed = if self.over && !self.failed {
            " · debug build: 5 x allowed"
        } else {
            ""
        };
        let figures = self.parts.join(" · ");
        format!(
            "{word} {step:<15} {figures}{allowed} · fdatasync p99 {}",
            shown(fdatasync_p99)
        )
    }
}

fn shown(duration: Duration) -> String {
    let millis = duration.as_secs_f64() * 1e3;
    if millis < 1_000.0 {
        format!("{millis:.1} ms")
    } else {
        format!("{:.2} s", millis / 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_line_has_figures_budgets_and_a_word() {
        let verdict = Verdict::default().time("p50", MS, 2 * MS).none("lost", 0).note("more");
        let line = verdict.line("write-at-home", MS);
        assert_eq!(
            line,
            "PASS write-at-home   p50 1.0 ms of 2.0 ms · 0 lost · more · fdatasync p99 1.0 ms"
        );
    }

    #[test]
    fn a_debug_build_fails_beyond_five_times_the_budget_and_losses_fail_always() {
        let of = |measured| Verdict::default().time("p50", measured, MS).passed();
        assert_eq!(of(4 * MS), cfg!(debug_assertions));
        assert!(!of(6 * MS));
        assert!(!Verdict::default().none("lost", 1).passed());
    }
}
