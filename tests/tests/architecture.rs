//! Architecture tests: which crate may depend on which, which crates own which third-party library, and that modules
//! which stand side by side do not use each other in circles.
//!
//! A new dependency between crates is a decision: change the table here, and say why in the commit.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

mod module_tree;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use module_tree::ModuleTree;

/// Crate -> the crates of Stead on which it may depend.
const ALLOWED_DEPENDENCIES: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("state", &["types"]),
    ("api", &["types"]),
    ("store", &["types", "state"]),
    ("raft", &["types", "state", "store", "api"]),
    ("replication", &["types", "state", "api", "store", "raft"]),
    ("tls", &["api"]),
    ("cert", &["tls"]),
    (
        "server",
        &["types", "state", "api", "store", "raft", "replication", "tls"],
    ),
    ("client", &["types", "api", "tls"]),
    ("testing", &["types", "client", "tls", "cert"]),
    ("cli", &["server", "client", "testing", "api", "types", "tls", "cert"]),
    ("hack", &[]),
];

/// Crate -> further crates of Stead that its tests may use, and it may not.
const ALLOWED_IN_TESTS: &[(&str, &[&str])] = &[
    ("raft", &["testing"]),
    ("replication", &["testing"]),
    ("tls", &["cert"]),
];

/// Third-party library -> the crates that may depend on it. Other libraries are free to all but the pure crates.
const LIBRARY_OWNERS: &[(&str, &[&str])] = &[
    ("prost", &["api"]),
    ("prost-types", &["api", "server"]),
    ("tonic-prost", &["api"]),
    ("tonic-prost-build", &["api"]),
    ("tonic-types", &["api"]),
    ("protox", &["api"]),
    ("tonic", &["api", "raft", "replication", "server", "client"]),
    ("fjall", &["store"]),
    ("sled", &["store"]),
    ("raft-engine", &["store"]),
    ("rustix", &["store", "server"]),
    ("protobuf", &["store"]),
    ("openraft", &["raft"]),
    ("rustls", &["tls"]),
    ("rustls-pki-types", &["tls"]),
    ("rustls-webpki", &["tls"]),
    ("tokio-rustls", &["tls"]),
    ("x509-parser", &["tls"]),
    ("rcgen", &["cert"]),
    ("time", &["cert"]),
    ("axum", &["server"]),
    ("prometheus-client", &["server"]),
    ("tonic-health", &["server"]),
    ("tonic-reflection", &["server"]),
    ("jsonwebtoken", &["server"]),
    ("ring", &["server", "cli"]),
    ("object_store", &["cli"]),
    ("reqwest", &["cli"]),
    ("sd-notify", &["server", "cli"]),
    ("hyper", &["server", "client"]),
    ("hyper-util", &["api", "server", "client"]),
    ("clap", &["cli"]),
    ("mimalloc", &["cli"]),
    ("indicatif", &["cli"]),
    ("comfy-table", &["cli"]),
    ("anyhow", &["cli"]),
    ("sha2", &["cli"]),
];

/// Pure crates: no runtime, disk, network, clock or random numbers, so only these libraries.
const PURE_CRATES: &[(&str, &[&str])] = &[
    ("types", &["serde", "thiserror", "bytes"]),
    ("state", &["bytes", "thiserror", "xxhash-rust", "crc32c"]),
];

/// The only files of simulated crates that may use the system's clocks, threads and randomness: elsewhere these are
/// arguments.
const AMBIENT_FILES: &[&str] = &[
    "store/src/background.rs",
    "store/src/engine/fjall.rs",
    "store/src/engine/fjall/reclaim.rs",
    "store/src/engine/sled/mod.rs",
    "store/src/log/raft_engine/handle.rs",
    "store/src/log/raft_engine/mod.rs",
    "store/src/log/raft_engine/raft_engine_test.rs",
    "store/src/log/raft_engine/writer.rs",
    "raft/src/blocking.rs",
    "server/src/environment.rs",
    "server/src/panics.rs",
];

