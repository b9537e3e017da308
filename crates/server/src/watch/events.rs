//! Conversion of changes into event messages.

use stead_api::proto::v1::{Event, EventType, KeyValue, WatchEvents};
use stead_state::{rows::change::Change, shard::apply_result::Version};
use stead_types::Revision;

use super::spec::{WatchSpec, event_type};
use crate::response;

/// Bytes at which a message is closed: common clients accept messages of up to 4 MiB, and one event has at most two
/// values of 1 MiB.
const MESSAGE_LEN_MAX: usize = 1 << 20;

/// Cursor of a watch in the changes of its tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WatchCursor {
    /// Revision up to which every change was sent or filtered.
    revision: Revision,
    /// Part of the next revision: its effects up to this one are done too.
    partial: Option<(Revision, u16)>,
}

impl WatchCursor {
    /// Returns the cursor after a revision.
    pub(super) fn after(revision: Revision) -> Self {
        Self {
            revision,
            partial: None,
        }
    }

    /// Returns the revision up to which nothing is missing.
    pub(super) fn revision(self) -> Revision {
        self.revision
    }

    fn covers(self, change: &Change) -> bool {
        let in_partial = self
            .partial
            .is_some_and(|effect| (change.revision, change.effect) <= effect);
        change.revision <= self.revision || in_partial
    }

    fn advance(&mut self, change: &Change) {
        if change.more {
            self.partial = Some((change.revision, change.effect));
        } else {
            *self = Self::after(change.revision);
        }
    }
}

/// Returns the events of the next message, if there are any, and advances the cursor. `previous` is called only for
/// the events of this message: values may be large, and a watch may be slow.
pub(super) fn next_message<'a, E>(
    spec: &WatchSpec,
    cursor: &mut WatchCursor,
    changes: impl IntoIterator<Item = &'a Change>,
    mut previous: impl FnMut(&Change) -> Result<Option<Version>, E>,
) -> Result<Option<WatchEvents>, E> {
    let (mut events, mut last, mut len) = (WatchEvents::default(), None, 0);
    for change in changes {
        if cursor.covers(change) {
            continue;
        }
        let kind = event_type(change.value.is_none(), change.cause);
        if spec.ranges.contains(&change.key) && spec.includes(kind) {
            if len >= MESSAGE_LEN_MAX {
                events.more = last == Some(change.revision);
                break;
            }
            let previous = if spec.previous { previous(change)? } else { None };
            len += change.len() + previous.as_ref().map_or(0, |previous| previous.value.bytes.len()) + 64;
            last = Some(change.revision);
            events.events.push(event(kind, change, previous));
        }
        cursor.advance(change);
    }
    Ok(last.map(|_| events))
}

fn event(kind: EventType, change: &Change, previous: Option<Version>) -> Event {
    let item = match change.value.clone() {
        Some(value) => {
            let revision = change.revision;
            response::key_value(change.key.clone(), Version { revision, value })
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
        previous: previous.map(|previous| response::key_value(change.key.clone(), previous)),
        time: Some(stead_api::convert::key::from_tenant_time(change.time)),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use stead_api::proto::v1::{KeyRange, WatchCreate};

    use super::{super::change_fixture::change, *};

    fn made(create: WatchCreate, changes: &[Change]) -> Vec<(String, Vec<String>, bool)> {
        let spec = super::super::spec::parse(&WatchCreate {
            tenant: "acme".into(),
            ..create
        });
        let spec = spec.unwrap();
        let key = |event: &Event| String::from_utf8(event.item.as_ref().unwrap().key.to_vec()).unwrap();
        let (mut cursor, mut made) = (WatchCursor::after(Revision::ZERO), Vec::new());
        loop {
            // Each previous value is as large as possible.
            let mut asked = 0;
            let previous = |of: &Change| {
                asked += 1;
                let value = change("1.1", "", Some(1 << 20)).value.unwrap();
                let revision = of.revision;
                Ok::<_, Infallible>(Some(Version { revision, value }))
            };
            let Ok(events) = next_message(&spec, &mut cursor, changes, previous);
            let Some(events) = events else { return made };
            assert!(asked <= 1, "{asked} values of one message");
            let keys = events.events.iter().map(key).collect();
            made.push((cursor.revision().to_string(), keys, events.more));
        }
    }

    fn keys(keys: &[&str]) -> Vec<String> {
        keys.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn events_are_filtered_by_range_and_type() {
        let changes = [
            change("1.1", "a", Some(1)),
            change("1.2", "b", Some(1)),
            change("1.3", "a", None),
            change("1.4", "a2", Some(1)),
            change("1.5", "b", Some(1)),
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
            [("1.5".into(), keys(&["a", "a2"]), false)],
            "the place is behind what is of no interest too"
        );
    }

    fn effects(revision: &str, keys: &[(&'static str, usize)]) -> Vec<Change> {
        let effect = |(at, (key, len)): (usize, &(&'static str, usize))| Change {
            effect: at.try_into().unwrap(),
            more: at + 1 < keys.len(),
            ..change(revision, *key, Some(*len))
        };
        keys.iter().enumerate().map(effect).collect()
    }

    #[test]
    fn events_large_revision_is_split_over_messages() {
        let large = 700 << 10;
        let changes = [
            vec![change("1.1", "a", Some(large))],
            effects("1.2", &[("b", large), ("c", large), ("d", large), ("e", large)]),
            vec![change("1.3", "f", Some(1))],
        ]
        .concat();
        assert_eq!(
            made(WatchCreate::default(), &changes),
            [
                ("1.1".into(), keys(&["a", "b"]), true),
                ("1.1".into(), keys(&["c", "d"]), true),
                ("1.3".into(), keys(&["e", "f"]), false)
            ]
        );
    }

    #[test]
    fn events_more_is_false_if_rest_is_filtered() {
        let large = 1 << 20;
        let changes = [
            effects("1.1", &[("a", large), ("b", 1)]),
            effects("1.2", &[("b", 1), ("a", large)]),
        ]
        .concat();
        let create = WatchCreate {
            ranges: vec![KeyRange {
                prefix: "a".into(),
                ..KeyRange::default()
            }],
            ..WatchCreate::default()
        };
        assert_eq!(
            made(create, &changes),
            [("1.1".into(), keys(&["a"]), false), ("1.2".into(), keys(&["a"]), false)]
        );
    }

    #[test]
    fn events_read_previous_values_of_one_message_only() {
        let changes = effects("1.1", &[("a", 1), ("b", 1), ("c", 1)]);
        let create = WatchCreate {
            want_previous: true,
            ..WatchCreate::default()
        };
        assert_eq!(
            made(create, &changes),
            [
                ("0.0".into(), keys(&["a"]), true),
                ("0.0".into(), keys(&["b"]), true),
                ("1.1".into(), keys(&["c"]), false)
            ]
        );
    }
}
