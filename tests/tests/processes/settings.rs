//! Invalid configurations: refused before anything is touched, with the setting and a suggestion.

use std::{fs, path::Path, process::Command};

use stead_tests::process::{self, CommandOutput};

const GOOD: &str = r#"
[cluster]
name = "x"
initial = [{ name = "a", region = "eu", peer = "127.0.0.1:28501", client = "127.0.0.1:28401", http = "127.0.0.1:28601" }]
regions = [{ name = "eu", jurisdiction = "EU" }]
[node]
name = "a"
data_dir = "DATA"
"#;

fn good(folder: &Path) -> String {
    GOOD.replace("DATA", folder.join("data").to_str().unwrap())
}

/// Runs both commands that read a configuration, and returns their output, which must be the same.
async fn read(folder: &Path, text: &str, environment: Option<(&str, &str)>) -> CommandOutput {
    let file = folder.join("stead.toml");
    fs::write(&file, text).unwrap();
    let command = |verb: &[&str]| {
        let mut command: Command = process::stead_command(folder);
        command.args(verb).envs(environment);
        command
    };
    let path = file.to_str().unwrap();
    let checked = process::run(command(&["config", "check", path])).await;
    let served = process::run(command(&["serve", "--config", path])).await;
    assert_eq!(checked.stderr, served.stderr);
    assert_eq!(checked.code, served.code);
    assert!(!folder.join("data").exists(), "nothing is touched");
    served
}

#[tokio::test]
async fn invalid_setting_is_refused_with_suggestion() {
    let folder = tempfile::tempdir().unwrap();
    let good = good(folder.path());
    let cases = [
        (
            format!("{good}\n[storage]\nengin = \"sled\""),
            "unknown setting storage.engin (did you mean storage.engine?)",
        ),
        (
            format!("{good}\n[storge]\nengine = \"sled\""),
            "unknown setting storge.engine (did you mean storage.engine?)",
        ),
        (
            good.replace("jurisdiction", "juristiction"),
            "unknown setting cluster.regions[0].juristiction (did you mean jurisdiction?)",
        ),
        (
            format!("{good}\n[client]\nadvertise = \"0.0.0.0:7401\""),
            "client.advertise: 0.0.0.0:7401 is no address that others can dial: name this machine's own",
        ),
        (
            good.replace("peer = \"127.0.0.1", "peer = \"0.0.0.0"),
            "cluster.initial[0].peer: 0.0.0.0:28501 is no address that others can dial",
        ),
        (
            format!("{good}\n[peer]\nadvertise = \"[::]:7501\""),
            "peer.advertise: [::]:7501 is no address that others can dial",
        ),
        (
            format!("{good}\n[storage]\nengine = \"rocks\""),
            "storage.engine: \"rocks\" is not an engine: use fjall, sled or memory",
        ),
        (
            format!("{good}\n[storage]\nhistory_bytes_max = \"much\""),
            "storage.history_bytes_max",
        ),
        (
            good.replace("name = \"a\"\ndata", "name = \"b\"\ndata"),
            "node.name: \"b\" is not in cluster.initial (a)",
        ),
        ("[cluster".into(), "cannot parse the configuration"),
    ];
    for (text, words) in cases {
        let ran = read(folder.path(), &text, None).await;
        assert_eq!(ran.code, Some(2), "{ran:?}");
        assert!(ran.stderr.contains(words), "{words} is not in: {}", ran.stderr);
        assert!(ran.stderr.contains("stead config default"), "{}", ran.stderr);
    }
    let ran = read(folder.path(), &good, Some(("STEAD_STORAGE__ENGIN", "sled"))).await;
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("did you mean storage.engine?"), "{}", ran.stderr);
}

#[tokio::test]
async fn example_config_is_valid_on_every_node() {
    let folder = tempfile::tempdir().unwrap();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/stead.toml");
    for region in ["us-east", "eu-west", "ap-south"] {
        for place in 1..=3 {
            let name = format!("{region}-{place}");
            let mut command = process::stead_command(folder.path());
            command
                .args(["config", "check"])
                .arg(&example)
                .env("STEAD_NODE__NAME", &name);
            let ran = process::run(command).await;
            assert_eq!(ran.code, Some(0), "{ran:?}");
            let good =
                format!("valid: node {name} ({region}) of cluster production, 9 nodes in 3 regions, engine fjall");
            assert_eq!(ran.stdout.trim_end(), good);
        }
    }
}

#[tokio::test]
async fn missing_config_error_says_how_to_get_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = process::stead_command(folder.path());
    command.arg("serve");
    let ran = process::run(command).await;
    assert_eq!(ran.code, Some(2), "{ran:?}");
    for words in ["--config FILE", "stead config default", "stead dev"] {
        assert!(ran.stderr.contains(words), "{words} is not in: {}", ran.stderr);
    }
    let mut command = process::stead_command(folder.path());
    command.args(["config", "check", "nowhere.toml"]);
    let ran = process::run(command).await;
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.stderr.contains("nowhere.toml cannot be read"), "{}", ran.stderr);
}
