//! Line of a backup with one change of one key.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde_json::{Map, Value};
use stead_client::{Event, EventKind, Revision};
use stead_types::TenantTime;

/// Ending of the name of a field that has bytes which are no text.
const BASE64_SUFFIX: &str = "_base64";

/// Order of changes in a run.
pub(super) type ChangeOrder = (Bytes, Revision);

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) key: Bytes,
    pub(super) revision: Revision,
    /// Tenant time of the change; absent where the node that told of it was of an earlier version.
    pub(super) time: Option<TenantTime>,
    /// Key after the change; `None`: it was deleted, or has expired.
    pub(super) after: Option<Put>,
}

/// Value of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Put {
    pub(super) value: Bytes,
    /// Expiry in tenant time.
    pub(super) expires: Option<TenantTime>,
}

/// Returns an event as a line.
pub(super) fn line(event: &Event) -> Value {
    let mut object = Map::new();
    put_bytes(&mut object, "key", &event.item.key);
    object.insert("revision".to_owned(), event.item.modified.to_string().into());
    if let Some(time) = event.time {
        object.insert("time_ms".to_owned(), time.0.into());
    }
    let kind = match event.kind {
        EventKind::Put => "put",
        EventKind::Delete => "delete",
        EventKind::Expire => "expire",
    };
    object.insert("type".to_owned(), kind.into());
    if event.kind == EventKind::Put {
        put_bytes(&mut object, "value", &event.item.value);
        if let Some(expires) = event.item.expires {
            object.insert("expires_ms".to_owned(), expires.0.into());
        }
    }
    Value::Object(object)
}

/// Parses a line.
///
/// # Errors
///
/// Reason why a line is no change.
pub(super) fn parse(line: &[u8]) -> Result<Change, String> {
    let object: Map<String, Value> =
        serde_json::from_slice(line).map_err(|error| format!("a change is no JSON object: {error}"))?;
    let kind = object.get("type").and_then(Value::as_str).unwrap_or_default();
    let after = match kind {
        "put" => Some(Put {
            value: bytes(&object, "value")?,
            expires: object.get("expires_ms").and_then(Value::as_u64).map(TenantTime),
        }),
        "delete" | "expire" => None,
        other => return Err(format!("a change is of the unknown type {other:?}")),
    };
    let revision = object.get("revision").and_then(Value::as_str).unwrap_or_default();
    Ok(Change {
        key: bytes(&object, "key")?,
        revision: revision
            .parse()
            .map_err(|_| format!("a change has no revision: {revision:?}"))?,
        time: object.get("time_ms").and_then(Value::as_u64).map(TenantTime),
        after,
    })
}

/// Adds a field that `stead kv import` reads.
pub(super) fn put_bytes(object: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object.insert(name.to_owned(), text.into()),
        Err(_) => object.insert(format!("{name}{BASE64_SUFFIX}"), STANDARD.encode(bytes).into()),
    };
}

/// Returns the bytes of a field.
pub(super) fn bytes(object: &Map<String, Value>, name: &str) -> Result<Bytes, String> {
    if let Some(text) = object.get(name).and_then(Value::as_str) {
        return Ok(Bytes::copy_from_slice(text.as_bytes()));
    }
    let encoded = object.get(&format!("{name}{BASE64_SUFFIX}")).and_then(Value::as_str);
    let decoded = encoded.and_then(|encoded| STANDARD.decode(encoded).ok());
    decoded.map(Bytes::from).ok_or_else(|| format!("a line has no {name}"))
}

#[cfg(test)]
mod tests {
    use stead_client::Item;

    use super::*;

    #[test]
    fn change_of_any_bytes_is_read_back() {
        let event = |kind, value: &'static [u8]| Event {
            kind,
            item: Item {
                key: vec![255, 0].into(),
                value: value.into(),
                created: "1.3".parse().unwrap(),
                modified: "1.9".parse().unwrap(),
                version: 2,
                expires: Some(TenantTime(12)),
            },
            previous: None,
            time: Some(TenantTime(5)),
        };
        for (kind, value) in [
            (EventKind::Put, &b"\xfe"[..]),
            (EventKind::Put, b"text"),
            (EventKind::Delete, b""),
        ] {
            let change = parse(line(&event(kind, value)).to_string().as_bytes()).unwrap();
            let put = Put {
                value: value.into(),
                expires: Some(TenantTime(12)),
            };
            let expected = Change {
                key: vec![255, 0].into(),
                revision: "1.9".parse().unwrap(),
                time: Some(TenantTime(5)),
                after: (kind == EventKind::Put).then_some(put),
            };
            assert_eq!(change, expected);
        }
        assert!(parse(b"{}").unwrap_err().contains("unknown type"));
    }
}
