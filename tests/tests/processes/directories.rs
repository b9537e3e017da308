//! Data directories of another node, cluster or engine, or without their data: refused and left untouched.

use std::path::Path;

use stead_tests::process::{self, CommandOutput, World};

async fn serve(world: &World, config: &Path) -> CommandOutput {
    let mut command = process::stead_command(world.folder.path());
    command.arg("serve").arg("--config").arg(config);
    process::run(command).await
}

#[tokio::test]
async fn foreign_data_directory_is_refused_and_untouched() {
    let mut world = World::start(1).await;
    let node = world.first().name.clone();
    let config = world.plan.config_of(&node);
    let data = world.plan.data_of(&node).display().to_string();
    let refused = |ran: CommandOutput, words: &[&str]| {
        assert_eq!(ran.code, Some(1), "{ran:?}");
        for words in words.iter().copied().chain([data.as_str()]) {
            assert!(ran.stderr.contains(words), "{words} is not in: {}", ran.stderr);
        }
    };
    for arguments in [["tenant", "create", "acme", "-otable"], ["kv", "put", "acme", "k=v"]] {
        let arguments = arguments.iter().flat_map(|argument| argument.split('='));
        let ran = world.stead(arguments).await;
        assert_eq!(ran.code, Some(0), "{ran:?}");
    }

    refused(
        serve(&world, &config).await,
        &["is in use by another process", "data_dir of its own"],
    );
    let held = world.stead(["kv", "get", "acme", "k"]).await;
    assert_eq!(held.stdout, "v", "the running process does not notice");

    world.cluster.kill_node(&node).await.unwrap();
    let other_engine = world.config_with(&[
        ("engine = \"fjall\"", "engine = \"sled\""),
        ("sled_majority = false", "sled_majority = true"),
    ]);
    refused(
        serve(&world, &other_engine).await,
        &[
            "created with storage.engine = \"fjall\", not \"sled\"",
            "replace the node",
        ],
    );
    let other_cluster = world.config_with(&[("name = \"dev\"", "name = \"production\"")]);
    refused(
        serve(&world, &other_cluster).await,
        &[
            "belongs to cluster \"dev\"",
            "\"production\"",
            "correct cluster.name or data_dir",
        ],
    );
    let entry = "  { name = \"eu-west-0\", region = \"eu-west\", peer = \"127.0.0.1:1\", client = \"127.0.0.1:2\" },";
    let other_node = world.config_with(&[("initial = [", &format!("initial = [\n{entry}"))]);
    refused(
        serve(&world, &other_node).await,
        &["belongs to node 1, this is node 2", "can never become another's"],
    );

    world.cluster.start_node(&node).unwrap();
    world.wait_until_ready().await;
    let held = world.stead(["kv", "get", "acme", "k"]).await;
    assert_eq!(held.stdout, "v", "nothing is lost: {held:?}");
}

#[tokio::test]
async fn node_with_lost_disk_refuses_to_start() {
    let mut world = World::start(3).await;
    for arguments in [vec!["tenant", "create", "acme"], vec!["kv", "put", "acme", "k", "v"]] {
        let ran = world.stead(arguments).await;
        assert_eq!(ran.code, Some(0), "{ran:?}");
    }
    let node = world.first().name.clone();
    world.cluster.kill_node(&node).await.unwrap();
    std::fs::remove_dir_all(world.plan.data_of(&node)).unwrap();
    let config = world.plan.config_of(&node);
    // The second time the directory exists, without any data of the group.
    for _ in 0..2 {
        let ran = serve(&world, &config).await;
        assert_eq!(ran.code, Some(1), "{ran:?}");
        for words in [
            "this node has none",
            "its disk was lost",
            "start it with its former data",
        ] {
            assert!(ran.stderr.contains(words), "{words} is not in: {}", ran.stderr);
        }
    }
    let another = world.cluster.endpoints("eu-west").pop().unwrap();
    let held = world.stead(["kv", "get", "acme", "k", "--endpoint", &another]).await;
    assert_eq!(held.stdout, "v", "nothing is lost: {held:?}");
}
