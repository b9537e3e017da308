//! Records of a CSV or JSON lines file, one by one in bounded memory.
//!
//! # Invariants
//!
//! 1. A record that cannot be read costs its first line only: reading goes on with the line after it, so that a missing
//!    quote swallows nothing.
//! 2. At most [`RECORD_LEN_MAX`] bytes and a line are held, however the file looks.

use std::{
    collections::VecDeque,
    io::{self, BufRead, Read},
};

use csv_core::ReadRecordResult;
use stead_types::limits::VALUE_LEN_MAX;

/// Most bytes of a record: a value of the largest size whose every byte is escaped, and a key.
pub(super) const RECORD_LEN_MAX: usize = 8 * VALUE_LEN_MAX;
/// Most lines of a CSV record, whose quoted fields may hold line breaks.
const RECORD_LINES_MAX: usize = 10_000;

/// Most columns of a CSV file.
const COLUMNS_MAX: usize = 4_096;
/// Bytes with which some programs begin a UTF-8 file.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Place in the input from which reading can begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Position {
    /// Bytes before it.
    pub(super) offset: u64,
    /// Lines before it.
    pub(super) line: u64,
    /// Records before it, rejected ones among them.
    pub(super) record: u64,
}

/// Record as it stands in the input.
#[derive(Debug)]
pub(super) struct Record {
    /// Place at which it begins.
    pub(super) position: Position,
    /// Its bytes, without the line break at the end.
    pub(super) raw: Vec<u8>,
    /// Its fields; for JSON lines the whole record is the only one. Or why it cannot be read.
    pub(super) fields: Result<Vec<Vec<u8>>, String>,
}

/// Format of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Comma-separated values with so many columns.
    Csv {
        /// Fields of every record.
        columns: usize,
        /// Separator of fields.
        delimiter: u8,
    },
    /// One JSON object a line.
    JsonLines,
}

/// Reader of records.
pub(super) struct Records<R> {
    input: R,
    shape: Shape,
    position: Position,
    /// Lines that were read and not yet used, in order.
    lines: VecDeque<Line>,
}

/// Line with its line break, if it has one.
struct Line {
    bytes: Vec<u8>,
    /// Length in the input: more than `bytes` where it is too long.
    len: u64,
}

impl<R: BufRead> Records<R> {
    /// Reads from `position`, at which `input` stands already.
    pub(super) fn new(input: R, shape: Shape, position: Position) -> Self {
        Self {
            input,
            shape,
            position,
            lines: VecDeque::new(),
        }
    }

    /// Goes on at another place, at which `input` stands already.
    pub(super) fn restart(&mut self, input: R, position: Position) {
        self.input = input;
        self.position = position;
        self.lines.clear();
    }

    /// Returns the place after the last record that was returned.
    pub(super) fn position(&self) -> Position {
        self.position
    }

    /// Returns the next record; `None` at the end.
    ///
    /// # Errors
    ///
    /// The input cannot be read.
    pub(super) fn next(&mut self) -> io::Result<Option<Record>> {
        loop {
            if !self.fill(1)? {
                return Ok(None);
            }
            let is_blank = self.lines[0].bytes.iter().all(u8::is_ascii_whitespace);
            if !is_blank || self.lines[0].len > self.lines[0].bytes.len() as u64 {
                return self.read().map(Some);
            }
            self.take(1);
        }
    }

    fn read(&mut self) -> io::Result<Record> {
        let position = self.position;
        let parsed = match self.shape {
            _ if self.is_too_long(1) => Err(too_long()),
            Shape::Csv { columns, delimiter } => self
                .csv(columns, delimiter)?
                .and_then(|parsed| with_count(parsed, columns)),
            Shape::JsonLines => Ok((1, vec![without_break(&self.lines[0].bytes).to_vec()])),
        };
        let (lines, fields) = match parsed {
            Ok((lines, fields)) => (lines, Ok(fields)),
            Err(reason) => (1, Err(reason)),
        };
        let mut raw = Vec::new();
        self.lines
            .iter()
            .take(lines)
            .for_each(|line| raw.extend_from_slice(&line.bytes));
        raw.truncate(without_break(&raw).len());
        self.take(lines);
        self.position.record += 1;
        Ok(Record { position, raw, fields })
    }

