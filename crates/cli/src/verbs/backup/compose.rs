//! Keys of a tenant at a revision, composed of a chain: all keys and the sorted runs of changes are merged, so that memory
//! does not grow with the tenant.

use std::{
    collections::VecDeque,
    io::{self, BufRead, BufReader, Read},
};

use bytes::Bytes;
use serde_json::{Map, Value};
use stead_client::Revision;
use stead_types::TenantTime;

use super::{
    chain::{Chain, Point},
    change,
    files::{Part, Source},
    parts::ContentDigest,
};
use crate::exit::CommandError;

/// Keys as lines of an export, in their order.
pub(super) struct Composition {
    cursors: Vec<Cursor>,
    at: Point,
    /// Tenant time of the lines with all keys, if their times to live have to be shortened to that of `at`.
    root_time: Option<TenantTime>,
}

/// Counts and digest of a composition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Summary {
    /// Bytes of all lines.
    pub(super) bytes: u64,
    pub(super) keys: u64,
    /// Number and digest of keys without a time to live.
    pub(super) lasting_keys: u64,
    pub(super) content: String,
}

/// One key.
struct Row {
    key: Bytes,
    value: Bytes,
    expires: bool,
    line: Vec<u8>,
}

/// Sorted lines that are read one after the other.
struct Cursor {
    source: Source,
    parts: VecDeque<Part>,
    /// Part that is read, for errors.
    part: Option<Part>,
    lines: Box<dyn BufRead + Send>,
    has_changes: bool,
    entry: Option<Entry>,
}

/// Line of a cursor.
struct Entry {
    key: Bytes,
    /// Revision of a change; `None`: the line is of all keys, and older than any change.
    revision: Option<Revision>,
    body: Body,
}

enum Body {
    /// Line of all keys.
    Key(Map<String, Value>, Vec<u8>),
    Change(change::Change),
}

impl Composition {
    /// Opens all files of a chain.
    pub(super) fn open(chain: &Chain, at: Point) -> Result<Self, CommandError> {
        let root = chain.root();
        let mut cursors = vec![Cursor::open(&root.source, root.backup.parts.clone().into(), false)?];
        for link in &chain.links[1..] {
            for part in &link.backup.parts {
                cursors.push(Cursor::open(&link.source, VecDeque::from([part.clone()]), true)?);
            }
        }
        Ok(Self {
            cursors,
            at,
            root_time: root.backup.time.map(TenantTime),
        })
    }

    /// Reads everything, and digests it.
    pub(super) fn summarize(mut self) -> Result<Summary, CommandError> {
        let (mut bytes, mut keys, mut content) = (0, 0, ContentDigest::default());
        while let Some(row) = self.next()? {
            bytes += row.line.len() as u64;
            keys += 1;
            content.push(&row.key, &row.value, row.expires);
        }
        let (lasting_keys, content) = content.finish();
        Ok(Summary {
            bytes,
            keys,
            lasting_keys,
            content,
        })
    }

    /// Returns a reader of the lines after the first `skip` bytes.
    pub(super) fn lines(self, skip: u64) -> io::Result<Box<dyn BufRead>> {
        let lines = Lines {
            rows: self,
            line: Vec::new(),
            offset: 0,
        };
        let mut reader = BufReader::with_capacity(1 << 20, lines);
        io::copy(&mut (&mut reader).take(skip), &mut io::sink())?;
        Ok(Box::new(reader))
    }

    /// Returns the next key that exists.
    fn next(&mut self) -> Result<Option<Row>, CommandError> {
        loop {
            let keys = self.cursors.iter().filter_map(|cursor| cursor.entry.as_ref());
            let Some(key) = keys.map(|entry| &entry.key).min().cloned() else {
                return Ok(None);
            };
            let mut newest: Option<Entry> = None;
            for cursor in &mut self.cursors {
                while let Some(entry) = cursor.take(&key)? {
                    let is_kept = entry.revision.is_none_or(|revision| revision <= self.at.revision);
                    let is_newer = newest.as_ref().is_none_or(|newest| newest.revision <= entry.revision);
                    if is_kept && is_newer {
                        newest = Some(entry);
                    }
                }
            }
            let row = newest.map(|entry| self.row(key, entry.body));
            if let Some(row) = row.transpose().map_err(damaged)?.flatten() {
                return Ok(Some(row));
            }
        }
    }

