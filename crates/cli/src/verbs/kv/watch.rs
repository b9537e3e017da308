//! `stead kv watch`: a JSON object a line, until it is ended.

use std::{ffi::OsString, io::Write, os::unix::ffi::OsStringExt};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use stead_client::{Event, EventKind, Header, KeyRange, Revision, Told, WatchFrom};

use super::read;
use crate::{args::Target, context, exit::Failure, output};

#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// Whose keys
    tenant: String,
    /// Only keys that begin with this; several prefixes and keys can be named
    #[arg(long)]
    prefix: Vec<OsString>,
    /// Only this key
    #[arg(long)]
    key: Vec<OsString>,
    /// Begin behind this revision, such as 1.42; 0.0: with all that history has
    #[arg(long, group = "from")]
    after: Option<Revision>,
    /// Begin behind what the token of an earlier line, or of another answer, has seen
    #[arg(long, group = "from")]
    token: Option<String>,
    /// Begin with all keys as they are
    #[arg(long, group = "from")]
    state: bool,
    /// Show keys as they were before, too
    #[arg(long)]
    previous: bool,
    /// Leave out such events
    #[arg(long, value_enum)]
    exclude: Vec<Kind>,
    /// Say now and then that nothing has happened
    #[arg(long)]
    progress: bool,
    /// End after so many events
    #[arg(long)]
    limit: Option<usize>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Put,
    Delete,
    Expire,
}

impl Watch {
    pub(super) async fn run(self, target: &Target) -> Result<(), Failure> {
        let tenant = context::connect(target).await?.tenant(&self.tenant)?;
        let from = match (self.after, &self.token, self.state) {
            (Some(after), _, _) => WatchFrom::After(after),
            (None, Some(token), _) => WatchFrom::Token(read::parse(token)?),
            (None, None, true) => WatchFrom::State,
            (None, None, false) => WatchFrom::Now,
        };
        let prefixes = self
            .prefix
            .into_iter()
            .map(|prefix| KeyRange::prefix(prefix.into_vec()));
        let keys = self.key.into_iter().map(|key| KeyRange::key(key.into_vec()));
        let exclude = self.exclude.iter().map(|kind| match kind {
            Kind::Put => EventKind::Put,
            Kind::Delete => EventKind::Delete,
            Kind::Expire => EventKind::Expire,
        });
        let watch = stead_client::Watch {
            ranges: prefixes.chain(keys).collect(),
            from,
            previous: self.previous,
            exclude: exclude.collect(),
        };
        let mut watcher = tenant.watch(watch).await?;
        let mut left = self.limit.unwrap_or(usize::MAX);
        while left > 0 {
            let told = watcher.next().await?;
            let lines = lines(&told, watcher.header(), self.progress);
            let events = lines.iter().filter(|line| is_event(line)).count();
            for shown in lines.iter().take(left) {
                if !line(shown)? {
                    return Ok(());
                }
            }
            left = left.saturating_sub(events);
        }
        Ok(())
    }
}

fn lines(told: &Told, header: Option<&Header>, with_progress: bool) -> Vec<Value> {
    match told {
        Told::State { items, is_last, .. } => {
            let state = items
                .iter()
                .map(|item| json!({ "type": "STATE", "item": read::item(item) }));
            let end = is_last.then(|| progress("STATE_END", header));
            state.chain(end).collect()
        }
        Told::Changes(events) => events.iter().map(|event| shown(event, header)).collect(),
        Told::Progress if with_progress => vec![progress("PROGRESS", header)],
        Told::Progress => Vec::new(),
    }
}

fn is_event(line: &Value) -> bool {
    !matches!(line["type"].as_str(), Some("PROGRESS" | "STATE_END"))
}

fn shown(event: &Event, header: Option<&Header>) -> Value {
    let kind = match event.kind {
        EventKind::Put => "PUT",
        EventKind::Delete => "DELETE",
        EventKind::Expire => "EXPIRE",
    };
    let mut shown = json!({
        "type": kind,
        "revision": event.item.modified.to_string(),
        "key": output::base64(&event.item.key),
        "resumeToken": header.and_then(read::token),
    });
    if event.kind == EventKind::Put {
        shown["item"] = read::item(&event.item);
    }
    if let Some(previous) = &event.previous {
        shown["previous"] = read::item(previous);
    }
    shown
}

fn progress(kind: &str, header: Option<&Header>) -> Value {
    json!({
        "type": kind,
        "revision": header.map(|header| header.revision.to_string()),
        "resumeToken": header.and_then(read::token),
    })
}

/// Prints a line; false if nobody reads any more.
fn line(value: &Value) -> Result<bool, Failure> {
    let mut stdout = std::io::stdout().lock();
    match writeln!(stdout, "{value}").and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(anyhow::Error::from(error).into()),
    }
}