    /// Reads the names of a CSV file's columns, its first record, and expects so many fields from then on.
    ///
    /// # Errors
    ///
    /// The input cannot be read; or, within, why the first record is none.
    pub(super) fn header(&mut self, delimiter: u8) -> io::Result<Result<Vec<Vec<u8>>, String>> {
        if !self.fill(1)? {
            return Ok(Err("the file is empty".to_owned()));
        }
        let parsed = match self.is_too_long(1) {
            true => Err(too_long()),
            false => self.csv(COLUMNS_MAX, delimiter)?,
        };
        Ok(parsed.map(|(lines, mut names)| {
            self.take(lines);
            if let Some(name) = names[0].strip_prefix(BYTE_ORDER_MARK) {
                names[0] = name.to_vec();
            }
            let columns = names.len();
            self.shape = Shape::Csv { columns, delimiter };
            names
        }))
    }

    /// Parses one CSV record; returns the number of its lines and its fields, or why it is none.
    fn csv(&mut self, columns: usize, delimiter: u8) -> io::Result<Result<Parsed, String>> {
        let mut parser = csv_core::ReaderBuilder::new().delimiter(delimiter).build();
        let mut output = vec![0; self.lines[0].bytes.len() + 1];
        let (mut written, mut ends, mut ended) = (0, vec![0; columns + 2], 0);
        let mut lines = 0;
        loop {
            let is_more = lines < RECORD_LINES_MAX && self.fill(lines + 1)?;
            if lines > 0 && self.is_too_long(lines + usize::from(is_more)) {
                return Ok(Err(too_long()));
            }
            // The last line may have no line break; one within quotes shows that they do not end.
            let line: &[u8] = if is_more { &self.lines[lines].bytes } else { b"\n" };
            output.resize(output.len().max(written + line.len() + 1), 0);
            let (result, _, out, end) = parser.read_record(line, &mut output[written..], &mut ends[ended..]);
            (written, ended) = (written + out, ended + end);
            lines += usize::from(is_more);
            match result {
                ReadRecordResult::InputEmpty if is_more => {}
                ReadRecordResult::Record => break,
                ReadRecordResult::OutputEndsFull => {
                    return Ok(Err(format!("it has more than {columns} fields, as the first line has")));
                }
                ReadRecordResult::InputEmpty | ReadRecordResult::OutputFull | ReadRecordResult::End => {
                    return Ok(Err(
                        "a quoted field does not end: a quote is missing, or stands within a field".to_owned(),
                    ));
                }
            }
        }
        let mut start = 0;
        let fields = ends[..ended].iter().map(|end| {
            let field = output[start..*end].to_vec();
            start = *end;
            field
        });
        Ok(Ok((lines, fields.collect())))
    }

    fn is_too_long(&self, lines: usize) -> bool {
        let len: u64 = self.lines.iter().take(lines).map(|line| line.len).sum();
        len > RECORD_LEN_MAX as u64
    }

    /// Reads lines until there are so many; returns whether there are.
    fn fill(&mut self, count: usize) -> io::Result<bool> {
        while self.lines.len() < count {
            let mut bytes = Vec::new();
            let bound = RECORD_LEN_MAX as u64 + 1;
            let mut len = (&mut self.input).take(bound).read_until(b'\n', &mut bytes)? as u64;
            if len == 0 {
                return Ok(false);
            }
            while !bytes.ends_with(b"\n") && len >= bound {
                // The rest of a line that no record can have is passed over.
                let mut rest = Vec::new();
                let more = (&mut self.input).take(bound).read_until(b'\n', &mut rest)? as u64;
                len += more;
                if more < bound || rest.ends_with(b"\n") {
                    break;
                }
            }
            self.lines.push_back(Line { bytes, len });
        }
        Ok(true)
    }

    fn take(&mut self, lines: usize) {
        for line in self.lines.drain(..lines) {
            self.position.offset += line.len;
            self.position.line += 1;
        }
    }
}

/// Lines and fields of a record.
type Parsed = (usize, Vec<Vec<u8>>);

fn with_count(parsed: Parsed, columns: usize) -> Result<Parsed, String> {
    match parsed.1.len() {
        count if count == columns => Ok(parsed),
        count => Err(format!("it has {count} fields, and the first line has {columns}")),
    }
}

