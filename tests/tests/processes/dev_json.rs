//! Tests of `stead dev --json`: a cluster for tests in any language, over standard input and output.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use stead_tests::process::{CommandOutput, binary, exclusive_lock, run, stead_command};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout},
    time::{sleep, timeout},
};

/// Longest wait for an event, on a machine that is busy with other tests.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Process `stead dev --json`, as a test in another language runs it. Its folder is made in `home`.
struct DevProcess {
    child: Child,
    commands: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
    /// Events that arrived while another one was waited for: an event of a command may come before its answer.
    skipped_events: Vec<Value>,
    home: TempDir,
}

impl DevProcess {
    fn start(arguments: &[&str]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut command = stead_command(home.path());
        command
            .args(["dev", "--json"])
            .args(arguments)
            .env("TMPDIR", home.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut command = tokio::process::Command::from(command);
        let mut child = command.kill_on_drop(true).spawn().unwrap();
        Self {
            commands: child.stdin.take(),
            lines: BufReader::new(child.stdout.take().unwrap()).lines(),
            child,
            skipped_events: Vec::new(),
            home,
        }
    }

    /// Returns the next line, `None` at the end.
    async fn next(&mut self) -> Option<Value> {
        let line = timeout(WAIT_MAX, self.lines.next_line()).await.expect("a line in time");
        let event: Value = serde_json::from_str(&line.unwrap()?).expect("J1: every line is JSON");
        assert!(event["event"].is_string(), "{event}");
        Some(event)
    }

    /// Returns the first event of this name that was not returned yet.
    async fn wait_for_event(&mut self, name: &str) -> Value {
        if let Some(at) = self.skipped_events.iter().position(|event| event["event"] == name) {
            return self.skipped_events.remove(at);
        }
        loop {
            let event = self.next().await.unwrap_or_else(|| panic!("it ended before {name}"));
            if event["event"] == name {
                return event;
            }
            self.skipped_events.push(event);
        }
    }

    async fn send_command(&mut self, command: Value) -> Value {
        let line = format!("{command}\n");
        self.commands
            .as_mut()
            .unwrap()
            .write_all(line.as_bytes())
            .await
            .unwrap();
        self.wait_for_event("answer").await
    }

    async fn wait_for_exit(&mut self) -> ExitStatus {
        timeout(WAIT_MAX, self.child.wait())
            .await
            .expect("it ends in time")
            .unwrap()
    }

    /// Runs `stead` with the variables of the event `ready`.
    async fn stead(&self, ready: &Value, arguments: &[&str]) -> CommandOutput {
        let mut command = stead_command(self.home.path());
        for (name, value) in ready["environment"].as_object().unwrap() {
            command.env(name, value.as_str().unwrap());
        }
        command.args(arguments);
        run(command).await
    }

    /// Returns the files that are left where folders of clusters are made.
    fn remaining_files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.home.path()).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }
}

fn processes(ready: &Value) -> Vec<u64> {
    let nodes = ready["nodes"].as_array().unwrap().iter();
    nodes.map(|node| node["process"].as_u64().unwrap()).collect()
}

fn is_running(process: u64) -> bool {
    Path::new(&format!("/proc/{process}")).exists()
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(WAIT_MAX, wait)
        .await
        .unwrap_or_else(|_| panic!("waited in vain: {what}"));
}

/// Cuts the only link under a write, and asks for its outcome once the link is healed.
async fn write_across_cut(dev: &mut DevProcess, ready: &Value, far: &[&str]) {
    let cut = dev
        .send_command(json!({"command": "cut", "names": ["us-east", "eu-west"], "id": 7}))
        .await;
    assert_eq!(cut, json!({"event": "answer", "id": 7, "ok": "cut: us-east - eu-west"}));
    let cut = dev.wait_for_event("link-cut").await;
    assert_eq!(cut["between"], json!(["us-east", "eu-west"]));
    let lost = [far, &["kv", "get", "acme", "credits"]].concat();
    assert_ne!(dev.stead(ready, &lost).await.code, Some(0), "nothing crosses");
    // A younger tenant has no time that could be stamped, once what passes meanwhile is taken off.
    sleep(Duration::from_secs(4)).await;
    let increment = [far, &["kv", "increment", "acme", "count", "1"]].concat();
    let unknown = dev.stead(ready, &increment).await;
    let status = dev.send_command(json!({"command": "status"})).await;
    assert_eq!(status["links"][0]["is_cut"], true);
    dev.send_command(json!({"command": "heal"})).await;
    dev.wait_for_event("link-healed").await;
    let get = ["kv", "get", "acme", "credits", "--context", "dev-eu-west"];
    assert_eq!(dev.stead(ready, &get).await.stdout, "100");
    // The command that was named finds out, however old the tenant is: its key has the tenant's time.
    let (_, key) = unknown
        .stderr
        .rsplit_once("--idempotency-key ")
        .expect("a key is named");
    let key = key.split([' ', ':']).next().unwrap();
    assert!(!key.ends_with("/0"), "{}", unknown.stderr);
    let again = [&increment[..], &["--idempotency-key", key]].concat();
    let found = dev.stead(ready, &again).await;
    assert_eq!(found.code, Some(0), "{found:?}");
    let count = ["kv", "get", "acme", "count", "--context", "dev-eu-west"];
    assert_eq!(dev.stead(ready, &count).await.stdout, "1");
}

