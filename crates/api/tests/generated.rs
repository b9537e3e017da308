//! Test that the checked-in code matches `proto/`; it is checked in so that nobody needs a generator to build.
//!
//! After a change of a proto: `UPDATE_GENERATED=1 cargo test -p stead-api --test generated`.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The generated file of the services between nodes.
const BETWEEN_NODES: &str = "stead.internal.v1.rs";

/// Collects the protos in a stable order.
fn protos(below: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            protos(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "proto") {
            found.push(path);
        }
    }
    found.sort();
}

fn generate(into: &Path) {
    let include = root().join("proto");
    let mut files = Vec::new();
    protos(&include, &mut files);
    let mut compiler = protox::Compiler::new([&include]).unwrap();
    compiler
        .include_source_info(true)
        .include_imports(true)
        .open_files(&files)
        .unwrap();
    fs::write(into.join("descriptors.binpb"), compiler.encode_file_descriptor_set()).unwrap();
    let compile = |into: &Path, codec: &str| {
        tonic_prost_build::configure()
            .out_dir(into)
            .bytes(".")
            .btree_map(".")
            .codec_path(codec)
            .extern_path(".google.rpc.Status", "::tonic_types::Status")
            .emit_rerun_if_changed(false)
            .compile_fds_with_config(compiler.file_descriptor_set(), named())
            .unwrap();
    };
    compile(into, "crate::message_codec::MessageCodec");
    // Messages between nodes carry a checksum.
    let between_nodes = tempfile::tempdir().unwrap();
    compile(between_nodes.path(), "crate::peer_codec::PeerCodec");
    fs::copy(between_nodes.path().join(BETWEEN_NODES), into.join(BETWEEN_NODES)).unwrap();
}

/// Returns a generator of messages that know their names.
fn named() -> tonic_prost_build::Config {
    let mut config = tonic_prost_build::Config::new();
    config.enable_type_names();
    config
}

fn contents(of: &Path) -> BTreeMap<String, Vec<u8>> {
    let file = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.unwrap().path();
        (
            path.file_name().unwrap().to_string_lossy().into_owned(),
            fs::read(&path).unwrap(),
        )
    };
    fs::read_dir(of).unwrap().map(file).collect()
}

#[test]
fn generated_code_matches_the_protos() {
    let checked_in = root().join("crates/api/src/generated");
    let fresh = tempfile::tempdir().unwrap();
    generate(fresh.path());
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        for (name, bytes) in contents(fresh.path()) {
            fs::write(checked_in.join(name), bytes).unwrap();
        }
    }
    let (checked_in, fresh) = (contents(&checked_in), contents(fresh.path()));
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&checked_in), names(&fresh), "files of crates/api/src/generated");
    for (name, bytes) in &fresh {
        assert!(
            checked_in[name] == *bytes,
            "{name} does not match proto/: run with UPDATE_GENERATED=1"
        );
    }
}
