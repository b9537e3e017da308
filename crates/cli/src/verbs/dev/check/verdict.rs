//! Verdict of a step: figures against budgets.

use std::time::Duration;

/// Factor by which a debug build may exceed its budget.
const DEBUG_ALLOWANCE: f64 = if cfg!(debug_assertions) { 5.0 } else { 1.0 };
/// Sync latency above which a disk is slow: then the step's latencies say more of the disk than of Stead.
const FDATASYNC_MAX: Duration = Duration::from_millis(5);

/// Verdict of a step.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    parts: Vec<String>,
    over: bool,
    /// A latency exceeds its budget, on a disk that is fast enough to judge.
    late: bool,
    failed: bool,
}

impl Verdict {
    /// Returns the verdict of a step that failed with an error.
    pub(crate) fn failed(error: &anyhow::Error) -> Self {
        Self {
            parts: vec![format!("{error:#}")],
            failed: true,
            ..Self::default()
        }
    }

    /// Compares a duration with its budget.
    pub(crate) fn time(mut self, what: &str, measured: Duration, budget: Duration) -> Self {
        let text = format!("{what} {} of {}", display_duration(measured), display_duration(budget));
        let share = measured.as_secs_f64() / budget.as_secs_f64();
        self.over |= share > 1.0;
        self.late |= share > DEBUG_ALLOWANCE;
        self.parts.push(text);
        self
    }

    /// Compares a number with its budget.
    pub(crate) fn number(mut self, what: &str, measured: f64, budget: f64, unit: &str) -> Self {
        let share = measured / budget;
        self.over |= share > 1.0;
        self.failed |= share > DEBUG_ALLOWANCE;
        self.parts.push(format!("{what} {measured:.1} of {budget:.0} {unit}"));
        self
    }

    /// Adds a count that must be zero, in any build.
    pub(crate) fn none(mut self, what: &str, count: usize) -> Self {
        self.failed |= count > 0;
        self.parts.push(format!("{count} {what}"));
        self
    }

    /// Adds a note.
    pub(crate) fn note(mut self, text: impl Into<String>) -> Self {
        self.parts.push(text.into());
        self
    }

    /// Tells whether the step has passed, given the disk's sync latency while it ran.
    pub(crate) fn passed(&self, fdatasync_p99: Duration) -> bool {
        !self.failed && (!self.late || fdatasync_p99 > FDATASYNC_MAX)
    }

    /// Returns the step's line.
    pub(crate) fn line(&self, step: &str, fdatasync_p99: Duration) -> String {
        let passed = self.passed(fdatasync_p99);
        let word = if passed { "PASS" } else { "FAIL" };
        let allowed = match (passed, self.late, self.over) {
            (true, true, _) => " · latencies not judged: the disk is slow",
            (true, false, true) => " · debug build: 5 x allowed",
            (false, ..) | (true, false, false) => "",
        };
        let figures = self.parts.join(" · ");
        format!(
            "{word} {step:<15} {figures}{allowed} · fdatasync p99 {}",
            display_duration(fdatasync_p99)
        )
    }
}

fn display_duration(duration: Duration) -> String {
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
    fn verdict_line_has_figures_budgets_and_result() {
        let verdict = Verdict::default().time("p50", MS, 2 * MS).none("lost", 0).note("more");
        let line = verdict.line("write-at-home", MS);
        assert_eq!(
            line,
            "PASS write-at-home   p50 1.0 ms of 2.0 ms · 0 lost · more · fdatasync p99 1.0 ms"
        );
    }

    #[test]
    fn debug_build_allows_five_times_budget_but_no_loss() {
        let of = |measured| Verdict::default().time("p50", measured, MS).passed(MS);
        assert_eq!(of(4 * MS), cfg!(debug_assertions));
        assert!(!of(6 * MS));
        assert!(!Verdict::default().none("lost", 1).passed(MS));
    }

    #[test]
    fn slow_disk_latencies_do_not_fail_step() {
        let late = Verdict::default().time("p50", 6 * MS, MS);
        assert!(!late.passed(5 * MS));
        assert!(late.passed(6 * MS));
        assert!(late.line("lag", 6 * MS).contains("latencies not judged"));
        assert!(!Verdict::default().none("lost", 1).passed(6 * MS));
        assert!(!Verdict::default().number("share", 90.0, 15.0, "%").passed(6 * MS));
    }
}
