//! Tests of the programs in `proto/README.md` against a real node, where their libraries are installed.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use stead_testing::Fixture;
use stead_tests::process::{binary, exclusive_lock, run, wait_until_moves_are_allowed};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    time::timeout,
};

const REGION: &str = "eu-west";

fn protos() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto")
}

/// Returns the first code block of the document in this language.
fn block(document: &str, language: &str) -> String {
    blocks(document, language).remove(0)
}

/// Returns the code blocks of the document in this language.
fn blocks(document: &str, language: &str) -> Vec<String> {
    let begin = format!("```{language}\n");
    let end = |block: &str| block.split_once("\n```").unwrap().0.to_owned();
    document.split(&begin).skip(1).map(end).collect()
}

/// Returns the words of a text, without the punctuation that languages print around entries of a map.
fn words(text: &str) -> Vec<String> {
    let plain = text.replace(['{', '}', '\'', ':'], " ");
    plain.split_whitespace().map(str::to_owned).collect()
}

/// Creates the folder that the document describes: the protos, the service config, the programs of a language.
fn folder(programs: &[&str], language: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let document = fs::read_to_string(protos().join("README.md")).unwrap();
    for (program, block) in programs.iter().zip(blocks(&document, language)) {
        fs::write(folder.path().join(program), block).unwrap();
    }
    fs::create_dir_all(folder.path().join("stead/v1")).unwrap();
    for file in ["service_config.json", "stead/v1/kv.proto", "stead/v1/directory.proto"] {
        fs::copy(protos().join(file), folder.path().join(file)).unwrap();
    }
    folder
}

/// Returns whether a command runs; prints a note if it does not.
async fn is_there(what: &str, mut command: Command) -> bool {
    command.stdin(std::process::Stdio::null());
    let found = tokio::process::Command::from(command).output().await;
    let found = found.is_ok_and(|output| output.status.success());
    if !found {
        eprintln!("{what} is not here: its program in proto/README.md is not run");
    }
    found
}

/// Runs a program twice against an empty node: its first output is what the document shows, and the second time it
/// finds its order.
async fn prints_what_is_shown(program: impl Fn() -> Command) {
    let cluster = Fixture::builder()
        .binary(binary())
        .region(REGION, 1)
        .start()
        .await
        .unwrap();
    cluster.create_tenant("acme", REGION).await.unwrap();
    let node = cluster.endpoints(REGION).unwrap().remove(0);
    let mut printed = Vec::new();
    for _ in 0..2 {
        let mut command = program();
        command.args([&node, "acme"]);
        let ran = run(command).await;
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        printed.push(ran.stdout);
    }
    let document = fs::read_to_string(protos().join("README.md")).unwrap();
    let shown = block(&document, "text");
    assert_eq!(words(&printed[0]), words(&shown), "{}", printed[0]);
    let again = shown.replace("ordered", "ordered before").replace("then 11", "then 12");
    assert_eq!(words(&printed[1]), words(&again), "{}", printed[1]);
}

/// Time in which a program prints a line, on a machine that is busy with other tests.
const LINE_WITHIN: Duration = Duration::from_secs(60);
/// Longest pause of the events of a watch whose node falls silent, in seconds: three missing reports take nine.
const PAUSE_S_MAX: f64 = 15.0;
/// Latency of a call once the silent node is known, in seconds.
const CALL_S_MAX: f64 = 1.5;

/// Runs a program of `tests/data` beside three nodes and freezes the one that serves its watch: events go on elsewhere.
/// Returns what it prints.
async fn watch_goes_on_beside_silent_node(mut program: Command, more: &[&str]) -> serde_json::Value {
    let builder = Fixture::builder().binary(binary()).region(REGION, 3);
    let cluster = builder.start().await.unwrap();
    cluster.create_tenant("acme", REGION).await.unwrap();
    let target = format!("ipv4:{}", cluster.endpoints(REGION).unwrap().join(","));
    program.args([&target, "acme"]).args(more);
    program.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut running = tokio::process::Command::from(program)
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut input = running.stdin.take().unwrap();
    let mut printed = BufReader::new(running.stdout.take().unwrap()).lines();
    let mut line = async || timeout(LINE_WITHIN, printed.next_line()).await.unwrap().unwrap();
    assert_eq!(line().await.as_deref(), Some("ready"));
    // A frozen node is killed like the others when the fixture is dropped, also by a failed assertion.
    cluster.freeze(&node_of_watch(&cluster).await).await.unwrap();
    input.write_all(b"frozen\n").await.unwrap();
    let seen = serde_json::from_str(&line().await.unwrap()).unwrap();
    assert!(figure(&seen, "longest_pause_s") < PAUSE_S_MAX, "{seen}");
    seen
}

