//! Moves of many tenants that cannot begin as written, or that nobody can take; drains of the only region.

use std::time::Duration;

use stead_api::{
    convert::read::duration,
    proto::admin::v1::{
        DrainRegionRequest, ListBulkMoveTenantsRequest, MoveTenantsRequest, Pace, PauseBulkMoveRequest,
        ResumeBulkMoveRequest, UndrainRegionRequest,
        bulk_move_service_client::BulkMoveServiceClient,
        move_tenants_request::{Label, Named, NamedList, Selection},
    },
    status,
};
use stead_tests::process::World;
use stead_types::ErrorKind;
use tonic::transport::{Channel, Endpoint};

use crate::requests::{assert_failed, assert_refused};

async fn channel(world: &World) -> Channel {
    let address = format!("http://{}", world.first().client);
    Endpoint::from_shared(address).unwrap().connect().await.unwrap()
}

/// Waits until tenants can be moved: until the first nodes have reported what they support. Before the first tenant this
/// takes no day.
async fn wait_for_moves(bulk_moves: &mut BulkMoveServiceClient<Channel>) {
    let itself = DrainRegionRequest {
        region: "eu-west".into(),
        to: "eu-west".into(),
        ..DrainRegionRequest::default()
    };
    let refused = async {
        loop {
            let refused = bulk_moves.drain_region(itself.clone()).await.unwrap_err();
            let error = status::from_status(&refused);
            if error.kind == (ErrorKind::Invalid { field: "to".into() }) {
                return error.message;
            }
            assert!(error.message.contains("feature level"), "{error:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let message = tokio::time::timeout(Duration::from_secs(30), refused).await.unwrap();
    assert!(message.contains("cannot be drained into itself"), "{message}");
}

/// Requests that are refused for one of their fields.
async fn check_fields(bulk_moves: &mut BulkMoveServiceClient<Channel>) {
    let drain = |change: fn(&mut DrainRegionRequest)| {
        let mut request = DrainRegionRequest {
            region: "eu-west".into(),
            ..DrainRegionRequest::default()
        };
        change(&mut request);
        request
    };
    let wrong = drain(|request| request.region = "EU".into());
    assert_refused(bulk_moves.drain_region(wrong).await, "region", &["a-z"]);
    let many = drain(|request| {
        request.pace = Some(Pace {
            at_once: 1_001,
            ..Pace::default()
        });
    });
    assert_refused(bulk_moves.drain_region(many).await, "pace.at_once", &["1001", "1000"]);
    let reason = drain(|request| request.reason = "r".repeat(257));
    assert_refused(bulk_moves.drain_region(reason).await, "reason", &["at most 256", "257"]);
    let short = UndrainRegionRequest {
        region: "eu-west".into(),
        pace: Some(Pace {
            wave_budget: Some(duration(Duration::from_millis(1))),
            ..Pace::default()
        }),
        ..UndrainRegionRequest::default()
    };
    assert_refused(bulk_moves.undrain_region(short).await, "pace.wave_budget", &["1 to"]);

    let moves = |selection| MoveTenantsRequest {
        selection,
        ..MoveTenantsRequest::default()
    };
    let named = |tenants: Vec<Named>| Some(Selection::Named(NamedList { tenants }));
    let one = |tenant: &str| Named {
        tenant: tenant.into(),
        to: "eu-west".into(),
    };
    assert_refused(bulk_moves.move_tenants(moves(None)).await, "selection", &["label"]);
    let none = bulk_moves.move_tenants(moves(named(Vec::new()))).await;
    assert_refused(none, "named.tenants", &["1 to 10000"]);
    let wrong = bulk_moves.move_tenants(moves(named(vec![one("a"), one("B")]))).await;
    assert_refused(wrong, "named.tenants[1].tenant", &["a-z"]);
    let label = Selection::Label(Label {
        key: String::new(),
        value: "gold".into(),
        to: "eu-west".into(),
    });
    assert_refused(bulk_moves.move_tenants(moves(Some(label))).await, "labels", &["64"]);
}

/// Requests about operations that do not exist, or are none.
async fn check_names(bulk_moves: &mut BulkMoveServiceClient<Channel>) {
    let words = ["such as operations/7"];
    let pause = |name: &str| PauseBulkMoveRequest {
        name: name.into(),
        reason: String::new(),
    };
    assert_refused(bulk_moves.pause_bulk_move(pause("7")).await, "name", &words);
    let unknown = bulk_moves.pause_bulk_move(pause("operations/77")).await.unwrap_err();
    assert_eq!(status::from_status(&unknown).kind, ErrorKind::NotFound, "{unknown:?}");
    let resume = ResumeBulkMoveRequest {
        name: "7".into(),
        ..ResumeBulkMoveRequest::default()
    };
    assert_refused(bulk_moves.resume_bulk_move(resume).await, "name", &words);
    let list = ListBulkMoveTenantsRequest {
        name: "7".into(),
        ..ListBulkMoveTenantsRequest::default()
    };
    assert_refused(bulk_moves.list_bulk_move_tenants(list).await, "name", &words);
}

#[tokio::test]
async fn bulk_moves_are_refused_by_field_or_name() {
    let world = World::start(1).await;
    let mut bulk_moves = BulkMoveServiceClient::new(channel(&world).await);
    wait_for_moves(&mut bulk_moves).await;
    check_fields(&mut bulk_moves).await;
    check_names(&mut bulk_moves).await;
    let file = world.folder.path().join("moves.csv");
    std::fs::write(&file, "acme,eu-west\nacme\n").unwrap();
    let moved = world.stead(["tenant", "move", "--file", file.to_str().unwrap()]).await;
    assert_failed(&moved, 2, &["line 2", "tenant,region"]);
    let label = world
        .stead(["tenant", "move", "--label", "gold", "--to", "eu-west"])
        .await;
    assert_failed(&label, 2, &["key=value"]);
    let asked = world.stead(["region", "drain", "eu-west"]).await;
    assert_failed(&asked, 2, &["takes no new ones", "--yes"]);
    let undrain = world.stead(["region", "undrain", "eu-west", "--yes"]).await;
    assert_failed(&undrain, 5, &["not drained"]);
}

/// A region that is alone keeps its tenants, says why, and takes new ones again once it is undrained.
#[tokio::test]
async fn drain_of_only_region_fails_with_reasons() {
    let world = World::start(1).await;
    wait_for_moves(&mut BulkMoveServiceClient::new(channel(&world).await)).await;
    for name in ["acme", "bolt"] {
        let made = world.stead(["tenant", "create", name, "--home", "eu-west"]).await;
        assert_eq!(made.code, Some(0), "{made:?}");
    }
    let planned = world.stead(["region", "drain", "eu-west", "--dry-run"]).await;
    assert_eq!(planned.code, Some(0), "{planned:?}");
    assert!(planned.stdout.contains("stays: acme: no other region"), "{planned:?}");

    let drained = world.stead(["region", "drain", "eu-west", "--yes"]).await;
    assert_failed_after_output(&drained, 5, "0 tenants were moved, 2 were not; the first one: acme");
    let tenants = world.stead(["operation", "tenants", "1", "--failed"]).await;
    assert!(
        tenants.stdout.contains("acme") && tenants.stdout.contains("bolt"),
        "{tenants:?}"
    );
    let listed = world.stead(["operation", "list", "--tenant", "bolt"]).await;
    assert!(listed.stdout.contains("drain of region eu-west"), "{listed:?}");
    let refused = world.stead(["tenant", "create", "late", "--home", "eu-west"]).await;
    assert_failed(&refused, 5, &["region eu-west is drained", "undrain"]);
    let alone = world.stead(["tenant", "isolate", "acme"]).await;
    assert_failed(&alone, 5, &["region eu-west has one group"]);

    let undrained = world.stead(["region", "undrain", "eu-west", "--yes"]).await;
    assert_eq!(undrained.code, Some(0), "{undrained:?}");
    let made = world.stead(["tenant", "create", "late", "--home", "eu-west"]).await;
    assert_eq!(made.code, Some(0), "{made:?}");
}

fn assert_failed_after_output(ran: &stead_tests::process::CommandOutput, code: i32, words: &str) {
    assert_eq!(ran.code, Some(code), "{ran:?}");
    assert!(ran.stderr.contains(words), "{words} is not in {ran:?}");
}