/// Crates that run inside the simulation.
const SIMULATED_CRATES: &[&str] = &[
    "types",
    "state",
    "api",
    "store",
    "raft",
    "replication",
    "server",
    "client",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn manifest(path: &Path) -> toml::Table {
    fs::read_to_string(path).unwrap().parse().unwrap()
}

/// Returns the manifests of the crates below `crates/`.
fn crates() -> BTreeMap<String, toml::Table> {
    let folder = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        path.is_dir().then(|| (name, manifest(&path.join("Cargo.toml"))))
    };
    fs::read_dir(root().join("crates"))
        .unwrap()
        .filter_map(folder)
        .collect()
}

/// Returns the dependencies of a crate in these sections.
fn dependencies(manifest: &toml::Table, sections: &[&str]) -> BTreeSet<String> {
    let section = |name: &&str| manifest.get(*name).and_then(toml::Value::as_table);
    let tables = sections.iter().filter_map(section);
    tables.flat_map(|table| table.keys().cloned()).collect()
}

/// Every section, tests and build scripts included.
const ALL_SECTIONS: &[&str] = &["dependencies", "dev-dependencies", "build-dependencies"];

#[test]
fn crate_dependencies_follow_the_table() {
    let crates = crates();
    let table: BTreeMap<&str, &[&str]> = ALLOWED_DEPENDENCIES.iter().copied().collect();
    let names: Vec<&str> = crates.keys().map(String::as_str).collect();
    assert_eq!(names, table.keys().copied().collect::<Vec<_>>(), "crates and the table");
    for (name, manifest) in &crates {
        assert_eq!(manifest["package"]["name"].as_str().unwrap(), format!("stead-{name}"));
        let only_in_tests = ALLOWED_IN_TESTS.iter().filter(|(of, _)| of == name);
        let only_in_tests: Vec<&str> = only_in_tests.flat_map(|(_, others)| others.iter().copied()).collect();
        let shipped = dependencies(manifest, &["dependencies", "build-dependencies"]);
        for library in dependencies(manifest, ALL_SECTIONS) {
            let Some(other) = library.strip_prefix("stead-").filter(|other| *other != "hack") else {
                continue;
            };
            let is_allowed = table[name.as_str()].contains(&other)
                || (only_in_tests.contains(&other) && !shipped.contains(&library));
            assert!(is_allowed, "{name} may not use {other}");
        }
    }
}

#[test]
fn foreign_library_is_used_by_owners_only() {
    for (library, owners) in LIBRARY_OWNERS {
        for (name, manifest) in &crates() {
            if dependencies(manifest, ALL_SECTIONS).contains(*library) && name != "hack" {
                assert!(
                    owners.contains(&name.as_str()),
                    "{name} may not name {library}: it belongs to {owners:?}"
                );
            }
        }
    }
}

#[test]
fn pure_crates_use_allowed_libraries_only() {
    let crates = crates();
    for (name, allowed) in PURE_CRATES {
        let used = dependencies(&crates[*name], &["dependencies", "build-dependencies"]);
        for library in used.iter().filter(|library| !library.starts_with("stead-")) {
            assert!(
                allowed.contains(&library.as_str()),
                "{name} is pure and may not use {library}"
            );
        }
    }
}

/// All versions are declared in one place, so that `cargo run` and `cargo test` build the same. `hack` only unifies
/// features, also of libraries that no other crate names.
#[test]
fn versions_are_declared_in_workspace_only() {
    for (name, manifest) in crates().iter().filter(|(name, _)| *name != "hack") {
        for section in ALL_SECTIONS {
            let Some(table) = manifest.get(*section).and_then(toml::Value::as_table) else {
                continue;
            };
            for (library, value) in table {
                let inherits = value.get("workspace").and_then(toml::Value::as_bool);
                assert_eq!(
                    inherits,
                    Some(true),
                    "{library} of {name} must be `{library}.workspace = true`"
                );
            }
        }
    }
}

/// Dependencies with their features, as cargo builds them for a selection of packages.
fn features(selection: &[&str]) -> BTreeSet<String> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .current_dir(root())
        .args(["tree", "--locked", "--prefix", "none", "--format", "{p} {f}"]);
    let output = cargo.args(selection).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    lines
        .lines()
        .map(|line| line.trim_end_matches(" (*)").to_owned())
        .collect()
}