fn too_long() -> String {
    format!("it is longer than {RECORD_LEN_MAX} bytes")
}

fn without_break(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CSV: Shape = Shape::Csv {
        columns: 2,
        delimiter: b',',
    };

    /// Returns each record as "line: fields", or "line: !reason".
    fn read(input: &[u8], shape: Shape) -> Vec<String> {
        let mut records = Records::new(input, shape, Position::default());
        let mut read = Vec::new();
        while let Some(record) = records.next().unwrap() {
            let fields = match &record.fields {
                Ok(fields) => {
                    let fields: Vec<_> = fields.iter().map(|field| String::from_utf8_lossy(field)).collect();
                    fields.join("|")
                }
                Err(reason) => format!("!{reason}"),
            };
            read.push(format!("{}: {fields}", record.position.line + 1));
        }
        assert_eq!(records.position().offset, input.len() as u64, "everything is passed");
        read
    }

    #[test]
    fn csv_records_have_fields_quotes_and_line_breaks() {
        let input = b"a,1\r\n\"b\nb\",\"2 \"\"two\"\"\"\n\n\"c,c\",3";
        assert_eq!(read(input, CSV), ["1: a|1", "2: b\nb|2 \"two\"", "5: c,c|3"]);
    }

    #[test]
    fn header_gives_columns_without_byte_order_mark() {
        let mut records = Records::new(&b"\xef\xbb\xbfid,name\n1,2\n3\n"[..], CSV, Position::default());
        assert_eq!(
            records.header(b',').unwrap().unwrap(),
            [b"id".to_vec(), b"name".to_vec()]
        );
        assert_eq!(records.position().record, 0, "the header is no record");
        assert!(records.next().unwrap().unwrap().fields.is_ok());
        assert!(records.next().unwrap().unwrap().fields.is_err());
        assert!(
            Records::new(&b""[..], CSV, Position::default())
                .header(b',')
                .unwrap()
                .is_err()
        );
    }

    #[test]
    fn broken_record_costs_its_first_line_only() {
        let missing = read(b"a,1\nb,\"2\nc,3\nd,4\n", CSV);
        assert_eq!(missing[0], "1: a|1");
        assert!(missing[1].starts_with("2: !a quoted field does not end"), "{missing:?}");
        assert_eq!(missing[2..], ["3: c|3", "4: d|4"]);
        assert!(read(b"a,1\nb,\"2", CSV)[1].starts_with("2: !a quoted field"));
        let count = read(b"a\nb,2,3\nc,3\n", CSV);
        assert!(count[0].starts_with("1: !it has 1 fields"), "{count:?}");
        assert!(count[1].starts_with("2: !it has 3 fields"), "{count:?}");
        assert_eq!(count[2], "3: c|3");
    }

    #[test]
    fn line_without_end_is_passed_over_in_bounded_memory() {
        let mut input = b"a,1\n".to_vec();
        input.resize(3 * RECORD_LEN_MAX, b'x');
        input.extend_from_slice(b"\nb,2\n");
        for shape in [CSV, Shape::JsonLines] {
            let read = read(&input, shape);
            assert_eq!(read.len(), 3, "{shape:?}");
            assert!(read[1].contains("it is longer than"), "{}", read[1]);
        }
    }

    #[test]
    fn reading_goes_on_from_a_position() {
        let input = b"a,1\n\"b\nb\",2\nc,3\n";
        let mut records = Records::new(&input[..], CSV, Position::default());
        records.next().unwrap();
        records.next().unwrap();
        let position = records.position();
        let wanted = Position {
            offset: 12,
            line: 3,
            record: 2,
        };
        assert_eq!(position, wanted);
        let mut rest = Records::new(&input[12..], CSV, position);
        assert_eq!(rest.next().unwrap().unwrap().fields.unwrap(), [b"c", b"3"]);
    }

    #[test]
    fn raw_record_is_the_line_as_it_stands() {
        let mut records = Records::new(&b"\"a\", 1\r\n"[..], CSV, Position::default());
        assert_eq!(records.next().unwrap().unwrap().raw, b"\"a\", 1");
    }
}
