//! Tests of the programs in `proto/README.md` against a real node, where their libraries are installed.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use stead_testing::Fixture;
use stead_tests::process::{binary, exclusive_lock, run, wait_until_moves_are_allowed};

const REGION: &str = "eu-west";

fn protos() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto")
}

/// Returns the first code block of the document in this language.
fn block(document: &str, language: &str) -> String {
    let (_, block) = document.split_once(&format!("```{language}\n")).unwrap();
    block.split_once("\n```").unwrap().0.to_owned()
}

/// Returns the words of a text, without the punctuation that languages print around entries of a map.
fn words(text: &str) -> Vec<String> {
    let plain = text.replace(['{', '}', '\'', ':'], " ");
    plain.split_whitespace().map(str::to_owned).collect()
}

/// Creates the folder that the document describes: the protos, the service config, the program.
fn folder(program: &str, language: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let document = fs::read_to_string(protos().join("README.md")).unwrap();
    fs::write(folder.path().join(program), block(&document, language)).unwrap();
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

// `STEAD_TEST_PYTHON` names the interpreter that has the libraries.
#[tokio::test]
async fn python_program_prints_documented_output() {
    let python = env::var_os("STEAD_TEST_PYTHON").unwrap_or_else(|| "python3".into());
    let mut import = Command::new(&python);
    import.args(["-c", "import grpc, grpc_tools.protoc, google.rpc.error_details_pb2"]);
    if !is_there("python3 with grpcio, grpcio-tools and googleapis-common-protos", import).await {
        return;
    }
    let _lock = exclusive_lock();
    let folder = folder("example.py", "python");
    let mut stubs = Command::new(&python);
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
    prints_what_is_shown(|| {
        let mut program = Command::new(&python);
        program.arg("example.py").current_dir(folder.path());
        program
    })
    .await;
}

// `NODE_PATH` names the folder that has the libraries, where they are not installed for all.
#[tokio::test]
async fn node_program_prints_documented_output() {
    let mut require = Command::new("node");
    let libraries = ["@grpc/grpc-js", "@grpc/proto-loader", "protobufjs"];
    let required: Vec<String> = libraries.iter().map(|name| format!("require('{name}')")).collect();
    require.args(["-e", &required.join("; ")]);
    if !is_there("node with @grpc/grpc-js, @grpc/proto-loader and protobufjs", require).await {
        return;
    }
    let _lock = exclusive_lock();
    let folder = folder("example.js", "js");
    prints_what_is_shown(|| {
        let mut program = Command::new("node");
        program.arg("example.js").current_dir(folder.path());
        program
    })
    .await;
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
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/operations.py");
    fs::copy(program, folder.path().join("operations.py")).unwrap();
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