fn figure(seen: &serde_json::Value, name: &str) -> f64 {
    seen[name].as_f64().unwrap()
}

/// Checks that no call has waited for the silent node since it was known.
fn calls_go_elsewhere(seen: &serde_json::Value) {
    assert!(figure(seen, "slowest_call_s") < CALL_S_MAX, "{seen}");
    // A call that goes to the silent node takes a second, then it is sent to another one.
    assert!(10.0 * figure(seen, "slow_calls") < figure(seen, "calls"), "{seen}");
}

/// Takes the keepalive out of a program, as a proxy that answers the pings does.
fn without_pings(program: &Path) {
    let text = fs::read_to_string(program).unwrap();
    assert!(text.contains("grpc.keepalive_"));
    fs::write(program, text.replace("grpc.keepalive_", "stead.keepalive_")).unwrap();
}

/// Returns the node that serves the only watch.
async fn node_of_watch(cluster: &Fixture) -> String {
    for node in cluster.nodes() {
        let metrics = node.metrics().await.unwrap();
        if metrics.lines().any(|line| line == "stead_watches 1") {
            return node.name.clone();
        }
    }
    panic!("no node serves the watch");
}

/// Returns the interpreter that has the libraries, `STEAD_TEST_PYTHON` or `python3`; nothing if it has not.
async fn python() -> Option<PathBuf> {
    let python = PathBuf::from(env::var_os("STEAD_TEST_PYTHON").unwrap_or_else(|| "python3".into()));
    let mut import = Command::new(&python);
    import.args(["-c", "import grpc, grpc_tools.protoc, google.rpc.error_details_pb2"]);
    let what = "python3 with grpcio, grpcio-tools and googleapis-common-protos";
    is_there(what, import).await.then_some(python)
}

/// Creates the folder of the Python programs, with generated stubs.
async fn python_folder(python: &Path) -> tempfile::TempDir {
    let folder = folder(&["example.py", "example_aio.py"], "python");
    let mut stubs = Command::new(python);
    stubs.args([
        "-m",
        "grpc_tools.protoc",
        "-I",
        ".",
        "--python_out=.",
        "--grpc_python_out=.",
    ]);
    stubs
        .args(["stead/v1/kv.proto", "stead/v1/directory.proto"])
        .current_dir(folder.path());
    let ran = run(stubs).await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    folder
}

#[tokio::test]
async fn python_program_prints_documented_output() {
    let Some(python) = python().await else { return };
    let _lock = exclusive_lock();
    let folder = python_folder(&python).await;
    prints_what_is_shown(|| {
        let mut program = Command::new(&python);
        program.arg("example.py").current_dir(folder.path());
        program
    })
    .await;
}

#[tokio::test]
async fn python_programs_go_on_beside_silent_node() {
    let Some(python) = python().await else { return };
    let _lock = exclusive_lock();
    let folder = python_folder(&python).await;
    copy_program("silent_node.py", folder.path());
    let program = || {
        let mut program = Command::new(&python);
        program.arg("silent_node.py").current_dir(folder.path());
        program
    };
    for more in [[].as_slice(), &["aio"]] {
        calls_go_elsewhere(&watch_goes_on_beside_silent_node(program(), more).await);
    }
    without_pings(&folder.path().join("example.py"));
    watch_goes_on_beside_silent_node(program(), &[]).await;
}

/// Runs a program of `tests/data` with a client's certificate of `stead cert`: it reads over TLS what it has written.
async fn connects_with_files_of_stead_cert(mut program: Command) {
    let builder = Fixture::builder().binary(binary()).region(REGION, 1).tls();
    let cluster = builder.start().await.unwrap();
    cluster.create_tenant("acme", REGION).await.unwrap();
    let certs = cluster.folder().join("certs");
    let mut make = Command::new(binary());
    make.args(["cert", "client", "shop", "--dir"]).arg(&certs);
    let made = run(make).await;
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    program.arg(cluster.endpoints(REGION).unwrap().remove(0)).arg("acme");
    program.args(["ca.crt", "client-shop.crt", "client-shop.key"].map(|file| certs.join(file)));
    let ran = run(program).await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(ran.stdout.trim_end(), "over TLS");
}

#[tokio::test]
async fn python_program_connects_with_files_of_stead_cert() {
    let Some(python) = python().await else { return };
    let _lock = exclusive_lock();
    let folder = python_folder(&python).await;
    copy_program("secure_channel.py", folder.path());
    let mut program = Command::new(&python);
    program.arg("secure_channel.py").current_dir(folder.path());
    connects_with_files_of_stead_cert(program).await;
}

/// Copies a program of `tests/data` to a folder.
fn copy_program(name: &str, folder: &Path) {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(name);
    fs::copy(program, folder.join(name)).unwrap();
}

