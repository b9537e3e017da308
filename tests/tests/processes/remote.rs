//! Durability REMOTE on real nodes: what it costs, what is refused, and what is answered while no other region confirms.

use std::time::Duration;

use stead_client::{
    Admin, Consistency, Durability, ErrorKind, Followers, IdempotencyKey, Increment, NewTenant, ReadOptions,
    ScanOptions, Tenant, WriteOptions,
};
use stead_testing::Fixture;
use stead_tests::process::{binary, exclusive_lock};
use stead_types::{ClientId, TenantTime};
use tokio::time::{Instant, sleep};

const WAIT_MAX: Duration = Duration::from_secs(60);
const ROUND_TRIP: Duration = Duration::from_millis(60);
const HOME: &str = "us-east";
const OTHERS: [&str; 2] = ["eu-west", "ap-south"];
/// Deadline of calls that no other region confirms.
const SOON: Duration = Duration::from_millis(1_500);

async fn three_regions() -> Fixture {
    let builder = Fixture::builder().binary(binary());
    let builder = builder.region(HOME, 3).region(OTHERS[0], 1).region(OTHERS[1], 1);
    let builder = builder
        .round_trip(HOME, OTHERS[0], ROUND_TRIP)
        .round_trip(HOME, OTHERS[1], 3 * ROUND_TRIP);
    builder.start().await.unwrap()
}

fn new_tenant(name: &str, followers: Followers, durability: Option<Durability>) -> NewTenant {
    NewTenant {
        name: name.into(),
        home_region: HOME.into(),
        followers,
        durability,
        ..NewTenant::default()
    }
}

