//! `stead kv watch`: a JSON object a line, until it is ended.

use std::{ffi::OsString, io::Write, os::unix::ffi::OsStringExt};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use stead_client::{Error, ErrorKind, Event, EventKind, Header, KeyRange, Revision, SessionToken, Told, WatchFrom};

use super::{named, read};
use crate::{args::Target, context, exit::Failure, output};

#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// Whose keys
    tenant: String,
    /// Only keys that begin with this; several prefixes and keys can be named
    #[arg(long)]
    prefix: Vec<OsString>,
    /// Only this key
    #[arg(long, value_parser = named())]
    key: Vec<OsString>,
    /// Begin behind this revision, such as 1.42; 0.0: from the tenant's first change, if history still has it
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
        let mut watcher = tenant.watch(watch).await.map_err(gone)?;
        let mut left = self.limit.unwrap_or(usize::MAX);
        while left > 0 {
            let told = watcher.next().await.map_err(gone)?;
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
        Told::Changes(events) => {
            let tokens = resume_tokens(events, header);
            events
                .iter()
                .zip(tokens)
                .map(|(event, token)| shown(event, token))
                .collect()
        }
        Told::Progress if with_progress => vec![progress("PROGRESS", header)],
        Told::Progress => Vec::new(),
    }
}

fn is_event(line: &Value) -> bool {
    !matches!(line["type"].as_str(), Some("PROGRESS" | "STATE_END"))
}

/// Returns the token behind which each event ends: a revision is resumed behind as a whole, so only its last event has
/// one. The last event's is the message's, which is ahead where changes followed that are not of interest.
fn resume_tokens(events: &[Event], header: Option<&Header>) -> Vec<Option<String>> {
    let token = |(place, event): (usize, &Event)| {
        let header = header?;
        let revision = event.item.modified;
        match events.get(place + 1) {
            None => read::token(header),
            Some(next) if next.item.modified == revision => None,
            Some(_) => {
                let tenant = header.tenant;
                Some(SessionToken { tenant, revision }.to_string())
            }
        }
    };
    events.iter().enumerate().map(token).collect()
}

/// Says how to go on where history does not.
fn gone(error: Error) -> Failure {
    if let ErrorKind::Compacted { oldest } = error.kind {
        let hint = format!("--state begins with all keys as they are, --after {oldest} with what history still has");
        return Failure::from(error).hint(hint);
    }
    error.into()
}

fn shown(event: &Event, resume: Option<String>) -> Value {
    let kind = match event.kind {
        EventKind::Put => "PUT",
        EventKind::Delete => "DELETE",
        EventKind::Expire => "EXPIRE",
    };
    let mut shown = json!({
        "type": kind,
        "revision": event.item.modified.to_string(),
        "key": output::base64(&event.item.key),
        "resumeToken": resume,
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

#[cfg(test)]
mod tests {
    use stead_client::{Item, Role, TenantTime};
    use stead_types::{NodeId, TenantNumber};

    use super::*;

    fn token(revision: &str) -> SessionToken {
        SessionToken {
            tenant: TenantNumber::new(7),
            revision: revision.parse().unwrap(),
        }
    }

    fn event(revision: &str) -> Event {
        let modified = revision.parse().unwrap();
        let item = Item {
            key: "k".into(),
            value: "v".into(),
            created: modified,
            modified,
            version: 1,
            expires: None,
        };
        Event {
            kind: EventKind::Put,
            item,
            previous: None,
        }
    }

    #[test]
    fn a_line_is_resumed_behind_its_own_revision_and_only_when_that_is_whole() {
        let header = Header {
            revision: "1.9".parse().unwrap(),
            tenant: TenantNumber::new(7),
            tenant_time: TenantTime(0),
            token: Some(token("1.9")),
            region: None,
            node: NodeId::new(1),
            role: Role::Home,
            staleness: None,
            forwarded: false,
        };
        let told = Told::Changes(["1.4", "1.5", "1.5", "1.6", "1.6"].map(event).to_vec());
        let lines = lines(&told, Some(&header), false);
        let tokens: Vec<Option<&str>> = lines.iter().map(|line| line["resumeToken"].as_str()).collect();
        let whole = ["1.4", "1.5", "1.9"].map(|revision| token(revision).to_string());
        let expected = [Some(&whole[0]), None, Some(&whole[1]), None, Some(&whole[2])];
        assert_eq!(tokens, expected.map(|token| token.map(String::as_str)));
    }

    #[test]
    fn a_watch_that_history_cannot_serve_says_how_to_begin_anew() {
        let oldest = "2.8".parse().unwrap();
        let failure = gone(Error::new(ErrorKind::Compacted { oldest }, "gone"));
        assert!(format!("{failure:?}").contains("--after 2.8"), "{failure:?}");
    }
}