#[tokio::test]
async fn dev_json_session_drives_cluster_and_cleans_up() {
    let _lock = exclusive_lock();
    let mut dev = DevProcess::start(&["--regions", "us-east,eu-west:1:DE", "--rtt", "us-east:eu-west=80ms"]);
    let ready = dev.next().await.unwrap();
    assert_eq!(ready["event"], "ready", "J3");
    let (regions, far) = (&ready["regions"], &ready["nodes"][1]);
    assert_eq!(
        (&regions[0]["name"], &regions[0]["jurisdiction"]),
        (&json!("us-east"), &json!("US"))
    );
    assert_eq!(
        (&regions[1]["name"], &regions[1]["jurisdiction"]),
        (&json!("eu-west"), &json!("DE"))
    );
    assert_eq!(regions[1]["endpoints"], json!([far["client"]]));
    assert!(
        regions[0]["dial"][far["client"].as_str().unwrap()].is_string(),
        "{ready}"
    );
    assert_eq!(ready["links"][0]["round_trip_ms"], 80.0);
    assert_eq!(
        dev.remaining_files().len(),
        1,
        "all is in the folder of the cluster, also contexts"
    );

    let made = dev
        .send_command(json!({"command": "create-tenant", "name": "acme", "home": "us-east"}))
        .await;
    assert_eq!(made, json!({"event": "answer", "ok": "create-tenant: acme"}));
    let far = ["--context", "dev-eu-west", "--timeout", "1s"];
    let put = [&far[..], &["kv", "put", "acme", "credits", "100"]].concat();
    assert_eq!(dev.stead(&ready, &put).await.stdout, "acme@1.1\n");

    write_across_cut(&mut dev, &ready, &far).await;
    let get = ["kv", "get", "acme", "credits", "--context", "dev-eu-west"];
    let wrong = dev
        .send_command(json!({"command": "kill", "names": ["us-east-9"]}))
        .await;
    assert_eq!(wrong["error"], "no node, region or pair of regions is named us-east-9");
    let old = processes(&ready);
    dev.send_command(json!({"command": "kill", "names": ["us-east-1"]}))
        .await;
    assert_eq!(dev.wait_for_event("node-down").await["node"], "us-east-1");
    assert!(!is_running(old[0]));
    // From another process, over the control socket.
    let data = ready["data"].as_str().unwrap();
    let started = dev.stead(&ready, &["dev", "start", "us-east-1", "--data", data]).await;
    assert_eq!(started.code, Some(0), "{started:?}");
    let up = dev.wait_for_event("node-up").await;
    assert_ne!(up["process"].as_u64(), Some(old[0]));
    assert_eq!(dev.stead(&ready, &get).await.stdout, "100", "its data stayed");

    let status = dev.send_command(json!({"command": "status"})).await;
    drop(dev.commands.take());
    assert_eq!(
        dev.wait_for_event("stopping").await["reason"],
        "standard input has ended"
    );
    assert!(dev.next().await.is_none(), "nothing after that");
    assert!(dev.wait_for_exit().await.success());
    assert!(!processes(&status).into_iter().any(is_running));
    assert_eq!(dev.remaining_files(), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn dev_json_ends_when_input_closes_before_ready() {
    let _lock = exclusive_lock();
    let mut dev = DevProcess::start(&[]);
    drop(dev.commands.take());
    let events = [dev.next().await, dev.next().await].map(|event| event.map(|event| event["event"].clone()));
    assert_eq!(events, [Some(json!("stopping")), None]);
    assert!(dev.wait_for_exit().await.success());
    assert_eq!(dev.remaining_files(), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn dev_json_reports_dead_node_and_kills_all_at_exit() {
    let _lock = exclusive_lock();
    let mut dev = DevProcess::start(&["--regions", "eu-west:3"]);
    let ready = dev.wait_for_event("ready").await;
    let processes = processes(&ready);
    let killed = Command::new("kill").args(["-9", &processes[1].to_string()]).status();
    assert!(killed.unwrap().success());
    assert_eq!(dev.wait_for_event("node-down").await["node"], "eu-west-2");
    dev.child.kill().await.unwrap();
    until("no node runs", async || !processes.iter().copied().any(is_running)).await;
}

#[tokio::test]
async fn dev_json_invalid_cluster_emits_failed_event() {
    let mut dev = DevProcess::start(&["--regions", "us_east"]);
    let failed = dev.next().await.unwrap();
    assert_eq!(failed["event"], "failed");
    assert!(
        failed["error"].as_str().unwrap().contains("only a-z, 0-9 and -"),
        "{failed}"
    );
    assert!(dev.next().await.is_none());
    assert_eq!(dev.wait_for_exit().await.code(), Some(1));
    assert_eq!(dev.remaining_files(), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn documented_python_example_runs() {
    let _lock = exclusive_lock();
    let python = Command::new("python3").arg("--version").output();
    if !python.is_ok_and(|output| output.status.success()) {
        eprintln!("no python3 is here: its example is not run");
        return;
    }
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/testing.md");
    let document = fs::read_to_string(document).unwrap();
    let (_, example) = document.split_once("```python\n").unwrap();
    let (example, _) = example.split_once("```").unwrap();
    let home = tempfile::tempdir().unwrap();
    let path = format!(
        "{}:{}",
        binary().parent().unwrap().display(),
        std::env::var("PATH").unwrap()
    );
    let mut command = Command::new("python3");
    command.env("HOME", home.path()).env_remove("STEAD_ENDPOINT");
    command
        .args(["-c", example])
        .env("PATH", path)
        .env("TMPDIR", home.path());
    command.current_dir(home.path());
    let ran = run(command).await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0, "nothing is left");
}
