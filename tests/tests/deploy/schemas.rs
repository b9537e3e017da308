//! Checks by other people's tools, each where it is installed; a line says which one is not.

use std::{fs, path::Path, process::Command};

use crate::{
    files::{PROGRAM, folder, read},
    kubernetes::REGIONS,
    systemd::UNITS,
};

/// Runs a tool in `deploy/`; returns its output, or says that it is skipped.
fn run(tool: &str, arguments: &[&str]) -> Option<(bool, String)> {
    match Command::new(tool).args(arguments).current_dir(folder()).output() {
        Ok(output) => {
            let text = [output.stdout, output.stderr].concat();
            Some((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
        }
        Err(_) => {
            eprintln!("skipped: {tool} is not installed");
            None
        }
    }
}

/// Runs a tool that must be content.
fn check(tool: &str, arguments: &[&str]) {
    if let Some((good, text)) = run(tool, arguments) {
        assert!(good, "{tool} {arguments:?}: {text}");
    }
}

/// `pip install kubernetes-validate` has the schemas of the API with it.
#[test]
fn manifests_fit_the_schemas_of_the_api() {
    let files = REGIONS.map(|region| format!("kubernetes/{region}.yaml"));
    let mut all: Vec<&str> = files.iter().map(String::as_str).collect();
    all.extend(["kubernetes/namespace.yaml", "kubernetes/network-policy.yaml"]);
    check("kubernetes-validate", &all);
}

#[test]
fn schema_check_finds_a_wrong_manifest() {
    let wrong = tempfile::NamedTempFile::new().unwrap();
    let text = read("kubernetes/us-east.yaml").replace("maxUnavailable: 1", "maxUnavailable: [1]");
    fs::write(wrong.path(), text).unwrap();
    if let Some((good, text)) = run("kubernetes-validate", &[wrong.path().to_str().unwrap()]) {
        assert!(!good, "{text}");
    }
}

#[test]
fn kustomization_is_built() {
    if let Some((good, text)) = run("kubectl", &["kustomize", "kubernetes"]) {
        assert!(good, "{text}");
        assert_eq!(text.matches("kind: StatefulSet").count(), REGIONS.len());
        assert!(
            text.contains("name: stead-config-"),
            "the pods get the configuration by its hash"
        );
    }
}

/// `pip install check-jsonschema` has the schema of compose files with it.
#[test]
fn compose_file_fits_its_schema() {
    check(
        "check-jsonschema",
        &["--builtin-schema", "vendor.compose-spec", "compose/compose.yaml"],
    );
}

#[test]
fn units_are_understood_by_systemd() {
    let made = tempfile::tempdir().unwrap();
    for (unit, _) in UNITS {
        // The program and its user are not on this machine.
        let text = read(unit).replace(PROGRAM, "/bin/true").replace("=stead\n", "=root\n");
        let path = made.path().join(unit);
        fs::write(&path, text).unwrap();
        let path = path.to_str().unwrap();
        let Some((good, text)) = run("systemd-analyze", &["verify", path]) else {
            return;
        };
        // It looks at what the unit wants, too, which is not this project's.
        let own = text.lines().filter(|line| line.contains(unit));
        assert!(
            good && own.clone().count() == 0,
            "{unit}: {}",
            own.collect::<Vec<_>>().join("\n")
        );
        exposure(path);
    }
}

/// Most exposure of a unit, in tenths: what systemd calls OK ends at 5.0.
const EXPOSURE_MAX: &str = "--threshold=25";

fn exposure(unit: &str) {
    let arguments = ["security", "--offline=true", EXPOSURE_MAX, "--no-pager", unit];
    let Some((good, text)) = run("systemd-analyze", &arguments) else {
        return;
    };
    if text.contains("unrecognized option") {
        eprintln!("skipped: this systemd-analyze does not judge files");
        return;
    }
    assert!(good, "{}: {text}", Path::new(unit).display());
}
