//! Figures of one window, as a line of a file: several runs can be reported together.

use std::{fmt::Write, path::Path, time::Duration};

use anyhow::{Context, Result};

use crate::{load::Window, processes::Usage, work::Row};

/// Start of a line that describes a system or the machine.
const DESCRIPTION: &str = "#";

/// Figures of one window of one row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Record {
    pub(crate) system: String,
    pub(crate) row: String,
    /// Requests a second that succeeded.
    pub(crate) rate: f64,
    pub(crate) failed: u64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    /// CPU of the servers for each request, in microseconds.
    pub(crate) cpu_us: f64,
    /// Bytes that the servers wrote for each request, in KiB.
    pub(crate) written_kib: f64,
    /// Memory of all servers at the end of the window.
    pub(crate) memory_mib: f64,
}

/// Records of runs, and descriptions of what was measured: name and text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Records {
    pub(crate) records: Vec<Record>,
    pub(crate) descriptions: Vec<(String, String)>,
}

impl Record {
    pub(crate) fn new(system: &str, row: Row, window: &Window, before: Usage, after: Usage) -> Self {
        let count = window.latencies.len() as f64;
        let each = |total: f64| if count == 0.0 { f64::NAN } else { total / count };
        let quantile = |share| window.latencies.value_at_quantile(share) as f64 / 1e3;
        let cpu = after.cpu.saturating_sub(before.cpu);
        Self {
            system: system.to_owned(),
            row: row.name(),
            rate: count / window.length.max(Duration::from_millis(1)).as_secs_f64(),
            failed: window.failed,
            p50_ms: quantile(0.5),
            p99_ms: quantile(0.99),
            cpu_us: each(cpu.as_secs_f64() * 1e6),
            written_kib: each(after.written.saturating_sub(before.written) as f64 / 1024.0),
            memory_mib: after.memory as f64 / f64::from(1 << 20),
        }
    }

    fn line(&self) -> String {
        format!(
            "{}\t{}\t{:.1}\t{}\t{:.3}\t{:.3}\t{:.2}\t{:.3}\t{:.1}",
            self.system,
            self.row,
            self.rate,
            self.failed,
            self.p50_ms,
            self.p99_ms,
            self.cpu_us,
            self.written_kib,
            self.memory_mib
        )
    }

    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split('\t');
        let (system, row) = (fields.next()?.to_owned(), fields.next()?.to_owned());
        let mut number = || fields.next()?.parse::<f64>().ok();
        Some(Self {
            system,
            row,
            rate: number()?,
            failed: number()? as u64,
            p50_ms: number()?,
            p99_ms: number()?,
            cpu_us: number()?,
            written_kib: number()?,
            memory_mib: number()?,
        })
    }
}

impl Records {
    /// Reads the records of a file, in addition to those that are known.
    pub(crate) fn read(&mut self, path: &Path) -> Result<()> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        for line in text.lines() {
            if let Some(description) = line.strip_prefix(DESCRIPTION) {
                let (name, text) = description.split_once('\t').context("a description has a name")?;
                self.descriptions.push((name.to_owned(), text.to_owned()));
            } else {
                let record = Record::parse(line).with_context(|| format!("{}: {line:?}", path.display()))?;
                self.records.push(record);
            }
        }
        Ok(())
    }

    /// Writes all records to a file.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let mut text = String::new();
        for (name, description) in &self.descriptions {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{DESCRIPTION}{name}\t{description}");
        }
        for record in &self.records {
            let _ = writeln!(text, "{}", record.line());
        }
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Returns a figure of a row in all windows, in order; empty: it was not measured.
    pub(crate) fn figures(&self, system: &str, row: &str, figure: fn(&Record) -> f64) -> Vec<f64> {
        let of = self
            .records
            .iter()
            .filter(|record| record.system == system && record.row == row);
        let mut figures: Vec<f64> = of.map(figure).filter(|figure| figure.is_finite()).collect();
        figures.sort_by(f64::total_cmp);
        figures
    }
}
