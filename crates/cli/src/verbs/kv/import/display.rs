//! Progress of an import: a bar on a terminal, a line now and then elsewhere.

use std::{io::IsTerminal, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

use super::progress::Progress;
use crate::output::{self, Output};

/// Time between two lines where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Shows progress on standard error.
pub(super) struct Display {
    bar: Option<ProgressBar>,
    /// Whether lines are printed instead.
    prints_lines: bool,
    len: u64,
    started: Instant,
    /// Rows of earlier attempts.
    before: u64,
    shown: Instant,
}

impl Display {
    /// Shows an input of `len` bytes, 0: of unknown length, of which an earlier attempt has finished a part.
    pub(super) fn new(output: Output, len: u64, progress: &Progress) -> Self {
        let is_wanted = output != Output::Json;
        let is_terminal = std::io::stderr().is_terminal();
        let style = ProgressStyle::with_template("{bar:30} {percent}% {bytes}/{total_bytes} {msg}");
        let bar = style.ok().filter(|_| is_wanted && is_terminal && len > 0).map(|style| {
            let bar = ProgressBar::with_draw_target(Some(len), ProgressDrawTarget::stderr());
            bar.with_style(style)
        });
        Self {
            prints_lines: is_wanted && bar.is_none(),
            bar,
            len,
            started: Instant::now(),
            before: rows(progress),
            shown: Instant::now(),
        }
    }

    pub(super) fn show(&mut self, progress: &Progress) {
        let per_second = (rows(progress) - self.before) as f64 / self.started.elapsed().as_secs_f64().max(0.001);
        let rejected = match progress.counts.rejected {
            0 => String::new(),
            count => format!(", {count} rejected"),
        };
        let text = format!("{} rows, {per_second:.0}/s{rejected}", rows(progress));
        if let Some(bar) = &self.bar {
            bar.set_position(progress.finished.offset);
            bar.set_message(text);
        } else if self.prints_lines && self.shown.elapsed() >= LINE_INTERVAL {
            self.shown = Instant::now();
            let of = match self.len {
                0 => String::new(),
                len => format!(" of {}", output::size(len)),
            };
            eprintln!("{}{of}: {text}", output::size(progress.finished.offset));
        }
    }

    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn rows(progress: &Progress) -> u64 {
    progress.counts.written + progress.counts.unchanged
}
