//! Output: a table for people, JSON for programs. Data goes to standard output, the rest does not.

use std::{ffi::OsString, io::Write, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use clap::ValueEnum;
use comfy_table::{ColumnConstraint, Table, Width, presets};
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
        let mut table = self.table(output);
        table.set_header(&self.columns[..self.columns_shown(output)]);
        trimmed(&table)
    }

    fn table(&self, output: Output) -> Table {
        let columns = self.columns_shown(output);
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        for (cells, _) in &self.rows {
            table.add_row(&cells[..columns]);
        }
        table
    }

    fn columns_shown(&self, output: Output) -> usize {
        match output {
            Output::Wide => self.columns.len(),
            Output::Table | Output::Json => self.columns_short,
        }
    }
}

fn trimmed(table: &Table) -> String {
    let lines = table.to_string();
    let trimmed: Vec<&str> = lines.lines().map(str::trim_end).collect();
    trimmed.join("\n")
}

/// Rows that are printed page by page, so that memory does not grow with their number: as JSON one array, as text one table
/// whose columns get wider where a page needs it.
pub(crate) struct RowStream {
    output: Output,
    has_begun: bool,
    /// Widths of the columns, padding included.
    widths: Vec<u16>,
}

/// Padding of a column.
const PADDING: u16 = 2;

impl RowStream {
    pub(crate) fn new(output: Output) -> Self {
        Self {
            output,
            has_begun: false,
            widths: Vec::new(),
        }
    }

    /// Prints the rows of a page. Returns false if nobody reads them any more.
    pub(crate) fn print(&mut self, page: &OutputTable) -> Result<bool, CommandError> {
        let text = self.page(page);
        write(text.as_bytes())
    }

    /// Prints the end, after the last page.
    pub(crate) fn finish(self) -> Result<(), CommandError> {
        match (self.output, self.has_begun) {
            (Output::Json, true) => bytes(b"\n]\n"),
            (Output::Json, false) => bytes(b"[]\n"),
            (Output::Table | Output::Wide, _) => Ok(()),
        }
    }

    fn page(&mut self, page: &OutputTable) -> String {
        match self.output {
            Output::Json => self.json_page(page),
            Output::Table | Output::Wide => self.text_page(page),
        }
    }

    fn json_page(&mut self, page: &OutputTable) -> String {
        let mut text = String::new();
        for (_, row) in &page.rows {
            text.push_str(if self.has_begun { ",\n" } else { "[\n" });
            self.has_begun = true;
            let row = serde_json::to_string_pretty(row).expect("values have text keys");
            let lines: Vec<String> = row.lines().map(|line| format!("  {line}")).collect();
            text.push_str(&lines.join("\n"));
        }
        text
    }

    fn text_page(&mut self, page: &OutputTable) -> String {
        if self.has_begun && page.rows.is_empty() {
            return String::new();
        }
        let mut table = page.table(self.output);
        if !self.has_begun {
            table.set_header(&page.columns[..page.columns_shown(self.output)]);
            self.has_begun = true;
        }
        let needed = table.column_max_content_widths();
        self.widths.resize(needed.len(), 0);
        for (width, needed) in self.widths.iter_mut().zip(needed) {
            *width = (*width).max(needed.saturating_add(PADDING));
        }
        for (column, width) in table.column_iter_mut().zip(&self.widths) {
            column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(*width)));
        }
        format!("{}\n", trimmed(&table))
    }
}

/// Prints a line to standard output. A closed reader, such as `head`, is no error.
pub(crate) fn line(text: &str) -> Result<(), CommandError> {
    bytes(format!("{text}\n").as_bytes())
}

/// Prints bytes as they are.
pub(crate) fn bytes(bytes: &[u8]) -> Result<(), CommandError> {
    write(bytes).map(drop)
}

/// Prints bytes. Returns false if the reader is closed.
fn write(bytes: &[u8]) -> Result<bool, CommandError> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        written => written.map(|()| true).map_err(Into::into),
    }
}

/// Prints a value as JSON.
pub(crate) fn json(value: &Value) -> Result<(), CommandError> {
    line(&serde_json::to_string_pretty(value).expect("values have text keys"))
}

/// Returns bytes in hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
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

    fn keys(names: &[&str]) -> OutputTable {
        let mut table = OutputTable::new(&["KEY", "VALUE"], 2);
        for name in names {
            table.push(vec![(*name).into(), "1".into()], serde_json::json!({ "key": name }));
        }
        table
    }

    #[test]
    fn pages_are_one_json_array() {
        let printed = |pages: &[&[&str]]| {
            let mut stream = RowStream::new(Output::Json);
            let text: String = pages.iter().map(|page| stream.page(&keys(page))).collect();
            let end = if stream.has_begun { "\n]\n" } else { "[]\n" };
            text + end
        };
        let one_piece = |names: &[&str]| {
            let rows = keys(names).rows.into_iter().map(|(_, row)| row).collect();
            format!("{}\n", serde_json::to_string_pretty(&Value::Array(rows)).unwrap())
        };
        assert_eq!(printed(&[&["a", "b"], &[], &["c"]]), one_piece(&["a", "b", "c"]));
        assert_eq!(printed(&[&[]]), one_piece(&[]));
    }

    #[test]
    fn pages_are_one_table_with_one_header() {
        let mut stream = RowStream::new(Output::Table);
        assert_eq!(
            stream.page(&keys(&["a"])),
            format!("{}\n", keys(&["a"]).text(Output::Table))
        );
        let wide = stream.page(&keys(&["a-long-key"]));
        assert!(!wide.contains("KEY"), "{wide}");
        let column = |page: &str| page.find('1').unwrap();
        assert_eq!(column(&stream.page(&keys(&["b"]))), column(&wide));
        assert_eq!(stream.page(&keys(&[])), "");
    }

    #[test]
    fn short_table_omits_last_columns() {
        let mut table = OutputTable::new(&["NAME", "HOME", "ETAG"], 2);
        table.push(vec!["acme".into(), "eu-west".into(), "7".into()], Value::Null);
        assert!(!table.text(Output::Table).contains("ETAG"));
        assert!(table.text(Output::Wide).contains("ETAG"));
    }
}
