//! Compatibility test of the protos for services and operators against a baseline.
//!
//! `baseline.binpb` is the descriptor set of the promised protos. Messages, fields, enum values and methods in it must
//! still be there, with the same number, type and presence. `stead.internal.v1` promises nothing. To promise additions
//! as well: `UPDATE_BASELINE=1 cargo test -p stead-api --test breaking`.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::{collections::BTreeMap, fs, path::Path};

use prost::Message;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet, MethodDescriptorProto,
};

/// Promised names, with the description of each that must not change.
type Promises = BTreeMap<String, String>;

fn promises(set: &[u8]) -> Promises {
    let set = FileDescriptorSet::decode(set).unwrap();
    let mut found = Promises::new();
    let promised =
        |package: &str| ["stead.v1", "google.longrunning"].contains(&package) || package.starts_with("stead.admin.");
    for file in set.file.iter().filter(|file| promised(file.package())) {
        for message in &file.message_type {
            add_message(&mut found, file.package(), message);
        }
        for values in &file.enum_type {
            add_enum(&mut found, file.package(), values);
        }
        for service in &file.service {
            for method in &service.method {
                let name = format!("{}.{}/{}", file.package(), service.name(), method.name());
                found.insert(name, signature(method));
            }
        }
    }
    found
}

fn add_message(found: &mut Promises, scope: &str, message: &DescriptorProto) {
    let name = format!("{scope}.{}", message.name());
    found.insert(name.clone(), "message".into());
    for field in &message.field {
        found.insert(format!("{name}#{}", field.number()), describe(message, field));
    }
    for nested in &message.nested_type {
        add_message(found, &name, nested);
    }
    for values in &message.enum_type {
        add_enum(found, &name, values);
    }
}

fn describe(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let oneof = field
        .oneof_index
        .map_or("", |index| message.oneof_decl[index as usize].name());
    format!(
        "{} {:?} {:?} {} {oneof}",
        field.name(),
        field.r#type(),
        field.label(),
        field.type_name()
    )
}

fn add_enum(found: &mut Promises, scope: &str, values: &EnumDescriptorProto) {
    let name = format!("{scope}.{}", values.name());
    found.insert(name.clone(), "enum".into());
    for value in &values.value {
        found.insert(format!("{name}#{}", value.number()), value.name().into());
    }
}

fn signature(method: &MethodDescriptorProto) -> String {
    format!(
        "{} {} -> {} {}",
        method.client_streaming(),
        method.input_type(),
        method.server_streaming(),
        method.output_type()
    )
}

/// Returns the promises of `before` that `now` does not keep.
fn broken(before: &Promises, now: &Promises) -> Vec<String> {
    let change = |(name, what): (&String, &String)| match now.get(name) {
        Some(same) if same == what => None,
        Some(other) => Some(format!("{name} was `{what}` and is `{other}`")),
        None => Some(format!("{name} (`{what}`) is gone")),
    };
    before.iter().filter_map(change).collect()
}

#[test]
fn promised_protos_are_unchanged() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/baseline.binpb");
    let now = promises(stead_api::DESCRIPTORS);
    let before = promises(&fs::read(&path).unwrap());
    assert_eq!(broken(&before, &now), Vec::<String>::new());
    if std::env::var_os("UPDATE_BASELINE").is_some() {
        fs::write(&path, stead_api::DESCRIPTORS).unwrap();
    }
}

#[test]
fn renumbered_retyped_and_removed_fields_are_found() {
    let before = promises(stead_api::DESCRIPTORS);
    assert!(before.contains_key("stead.v1.PutRequest#3") && before.contains_key("stead.v1.KvService/Pipeline"));
    for change in 0..3 {
        let mut set = FileDescriptorSet::decode(stead_api::DESCRIPTORS).unwrap();
        let message = set.file.iter_mut().flat_map(|file| &mut file.message_type);
        let message = message.into_iter().find(|m| m.name() == "PutRequest").unwrap();
        match change {
            0 => message.field[2].number = Some(99),
            1 => message.field[2].set_type(prost_types::field_descriptor_proto::Type::String),
            _ => drop(message.field.remove(2)),
        }
        let found = broken(&before, &promises(&set.encode_to_vec()));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("stead.v1.PutRequest#3"), "{found:?}");
    }
}