/// Otherwise `cargo run` after `cargo test --workspace` builds a library anew, and with it all crates above, for minutes.
#[test]
fn one_build_serves_run_and_test() {
    let all = features(&["--workspace", "--edges", "normal,build,dev"]);
    let run = features(&["--package", "stead-cli", "--edges", "normal,build"]);
    let crates = ["server", "replication", "raft", "client", "cli"].map(|name| format!("stead-{name}"));
    let tests = crates
        .iter()
        .map(|name| features(&["--package", name, "--edges", "normal,build,dev"]));
    for selection in std::iter::once(run).chain(tests) {
        let apart: Vec<_> = selection.difference(&all).collect();
        assert!(
            apart.is_empty(),
            "built twice, until crates/hack names the missing features: {apart:#?}"
        );
    }
}

fn sources(below: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

/// A request that a service makes for another service of its node has no caller: no listener has looked at it, so that it is
/// refused, or worse, passes where nobody asked who it is. Within a node messages are passed, and who asks where that counts;
/// requests for other nodes are made in `admin_peers.rs`.
#[test]
fn services_make_no_requests() {
    let folder = root().join("crates/server/src/services");
    let mut files = Vec::new();
    sources(&folder, &mut files);
    assert!(files.len() > 40, "the sources were found");
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        let is_test = path.to_string_lossy().ends_with("_test.rs");
        assert!(
            is_test || !code.contains("Request::new("),
            "{} makes a request that no listener has looked at",
            path.display()
        );
    }
}

/// The simulation runs the whole server in one thread under a paused clock, with one seed.
#[test]
fn simulated_crates_use_no_ambient_time_or_threads() {
    const FORBIDDEN: &[&str] = &[
        "SystemTime::now",
        "std::time::Instant",
        "std::thread",
        "thread::spawn",
        "spawn_blocking",
        "thread_rng",
        "rand::rng()",
        "rand::random",
    ];
    let crates = root().join("crates");
    let mut files = Vec::new();
    for name in SIMULATED_CRATES {
        sources(&crates.join(name).join("src"), &mut files);
    }
    assert!(files.len() > 50, "the sources were found");
    for path in files {
        let shown = path.strip_prefix(&crates).unwrap().to_string_lossy().into_owned();
        if AMBIENT_FILES.contains(&shown.as_str()) || shown.contains("generated/") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        // The code after the marker of the tests is not part of the server.
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        for (at, line) in code.lines().enumerate() {
            let Some(word) = FORBIDDEN.iter().find(|word| line.contains(**word)) else {
                continue;
            };
            assert!(
                line.trim_start().starts_with("//"),
                "{shown}:{}: {word} is an argument here",
                at + 1
            );
        }
    }
}

#[test]
fn comments_begin_with_the_thing_that_they_describe() {
    let mut files = Vec::new();
    for folder in ["crates", "tests", "benches"] {
        sources(&root().join(folder), &mut files);
    }
    let is_comment = |line: &str| line.starts_with("///") || line.starts_with("//!");
    let written = files
        .iter()
        .filter(|path| !path.to_string_lossy().contains("/generated/"));
    for path in written {
        let text = fs::read_to_string(path).unwrap();
        let mut before = "";
        for (at, line) in text.lines().map(str::trim_start).enumerate() {
            let begins = is_comment(line) && !is_comment(before);
            let is_pronoun = ["/// What ", "//! What "].iter().any(|start| line.starts_with(start));
            let (path, number) = (path.display(), at + 1);
            assert!(
                !begins || !is_pronoun,
                "{path}:{number}: name the thing, with the glossary's word"
            );
            before = line;
        }
    }
}

