//! Failback: tenants that promotions have taken return, also those whose home went on without a lease.

use std::time::Duration;

use stead_client::{
    Admin, BulkMoveOptions, BulkMovePlan, ErrorKind, LossWindow, NewTenant, OnLeaseLoss, OperationOutcome,
    PromotedState, PromotionRequest, PromotionSelection,
};
use stead_testing::{Fixture, moves::ended_within, promotions::promote};
use stead_tests::process::{binary, exclusive_lock};
use tokio::time::{Instant, sleep};

/// Longest wait on a machine that is busy with other tests.
const WAIT_MAX: Duration = Duration::from_secs(90);
/// The shortest lease ttl.
const LEASE_TTL: Duration = Duration::from_secs(15);

async fn three_regions() -> Fixture {
    let builder = Fixture::builder().binary(binary());
    let regions = builder.region("us-east", 1).region("eu-west", 1).region("ap-south", 1);
    regions.start().await.unwrap()
}

/// Waits for a condition.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + WAIT_MAX;
    while !holds().await {
        assert!(Instant::now() < deadline, "timed out waiting: {what}");
        sleep(Duration::from_millis(50)).await;
    }
}

async fn create(admin: &Admin, name: &str, on_lease_loss: Option<OnLeaseLoss>) {
    let new = || NewTenant {
        name: name.into(),
        home_region: "eu-west".into(),
        on_lease_loss,
        ..NewTenant::default()
    };
    until("the tenant is created", async || {
        admin.create_tenant(new()).await.is_ok()
    })
    .await;
}

fn named(name: &str) -> PromotionRequest {
    PromotionRequest::new(PromotionSelection::Tenants(vec![name.to_owned()]))
}

/// Waits until every member's copy is the home's, as a dry run says.
async fn wait_for_copies(admin: &Admin, name: &str) {
    until("all copies are equal", async || {
        let dry_run = PromotionRequest {
            dry_run: true,
            is_down: true,
            ..named(name)
        };
        let Ok(planned) = admin.promote(dry_run).await else {
            return false;
        };
        let items = planned.promotion_plan.map(|plan| plan.items).unwrap_or_default();
        let copies = items.first().map(|item| item.copies.clone()).unwrap_or_default();
        let first = copies.first().and_then(|copy| copy.revision);
        first.is_some() && copies.len() == 3 && copies.iter().all(|copy| copy.revision == first)
    })
    .await;
}

async fn plan(admin: &Admin) -> (BulkMovePlan, Option<OperationOutcome>) {
    let options = BulkMoveOptions {
        dry_run: true,
        ..BulkMoveOptions::default()
    };
    let planned = admin.failback_region("eu-west", options).await.unwrap();
    assert_eq!(planned.name, "", "nothing has begun");
    (planned.bulk_plan.unwrap(), planned.outcome)
}

#[tokio::test]
async fn failback_returns_what_a_promotion_took_and_nothing_else() {
    let _lock = exclusive_lock();
    let cluster = three_regions().await;
    let client = cluster.client("us-east").await.unwrap();
    let admin = client.admin();
    create(&admin, "acme", None).await;
    create(&admin, "other", None).await;
    let acme = client.tenant("acme").unwrap();
    acme.put("k", "v").await.unwrap();
    until("the feature level admits failbacks", async || {
        let options = BulkMoveOptions::default();
        let refused = admin.failback_region("eu-west", options).await.unwrap_err();
        refused.message.contains("no tenant is to be moved")
    })
    .await;
    let unknown = admin.failback_region("nowhere", BulkMoveOptions::default()).await;
    assert_eq!(unknown.unwrap_err().kind, ErrorKind::NotFound);
    wait_for_copies(&admin, "acme").await;
    let request = PromotionRequest {
        even_if_healthy: true,
        ..named("acme")
    };
    promote(&admin, request, WAIT_MAX).await.unwrap();
    acme.put("k", "w").await.unwrap();
    let (planned, outcome) = plan(&admin).await;
    assert!(
        matches!(outcome, Some(OperationOutcome::TenantsMoved(1))),
        "{outcome:?}"
    );
    assert_eq!((planned.tenants, planned.copy_bytes), (1, Some(0)), "{planned:?}");
    assert_eq!(planned.moves[0].to_region, "eu-west");
    assert!(planned.pause.is_some(), "{planned:?}");
    let begun = admin
        .failback_region("eu-west", BulkMoveOptions::default())
        .await
        .unwrap();
    let ended = ended_within(&admin, &begun.name, WAIT_MAX).await.unwrap();
    assert!(
        matches!(ended.outcome, Some(OperationOutcome::TenantsMoved(1))),
        "{ended:?}"
    );
    assert_eq!(admin.tenant("acme").await.unwrap().home_region, "eu-west");
    assert_eq!(acme.get("k").await.unwrap().item.unwrap().value.as_ref(), b"w");
    let again = admin.failback_region("eu-west", BulkMoveOptions::default()).await;
    assert!(again.unwrap_err().message.contains("no tenant is to be moved"));
}

