//! Manifests of Kubernetes.

use std::{collections::BTreeSet, fs, time::Duration};

use serde_json::Value;

use crate::{
    container,
    files::{
        Environment, PROGRAM, at, check_command, check_ports, check_stop_time, folder, http_paths, image, read, text,
        texts, validated, yaml,
    },
};

/// Configuration of its nodes.
pub(crate) const CONFIG: &str = "kubernetes/stead.toml";
pub(crate) const REGIONS: [&str; 3] = ["us-east", "eu-west", "ap-south"];
const REPLICAS: usize = 3;
/// Time that a large data directory may take to open: as in the unit of systemd.
const START: u64 = 600;

/// Returns the objects of a kind in a region's file.
fn objects(region: &str, kind: &str) -> Vec<Value> {
    let all = yaml(&format!("kubernetes/{region}.yaml")).into_iter();
    all.filter(|object| text(object, "kind") == kind).collect()
}

fn stateful_set(region: &str) -> Value {
    objects(region, "StatefulSet").remove(0)
}

fn container(region: &str) -> Value {
    at(&stateful_set(region), "spec.template.spec.containers.0").clone()
}

/// Returns the names of the pods of a region.
pub(crate) fn pods(region: &str) -> Vec<String> {
    let set = stateful_set(region);
    let (name, replicas) = (text(&set, "metadata.name"), at(&set, "spec.replicas").as_u64().unwrap());
    (0..replicas).map(|ordinal| format!("{name}-{ordinal}")).collect()
}

/// Returns the environment of a pod as the kubelet makes it; `join` is the ConfigMap stead-join.
pub(crate) fn environment(region: &str, pod: &str, join: Option<&str>) -> Environment {
    let mut made = Environment::new();
    for variable in container(region)["env"].as_array().unwrap() {
        let name = text(variable, "name").to_owned();
        let value = if let Some(value) = variable["value"].as_str() {
            // Only variables before this one are known.
            made.iter().fold(value.to_owned(), |value, (known, content)| {
                value.replace(&format!("$({known})"), content)
            })
        } else if at(variable, "valueFrom.fieldRef.fieldPath") == "metadata.name" {
            pod.to_owned()
        } else {
            assert_eq!(at(variable, "valueFrom.configMapKeyRef.optional"), true, "{name}");
            let Some(join) = join else { continue };
            join.to_owned()
        };
        assert!(!value.contains("$("), "{name}: {value}");
        made.insert(name, value);
    }
    made
}

/// Returns the command of a container of the image.
pub(crate) fn command(region: &str) -> Vec<String> {
    [vec![PROGRAM.to_owned()], texts(&container(region), "args")].concat()
}

#[test]
fn regions_differ_by_name_only() {
    let [first, others @ ..] =
        REGIONS.map(|region| read(&format!("kubernetes/{region}.yaml")).replace(region, "REGION"));
    for other in others {
        assert_eq!(first, other);
    }
}

#[test]
fn pods_are_the_nodes_of_the_configuration() {
    let mut names = BTreeSet::new();
    for region in REGIONS {
        assert_eq!(pods(region).len(), REPLICAS);
        for pod in pods(region) {
            // The pod's own addresses and those of the list are the same.
            let own = environment(region, &pod, None);
            let config = validated(CONFIG, &own);
            assert_eq!(
                (config.node.name.as_str(), config.node.region.to_string()),
                (pod.as_str(), region.to_owned())
            );
            assert_eq!(config.client.advertise, config.node.client);
            assert_eq!(config.peer.advertise, config.node.peer);
            assert_eq!(config.http.advertise, config.node.http);
            assert_eq!(own["STEAD_TLS__KEY"], format!("/etc/stead/certs/node-{pod}.key"));
            names.insert(pod);
        }
    }
    let members = validated(CONFIG, &environment("us-east", "us-east-0", None)).members;
    assert_eq!(names, members.into_iter().map(|member| member.name).collect());
}