/// A longer file holds a second idea. Tests may be longer, and what is generated.
#[test]
fn files_of_code_have_at_most_500_lines() {
    let mut files = Vec::new();
    for folder in ["crates", "benches"] {
        sources(&root().join(folder), &mut files);
    }
    let is_exempt = |path: &Path| {
        let path = path.to_string_lossy();
        ["/generated/", "/tests/", "_test.rs", "/tests.rs"]
            .iter()
            .any(|part| path.contains(part))
    };
    for path in files.iter().filter(|path| !is_exempt(path)) {
        let lines = fs::read_to_string(path).unwrap().lines().count();
        assert!(
            lines <= 500,
            "{} has {lines} lines: move one of its ideas",
            path.display()
        );
    }
}

#[test]
fn format_libraries_are_pinned_exactly() {
    let workspace = manifest(&root().join("Cargo.toml"));
    for library in ["openraft", "raft-engine", "fjall", "sled"] {
        let Some(value) = workspace["workspace"]["dependencies"].get(library) else {
            panic!("{library} is not in the workspace");
        };
        let version = value.as_str().or_else(|| value.get("version")?.as_str()).unwrap();
        assert!(version.starts_with('='), "{library} must be pinned with `=`");
    }
}

/// Planted bugs are in no shipped binary: only the tests' own feature enables them.
#[test]
fn shipped_crates_lack_feature_planted() {
    for (name, manifest) in &crates() {
        let text = toml::to_string(manifest).unwrap();
        let is_free = name == "types" || !text.contains("planted");
        assert!(is_free, "{name} may not ask for the feature planted");
        let features = manifest.get("features").and_then(toml::Value::as_table);
        let default = features.and_then(|features| features.get("default"));
        assert!(
            default.is_none(),
            "{name} has default features: none of them may be planted"
        );
    }
    let workspace = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(!workspace.contains("planted"), "the workspace may not ask for it");
    let tests = manifest(&root().join("tests/Cargo.toml"));
    assert_eq!(tests["features"]["planted"][0].as_str(), Some("stead-types/planted"));
    assert!(tests["features"].get("default").is_none());
}

/// A planted bug that is not in the code any more could not be found.
#[test]
fn planted_bug_stands_in_one_place() {
    let crates = root().join("crates");
    let mut files = Vec::new();
    sources(&crates, &mut files);
    let code: Vec<String> = files
        .iter()
        .filter(|path| !path.ends_with("types/src/planted.rs"))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    for planted in stead_types::planted::ALL {
        let name = format!("Bug::{:?}", planted.bug);
        let is_whole = |rest: &str| !rest.starts_with(|next: char| next.is_alphanumeric());
        let places = |text: &String| text.split(&name).skip(1).filter(|rest| is_whole(rest)).count();
        let places: usize = code.iter().map(places).sum();
        assert_eq!(places, 1, "{name} ({}) must stand in one place", planted.name);
    }
}

/// Crates, and the module in them, below which no sibling modules use each other in a circle; empty: the whole crate.
const CIRCLE_FREE: &[(&str, &str)] = &[
    ("client", ""),
    ("raft", ""),
    ("replication", ""),
    ("server", "services"),
];

/// Circles that are accepted, or a part of one: crate, parent module, siblings in the order of their names, reason.
const ACCEPTED_CIRCLES: &[(&str, &str, &[&str], &str)] = &[];

/// A reader can begin with modules that use no others. A module and its own children are one thing here.
#[test]
fn sibling_modules_have_no_circles() {
    for (name, top) in CIRCLE_FREE {
        let src = root().join("crates").join(name).join("src");
        let mut files = Vec::new();
        sources(&src, &mut files);
        let tree = ModuleTree::read(&src, &files);
        for parent in tree.parents_below(top) {
            let is_accepted = |circle: &BTreeSet<String>| {
                ACCEPTED_CIRCLES.iter().any(|(accepted, within, siblings, _)| {
                    let is_sibling = |part: &String| siblings.contains(&part.as_str());
                    accepted == name && *within == parent && circle.iter().all(is_sibling)
                })
            };
            for (circle, examples) in tree.circles(parent) {
                let examples = examples.join("\n");
                assert!(
                    is_accepted(&circle),
                    "{name}, below {parent:?}: circle {circle:?}\n{examples}"
                );
            }
        }
    }
}