#[tokio::test]
async fn unknown_tenant_is_named_before_health_of_known_one() {
    let _lock = exclusive_lock();
    let cluster = three_regions().await;
    let admin = cluster.client("us-east").await.unwrap().admin();
    create(&admin, "acme", None).await;
    let request = PromotionRequest::new(PromotionSelection::Tenants(vec!["acme".into(), "ghost".into()]));
    let refused = admin.promote(request).await.unwrap_err();
    assert!(refused.message.contains("no tenant ghost"), "{refused}");
}

/// A home that went on without a lease is cut off, promoted away, heard of again: what it acknowledged meanwhile is in a fork,
/// the report says that the window has no end, and the tenant returns all the same.
#[tokio::test]
async fn home_that_went_on_without_lease_follows_keeps_fork_and_gets_its_tenant_back() {
    let _lock = exclusive_lock();
    let cluster = three_regions().await;
    let client = cluster.client("us-east").await.unwrap();
    let admin = client.admin();
    until("the lease ttl is set", async || {
        admin.set_lease_ttl(LEASE_TTL, "test").await.is_ok()
    })
    .await;
    create(&admin, "acme", Some(OnLeaseLoss::Continue)).await;
    client.tenant("acme").unwrap().put("k", "before").await.unwrap();
    wait_for_copies(&admin, "acme").await;

    let at_home = cluster.client("eu-west").await.unwrap().tenant("acme").unwrap();
    at_home.put("warm", "v").await.unwrap();
    cluster.isolate("eu-west").unwrap();
    let request = PromotionRequest {
        is_down: true,
        ..named("acme")
    };
    let promotion = promote(&admin, request, 2 * WAIT_MAX).await.unwrap();
    let decided = promotion.tenant("acme").unwrap();
    assert_eq!(decided.state, PromotedState::Promoted, "{decided:?}");
    let LossWindow::Between(_, until_then) = decided.loss else {
        panic!("{decided:?}")
    };
    assert_eq!(
        until_then, None,
        "the home acknowledges until it hears of it: {decided:?}"
    );
    // It goes on, and so does the new home.
    at_home.put("k", "cut").await.unwrap();
    client.tenant("acme").unwrap().put("k", "kept").await.unwrap();
    cluster.heal_all();

    until("what was cut is in a fork", async || {
        let listed = admin.forks("acme", None, "").await;
        listed.is_ok_and(|listed| listed.forks.iter().any(|fork| fork.changes > 0 && !fork.is_filling))
    })
    .await;
    let (planned, outcome) = plan(&admin).await;
    assert!(
        matches!(outcome, Some(OperationOutcome::TenantsMoved(1))),
        "{outcome:?}"
    );
    assert!(
        planned.advice.iter().any(|advice| advice.contains("have a fork")),
        "{planned:?}"
    );
    let mut begun = None;
    until("the node that was cut off takes tenants again", async || {
        begun = admin.failback_region("eu-west", BulkMoveOptions::default()).await.ok();
        begun.is_some()
    })
    .await;
    let ended = ended_within(&admin, &begun.unwrap().name, WAIT_MAX).await.unwrap();
    assert!(
        matches!(ended.outcome, Some(OperationOutcome::TenantsMoved(1))),
        "{ended:?}"
    );
    let home = cluster.client("eu-west").await.unwrap().tenant("acme").unwrap();
    assert_eq!(home.get("k").await.unwrap().item.unwrap().value.as_ref(), b"kept");
    let listed = admin.forks("acme", None, "").await.unwrap();
    assert!(!listed.forks.is_empty(), "the fork stays until it is discarded");
}