#[test]
fn pods_are_asked_and_stopped_as_nodes_are() {
    for region in REGIONS {
        let (set, container) = (stateful_set(region), container(region));
        let config = validated(CONFIG, &environment(region, &format!("{region}-0"), None));
        let pod = at(&set, "spec.template.spec");
        check_stop_time(
            &config,
            Duration::from_secs(pod["terminationGracePeriodSeconds"].as_u64().unwrap()),
        );
        check_command(&command(region));
        let ports = container["ports"].as_array().unwrap();
        let port = |name: &str| {
            let found = ports.iter().find(|port| port["name"] == name).unwrap();
            found["containerPort"].as_u64().unwrap()
        };
        check_ports(&config, ["client", "peer", "http"].map(port));
        for (probe, path) in [
            ("startupProbe", "/livez"),
            ("livenessProbe", "/livez"),
            ("readinessProbe", "/readyz"),
        ] {
            let get = &container[probe]["httpGet"];
            assert_eq!(get["path"], path, "{probe}");
            assert!(http_paths().contains(&path.to_owned()), "{path} is not answered");
            assert_eq!(
                (&get["port"], &get["scheme"]),
                (&"http".into(), &"HTTPS".into()),
                "{probe}"
            );
        }
        let start = &container["startupProbe"];
        let seconds = start["periodSeconds"].as_u64().unwrap() * start["failureThreshold"].as_u64().unwrap();
        assert!(seconds >= START, "{seconds} s to open a data directory");
        let mounts = container["volumeMounts"].as_array().unwrap();
        assert!(
            mounts
                .iter()
                .any(|mount| mount["name"] == "data" && mount["mountPath"] == config.data_dir.to_str().unwrap())
        );
        assert!(
            mounts
                .iter()
                .any(|mount| mount["subPath"] == "stead.toml" && mount["mountPath"] == "/etc/stead/stead.toml")
        );
    }
}

#[test]
fn pods_run_this_image_without_rights() {
    let user: u64 = container::user().split(':').next().unwrap().parse().unwrap();
    for region in REGIONS {
        let (set, container) = (stateful_set(region), container(region));
        assert_eq!(text(&container, "image"), image());
        let pod = at(&set, "spec.template.spec");
        let context = &pod["securityContext"];
        assert_eq!(context["runAsNonRoot"], true);
        assert_eq!([&context["runAsUser"], &context["fsGroup"]], [user, user]);
        assert_eq!(at(context, "seccompProfile.type"), "RuntimeDefault");
        let rights = &container["securityContext"];
        assert_eq!(rights["allowPrivilegeEscalation"], false);
        assert_eq!(rights["readOnlyRootFilesystem"], true);
        assert_eq!(texts(rights, "capabilities.drop"), ["ALL"]);
        assert_eq!(
            [&pod["automountServiceAccountToken"], &pod["enableServiceLinks"]],
            [false, false]
        );
        // 0440: what a node accepts of a key that it does not own.
        assert_eq!(at(pod, "volumes.1.secret.defaultMode"), 0o440);
    }
}

#[test]
fn regions_begin_together_and_are_disturbed_one_by_one() {
    for region in REGIONS {
        let set = stateful_set(region);
        let labels = at(&set, "spec.template.metadata.labels");
        assert_eq!(
            at(&set, "spec.podManagementPolicy"),
            "Parallel",
            "nodes begin only together"
        );
        assert_eq!(at(&set, "spec.selector.matchLabels"), labels);
        let spread = at(
            &set,
            "spec.template.spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution.0",
        );
        assert_eq!(text(spread, "topologyKey"), "kubernetes.io/hostname");
        assert_eq!(at(spread, "labelSelector.matchLabels"), labels);
        let budget = objects(region, "PodDisruptionBudget").remove(0);
        assert_eq!(at(&budget, "spec.maxUnavailable"), 1);
        assert_eq!(at(&budget, "spec.selector.matchLabels"), labels);
        let services = objects(region, "Service");
        let headless = services
            .iter()
            .find(|service| at(service, "metadata.name") == at(&set, "spec.serviceName"))
            .unwrap();
        assert_eq!(text(headless, "spec.clusterIP"), "None");
        assert_eq!(
            at(headless, "spec.publishNotReadyAddresses"),
            true,
            "nodes find each other before they are ready"
        );
        for service in services {
            assert_eq!(at(&service, "spec.selector"), labels);
        }
        let memory = at(&set, "spec.template.spec.containers.0.resources");
        assert_eq!(at(memory, "requests.memory"), at(memory, "limits.memory"));
    }
}

#[test]
fn kustomization_has_every_manifest() {
    let file = yaml("kubernetes/kustomization.yaml").remove(0);
    let named: BTreeSet<String> = texts(&file, "resources").into_iter().collect();
    let entries = fs::read_dir(folder().join("kubernetes")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let manifests = names.filter(|name| name.ends_with(".yaml") && name != "kustomization.yaml");
    assert_eq!(named, manifests.collect());
    assert_eq!(text(&file, "configMapGenerator.0.name"), "stead-config");
    assert_eq!(texts(&file, "configMapGenerator.0.files"), ["stead.toml"]);
    assert_eq!(format!("stead:{}", text(&file, "images.0.newTag")), image());
}
