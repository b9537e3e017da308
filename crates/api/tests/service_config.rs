//! Test of `proto/service_config.json`, by which stock gRPC clients retry, against the protos and the table of errors.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use prost::Message;
use prost_types::FileDescriptorSet;
use serde_json::Value;
use stead_api::status::table;
use stead_types::{Error, ErrorKind};

/// Most attempts of a stock gRPC client; a higher setting has no effect.
const ATTEMPTS_MAX: u64 = 5;
/// Longest deadline that a node honours: a longer timeout would have no effect.
const DEADLINE_S_MAX: f64 = 30.0;

/// Retry safety of a method.
#[derive(Clone, Copy, Debug, PartialEq)]
enum RetrySafety {
    /// A read: a retry is harmless.
    Read,
    /// A write with an idempotency key: a retry has no second effect.
    IdempotencyKey,
    /// Any number of writes: the caller retries those without a response.
    Caller,
}

struct Method {
    retry: RetrySafety,
    is_stream: bool,
}

/// Returns the methods that services call, by service and name.
fn methods() -> BTreeMap<(String, String), Method> {
    let set = FileDescriptorSet::decode(stead_api::DESCRIPTORS).unwrap();
    let file = |name: &str| set.file.iter().find(|file| file.name() == name).unwrap();
    let files = ["kv", "directory", "receipt"].map(|name| file(&format!("stead/v1/{name}.proto")));
    let has_key = |input: &str| {
        let messages = files.iter().flat_map(|file| &file.message_type);
        let message = messages
            .into_iter()
            .find(|message| input == format!(".stead.v1.{}", message.name()));
        message
            .unwrap()
            .field
            .iter()
            .any(|field| field.name() == "idempotency_key")
    };
    let mut found = BTreeMap::new();
    for service in files.iter().flat_map(|file| &file.service) {
        for method in &service.method {
            let retry = match method.name() {
                "Pipeline" => RetrySafety::Caller,
                _ if has_key(method.input_type()) => RetrySafety::IdempotencyKey,
                _ => RetrySafety::Read,
            };
            let is_stream = method.server_streaming() || method.client_streaming();
            let name = (format!("stead.v1.{}", service.name()), method.name().to_owned());
            found.insert(name, Method { retry, is_stream });
        }
    }
    found
}

fn config() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto/service_config.json");
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// Returns the entries of the configuration, by the methods that they name.
fn entries(config: &Value) -> BTreeMap<(String, String), &Value> {
    let mut found = BTreeMap::new();
    for entry in config["methodConfig"].as_array().unwrap() {
        for name in entry["name"].as_array().unwrap() {
            let part = |part: &str| name[part].as_str().unwrap().to_owned();
            let earlier = found.insert((part("service"), part("method")), entry);
            assert!(earlier.is_none(), "{name} stands twice");
        }
    }
    found
}

/// Returns the codes whose every reason may be retried: the table says that nothing happened and that waiting helps,
/// or, of a write, that a retry with its idempotency key returns the first outcome.
fn safe_codes(retry: RetrySafety) -> BTreeSet<String> {
    let is_safe = |kind: &ErrorKind| {
        let asks_again = matches!(kind, ErrorKind::OutcomeUnknown { .. });
        Error::new(kind.clone(), "").is_transient() || (asks_again && retry == RetrySafety::IdempotencyKey)
    };
    let mut codes: BTreeMap<String, bool> = BTreeMap::new();
    for kind in table::samples() {
        let code = name_of(table::row(&kind).code);
        let all = codes.entry(code).or_insert(true);
        *all &= is_safe(&kind);
    }
    codes
        .into_iter()
        .filter(|(_, all)| *all)
        .map(|(code, _)| code)
        .collect()
}

/// Returns the name of a code as configurations write it: `DeadlineExceeded` is `DEADLINE_EXCEEDED`.
fn name_of(code: tonic::Code) -> String {
    let mut name = String::new();
    for (at, letter) in format!("{code:?}").char_indices() {
        if at > 0 && letter.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

fn seconds(duration: &Value) -> f64 {
    duration.as_str().unwrap().strip_suffix('s').unwrap().parse().unwrap()
}

#[test]
fn every_method_has_an_entry_and_vice_versa() {
    let config = config();
    let named: BTreeSet<_> = entries(&config).into_keys().collect();
    assert_eq!(named, methods().into_keys().collect());
}

#[test]
fn retryable_codes_match_the_error_table() {
    let config = config();
    let methods = methods();
    for (name, entry) in entries(&config) {
        let method = &methods[&name];
        if method.retry == RetrySafety::Caller {
            assert_eq!(entry.get("retryPolicy"), None, "{name:?}");
            continue;
        }
        let policy = &entry["retryPolicy"];
        let codes = policy["retryableStatusCodes"].as_array().unwrap();
        let codes: BTreeSet<String> = codes.iter().map(|code| code.as_str().unwrap().to_owned()).collect();
        assert_eq!(codes, safe_codes(method.retry), "{name:?}");
        assert_eq!(policy["maxAttempts"].as_u64(), Some(ATTEMPTS_MAX), "{name:?}");
        let waits = [&policy["initialBackoff"], &policy["maxBackoff"]].map(seconds);
        assert!(0.0 < waits[0] && waits[0] <= waits[1], "{name:?} {waits:?}");
        assert!(policy["backoffMultiplier"].as_f64().unwrap() > 1.0, "{name:?}");
    }
}

/// A timeout would end a live watch, and waiting for a node without one would hide a wrong address for ever.
#[test]
fn unary_calls_have_timeout_and_streams_have_none() {
    let config = config();
    let methods = methods();
    for (name, entry) in entries(&config) {
        let timeout = entry.get("timeout").map(seconds);
        if methods[&name].is_stream {
            assert_eq!((timeout, entry.get("waitForReady")), (None, None), "{name:?}");
        } else {
            assert!(timeout.is_some_and(|s| 0.0 < s && s <= DEADLINE_S_MAX), "{name:?}");
            assert_eq!(entry["waitForReady"], Value::Bool(true), "{name:?}");
        }
    }
}

/// A client without idempotency keys removes the retries of whole entries.
#[test]
fn no_entry_mixes_writes_and_reads() {
    let methods = methods();
    for entry in config()["methodConfig"].as_array().unwrap() {
        let kind = |name: &Value| {
            let part = |part: &str| name[part].as_str().unwrap().to_owned();
            methods[&(part("service"), part("method"))].retry
        };
        let kinds: Vec<RetrySafety> = entry["name"].as_array().unwrap().iter().map(kind).collect();
        assert!(kinds.windows(2).all(|pair| pair[0] == pair[1]), "{entry}");
    }
}
