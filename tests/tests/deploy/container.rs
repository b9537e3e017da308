//! The container file.

use std::fs;

use crate::{
    compose,
    files::{PROGRAM, check_command, folder, read},
};

/// Returns the instructions of the container file with their arguments, lines joined.
fn instructions() -> Vec<(String, String)> {
    let text = read("container/Containerfile").replace("\\\n", " ");
    let lines = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    let pairs = lines.filter_map(|line| line.split_once(' '));
    pairs.map(|(word, rest)| (word.to_owned(), rest.to_owned())).collect()
}

fn all(word: &str) -> Vec<String> {
    let meant = instructions().into_iter().filter(|(known, _)| known == word);
    meant.map(|(_, rest)| rest).collect()
}

fn last(word: &str) -> String {
    all(word)
        .pop()
        .unwrap_or_else(|| panic!("the container file has no {word}"))
}

/// Parses a list of words in the form of JSON.
fn words(list: &str) -> Vec<String> {
    serde_json::from_str(list).unwrap_or_else(|error| panic!("{list}: {error}"))
}

/// Returns the user of the image, by number.
pub(crate) fn user() -> String {
    last("USER")
}

#[test]
fn image_is_built_from_these_sources() {
    let toolchain = fs::read_to_string(folder().join("../rust-toolchain.toml")).unwrap();
    let version = toolchain
        .split("channel = \"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    assert!(
        all("FROM")[0].starts_with(&format!("rust:{version}-")),
        "another compiler than rust-toolchain.toml"
    );
    assert_eq!(last("FROM"), "scratch", "nothing else is in the image");
    let build = all("RUN").join("\n");
    for words in ["--locked", "--profile dist", "--package stead-cli", "target/dist/stead"] {
        assert!(build.contains(words), "{words}");
    }
    let manifest = fs::read_to_string(folder().join("../Cargo.toml")).unwrap();
    assert!(manifest.contains("[profile.dist]"));
    let ignored = fs::read_to_string(folder().join("../.dockerignore")).unwrap();
    assert!(ignored.lines().any(|line| line == "target"));
}

#[test]
fn image_runs_without_root_and_answers_for_its_health() {
    let (user, group) = user()
        .split_once(':')
        .map(|(user, group)| (user.to_owned(), group.to_owned()))
        .unwrap();
    // Kubernetes sees only by a number that it is not root.
    assert!(user.parse::<u32>().is_ok_and(|user| user > 0) && group.parse::<u32>().is_ok());
    assert_eq!(last("EXPOSE"), "7401 7501 7601");
    assert_eq!(words(&last("ENTRYPOINT")), [PROGRAM]);
    let serve = [words(&last("ENTRYPOINT")), words(&last("CMD"))].concat();
    check_command(&serve);
    let health = last("HEALTHCHECK");
    let (_, probe) = health.split_once("CMD ").unwrap();
    check_command(&words(probe));
    assert_eq!(words(probe)[1], "health");
    assert_eq!(words(probe), compose::probe(), "compose asks otherwise than the image");
    assert_eq!(last("ENV"), "STEAD_CONFIG=/etc/stead/stead.toml");
    assert_eq!(last("VOLUME"), "/var/lib/stead");
}
