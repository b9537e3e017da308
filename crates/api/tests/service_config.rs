//! `proto/service_config.json`, by which stock gRPC clients retry, says of every method what the table of errors allows.

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

/// gRPC treats more attempts as this many.
const ATTEMPTS_MAX: u64 = 5;
/// The longest deadline that a node keeps to: a longer timeout would promise what nobody keeps.
const DEADLINE_S_MAX: f64 = 30.0;

/// What a repetition of a call means.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Repeated {
    /// Nothing but the same answer.
    Harmless,
    /// It writes: its idempotency key makes that once.
    UnderKey,
    /// It may carry any number of writes: its caller repeats what was not answered.
    ByCaller,
}

struct Method {
    repeated: Repeated,
    is_stream: bool,
}

/// The methods that services call, by name and service.
fn methods() -> BTreeMap<(String, String), Method> {
    let set = FileDescriptorSet::decode(stead_api::DESCRIPTORS).unwrap();
    let file = |name: &str| set.file.iter().find(|file| file.name() == name).unwrap();
    let files = [file("stead/v1/kv.proto"), file("stead/v1/directory.proto")];
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
            let repeated = match method.name() {
                "Pipeline" => Repeated::ByCaller,
                _ if has_key(method.input_type()) => Repeated::UnderKey,
                _ => Repeated::Harmless,
            };
            let is_stream = method.server_streaming() || method.client_streaming();
            let name = (format!("stead.v1.{}", service.name()), method.name().to_owned());
            found.insert(name, Method { repeated, is_stream });
        }
    }
    found
}

fn config() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto/service_config.json");
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// The entries of the configuration, by the methods that they name.
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

/// The codes of which every reason may be answered by sending the same request again: the table says that nothing
/// happened and that waiting helps, or, of a write, that asking again under its key tells what has happened.
fn safe_codes(repeated: Repeated) -> BTreeSet<String> {
    let is_safe = |kind: &ErrorKind| {
        let asks_again = matches!(kind, ErrorKind::OutcomeUnknown { .. });
        Error::new(kind.clone(), "").is_transient() || (asks_again && repeated == Repeated::UnderKey)
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

/// The name of a code as configurations write it: `DeadlineExceeded` is `DEADLINE_EXCEEDED`.
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
fn every_method_has_an_entry_and_every_entry_a_method() {
    let config = config();
    let named: BTreeSet<_> = entries(&config).into_keys().collect();
    assert_eq!(named, methods().into_keys().collect());
}

#[test]
fn what_is_retried_is_what_the_table_of_errors_calls_safe() {
    let config = config();
    let methods = methods();
    for (name, entry) in entries(&config) {
        let method = &methods[&name];
        if method.repeated == Repeated::ByCaller {
            assert_eq!(entry.get("retryPolicy"), None, "{name:?}");
            continue;
        }
        let policy = &entry["retryPolicy"];
        let codes = policy["retryableStatusCodes"].as_array().unwrap();
        let codes: BTreeSet<String> = codes.iter().map(|code| code.as_str().unwrap().to_owned()).collect();
        assert_eq!(codes, safe_codes(method.repeated), "{name:?}");
        assert_eq!(policy["maxAttempts"].as_u64(), Some(ATTEMPTS_MAX), "{name:?}");
        let waits = [&policy["initialBackoff"], &policy["maxBackoff"]].map(seconds);
        assert!(0.0 < waits[0] && waits[0] <= waits[1], "{name:?} {waits:?}");
        assert!(policy["backoffMultiplier"].as_f64().unwrap() > 1.0, "{name:?}");
    }
}

/// A timeout would end a watch that is alive, and waiting without one would hide a wrong address for ever.
#[test]
fn calls_have_a_timeout_and_wait_for_a_node_and_streams_do_neither() {
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

/// Whoever has no idempotency keys takes the retries out of whole entries.
#[test]
fn no_entry_is_of_writes_and_of_reads() {
    let methods = methods();
    for entry in config()["methodConfig"].as_array().unwrap() {
        let kind = |name: &Value| {
            let part = |part: &str| name[part].as_str().unwrap().to_owned();
            methods[&(part("service"), part("method"))].repeated
        };
        let kinds: Vec<Repeated> = entry["name"].as_array().unwrap().iter().map(kind).collect();
        assert!(kinds.windows(2).all(|pair| pair[0] == pair[1]), "{entry}");
    }
}
