//! `stead kv watch`: a JSON object a line, until it is ended.

use std::{ffi::OsString, io::Write, os::unix::ffi::OsStringExt};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use stead_client::{
    Error, ErrorKind, Event, EventKind, Header, KeyRange, Revision, SessionToken, WatchFrom, WatchMessage,
};

use super::{non_empty, read};
use crate::{args::Target, context, exit::CommandError, output};

#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// Tenant of the keys
    tenant: String,
    /// Only keys that begin with this; several prefixes and keys can be named
    #[arg(long)]
    prefix: Vec<OsString>,
    /// Only this key
    #[arg(long, value_parser = non_empty())]
    key: Vec<OsString>,
    /// Begin after this revision, such as 1.42; 0.0: from the tenant's first change, if it is still retained
    #[arg(long, group = "from")]
    after: Option<Revision>,
    /// Begin after the token of an earlier line, or of another response
    #[arg(long, group = "from")]
    token: Option<String>,
    /// Begin with all keys as they are; where they must begin anew, a line STATE_RESTARTED says that all before it is void
    #[arg(long, group = "from")]
    state: bool,
    /// Show keys as they were before, too
    #[arg(long)]
    previous: bool,
    /// Leave out such events
    #[arg(long, value_enum)]
    exclude: Vec<ExcludedKind>,
    /// Print progress messages, too
    #[arg(long)]
    progress: bool,
    /// End after so many events
    #[arg(long)]
    limit: Option<usize>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ExcludedKind {
    Put,
    Delete,
    Expire,
}

impl Watch {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
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
            ExcludedKind::Put => EventKind::Put,
            ExcludedKind::Delete => EventKind::Delete,
            ExcludedKind::Expire => EventKind::Expire,
        });
        let watch = stead_client::WatchOptions {
            ranges: prefixes.chain(keys).collect(),
            from,
            previous: self.previous,
            exclude: exclude.collect(),
        };
        let mut watcher = tenant.watch(watch).await.map_err(watch_error)?;
        let mut left = self.limit.unwrap_or(usize::MAX);
        let mut has_state = false;
        while left > 0 {
            let message = watcher.next().await.map_err(watch_error)?;
            let mut lines = message_lines(&message, watcher.header(), self.progress);
            lines.splice(0..0, restart_line(&message, &mut has_state));
            let events = lines.iter().filter(|line| is_event(line)).count();
            for output_line in lines.iter().take(left) {
                if !line(output_line)? {
                    return Ok(());
                }
            }
            left = left.saturating_sub(events);
        }
        Ok(())
    }
}

fn message_lines(message: &WatchMessage, header: Option<&Header>, with_progress: bool) -> Vec<Value> {
    match message {
        WatchMessage::State { items, is_last, .. } => {
            let state = items
                .iter()
                .map(|item| json!({ "type": "STATE", "item": read::item(item) }));
            let end = is_last.then(|| progress("STATE_END", header));
            state.chain(end).collect()
        }
        WatchMessage::Changes(events) => {
            let tokens = resume_tokens(events, header);
            events
                .iter()
                .zip(tokens)
                .map(|(event, token)| event_json(event, token))
                .collect()
        }
        WatchMessage::Progress if with_progress => vec![progress("PROGRESS", header)],
        WatchMessage::Progress => Vec::new(),
        WatchMessage::Forked { first, last, kept, .. } => vec![json!({
            "type": "FORKED",
            "firstLostRevision": first.to_string(),
            "lastLostRevision": last.to_string(),
            "keptRevision": kept.to_string(),
        })],
    }
}

/// Returns the line before a state that begins anew, because the watch was lost within the one before: without it keys
/// would be there twice, and one that was deleted meanwhile would stay.
fn restart_line(message: &WatchMessage, has_state: &mut bool) -> Option<Value> {
    let WatchMessage::State { is_first: true, .. } = message else {
        return None;
    };
    let begins_anew = std::mem::replace(has_state, true);
    begins_anew.then(|| json!({ "type": "STATE_RESTARTED" }))
}

fn is_event(line: &Value) -> bool {
    !matches!(
        line["type"].as_str(),
        Some("PROGRESS" | "STATE_END" | "STATE_RESTARTED" | "FORKED")
    )
}

/// Returns the resume token of each event: a watch resumes after a whole revision, so only its last event has one. The
/// token of the last event is the message's, which is ahead where later changes did not match.
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

/// Adds a hint about where to start again after history was compacted.
fn watch_error(error: Error) -> CommandError {
    if let ErrorKind::Compacted { oldest } = error.kind {
        let hint = format!("--state begins with all keys as they are, --after {oldest} with what history still has");
        return CommandError::from(error).hint(hint);
    }
    error.into()
}

fn event_json(event: &Event, resume: Option<String>) -> Value {
    let kind = match event.kind {
        EventKind::Put => "PUT",
        EventKind::Delete => "DELETE",
        EventKind::Expire => "EXPIRE",
    };
    let mut object = json!({
        "type": kind,
        "revision": event.item.modified.to_string(),
        "key": output::base64(&event.item.key),
        "resumeToken": resume,
    });
    if event.kind == EventKind::Put {
        object["item"] = read::item(&event.item);
    }
    if let Some(previous) = &event.previous {
        object["previous"] = read::item(previous);
    }
    object
}

fn progress(kind: &str, header: Option<&Header>) -> Value {
    json!({
        "type": kind,
        "revision": header.map(|header| header.revision.to_string()),
        "resumeToken": header.and_then(read::token),
    })
}

/// Prints a line; `false` if the reader is gone.
fn line(value: &Value) -> Result<bool, CommandError> {
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
            time: None,
        }
    }

    #[test]
    fn resume_token_is_on_last_event_of_revision() {
        let header = Header {
            revision: "1.9".parse().unwrap(),
            tenant: TenantNumber::new(7),
            tenant_time: TenantTime(0),
            token: Some(token("1.9")),
            region: None,
            node: NodeId::new(1),
            role: Role::Home,
            staleness: None,
            unconfirmed: false,
            forwarded: false,
        };
        let message = WatchMessage::Changes(["1.4", "1.5", "1.5", "1.6", "1.6"].map(event).to_vec());
        let lines = message_lines(&message, Some(&header), false);
        let tokens: Vec<Option<&str>> = lines.iter().map(|line| line["resumeToken"].as_str()).collect();
        let whole = ["1.4", "1.5", "1.9"].map(|revision| token(revision).to_string());
        let expected = [Some(&whole[0]), None, Some(&whole[1]), None, Some(&whole[2])];
        assert_eq!(tokens, expected.map(|token| token.map(String::as_str)));
    }

    /// Only a state after another says that it begins anew, and the line is no event.
    #[test]
    fn state_that_begins_anew_says_so() {
        let page = |is_first| WatchMessage::State {
            items: Vec::new(),
            is_first,
            is_last: false,
        };
        let mut has_state = false;
        let mut line = |message: WatchMessage| restart_line(&message, &mut has_state);
        assert_eq!(line(page(true)), None);
        assert_eq!(line(page(false)), None);
        let restart = line(page(true)).unwrap();
        assert_eq!(restart["type"], "STATE_RESTARTED");
        assert!(!is_event(&restart));
        assert_eq!(line(WatchMessage::Progress), None);
    }

    #[test]
    fn compacted_watch_hints_at_new_start() {
        let oldest = "2.8".parse().unwrap();
        let failure = watch_error(Error::new(ErrorKind::Compacted { oldest }, "gone"));
        assert!(format!("{failure:?}").contains("--after 2.8"), "{failure:?}");
    }
}
