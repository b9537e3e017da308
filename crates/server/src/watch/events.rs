//! Changes as events.

use stead_api::proto::v1::{Event, EventType, KeyValue, WatchEvents};
use stead_state::{rows::change::Change, shard::answer::Version};
use stead_types::Revision;

use super::ask::{Ask, kind};
use crate::reply;

/// A message takes no more events when they have this many bytes: stock clients take messages of up to 4 MiB, and one
/// event has at most two values of 1 MiB.
const MESSAGE_LEN_MAX: usize = 1 << 20;

/// How far a watch is in the changes of its tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Everything up to here was sent, or is of no interest.
    whole: Revision,
    /// Of a revision behind it, the effects up to this one too.
    effect: Option<(Revision, u16)>,
}

impl Place {
    /// Returns the place behind a revision.
    pub(super) fn behind(whole: Revision) -> Self {
        Self { whole, effect: None }
    }

    /// Returns the revision up to which nothing is missing.
    pub(super) fn whole(self) -> Revision {
        self.whole
    }

    fn has(self, change: &Change) -> bool {
        let of_part = self
            .effect
            .is_some_and(|effect| (change.revision, change.effect) <= effect);
        change.revision <= self.whole || of_part
    }

    fn pass(&mut self, change: &Change) {
        if change.more {
            self.effect = Some((change.revision, change.effect));
        } else {
            *self = Self::behind(change.revision);
        }
    }
}

/// Returns the events of the next message, if there are any, and goes on behind them. Only what this one message needs
/// is asked for by `previous`: values may be large, and a watch may be slow.
pub(super) fn message<'a, E>(
    ask: &Ask,
    place: &mut Place,
    changes: impl IntoIterator<Item = &'a Change>,
    mut previous: impl FnMut(&Change) -> Result<Option<Version>, E>,
) -> Result<Option<WatchEvents>, E> {
    let (mut events, mut last, mut len) = (WatchEvents::default(), None, 0);
    for change in changes {
        if place.has(change) {
            continue;
        }
        let kind = kind(change.value.is_none(), change.cause);
        if ask.ranges.contains(&change.key) && ask.wants(kind) {
            if len >= MESSAGE_LEN_MAX {
                events.more = last == Some(change.revision);
                break;
            }
            let previous = if ask.previous { previous(change)? } else { None };
            len += change.len() + previous.as_ref().map_or(0, |previous| previous.value.bytes.len()) + 64;
            last = Some(change.revision);
            events.events.push(event(kind, change, previous));
        }
        place.pass(change);
    }
    Ok(last.map(|_| events))
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
    use std::convert::Infallible;

    use stead_api::proto::v1::{KeyRange, WatchCreate};

    use super::{super::change_fixture::change, *};

    fn made(create: WatchCreate, changes: &[Change]) -> Vec<(String, Vec<String>, bool)> {
        let ask = super::super::ask::parse(&WatchCreate {
            tenant: "acme".into(),
            ..create
        });
        let ask = ask.unwrap();
        let key = |event: &Event| String::from_utf8(event.item.as_ref().unwrap().key.to_vec()).unwrap();
        let (mut place, mut made) = (Place::behind(Revision::ZERO), Vec::new());
        loop {
            // Each value before is as large as can be.
            let mut asked = 0;
            let previous = |of: &Change| {
                asked += 1;
                let value = change("1.1", "", Some(1 << 20)).value.unwrap();
                let revision = of.revision;
                Ok::<_, Infallible>(Some(Version { revision, value }))
            };
            let Ok(events) = message(&ask, &mut place, changes, previous);
            let Some(events) = events else { return made };
            assert!(asked <= 1, "{asked} values of one message");
            let keys = events.events.iter().map(key).collect();
            made.push((place.whole().to_string(), keys, events.more));
        }
    }

    fn keys(keys: &[&str]) -> Vec<String> {
        keys.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn only_keys_and_types_that_are_wanted_come() {
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
    fn a_large_revision_goes_on_in_the_next_message() {
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
    fn a_revision_whose_rest_is_of_no_interest_does_not_go_on() {
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
    fn only_the_values_of_one_message_are_read_at_a_time() {
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