    /// Returns the line of a key; `None`: it was deleted.
    fn row(&self, key: Bytes, body: Body) -> Result<Option<Row>, String> {
        let (mut object, line, value) = match body {
            Body::Change(change::Change { after: None, .. }) => return Ok(None),
            Body::Change(change::Change { after: Some(put), .. }) => {
                let mut object = Map::new();
                change::put_bytes(&mut object, "key", &key);
                change::put_bytes(&mut object, "value", &put.value);
                if let Some(expires) = put.expires {
                    let now = self.at.time.unwrap_or_default();
                    object.insert(TTL.to_owned(), expires.0.saturating_sub(now.0).max(1).into());
                }
                (object, None, put.value)
            }
            Body::Key(object, line) => {
                let value = change::bytes(&object, "value")?;
                (object, Some(line), value)
            }
        };
        let ttl = object.get(TTL).and_then(Value::as_u64);
        let line = match (line, ttl, self.passed()) {
            (Some(line), Some(ttl), passed @ 1..) => {
                object.insert(TTL.to_owned(), ttl.saturating_sub(passed).max(1).into());
                drop(line);
                None
            }
            (line, _, _) => line,
        };
        Ok(Some(Row {
            key,
            value,
            expires: ttl.is_some(),
            line: line.unwrap_or_else(|| format!("{}\n", Value::Object(object)).into_bytes()),
        }))
    }

    /// Returns the milliseconds between the lines with all keys and the point.
    fn passed(&self) -> u64 {
        match (self.root_time, self.at.time) {
            (Some(root), Some(at)) => at.0.saturating_sub(root.0),
            (_, _) => 0,
        }
    }
}

/// Field with the time to live.
const TTL: &str = "ttl_ms";

fn damaged(what: String) -> CommandError {
    CommandError::new(crate::exit::Code::Failed, what)
}

impl Cursor {
    fn open(source: &Source, parts: VecDeque<Part>, has_changes: bool) -> Result<Self, CommandError> {
        let mut cursor = Self {
            source: source.clone(),
            parts,
            part: None,
            lines: Box::new(io::empty()),
            has_changes,
            entry: None,
        };
        cursor.advance()?;
        Ok(cursor)
    }

    /// Takes the entry if it is of this key.
    fn take(&mut self, key: &Bytes) -> Result<Option<Entry>, CommandError> {
        if self.entry.as_ref().is_none_or(|entry| entry.key != key) {
            return Ok(None);
        }
        let entry = self.entry.take();
        self.advance()?;
        Ok(entry)
    }

    fn advance(&mut self) -> Result<(), CommandError> {
        let mut line = Vec::new();
        loop {
            let read = self.lines.read_until(b'\n', &mut line);
            if read.map_err(|error| self.failed(&error))? > 0 {
                let entry = self.entry_of(line);
                self.entry = Some(entry.map_err(|what| self.failed(&io::Error::other(what)))?);
                return Ok(());
            }
            let Some(part) = self.parts.pop_front() else {
                return Ok(());
            };
            self.lines = self.source.open(&part)?;
            self.part = Some(part);
        }
    }

    fn entry_of(&self, line: Vec<u8>) -> Result<Entry, String> {
        if self.has_changes {
            let change = change::parse(&line)?;
            return Ok(Entry {
                key: change.key.clone(),
                revision: Some(change.revision),
                body: Body::Change(change),
            });
        }
        let object: Map<String, Value> =
            serde_json::from_slice(&line).map_err(|error| format!("a line is no JSON object: {error}"))?;
        Ok(Entry {
            key: change::bytes(&object, "key")?,
            revision: None,
            body: Body::Key(object, line),
        })
    }

    fn failed(&self, error: &io::Error) -> CommandError {
        match &self.part {
            Some(part) => self.source.failed(part, error),
            None => CommandError::new(crate::exit::Code::Failed, error.to_string()),
        }
    }
}

/// Reader of the lines.
struct Lines {
    rows: Composition,
    line: Vec<u8>,
    offset: usize,
}

impl Read for Lines {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.offset == self.line.len() {
            let row = self
                .rows
                .next()
                .map_err(|error| io::Error::other(error.text().to_owned()))?;
            self.line = row.map(|row| row.line).unwrap_or_default();
            self.offset = 0;
        }
        let rest = &self.line[self.offset..];
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        self.offset += len;
        Ok(len)
    }
}
