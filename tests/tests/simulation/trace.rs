//! Hash over everything that a simulation does: each message that is sent, with its bytes, and received, each step of
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

/// Subscriber that hashes events, and writes them to a file if there is one. Clones share their state.
#[derive(Clone)]
pub(crate) struct Trace(Arc<Mutex<Inner>>);

struct Inner {
    hash: Xxh3,
    events: u64,
    line: String,
    file: Option<BufWriter<File>>,
    errors: Vec<String>,
    nodes: HashMap<u64, String>,
    /// Ids of entered spans, innermost last.
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

    /// Returns the events that were logged as errors, without those of excused nodes.
    pub(crate) fn errors(&self, excused: &[String]) -> Vec<String> {
        let excused: Vec<String> = excused.iter().map(|node| format!(" name={node:?}")).collect();
        let inner = self.0.lock().unwrap();
        let is_excused = |line: &&String| excused.iter().any(|node| line.starts_with(node));
        inner.errors.iter().filter(|line| !is_excused(line)).cloned().collect()
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
            attributes.record(&mut FieldWriter(&mut name, ""));
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
        let mut detector = DeliveryDetector::default();
        event.record(&mut detector);
        // A delivered message was hashed with the same bytes when it was sent.
        let without = if detector.is_delivery { "protocol" } else { "" };
        event.record(&mut FieldWriter(&mut inner.line, without));
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

/// Visitor that writes an event's fields, without the one of this name.
struct FieldWriter<'a>(&'a mut String, &'static str);

/// Visitor that detects turmoil's event for a delivered message.
#[derive(Default)]
struct DeliveryDetector {
    is_delivery: bool,
}

impl Visit for DeliveryDetector {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.is_delivery = format!("{value:?}") == "Delivered";
        }
    }
}

impl Visit for FieldWriter<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == self.1 {
            return;
        }
        write!(self.0, " {}={value:?}", field.name()).unwrap();
    }
}
