//! Parser of hand-written histories. One operation a line:
//!
//! ```text
//! session from-to call... -> response            from-  leaves it open
//! s0 1-2 put a x -> @1
//! s0 3-4 delete a -> @2                        a delete that found nothing: `-> none @2`
//! s1 3-5 get a -> x@1 @1                       of a read: items, then its revision; item: value@modified[vVERSION[cCREATED]]
//! s1 6-7 get/session a -> @2                   levels: linearizable, session, bounded, local
//! s1 8-9 scan a -> ab=x@1 @2                   keys that begin with `a`
//! ```

use bytes::Bytes;
use stead_types::{Epoch, Revision, Sequence};

use crate::history::{Call, History, Item, Level, Operation, Response};

/// Parses a history.
pub(crate) fn history(script: &str) -> History {
    History::new(
        script
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .map(operation)
            .collect(),
    )
}

/// Returns the revision of this number, in the first epoch.
pub(crate) fn revision(sequence: u64) -> Revision {
    Revision::new(Epoch::FIRST, Sequence::new(sequence).unwrap())
}

fn operation(line: &str) -> Operation {
    let (asked, answered) = line
        .split_once("->")
        .map_or((line, None), |(asked, response)| (asked, Some(response)));
    let words: Vec<&str> = asked.split_whitespace().collect();
    let (from, to) = words[1].split_once('-').unwrap();
    let call = call(&words[2..]);
    let response = answered.map(|text| response(text, &call, to.parse().unwrap()));
    Operation {
        session: words[0][1..].parse().unwrap(),
        invoked: from.parse().unwrap(),
        call,
        response,
    }
}

fn call(words: &[&str]) -> Call {
    let text = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    let (verb, level) = words[0].split_once('/').unwrap_or((words[0], "linearizable"));
    let level = match level {
        "linearizable" => Level::Linearizable,
        "session" => Level::Session,
        "bounded" => Level::Bounded,
        "local" => Level::Local,
        other => panic!("no level {other}"),
    };
    match verb {
        "put" => Call::Put {
            key: text(words[1]),
            value: text(words[2]),
        },
        "delete" => Call::Delete { key: text(words[1]) },
        "get" => Call::Get {
            key: text(words[1]),
            level,
        },
        "scan" => Call::Scan {
            prefix: text(words[1]),
            level,
        },
        other => panic!("no call {other}"),
    }
}

fn response(text: &str, call: &Call, returned: u64) -> Response {
    let mut words: Vec<&str> = text.split_whitespace().collect();
    let own = words.pop().unwrap().strip_prefix('@').unwrap().parse().unwrap();
    let found = words.first() != Some(&"none");
    let items = if found {
        words.iter().map(|word| item(word, call)).collect()
    } else {
        Vec::new()
    };
    Response {
        returned,
        revision: revision(own),
        changed: call.level().is_none() && found,
        items,
    }
}

fn item(word: &str, call: &Call) -> Item {
    let (key, word) = match call {
        Call::Scan { .. } => word.split_once('=').unwrap(),
        Call::Get { key, .. } => (std::str::from_utf8(key).unwrap(), word),
        Call::Put { .. } | Call::Delete { .. } => panic!("a write shows no items"),
    };
    let (value, numbers) = word.split_once('@').unwrap();
    let numbers: Vec<u64> = numbers
        .split(['v', 'c'])
        .map(|number| number.parse().unwrap())
        .collect();
    let text = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    Item {
        key: text(key),
        value: text(value),
        created: revision(numbers.get(2).copied().unwrap_or(numbers[0])),
        modified: revision(numbers[0]),
        version: numbers.get(1).copied().unwrap_or(1),
    }
}
