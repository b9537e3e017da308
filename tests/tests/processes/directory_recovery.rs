//! Recovery of a directory whose majority is lost for good, by the command line, from a voter that has missed a move.

use std::time::Duration;

use stead_client::{Admin, MoveSource, NewTenant};
use stead_testing::{Fixture, moves::move_to};
use stead_tests::process::{self, CommandOutput, binary, exclusive_lock, wait_until_moves_are_allowed};
use tokio::time::{Instant, sleep};

/// Longest wait on a machine that is busy with other tests; a wait for leases of the default ttl is in it.
const WAIT_MAX: Duration = Duration::from_secs(150);
/// Node whose disk the directory is recovered from.
const FOUNDER: &str = "us-east-1";

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + WAIT_MAX;
    while !holds().await {
        assert!(Instant::now() < deadline, "timed out waiting: {what}");
        sleep(Duration::from_millis(50)).await;
    }
}

async fn create(admin: &Admin, name: &str, home_region: &str) {
    let new = NewTenant {
        name: name.into(),
        home_region: home_region.into(),
        ..NewTenant::default()
    };
    admin.create_tenant(new).await.unwrap();
}

/// Runs `stead directory recover` on the founder's disk.
async fn recover(cluster: &Fixture, arguments: &[&str]) -> CommandOutput {
    let mut command = process::stead_command(cluster.folder());
    let config = cluster.folder().join(format!("{FOUNDER}.toml"));
    command.args(["directory", "recover", "--config"]).arg(config);
    process::run({
        command.args(arguments);
        command
    })
    .await
}

#[track_caller]
fn refused(ran: &CommandOutput, words: &[&str]) {
    assert_ne!(ran.code, Some(0), "{ran:?}");
    for words in words {
        assert!(ran.stderr.contains(words), "{words:?} is not in: {}", ran.stderr);
    }
}

/// Three regions; the founder's has one node, so that groups of the others keep a majority without their voter.
async fn three_regions() -> Fixture {
    let builder = Fixture::builder().binary(binary());
    let regions = builder.region("us-east", 1).region("eu-west", 3).region("ap-south", 3);
    let cluster = regions.start().await.unwrap();
    wait_until_moves_are_allowed(cluster.folder()).await;
    cluster
}

/// Arguments that name the voters that are lost.
const LOST: [&str; 5] = ["--lost", "eu-west-1", "--lost", "ap-south-1", "--yes"];

/// The voter that is left does not know that acme has moved. Its new home is taken from its group, and nothing that was
/// acknowledged is lost.
#[tokio::test]
async fn recovered_directory_takes_forgotten_home_from_its_group_and_leaves_old_voters_out() {
    let _lock = exclusive_lock();
    let cluster = three_regions().await;
    let client = cluster.client("eu-west").await.unwrap();
    let admin = client.admin();
    create(&admin, "acme", "eu-west").await;
    create(&admin, "near", "us-east").await;
    let (acme, near) = (client.tenant("acme").unwrap(), client.tenant("near").unwrap());
    near.put("k", "near").await.unwrap();
    acme.put("k", "before").await.unwrap();
    refused(
        &recover(&cluster, &["--dry-run"]).await,
        &["is in use by another process"],
    );

    cluster.isolate("us-east").unwrap();
    until("acme has moved", async || {
        // The directory may have to elect a leader first.
        let _ended = move_to(&admin, "acme", "ap-south", MoveSource::Follow).await;
        let found = admin.tenant("acme").await;
        found.is_ok_and(|found| found.home_region == "ap-south")
    })
    .await;
    let moved = acme.put("k", "after").await.unwrap();
    cluster.kill("ap-south-1").await.unwrap();
    cluster.kill(FOUNDER).await.unwrap();
    cluster.heal_all();
    recovery_is_refused(&cluster).await;
    let lost = LOST;
    let planned = recover(&cluster, &[&lost[..], &["--allow-loss", "--dry-run"]].concat()).await;
    assert_eq!(planned.code, Some(0), "{planned:?}");
    assert!(planned.stdout.contains("incarnation      2"), "{planned:?}");
    assert!(!planned.stderr.contains("recovered"), "{planned:?}");

    let recovered = recover(
        &cluster,
        &[&lost[..], &["--allow-loss", "--reason", "both sites burnt"]].concat(),
    )
    .await;
    assert_eq!(recovered.code, Some(0), "{recovered:?}");
    refused(&recover(&cluster, &lost).await, &["is the only voter of the directory"]);
    cluster.start(FOUNDER).await.unwrap();
    let client = cluster.client("us-east").await.unwrap();
    let (acme, near) = (client.tenant("acme").unwrap(), client.tenant("near").unwrap());
    until("acme is served again", async || acme.put("k2", "new").await.is_ok()).await;
    assert_eq!(acme.get("k").await.unwrap().item.unwrap().value.as_ref(), b"after");
    let written = acme.put("k", "later").await.unwrap();
    let epochs = (
        moved.header.revision.epoch().get(),
        written.header.revision.epoch().get(),
    );
    assert!(epochs.0 + 1_000 <= epochs.1, "{epochs:?}");
    until("near is served again", async || near.put("k2", "new").await.is_ok()).await;
    assert_eq!(near.get("k").await.unwrap().item.unwrap().value.as_ref(), b"near");
    assert_eq!(client.admin().tenant("near").await.unwrap().home_region, "us-east");
    create(&client.admin(), "newcomer", "eu-west").await;

    old_voter_is_left_out(&cluster).await;
    acme.put("k3", "newer").await.unwrap();
}

/// A voter of the lost directory comes back after all: it votes no more, and goes on with its group.
async fn old_voter_is_left_out(cluster: &Fixture) {
    let _ended = cluster.start("eu-west-1").await;
    until("eu-west-1 has ended by itself", async || {
        cluster.process("eu-west-1").await.is_none()
    })
    .await;
    let log = std::fs::read_to_string(cluster.folder().join("eu-west-1.log")).unwrap();
    assert!(
        log.contains("the directory was recovered, as its incarnation 2, without this node"),
        "{log}"
    );
    cluster.start("eu-west-1").await.unwrap();
}

/// It is refused while another voter answers, without the names of all, and while another node knows of later changes.
async fn recovery_is_refused(cluster: &Fixture) {
    refused(
        &recover(cluster, &LOST).await,
        &["voter eu-west-1 of the directory answers", "nothing was done"],
    );
    cluster.kill("eu-west-1").await.unwrap();
    let unnamed = recover(cluster, &LOST[2..]).await;
    refused(
        &unnamed,
        &["nobody has said that voter eu-west-1 is lost for good", "--lost"],
    );
    refused(
        &recover(cluster, &LOST).await,
        &[
            "eu-west-2",
            "the changes between are lost",
            "--allow-loss",
            "nothing was done",
        ],
    );
}
