//! Tests of `docs/api.md` against the protos: every call has its section, and every field, reason and limit in it
//! exists. The figures of `docs/guarantees.md` match those of the README.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use prost::Message;
use prost_types::{DescriptorProto, FileDescriptorSet};
use stead_api::{
    convert::read::TOKENS_MAX,
    status::{table, to_operation_error},
};
use stead_types::{Error, limits};

/// Names in the protos for services.
#[derive(Default)]
struct Protos {
    /// Calls, such as `KvService.Get`.
    calls: BTreeSet<String>,
    /// Fields by message; a nested message as `Consistency.Session`.
    messages: BTreeMap<String, BTreeSet<String>>,
    /// Values of enums.
    values: BTreeSet<String>,
    /// Names of enums.
    enums: BTreeSet<String>,
}

fn protos() -> Protos {
    let set = FileDescriptorSet::decode(stead_api::DESCRIPTORS).unwrap();
    let mut protos = Protos::default();
    for file in set.file.iter().filter(|file| file.package() == "stead.v1") {
        for message in &file.message_type {
            add(&mut protos, "", message);
        }
        for values in &file.enum_type {
            protos.enums.insert(values.name().to_owned());
            protos
                .values
                .extend(values.value.iter().map(|value| value.name().to_owned()));
        }
        for service in &file.service {
            let calls = service.method.iter();
            protos
                .calls
                .extend(calls.map(|method| format!("{}.{}", service.name(), method.name())));
        }
    }
    protos
}

fn add(protos: &mut Protos, outer: &str, message: &DescriptorProto) {
    let name = format!("{outer}{}", message.name());
    let fields = message.field.iter().map(|field| field.name().to_owned()).collect();
    for nested in &message.nested_type {
        add(protos, &format!("{name}."), nested);
    }
    protos.messages.insert(name, fields);
}

fn file(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)).unwrap()
}

fn document() -> String {
    file("docs/api.md")
}

/// Returns the code spans, which stand between backticks.
fn spans(text: &str) -> BTreeSet<&str> {
    text.lines()
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .collect()
}

fn reasons() -> BTreeSet<&'static str> {
    table::samples().iter().map(|kind| table::row(kind).reason).collect()
}

#[test]
fn every_call_has_exactly_one_section() {
    let text = document();
    let sections: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    let calls: Vec<String> = sections
        .iter()
        .filter(|name| name.contains("Service."))
        .map(|name| (*name).to_owned())
        .collect();
    let named: BTreeSet<String> = calls.iter().cloned().collect();
    assert_eq!(named, protos().calls);
    assert_eq!(calls.len(), named.len(), "a call has two sections");
}

#[test]
fn every_section_has_guarantee_cost_errors_and_retry() {
    let text = document();
    for section in text.split("\n### ").filter(|section| section.contains("Service.")) {
        let name = section.lines().next().unwrap();
        if !protos().calls.contains(name) {
            continue;
        }
        for part in ["- Guarantee", "ost", "- Errors:", "- Retry:"] {
            assert!(section.contains(part), "{name} does not say: {part}");
        }
    }
}

#[test]
fn every_named_field_exists() {
    let text = document();
    let protos = protos();
    let mut found = 0;
    for span in spans(&text) {
        let Some((message, field)) = span.rsplit_once('.') else {
            continue;
        };
        let is_field = message.starts_with(|c: char| c.is_ascii_uppercase())
            && field.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        if is_field {
            let fields = protos.messages.get(message);
            assert!(
                fields.is_some_and(|fields| fields.contains(field)),
                "there is no {span}"
            );
            found += 1;
        }
    }
    assert!(found > 40, "fields were found");
}

/// A bare name has an underscore and no message in front of it.
#[test]
fn every_bare_name_is_a_field_or_error_metadata() {
    let text = document();
    let protos = protos();
    let fields: BTreeSet<&String> = protos.messages.values().flatten().collect();
    let metadata: BTreeSet<String> = table::samples()
        .into_iter()
        .flat_map(|kind| to_operation_error(&Error::new(kind, "")).metadata.into_keys())
        .collect();
    let is_bare = |span: &&str| span.contains('_') && span.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    for span in spans(&text).into_iter().filter(is_bare) {
        let span = span.to_owned();
        assert!(
            fields.contains(&span) || metadata.contains(&span),
            "nothing is named {span}"
        );
    }
}

