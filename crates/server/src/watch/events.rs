//! Changes as events.

use stead_api::proto::v1::{Event, EventType, KeyValue, WatchEvents};
use stead_state::{
    rows::{Unreadable, change::Change},
    shard::{answer::Version, read::Reading},
};
use stead_types::Revision;

use super::ask::{Ask, kind};
use crate::reply;

/// A message is closed when its events reach this many bytes: stock clients take messages of up to 4 MiB, and one event
/// has at most two values of 1 MiB.
const MESSAGE_LEN_MAX: usize = 1 << 20;

/// Events of one message.
#[derive(Debug, PartialEq)]
pub(super) struct Message {
    /// The revision of the last one.
    pub(super) revision: Revision,
    pub(super) events: WatchEvents,
}

/// Returns the events of changes, in messages; a revision that is too large for one goes on in the next.
pub(super) fn messages<'a>(
    ask: &Ask,
    changes: impl Iterator<Item = &'a Change>,
    reading: Option<&Reading<'_>>,
) -> Result<Vec<Message>, Unreadable> {
    let mut messages: Vec<Message> = Vec::new();
    let mut len = MESSAGE_LEN_MAX;
    for change in changes {
        let kind = kind(change.value.is_none(), change.cause);
        if !ask.ranges.contains(&change.key) || !ask.wants(kind) {
            continue;
        }
        let previous = match reading {
            Some(reading) if ask.previous => reading.replaced_by(change)?,
            Some(_) | None => None,
        };
        let event_len = change.len() + previous.as_ref().map_or(0, |previous| previous.value.bytes.len()) + 64;
        if len + event_len > MESSAGE_LEN_MAX {
            if let Some(last) = messages.last_mut() {
                last.events.more = last.revision == change.revision;
            }
            messages.push(Message {
                revision: change.revision,
                events: WatchEvents::default(),
            });
            len = 0;
        }
        len += event_len;
        if let Some(message) = messages.last_mut() {
            message.revision = change.revision;
            message.events.events.push(event(kind, change, previous));
        }
    }
    Ok(messages)
}

fn event(kind: EventType, change: &Change, previous: Option<Version>) -> Event {
    let item = match change.value.clone() {
        Some(value) => {
            let revision = change.revision;
            reply::key_value(change.key.clone(), Version { revision, value })
        }
        None => KeyValue {
            key: change.key.clone(),
            mod_revision: Some(stead_api::convert::id::from_revision(change.revision)),
            ..KeyValue::default()
        },
    };
    Event {
        r#type: kind.into(),
        item: Some(item),
        previous: previous.map(|previous| reply::key_value(change.key.clone(), previous)),
    }
}

#[cfg(test)]
mod tests {
    use stead_api::proto::v1::{KeyRange, WatchCreate};
    use stead_state::rows::change::{Cause, Value};
    use stead_types::TenantTime;

    use super::*;

    fn change(revision: &str, key: &'static str, len: Option<usize>) -> Change {
        Change {
            revision: revision.parse().unwrap(),
            effect: 0,
            more: false,
            cause: Cause::Write,
            time: TenantTime(1),
            previous: None,
            outcome: None,
            key: key.into(),
            value: len.map(|len| Value {
                create: revision.parse().unwrap(),
                version: 1,
                expires: None,
                bytes: vec![0; len].into(),
            }),
        }
    }

    fn made(create: WatchCreate, changes: &[Change]) -> Vec<(String, Vec<String>, bool)> {
        let ask = super::super::ask::parse(&WatchCreate {
            tenant: "acme".into(),
            ..create
        });
        let key = |event: &Event| String::from_utf8(event.item.as_ref().unwrap().key.to_vec()).unwrap();
        messages(&ask.unwrap(), changes.iter(), None)
            .unwrap()
            .iter()
            .map(|message| {
                let keys = message.events.events.iter().map(key).collect();
                (message.revision.to_string(), keys, message.events.more)
            })
            .collect()
    }

    #[test]
    fn only_keys_and_types_that_are_wanted_come() {
        let changes = [
            change("1.1", "a", Some(1)),
            change("1.2", "b", Some(1)),
            change("1.3", "a", None),
            change("1.4", "a2", Some(1)),
        ];
        let create = WatchCreate {
            ranges: vec![KeyRange {
                prefix: "a".into(),
                ..KeyRange::default()
            }],
            exclude: vec![EventType::Delete.into()],
            ..WatchCreate::default()
        };
        assert_eq!(
            made(create, &changes),
            [("1.4".into(), vec!["a".into(), "a2".into()], false)]
        );
    }

    #[test]
    fn a_large_revision_goes_on_in_the_next_message() {
        let large = 700 << 10;
        let changes = [
            change("1.1", "a", Some(large)),
            change("1.2", "b", Some(large)),
            change("1.2", "c", Some(large)),
            change("1.3", "d", Some(1)),
        ];
        let messages = made(WatchCreate::default(), &changes);
        let keys = |keys: &[&str]| keys.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            messages,
            [
                ("1.1".into(), keys(&["a"]), false),
                ("1.2".into(), keys(&["b"]), true),
                ("1.3".into(), keys(&["c", "d"]), false)
            ]
        );
    }
}
