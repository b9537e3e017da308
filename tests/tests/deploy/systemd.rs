//! Units of systemd.

use std::{collections::BTreeSet, process::Command, time::Duration};

use stead_tests::process::binary;

use crate::files::{Environment, check_command, check_ports, check_stop_time, folder, read, time, validated};

/// Unit, and the configuration that goes to the machine with it.
pub(crate) const UNITS: [(&str, &str); 2] = [
    ("stead.service", "stead.toml"),
    ("stead-witness.service", "witness.toml"),
];
/// Settings of a unit in which nodes and witnesses differ.
const DIFFERENT: [&str; 4] = ["Description", "Conflicts", "TimeoutStartSec", "LimitNOFILE"];
/// Restrictions that no unit may lose.
const HARDENING: [&str; 12] = [
    "NoNewPrivileges=yes",
    "CapabilityBoundingSet=",
    "MemoryDenyWriteExecute=yes",
    "PrivateDevices=yes",
    "PrivateTmp=yes",
    "ProtectHome=yes",
    "ProtectKernelTunables=yes",
    "ProtectSystem=strict",
    "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX",
    "RestrictNamespaces=yes",
    "SystemCallFilter=@system-service",
    "UMask=0077",
];
/// Least limit of open files with which a node starts.
const FILES_MIN: u64 = 1_024;

/// Returns the settings of a unit, one a line.
fn settings(unit: &str) -> Vec<(String, String)> {
    let text = read(unit);
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let pairs = lines.filter_map(|line| line.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn value(unit: &str, key: &str) -> String {
    let found = settings(unit).into_iter().find(|(known, _)| known == key);
    found.unwrap_or_else(|| panic!("{unit} has no {key}")).1
}

/// Returns the words of the command that a unit starts.
pub(crate) fn command(unit: &str, key: &str) -> Vec<String> {
    value(unit, key).split_whitespace().map(str::to_owned).collect()
}

#[test]
fn units_start_what_exists_and_stop_in_time() {
    for (unit, file) in UNITS {
        let config = validated(file, &Environment::new());
        check_command(&command(unit, "ExecStart"));
        check_command(&command(unit, "ExecStartPre"));
        assert_eq!(command(unit, "ExecStart").last().unwrap(), "/etc/stead/stead.toml");
        check_stop_time(&config, time(&value(unit, "TimeoutStopSec")));
        assert!(
            time(&value(unit, "TimeoutStartSec")) > Duration::from_secs(60),
            "{unit}"
        );
        let state = format!("/var/lib/{}", value(unit, "StateDirectory"));
        assert_eq!(config.data_dir.to_str().unwrap(), state, "{unit}");
        assert!(
            value(unit, "LimitNOFILE").parse::<u64>().unwrap() >= FILES_MIN,
            "{unit}"
        );
        check_ports(&config, [7401, 7501, 7601]);
        assert_eq!(
            config.node.witness,
            unit.contains("witness"),
            "{file} is of {}",
            config.node.name
        );
    }
}

#[test]
fn units_are_hardened_alike() {
    let [node, witness] = UNITS.map(|(unit, _)| {
        let kept = settings(unit)
            .into_iter()
            .filter(|(key, _)| !DIFFERENT.contains(&key.as_str()));
        kept.map(|(key, value)| format!("{key}={value}"))
            .collect::<BTreeSet<_>>()
    });
    assert_eq!(node, witness);
    for restriction in HARDENING {
        assert!(node.contains(restriction), "{restriction} is missing");
    }
}

#[test]
fn every_node_of_the_examples_is_valid() {
    for (_, file) in UNITS {
        let members = validated(file, &Environment::new()).members;
        for member in members {
            let environment = Environment::from([("STEAD_NODE__NAME".to_owned(), member.name.clone())]);
            assert_eq!(validated(file, &environment).node.name, member.name);
        }
    }
}

/// The variables of deploy/README.md "Growing".
#[test]
fn node_that_is_to_join_passes_check_of_the_unit() {
    let data = tempfile::tempdir().unwrap();
    let check = |advertised: Option<&str>| {
        let mut command = Command::new(binary());
        command
            .args(["config", "check"])
            .arg(folder().join("stead.toml"))
            .env_clear();
        command
            .env("STEAD_NODE__NAME", "eu-west-4")
            .env("STEAD_NODE__DATA_DIR", data.path());
        command.env(
            "STEAD_CLUSTER__JOIN",
            "eu-west-1.stead.example:7501,eu-west-2.stead.example:7501",
        );
        if let Some(host) = advertised {
            for (listener, port) in [("CLIENT", 7401), ("PEER", 7501), ("HTTP", 7601)] {
                command.env(format!("STEAD_{listener}__ADVERTISE"), format!("{host}:{port}"));
            }
        }
        let output = command.output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    };
    let (code, text) = check(Some("eu-west-4.stead.example"));
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(
        text.trim_end(),
        "valid: node eu-west-4, which is to join cluster production, engine fjall"
    );
    let (code, text) = check(None);
    assert_eq!(code, Some(2), "{text}");
    assert!(
        text.contains("client.advertise: name the address that others use, host:port"),
        "{text}"
    );
}