/// `NOT_HOME` is a reason, `DURABILITY_REMOTE` a value, `CANCELLED` a status.
#[test]
fn every_capitalized_word_is_reason_value_or_status() {
    let text = document();
    let (protos, reasons) = (protos(), reasons());
    let is_capital = |span: &&str| span.len() > 2 && span.chars().all(|c| c.is_ascii_uppercase() || c == '_');
    let named: Vec<&str> = spans(&text).into_iter().filter(is_capital).collect();
    for name in &named {
        let is_status = ["UNKNOWN", "CANCELLED"].contains(name);
        assert!(
            reasons.contains(name) || protos.values.contains(*name) || is_status,
            "nothing is called {name}"
        );
    }
    assert!(
        named.iter().filter(|name| reasons.contains(*name)).count() > 15,
        "reasons were found"
    );
}

#[test]
fn every_named_type_exists() {
    let text = document();
    let protos = protos();
    let services = ["KvService", "DirectoryService", "ReceiptService"];
    let short: BTreeSet<&str> = protos
        .calls
        .iter()
        .filter_map(|call| Some(call.split_once('.')?.1))
        .collect();
    let is_type = |span: &&str| {
        span.starts_with(|c: char| c.is_ascii_uppercase())
            && span.chars().all(char::is_alphanumeric)
            && span.chars().any(|c| c.is_ascii_lowercase())
    };
    for span in spans(&text).into_iter().filter(is_type) {
        let is_known = protos.messages.contains_key(span)
            || protos.enums.contains(span)
            || services.contains(&span)
            || short.contains(span)
            || ["RetryInfo", "ErrorInfo"].contains(&span);
        assert!(is_known, "there is no {span}");
    }
}

#[test]
fn documented_limits_match_the_code() {
    let text = document();
    let rows = [
        format!("| key, and bound of a range | {} bytes;", limits::KEY_LEN_MAX),
        format!("| value | {} bytes |", limits::VALUE_LEN_MAX),
        format!("| request | {} bytes |", limits::REQUEST_LEN_MAX),
        format!("| keys of a `BatchGet` | {} |", limits::BATCH_GET_KEYS_MAX),
        format!(
            "| keys of a page | {}, {} if nothing is said; it also ends at {} bytes |",
            limits::PAGE_KEYS_MAX,
            limits::PAGE_KEYS_DEFAULT,
            limits::PAGE_LEN_MAX
        ),
        format!(
            "| compares, and operations of a list, of a transaction | {} each |",
            limits::TXN_STEPS_MAX
        ),
        format!(
            "| keys of a transaction's writes, and the values that they make | {} bytes;",
            limits::CHANGE_LEN_MAX
        ),
        format!("| keys and values of one answer | {} bytes;", limits::RESPONSE_LEN_MAX),
        format!("| ranges of a watch | {} |", limits::WATCH_RANGES_MAX),
        format!("Up to {TOKENS_MAX} tokens go with a request"),
        format!(
            "from 1 ms to {} days, in whole milliseconds",
            limits::TTL_MS_MAX / 86_400_000
        ),
        format!(
            "(1 ms to {} days) the number",
            limits::INCREMENT_WINDOW_MS_MAX / 86_400_000
        ),
    ];
    let joined = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for row in rows {
        assert!(joined.contains(&row), "docs/api.md does not say: {row}");
    }
}

#[test]
fn guarantee_costs_match_the_readme() {
    let (guarantees, readme) = (file("docs/guarantees.md"), file("README.md"));
    let (_, table) = guarantees.split_once("| what | took | why |").unwrap();
    let rows: Vec<&str> = table.lines().skip(2).take_while(|line| line.starts_with('|')).collect();
    assert!(rows.len() > 3, "figures were found");
    for row in rows {
        let took = row.split('|').nth(2).unwrap().trim();
        let figure: Vec<&str> = took.split(' ').take(2).collect();
        let figure = format!(" {}", figure.join(" "));
        assert!(readme.contains(&figure), "README.md does not show{figure}");
    }
}