/// Creates a tenant with durability REMOTE: refused until every node has reported the feature level.
async fn create_remote(admin: &Admin, name: &str) {
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        let new = new_tenant(name, Followers::default(), Some(Durability::Remote));
        match admin.create_tenant(new).await {
            Ok(created) => return assert_eq!(created.durability, Durability::Remote),
            Err(error) => {
                assert!(error.message.contains("feature level"), "{error}");
                assert!(Instant::now() < deadline, "{error}");
                sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

async fn put_when_confirmed(tenant: &Tenant, key: &str) {
    let deadline = Instant::now() + WAIT_MAX;
    while let Err(error) = tenant.put(key.to_owned(), "v").await {
        assert!(Instant::now() < deadline, "{error}");
        sleep(Duration::from_millis(50)).await;
    }
}

fn remote(timeout: Option<Duration>) -> WriteOptions {
    WriteOptions {
        durability: Some(Durability::Remote),
        timeout,
        ..WriteOptions::default()
    }
}

fn read(consistency: Consistency) -> ReadOptions {
    ReadOptions {
        timeout: Some(SOON),
        ..ReadOptions::at(consistency)
    }
}

#[tokio::test]
async fn remote_durability_without_other_region_is_refused() {
    let _lock = exclusive_lock();
    let cluster = three_regions().await;
    let client = cluster.client(HOME).await.unwrap();
    let admin = client.admin();
    create_remote(&admin, "acme").await;
    let alone = new_tenant("alone", Followers::Regions(vec![]), Some(Durability::Remote));
    let refused = admin.create_tenant(alone).await.unwrap_err();
    let field = "durability".to_owned();
    assert_eq!(refused.kind, ErrorKind::Invalid { field: field.clone() }, "{refused}");
    let local = new_tenant("local", Followers::Regions(vec![]), None);
    admin.create_tenant(local).await.unwrap();
    let tenant = client.tenant("local").unwrap();
    put_when_confirmed(&tenant, "k").await;
    let refused = tenant.put_with("k", "other", &remote(None)).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Invalid { field }, "{refused}");
    assert!(refused.message.contains("another region"), "{refused}");
    let kept = tenant.get("k").await.unwrap().item.unwrap();
    assert_eq!(&kept.value[..], b"v", "nothing happened");
}

/// Checks what is answered while the last change of a tenant is confirmed by no other region.
async fn check_unconfirmed(tenant: &Tenant) {
    for consistency in [Consistency::Linearizable, Consistency::Bounded(Duration::from_secs(60))] {
        let waits = tenant.get_with("k", &read(consistency)).await.unwrap_err();
        assert!(matches!(waits.kind, ErrorKind::DeadlineExceeded), "{waits:?}");
    }
    let scan = ScanOptions {
        read: read(Consistency::Linearizable),
        count_only: true,
        ..ScanOptions::default()
    };
    let waits = tenant.scan(&scan).await.unwrap_err();
    assert!(matches!(waits.kind, ErrorKind::DeadlineExceeded), "{waits:?}");
    let local = tenant.get_with("k", &read(Consistency::Local)).await.unwrap();
    assert_eq!(&local.item.unwrap().value[..], b"unconfirmed", "LOCAL is exempt");
    // A write without effect depends on the same state: nothing is said of it before another region has that.
    let missing = WriteOptions {
        timeout: Some(SOON),
        ..WriteOptions::default()
    };
    let waits = tenant.delete_with("missing", &missing).await.unwrap_err();
    let is_open = matches!(
        waits.kind,
        ErrorKind::DeadlineExceeded | ErrorKind::OutcomeUnknown { .. }
    );
    assert!(is_open, "{waits:?}");
}

/// Returns how many answers have waited for another region, at all nodes of the home.
async fn confirmed_waits(cluster: &Fixture) -> f64 {
    let mut waits = 0.0;
    for node in cluster.nodes().iter().filter(|node| node.region == HOME) {
        let metrics = node.metrics().await.unwrap();
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix("stead_remote_wait_seconds_count "));
        waits += line.map_or(0.0, |count| count.parse::<f64>().unwrap());
    }
    waits
}

#[tokio::test]
async fn remote_write_waits_for_another_region_and_says_so_if_none_confirms() {
    let _lock = exclusive_lock();
    let cluster = three_regions().await;
    let client = cluster.client(HOME).await.unwrap();
    create_remote(&client.admin(), "acme").await;
    let tenant = client.tenant("acme").unwrap();
    put_when_confirmed(&tenant, "k").await;
    for number in 0..5 {
        let begun = Instant::now();
        tenant.put("k", number.to_string()).await.unwrap();
        assert!(begun.elapsed() >= ROUND_TRIP, "{:?}", begun.elapsed());
        let begun = Instant::now();
        tenant.get("k").await.unwrap();
        assert!(begun.elapsed() < ROUND_TRIP / 2, "{:?}", begun.elapsed());
    }
    // A tenant of another default asks for it by a write.
    let regional = new_tenant("regional", Followers::default(), None);
    client.admin().create_tenant(regional).await.unwrap();
    let regional = client.tenant("regional").unwrap();
    put_when_confirmed(&regional, "k").await;
    let begun = Instant::now();
    regional.put_with("k", "w", &remote(None)).await.unwrap();
    assert!(begun.elapsed() >= ROUND_TRIP, "{:?}", begun.elapsed());

    cluster.isolate(HOME).unwrap();
    let key = IdempotencyKey {
        client: ClientId(77),
        sequence: 1,
        first_sent: TenantTime(0),
    };
    let write = WriteOptions {
        timeout: Some(SOON),
        idempotency_key: Some(key),
        ..WriteOptions::default()
    };
    let unmet = tenant.put_with("k", "unconfirmed", &write).await.unwrap_err();
    let ErrorKind::DurabilityUnmet { revision } = unmet.kind else {
        panic!("{unmet:?}")
    };
    assert!(unmet.message.contains("idempotency key"), "{unmet}");
    check_unconfirmed(&tenant).await;
    // The others go on.
    regional.put("k", "x").await.unwrap();

    cluster.heal_all();
    let again = WriteOptions {
        timeout: Some(WAIT_MAX),
        ..write
    };
    let done = tenant.put_with("k", "unconfirmed", &again).await.unwrap();
    assert!(done.repeated, "it was committed before");
    assert_eq!(done.header.revision, revision);
    let got = tenant.get("k").await.unwrap();
    assert_eq!(&got.item.unwrap().value[..], b"unconfirmed");
    let counted = tenant
        .increment_with("n", Increment::by(1), &WriteOptions::default())
        .await
        .unwrap();
    assert_eq!(counted.value, Some(1));
    let waits = confirmed_waits(&cluster).await;
    assert!(waits >= 7.0, "{waits}");
}
