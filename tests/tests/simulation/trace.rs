//! A hash over everything that a simulation does: each message that is sent and received with its bytes, each step of
//! the clock, each event that the server logs.

use std::{
    collections::HashMap,
    fmt::{self, Write as _},
    fs::File,
    io::{BufWriter, Write as _},
    sync::{Arc, Mutex},
};

use tracing::{
    Event, Id, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Record},
    subscriber::Interest,
};
use xxhash_rust::xxh3::Xxh3;

/// Hashes events; write them out as well if there is a file. Clones share it.
#[derive(Clone)]
pub(crate) struct Trace(Arc<Mutex<Inner>>);

struct Inner {
    hash: Xxh3,
    events: u64,
    line: String,
    file: Option<BufWriter<File>>,
    errors: Vec<String>,
    nodes: HashMap<u64, String>,
    /// Of entered spans, innermost last.
    entered: Vec<u64>,
    spans: u64,
}

impl Trace {
    pub(crate) fn new(file: Option<&str>) -> Self {
        let file = file.map(|path| BufWriter::new(File::create(path).unwrap()));
        Self(Arc::new(Mutex::new(Inner {
            hash: Xxh3::new(),
            events: 0,
            line: String::new(),
            file,
            errors: Vec::new(),
            nodes: HashMap::new(),
            entered: Vec::new(),
            spans: 0,
        })))
    }

    /// Returns what was logged as an error.
    pub(crate) fn errors(&self) -> Vec<String> {
        self.0.lock().unwrap().errors.clone()
    }

    /// Returns the hash of all events, and how many there were.
    pub(crate) fn digest(&self) -> (u64, u64) {
        let mut inner = self.0.lock().unwrap();
        if let Some(file) = &mut inner.file {
            file.flush().unwrap();
        }
        (inner.hash.digest(), inner.events)
    }
}

impl Subscriber for Trace {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.enabled(metadata) {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let target = metadata.target();
        let level = if target.starts_with("turmoil") {
            Level::TRACE
        } else if target.starts_with("stead") || target.starts_with("simulation") {
            Level::DEBUG
        } else {
            Level::INFO
        };
        *metadata.level() <= level
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut inner = self.0.lock().unwrap();
        inner.spans += 1;
        let id = inner.spans;
        if attributes.metadata().name() == "node" {
            let mut name = String::new();
            attributes.record(&mut Line(&mut name));
            inner.nodes.insert(id, name);
        }
        Id::from_u64(id)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut inner = self.0.lock().unwrap();
        let inner = &mut *inner;
        inner.line.clear();
        let node = inner.entered.iter().rev().find_map(|id| inner.nodes.get(id));
        let metadata = event.metadata();
        write!(
            inner.line,
            "{}{} {}",
            node.map_or("", String::as_str),
            metadata.level(),
            metadata.target()
        )
        .unwrap();
        event.record(&mut Line(&mut inner.line));
        inner.line.push('\n');
        inner.hash.update(inner.line.as_bytes());
        inner.events += 1;
        if *metadata.level() == Level::ERROR {
            inner.errors.push(inner.line.clone());
        }
        if let Some(file) = &mut inner.file {
            file.write_all(inner.line.as_bytes()).unwrap();
        }
    }

    fn enter(&self, id: &Id) {
        self.0.lock().unwrap().entered.push(id.into_u64());
    }

    fn exit(&self, id: &Id) {
        let mut inner = self.0.lock().unwrap();
        let position = inner.entered.iter().rposition(|entered| *entered == id.into_u64());
        position.map(|position| inner.entered.remove(position));
    }

    fn try_close(&self, id: Id) -> bool {
        self.0.lock().unwrap().nodes.remove(&id.into_u64());
        true
    }
}

struct Line<'a>(&'a mut String);

impl Visit for Line<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        write!(self.0, " {}={value:?}", field.name()).unwrap();
    }
}
