//! Reading of the files of `deploy/`, and checks that are the same for all of them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::Value;
use stead_server::config::{Config, ValidatedConfig};
use stead_tests::process::binary;

/// Environment variables of a process.
pub(crate) type Environment = BTreeMap<String, String>;

/// Path of the program in images and on machines.
pub(crate) const PROGRAM: &str = "/usr/local/bin/stead";
/// Margin between a drain and the signal that ends the process: connections are closed, and the storage.
const STOP_MARGIN: Duration = Duration::from_secs(5);

pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

pub(crate) fn read(file: &str) -> String {
    fs::read_to_string(folder().join(file)).unwrap_or_else(|error| panic!("deploy/{file}: {error}"))
}

/// Returns the documents of a YAML file, with merged maps written out.
pub(crate) fn yaml(file: &str) -> Vec<Value> {
    let text = read(file);
    let documents = serde_yaml_ng::Deserializer::from_str(&text).map(|document| {
        use serde::Deserialize;
        let mut value = serde_yaml_ng::Value::deserialize(document).unwrap_or_else(|error| panic!("{file}: {error}"));
        value.apply_merge().unwrap();
        serde_json::to_value(value).unwrap()
    });
    documents.collect()
}

/// Returns the value at a path such as `spec.template`; a number is a place in a list.
pub(crate) fn at<'a>(value: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(value, |value, step| match step.parse::<usize>() {
        Ok(place) if value.is_array() => &value[place],
        Ok(_) | Err(_) => &value[step],
    })
}

pub(crate) fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    at(value, path)
        .as_str()
        .unwrap_or_else(|| panic!("{path} is no text in {value}"))
}

pub(crate) fn texts(value: &Value, path: &str) -> Vec<String> {
    let list = at(value, path)
        .as_array()
        .unwrap_or_else(|| panic!("{path} is no list in {value}"));
    list.iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// Loads and validates a node's configuration by the code of the node.
pub(crate) fn validated(file: &str, environment: &Environment) -> ValidatedConfig {
    let config = Config::load(&read(file), environment.clone()).unwrap_or_else(|error| panic!("{file}: {error}"));
    config
        .validate()
        .unwrap_or_else(|error| panic!("{file}, {environment:?}: {error}"))
}

/// Checks that a command line is one of the program; it begins with the program's path.
pub(crate) fn check_command(words: &[String]) {
    assert_eq!(words[0], PROGRAM);
    let output = Command::new(binary()).args(&words[1..]).arg("--help").output().unwrap();
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {why}");
}

/// Checks that a node is given the time that its drain may take.
pub(crate) fn check_stop_time(config: &ValidatedConfig, given: Duration) {
    let needed = config.shutdown_timeout + STOP_MARGIN;
    assert!(
        given >= needed,
        "{given:?} to stop, and node.shutdown_timeout needs {needed:?}"
    );
}

/// Checks that a node listens on every interface at the ports that a file names, and is known by others at the same.
pub(crate) fn check_ports(config: &ValidatedConfig, ports: [u64; 3]) {
    let listeners = [&config.client, &config.peer, &config.http];
    for (listener, port) in listeners.into_iter().zip(ports) {
        assert_eq!(listener.listen, format!("0.0.0.0:{port}"));
        assert!(listener.advertise.ends_with(&format!(":{port}")), "{listener:?}");
    }
}

/// Returns the paths that the HTTP listener of a node answers.
pub(crate) fn http_paths() -> Vec<String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/server/src/http.rs");
    let source = fs::read_to_string(source).unwrap();
    let routes = source.split(".route(\"").skip(1);
    routes
        .map(|route| route.split('"').next().unwrap().to_owned())
        .collect()
}

/// Returns the image of the sources.
pub(crate) fn image() -> String {
    format!("stead:{}", env!("CARGO_PKG_VERSION"))
}

/// Parses a time as `45s` or `10min`.
pub(crate) fn time(text: &str) -> Duration {
    let units = [("min", 60), ("m", 60), ("s", 1)];
    let parsed = units.iter().find_map(|(unit, seconds)| {
        let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
        Some(Duration::from_secs(number * seconds))
    });
    parsed.unwrap_or_else(|| panic!("{text:?} is no time"))
}