// `NODE_PATH` names the folder that has the libraries, where they are not installed for all.
async fn node_is_there() -> bool {
    let mut require = Command::new("node");
    let libraries = ["@grpc/grpc-js", "@grpc/proto-loader", "protobufjs"];
    let required: Vec<String> = libraries.iter().map(|name| format!("require('{name}')")).collect();
    require.args(["-e", &required.join("; ")]);
    is_there("node with @grpc/grpc-js, @grpc/proto-loader and protobufjs", require).await
}

#[tokio::test]
async fn node_program_prints_documented_output() {
    if !node_is_there().await {
        return;
    }
    let _lock = exclusive_lock();
    let folder = folder(&["example.js"], "js");
    prints_what_is_shown(|| {
        let mut program = Command::new("node");
        program.arg("example.js").current_dir(folder.path());
        program
    })
    .await;
}

#[tokio::test]
async fn node_program_goes_on_beside_silent_node() {
    if !node_is_there().await {
        return;
    }
    let _lock = exclusive_lock();
    let folder = folder(&["example.js"], "js");
    copy_program("silent_node.js", folder.path());
    let program = || {
        let mut program = Command::new("node");
        program.arg("silent_node.js").current_dir(folder.path());
        program
    };
    calls_go_elsewhere(&watch_goes_on_beside_silent_node(program(), &[]).await);
    without_pings(&folder.path().join("example.js"));
    watch_goes_on_beside_silent_node(program(), &[]).await;
}

#[tokio::test]
async fn node_program_connects_with_files_of_stead_cert() {
    if !node_is_there().await {
        return;
    }
    let _lock = exclusive_lock();
    let folder = folder(&[], "js");
    copy_program("secure_channel.js", folder.path());
    let mut program = Command::new("node");
    program.arg("secure_channel.js").current_dir(folder.path());
    connects_with_files_of_stead_cert(program).await;
}

/// Runs the program for operations: its verb, the tenant, and the region that it moves to.
async fn operations(python: &Path, folder: &Path, arguments: [&str; 4]) -> String {
    let mut program = Command::new(python);
    program.arg("operations.py").args(arguments).current_dir(folder);
    let ran = run(program).await;
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
    ran.stdout
}

/// Google's stock client of `google.longrunning.Operations` waits for a move, lists it, gives up waiting, and cancels.
#[tokio::test]
async fn python_api_core_waits_for_lists_and_cancels_moves() {
    let python = PathBuf::from(env::var_os("STEAD_TEST_PYTHON").unwrap_or_else(|| "python3".into()));
    let mut import = Command::new(&python);
    import.args([
        "-c",
        "import grpc_tools.protoc; from google.api_core import operation, operations_v1",
    ]);
    if !is_there("python3 with google-api-core, grpcio and grpcio-tools", import).await {
        return;
    }
    let _lock = exclusive_lock();
    let folder = tempfile::tempdir().unwrap();
    copy_program("operations.py", folder.path());
    let mut stubs = Command::new(&python);
    stubs.args(["-m", "grpc_tools.protoc", "--python_out=.", "--grpc_python_out=.", "-I"]);
    stubs.arg(protos()).current_dir(folder.path());
    stubs.args(["kv", "directory"].map(|file| format!("stead/v1/{file}.proto")));
    let operators = ["tenant", "operation"];
    stubs.args(operators.map(|file| format!("stead/admin/v1/{file}.proto")));
    let ran = run(stubs).await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);

    let regions = ["us-east", "eu-west", "ap-south"];
    let builder = Fixture::builder().binary(binary());
    let builder = regions
        .iter()
        .fold(builder, |builder, region| builder.region(region, 1));
    let cluster = builder.start().await.unwrap();
    wait_until_moves_are_allowed(cluster.folder()).await;
    for tenant in ["acme", "stays"] {
        cluster.create_tenant(tenant, regions[0]).await.unwrap();
    }
    let node = cluster.endpoints(regions[2]).unwrap().remove(0);
    let printed = operations(&python, folder.path(), [&node, "wait", "acme", regions[1]]).await;
    assert_eq!(
        printed.lines().collect::<Vec<_>>(),
        [
            "moved eu-west 2",
            "steps STEP_NAME_PLANNED STEP_NAME_HEIR_READY STEP_NAME_RECORDED",
            "listed True True",
            "too late FAILED_PRECONDITION",
        ]
    );
    // Nothing crosses between the two homes: the move can be planned, and not made.
    cluster.cut(regions[0], regions[1]).unwrap();
    let printed = operations(&python, folder.path(), [&node, "cancel", "stays", regions[1]]).await;
    assert_eq!(
        printed.lines().collect::<Vec<_>>(),
        [
            "gave up False",
            "in flight True",
            "cancelled True",
            "ended CANCELLED",
            "in flight 0"
        ]
    );
}
