//! Output: a table for people, JSON for programs. Data goes to standard output, the rest does not.

use std::{ffi::OsString, io::Write, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use clap::ValueEnum;
use comfy_table::{Table, presets};
use serde_json::Value;

use crate::exit::CommandError;

/// Output format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people; may change.
    #[default]
    Table,
    /// A table with all columns.
    Wide,
    /// For programs; fields are only added. Bytes are base64.
    Json,
}

impl Output {
    /// Tells whether arguments ask for JSON, even where the rest of them is invalid.
    pub(crate) fn is_json_asked(args: impl Iterator<Item = OsString>) -> bool {
        let is_whole = |arg: &OsString| arg == "-ojson" || arg == "-o=json" || arg == "--output=json";
        let mut args = args.skip_while(|arg| arg != "-o" && arg != "--output" && !is_whole(arg));
        args.next().is_some_and(|arg| is_whole(&arg)) || args.next().is_some_and(|form| form == "json")
    }
}

/// Returns a number of things in words, such as "1 tenant" or "2 tenants".
pub(crate) fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// Table of one kind of object, printed as text or as JSON.
pub(crate) struct OutputTable {
    /// Names of the columns.
    columns: &'static [&'static str],
    /// Number of columns in the short table.
    columns_short: usize,
    rows: Vec<(Vec<String>, Value)>,
}

impl OutputTable {
    pub(crate) fn new(columns: &'static [&'static str], columns_short: usize) -> Self {
        Self {
            columns,
            columns_short,
            rows: Vec::new(),
        }
    }

    pub(crate) fn push(&mut self, cells: Vec<String>, json: Value) {
        debug_assert_eq!(cells.len(), self.columns.len(), "one cell a column");
        self.rows.push((cells, json));
    }

    /// Prints all rows; as JSON, an array.
    pub(crate) fn print(self, output: Output) -> Result<(), CommandError> {
        if output == Output::Json {
            return json(&Value::Array(self.rows.into_iter().map(|(_, json)| json).collect()));
        }
        line(&self.text(output))
    }

    /// Prints the only row; as JSON, an object.
    pub(crate) fn print_one(mut self, output: Output) -> Result<(), CommandError> {
        match (output, self.rows.pop()) {
            (Output::Json, Some((_, value))) => json(&value),
            (Output::Json, None) => json(&Value::Null),
            (Output::Table | Output::Wide, row) => {
                self.rows.extend(row);
                line(&self.text(output))
            }
        }
    }

    fn text(&self, output: Output) -> String {
        let columns = if output == Output::Wide {
            self.columns.len()
        } else {
            self.columns_short
        };
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(&self.columns[..columns]);
        for (cells, _) in &self.rows {
            table.add_row(&cells[..columns]);
        }
        let lines = table.to_string();
        let trimmed: Vec<&str> = lines.lines().map(str::trim_end).collect();
        trimmed.join("\n")
    }
}

/// Prints a line to standard output. A closed reader, such as `head`, is no error.
pub(crate) fn line(text: &str) -> Result<(), CommandError> {
    bytes(format!("{text}\n").as_bytes())
}

/// Prints bytes as they are.
pub(crate) fn bytes(bytes: &[u8]) -> Result<(), CommandError> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(Into::into),
    }
}

/// Prints a value as JSON.
pub(crate) fn json(value: &Value) -> Result<(), CommandError> {
    line(&serde_json::to_string_pretty(value).expect("values have text keys"))
}

/// Returns bytes in the form that JSON output uses.
pub(crate) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Formats bytes for people: text as it is, the rest escaped, cut at `len_max` characters.
pub(crate) fn display_bytes(bytes: &[u8], len_max: usize) -> String {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        Ok(_) | Err(_) => bytes.escape_ascii().to_string(),
    };
    match text.char_indices().nth(len_max) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

/// Formats a duration for people.
pub(crate) fn duration(duration: Duration) -> String {
    let millis = duration.as_secs_f64() * 1e3;
    match millis {
        0.0..10.0 => format!("{millis:.1} ms"),
        10.0..10_000.0 => format!("{millis:.0} ms"),
        _ => format!("{:.1} s", millis / 1e3),
    }
}

/// Joins items with commas.
pub(crate) fn list<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// Formats a size for people.
pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        0..10_240 => format!("{bytes} B"),
        10_240..10_485_760 => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes >> 20),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binary_is_escaped_and_long_text_cut() {
        assert_eq!(display_bytes("zürich".as_bytes(), 60), "zürich");
        assert_eq!(display_bytes(b"a\0\xff", 60), "a\\x00\\xff");
        assert_eq!(display_bytes("zürich".as_bytes(), 2), "zü…");
    }

    #[test]
    fn short_table_omits_last_columns() {
        let mut table = OutputTable::new(&["NAME", "HOME", "ETAG"], 2);
        table.push(vec!["acme".into(), "eu-west".into(), "7".into()], Value::Null);
        assert!(!table.text(Output::Table).contains("ETAG"));
        assert!(table.text(Output::Wide).contains("ETAG"));
    }
}
