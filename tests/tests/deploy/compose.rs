//! The compose file.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::files::{
    Environment, PROGRAM, at, check_command, check_ports, check_stop_time, image, text, texts, time, validated, yaml,
};

/// Configuration of its nodes.
pub(crate) const CONFIG: &str = "compose/stead.toml";
/// Services that are no nodes.
const OTHERS: [&str; 2] = ["certificates", "cli"];

fn file() -> Value {
    yaml("compose/compose.yaml").remove(0)
}

/// Returns the nodes with their names.
pub(crate) fn nodes() -> Vec<(String, Value)> {
    let file = file();
    let services = file["services"].as_object().unwrap();
    let nodes = services.iter().filter(|(name, _)| !OTHERS.contains(&name.as_str()));
    nodes.map(|(name, service)| (name.clone(), service.clone())).collect()
}

/// Returns the command of a service with the program in front.
pub(crate) fn command(service: &Value) -> Vec<String> {
    [vec![PROGRAM.to_owned()], texts(service, "command")].concat()
}

/// Returns the command that makes the certificates.
pub(crate) fn certificates() -> Vec<String> {
    command(&file()["services"]["certificates"])
}

/// Returns the command that asks a node for its health.
pub(crate) fn probe() -> Vec<String> {
    let (_, node) = nodes().remove(0);
    let test = texts(&node, "healthcheck.test");
    assert_eq!(test[0], "CMD", "there is no shell in the image");
    test[1..].to_vec()
}

pub(crate) fn environment(service: &Value) -> Environment {
    let variables = service["environment"].as_object().unwrap();
    variables
        .iter()
        .map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()))
        .collect()
}

#[test]
fn services_are_the_nodes_of_the_configuration() {
    let names: BTreeSet<String> = nodes().into_iter().map(|(name, _)| name).collect();
    let (_, first) = nodes().remove(0);
    let members = validated(CONFIG, &environment(&first)).members;
    assert_eq!(names, members.iter().map(|member| member.name.clone()).collect());
    assert_eq!(names.len(), 9);
    for (name, service) in nodes() {
        let config = validated(CONFIG, &environment(&service));
        assert_eq!(config.node.name, name);
        check_ports(&config, [7401, 7501, 7601]);
        // The name of a service is the name of its host.
        assert_eq!(config.client.advertise, format!("{name}:7401"));
        check_stop_time(&config, time(text(&service, "stop_grace_period")));
        let volumes = texts(&service, "volumes");
        assert!(
            volumes.contains(&format!("{name}:{}", config.data_dir.display())),
            "{volumes:?}"
        );
        assert!(environment(&service)["STEAD_TLS__KEY"].ends_with(&format!("/node-{name}.key")));
    }
}

#[test]
fn every_service_runs_this_image_without_rights() {
    let file = file();
    let volumes = file["volumes"].as_object().unwrap();
    for (name, service) in file["services"].as_object().unwrap() {
        assert_eq!(text(service, "image"), image(), "{name}");
        check_command(&command(service));
        assert_eq!(at(service, "read_only"), true, "{name}");
        assert_eq!(texts(service, "cap_drop"), ["ALL"], "{name}");
        assert_eq!(texts(service, "security_opt"), ["no-new-privileges:true"], "{name}");
        for volume in texts(service, "volumes") {
            let source = volume.split(':').next().unwrap();
            assert!(
                source.starts_with("./") || volumes.contains_key(source),
                "{name}: {volume}"
            );
        }
    }
    check_command(&probe());
}
