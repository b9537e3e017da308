//! Nodes started by exactly the commands, configurations and environments of the files, moved to loopback ports and a folder.

use std::{
    collections::BTreeMap,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use stead_server::config::ValidatedConfig;
use stead_tests::process::{binary, exclusive_lock};
use tempfile::TempDir;
use tokio::time::sleep;

use crate::{
    compose,
    files::{Environment, check_command, read, validated},
    kubernetes, systemd,
};

/// Time in which a cluster must be ready, beside other tests.
const READY_WITHIN: Duration = Duration::from_secs(180);
/// Time in which nodes that were asked to stop must have ended.
const STOPPED_WITHIN: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Node as a file of `deploy/` describes it.
struct Deployed {
    name: String,
    environment: Environment,
    /// Command, with the program's path in front.
    command: Vec<String>,
}

/// Cluster of one kind of deployment, in a folder.
struct Deployment {
    folder: TempDir,
    /// Configuration, as a file of `deploy/`.
    file: &'static str,
    /// Ports of this machine by advertised address.
    ports: BTreeMap<String, u16>,
    running: BTreeMap<String, Child>,
}

impl Drop for Deployment {
    fn drop(&mut self) {
        for child in self.running.values_mut() {
            // What ended already cannot be killed.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Deployment {
    /// Takes a port for each address of the configuration, and makes its certificates.
    fn prepare(file: &'static str, first: &Environment) -> Self {
        let members = validated(file, first).members;
        let addresses = members
            .iter()
            .flat_map(|member| [&member.client, &member.peer, &member.http]);
        // All are held until all are taken, so that they differ.
        let held: Vec<(String, TcpListener)> = addresses
            .map(|address| (address.clone(), TcpListener::bind("127.0.0.1:0").unwrap()))
            .collect();
        let ports = held
            .into_iter()
            .map(|(address, held)| (address, held.local_addr().unwrap().port()));
        let made = Self {
            folder: tempfile::tempdir().unwrap(),
            file,
            ports: ports.collect(),
            running: BTreeMap::new(),
        };
        fs::write(made.config(), made.config_text()).unwrap();
        made
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("stead.toml")
    }

    fn certs(&self) -> PathBuf {
        self.folder.path().join("certs")
    }

    /// Returns the configuration as it stands in `deploy/`, and after it where the names of its hosts lead on this machine.
    fn config_text(&self) -> String {
        let dials = self
            .ports
            .iter()
            .map(|(address, port)| format!("\"{address}\" = \"127.0.0.1:{port}\"\n"));
        format!("{}\n[net.dial]\n{}", read(self.file), dials.collect::<String>())
    }

    /// Runs a command of a file that makes certificates.
    fn make_certificates(&self, command: &[String]) {
        let place = |word: &String| match word.as_str() {
            "/etc/stead/stead.toml" => self.config().into_os_string(),
            "/etc/stead/certs" => self.certs().into_os_string(),
            word => word.into(),
        };
        let output = Command::new(binary())
            .args(command[1..].iter().map(place))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Returns a command of a node with its files in the folder, and its listeners on this machine.
    fn command(&self, node: &Deployed, words: &[String]) -> Command {
        let config = validated(self.file, &node.environment);
        let own = self.folder.path().join(&node.name);
        fs::create_dir_all(&own).unwrap();
        let mut environment = node.environment.clone();
        for value in environment.values_mut() {
            *value = self.moved(value, &own);
        }
        for (key, address) in listeners(&config) {
            environment.insert(key.to_owned(), format!("127.0.0.1:{}", self.ports[address]));
        }
        environment.insert("STEAD_NODE__DATA_DIR".into(), own.join("data").to_str().unwrap().into());
        for (key, path) in [
            ("STEAD_TLS__CA", config.tls.files.as_ref().map(|files| files.ca.clone())),
            (
                "STEAD_TLS__CERTIFICATE",
                config.tls.files.as_ref().and_then(|files| files.certificate.clone()),
            ),
            (
                "STEAD_TLS__KEY",
                config.tls.files.as_ref().and_then(|files| files.key.clone()),
            ),
        ] {
            let path = path.unwrap_or_else(|| panic!("{} has no {key}", node.name));
            environment.insert(key.to_owned(), self.moved(path.to_str().unwrap(), &own));
        }
        let mut command = Command::new(binary());
        command
            .args(words[1..].iter().map(|word| self.moved(word, &own)))
            .env_clear()
            .envs(environment);
        command
    }

    /// Returns a path of the machine or image as one in the folder; others stay.
    fn moved(&self, path: &str, own: &Path) -> String {
        let path = path
            .replace("/etc/stead/certs", self.certs().to_str().unwrap())
            .replace("/etc/stead/stead.toml", self.config().to_str().unwrap());
        path.replace("/etc/stead", own.to_str().unwrap())
    }

    fn start(&mut self, node: &Deployed) {
        let log = fs::File::create(self.folder.path().join(format!("{}.log", node.name))).unwrap();
        let mut command = self.command(node, &node.command);
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.running.insert(node.name.clone(), child);
    }

    /// Waits until a node says that it is well, as the probe of the image asks it.
    async fn healthy(&mut self, node: &Deployed, probe: &[String]) {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            let output = self.command(node, probe).output().unwrap();
            if output.status.success() {
                return;
            }
            let ended = self
                .running
                .get_mut(&node.name)
                .and_then(|child| child.try_wait().unwrap());
            let log = fs::read_to_string(self.folder.path().join(format!("{}.log", node.name))).unwrap();
            let why = String::from_utf8_lossy(&output.stderr);
            assert!(ended.is_none(), "{} has ended: {ended:?}\n{log}", node.name);
            assert!(Instant::now() < deadline, "{}: {why}\n{log}", node.name);
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Stops nodes by SIGTERM, as every manager of services does; each must end well by itself.
    async fn stop(&mut self, names: &[String]) {
        for name in names {
            let process = self.running[name].id().to_string();
            assert!(
                Command::new("kill")
                    .args(["-TERM", &process])
                    .status()
                    .unwrap()
                    .success()
            );
        }
        let deadline = Instant::now() + STOPPED_WITHIN;
        for name in names {
            loop {
                if let Some(status) = self.running.get_mut(name).unwrap().try_wait().unwrap() {
                    assert!(status.success(), "{name} ended with {status}");
                    break;
                }
                assert!(Instant::now() < deadline, "{name} does not stop");
                sleep(POLL_INTERVAL).await;
            }
            self.running.remove(name);
        }
    }
}

/// Returns the variables of a node's listeners with its advertised addresses.
fn listeners(config: &ValidatedConfig) -> [(&'static str, &str); 3] {
    [
        ("STEAD_CLIENT__LISTEN", &config.client.advertise),
        ("STEAD_PEER__LISTEN", &config.peer.advertise),
        ("STEAD_HTTP__LISTEN", &config.http.advertise),
    ]
}

/// Starts all nodes together and waits until each is ready.
async fn start_all(deployment: &mut Deployment, nodes: &[Deployed], probe: &[String]) {
    for node in nodes {
        deployment.start(node);
    }
    for node in nodes {
        deployment.healthy(node, probe).await;
    }
}

fn names(nodes: &[Deployed]) -> Vec<String> {
    nodes.iter().map(|node| node.name.clone()).collect()
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

/// The units of nodes and witness, with the variable of node.env.
#[tokio::test]
async fn units_of_two_regions_and_witness_begin_cluster() {
    let _lock = exclusive_lock();
    let (_, file) = systemd::UNITS[1];
    let mut deployment = Deployment::prepare(file, &Environment::new());
    let make = "/usr/local/bin/stead cert initial --config /etc/stead/stead.toml --dir /etc/stead/certs";
    deployment.make_certificates(&words(make));
    let mut nodes = Vec::new();
    for member in validated(file, &Environment::new()).members {
        let unit = if member.witness {
            "stead-witness.service"
        } else {
            "stead.service"
        };
        let own = deployment.folder.path().join(&member.name);
        fs::create_dir_all(&own).unwrap();
        // As deploy/README.md says: each machine gets the CA and its own pair.
        for (from, to) in [
            ("ca.crt".to_owned(), "ca.crt"),
            (format!("node-{}.crt", member.name), "node.crt"),
            (format!("node-{}.key", member.name), "node.key"),
        ] {
            fs::copy(deployment.certs().join(from), own.join(to)).unwrap();
        }
        let node = Deployed {
            name: member.name.clone(),
            environment: Environment::from([("STEAD_NODE__NAME".to_owned(), member.name)]),
            command: systemd::command(unit, "ExecStart"),
        };
        let checked = deployment
            .command(&node, &systemd::command(unit, "ExecStartPre"))
            .output()
            .unwrap();
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
        nodes.push(node);
    }
    let probe = words("/usr/local/bin/stead health --config /etc/stead/stead.toml");
    check_command(&probe);
    start_all(&mut deployment, &nodes, &probe).await;
    deployment.stop(&names(&nodes)).await;
}

#[tokio::test]
async fn services_of_compose_begin_cluster() {
    let _lock = exclusive_lock();
    let services = compose::nodes();
    let mut deployment = Deployment::prepare(compose::CONFIG, &compose::environment(&services[0].1));
    deployment.make_certificates(&compose::certificates());
    let node = |(name, service): &(String, serde_json::Value)| Deployed {
        name: name.clone(),
        environment: compose::environment(service),
        command: compose::command(service),
    };
    let nodes: Vec<Deployed> = services.iter().map(node).collect();
    start_all(&mut deployment, &nodes, &compose::probe()).await;
    deployment.stop(&names(&nodes)).await;
}

/// Pods begin without the ConfigMap of `join`; once it is there, those that have begun go on as they are.
#[tokio::test]
async fn pods_begin_cluster_and_restart_with_join() {
    let _lock = exclusive_lock();
    let node = |region: &str, pod: String, join: Option<&str>| Deployed {
        environment: kubernetes::environment(region, &pod, join),
        command: kubernetes::command(region),
        name: pod,
    };
    let of_region = |region| {
        kubernetes::pods(region)
            .into_iter()
            .map(move |pod| node(region, pod, None))
    };
    let nodes: Vec<Deployed> = kubernetes::REGIONS.into_iter().flat_map(of_region).collect();
    let mut deployment = Deployment::prepare(kubernetes::CONFIG, &nodes[0].environment);
    let make = "/usr/local/bin/stead cert initial --config /etc/stead/stead.toml --dir /etc/stead/certs";
    deployment.make_certificates(&words(make));
    let probe = words("/usr/local/bin/stead health");
    start_all(&mut deployment, &nodes, &probe).await;
    deployment.stop(&["us-east-1".to_owned()]).await;
    let join = "us-east-0.us-east.stead.svc.cluster.local:7501,eu-west-0.eu-west.stead.svc.cluster.local:7501";
    let again = node("us-east", "us-east-1".to_owned(), Some(join));
    deployment.start(&again);
    deployment.healthy(&again, &probe).await;
    deployment.stop(&names(&nodes)).await;
}
