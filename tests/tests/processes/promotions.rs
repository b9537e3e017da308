//! Promotions that cannot begin as asked for, that two operators ask for, and one that is undone.

use std::time::Duration;

use stead_client::{
    Admin, Error, ErrorKind, Followers, NewTenant, OperationOutcome, PromotedState, PromotionPlan, PromotionRequest,
    PromotionSelection,
};
use stead_testing::{Fixture, moves::ended_within, promotions::promote};
use stead_tests::process::{binary, exclusive_lock};
use tokio::time::{Instant, sleep};

/// Longest wait on a machine that is busy with other tests.
const WAIT_MAX: Duration = Duration::from_secs(60);

async fn three_regions() -> Fixture {
    let builder = Fixture::builder().binary(binary());
    let regions = builder.region("us-east", 1).region("eu-west", 1).region("ap-south", 1);
    regions.start().await.unwrap()
}

fn named(names: &[&str]) -> PromotionRequest {
    let names = names.iter().map(ToString::to_string).collect();
    PromotionRequest::new(PromotionSelection::Tenants(names))
}

fn region(name: &str) -> PromotionRequest {
    PromotionRequest::new(PromotionSelection::Region(name.into()))
}

fn even_if_healthy(request: PromotionRequest) -> PromotionRequest {
    PromotionRequest {
        even_if_healthy: true,
        ..request
    }
}

/// Waits until the cluster's feature level admits promotions: it is raised once every node has reported its own.
async fn wait_for_promotions(admin: &Admin) {
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        let refused = admin.promote(region("nowhere")).await.unwrap_err();
        if refused.kind == ErrorKind::NotFound {
            return;
        }
        assert!(refused.message.contains("feature level"), "{refused}");
        assert!(Instant::now() < deadline, "{refused}");
        sleep(Duration::from_millis(20)).await;
    }
}

fn assert_words(error: &Error, kind: &ErrorKind, words: &[&str]) {
    assert_eq!(&error.kind, kind, "{error}");
    for word in words {
        assert!(error.message.contains(word), "{word:?} is not in {:?}", error.message);
    }
}

async fn plan(admin: &Admin, request: PromotionRequest) -> (PromotionPlan, Option<OperationOutcome>) {
    let dry_run = PromotionRequest {
        dry_run: true,
        ..request
    };
    let planned = admin.promote(dry_run).await.unwrap();
    assert_eq!(planned.name, "", "nothing has begun");
    (planned.promotion_plan.unwrap(), planned.outcome)
}

async fn create(admin: &Admin, name: &str, followers: Followers) {
    let new = NewTenant {
        name: name.into(),
        home_region: "eu-west".into(),
        followers,
        ..NewTenant::default()
    };
    admin.create_tenant(new).await.unwrap();
}

/// Waits until a follower's copy can be chosen, as a dry run says.
async fn wait_for_copies(admin: &Admin, tenant: &str) -> PromotionPlan {
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        let (plan, _) = plan(admin, named(&[tenant])).await;
        let copies = &plan.items[0].copies;
        let home = copies.iter().find(|copy| copy.role == stead_client::CopyRole::Owner);
        let revision = home.and_then(|home| home.revision);
        if revision.is_some() && copies.iter().all(|copy| copy.revision == revision) {
            return plan;
        }
        assert!(Instant::now() < deadline, "{plan:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn promotion_that_cannot_begin_is_refused_with_consequence() {
    let _lock = exclusive_lock();
    let cluster = three_regions().await;
    let client = cluster.client("us-east").await.unwrap();
    let admin = client.admin();
    wait_for_promotions(&admin).await;
    create(&admin, "acme", Followers::default()).await;
    create(&admin, "bound", Followers::Regions(vec!["us-east".into()])).await;
    client.tenant("acme").unwrap().put("k", "v").await.unwrap();

    let refused = async |request| admin.promote(request).await.unwrap_err();
    assert_words(
        &refused(region("eu-wset")).await,
        &ErrorKind::NotFound,
        &["no region eu-wset"],
    );
    let group = PromotionRequest::new(PromotionSelection::Group(99));
    assert_words(&refused(group).await, &ErrorKind::NotFound, &["no group g99"]);
    let unknown = refused(even_if_healthy(named(&["acme", "ghost"]))).await;
    assert_words(&unknown, &ErrorKind::TenantNotFound, &["no tenant ghost"]);
    let nothing = refused(region("ap-south")).await;
    assert_words(&nothing, &ErrorKind::Conflict, &["no tenant is to be promoted"]);

    let healthy = refused(region("eu-west")).await;
    let words = [
        "eu-west g",
        "a planned move loses nothing",
        "stead region drain eu-west",
        "--graceful-for 10s",
    ];
    assert_words(&healthy, &ErrorKind::Conflict, &words);
    let (planned, outcome) = plan(&admin, region("eu-west")).await;
    assert!(matches!(outcome, Some(OperationOutcome::Failed(_))), "{outcome:?}");
    assert!(
        planned.options_needed.contains(&"--even-if-healthy".to_owned()),
        "{planned:?}"
    );
    assert!(
        planned.homes[0].healthy && planned.homes[0].voters_answering == 1,
        "{planned:?}"
    );
    assert_eq!(planned.tenants, 2);

    let lacking = PromotionRequest {
        to: Some("ap-south".into()),
        ..even_if_healthy(named(&["bound"]))
    };
    let words = ["no member of tenant bound can become its home"];
    assert_words(&refused(lacking).await, &ErrorKind::Conflict, &words);
    let operations = admin
        .operations(&stead_client::OperationFilter::default())
        .await
        .unwrap();
    assert!(operations.is_empty(), "nothing has begun: {operations:?}");

    cluster.kill("eu-west-1").await.unwrap();
    cluster.kill("ap-south-1").await.unwrap();
    let half = refused(region("eu-west")).await;
    assert!(
        half.is_transient() || matches!(half.kind, ErrorKind::OutcomeUnknown { .. }),
        "{half:?}"
    );
}

#[tokio::test]
async fn promotion_of_healthy_home_by_force_loses_nothing_and_is_reported() {
    let _lock = exclusive_lock();
    let cluster = three_regions().await;
    let client = cluster.client("us-east").await.unwrap();
    let admin = client.admin();
    wait_for_promotions(&admin).await;
    create(&admin, "acme", Followers::default()).await;
    let acme = client.tenant("acme").unwrap();
    acme.put("k", "v").await.unwrap();
    let planned = wait_for_copies(&admin, "acme").await;
    assert_eq!(planned.tenants_blocked, 0, "{planned:?}");
    let promotion = promote(&admin, even_if_healthy(named(&["acme"])), WAIT_MAX)
        .await
        .unwrap();
    let decided = promotion.tenant("acme").unwrap();
    assert_eq!(decided.state, PromotedState::Promoted, "{decided:?}");
    assert_eq!(decided.from.as_ref().unwrap().region, "eu-west");
    assert_ne!(decided.to.as_ref().unwrap().region, "eu-west");
    assert_eq!(decided.loss, stead_client::LossWindow::None, "{decided:?}");
    assert_eq!(decided.reports.len(), 3, "{decided:?}");
    let longest = promotion.longest().unwrap();
    assert!(
        longest < Duration::from_secs(14),
        "the home has confirmed, no lease was waited for: {longest:?}"
    );
    assert_eq!(acme.get("k").await.unwrap().item.unwrap().value.as_ref(), b"v");
    let written = acme.put("k", "w").await.unwrap();
    assert_eq!(written.header.revision.epoch().get(), decided.epoch);
    let far = cluster.client("eu-west").await.unwrap().tenant("acme").unwrap();
    assert_eq!(far.get("k").await.unwrap().item.unwrap().value.as_ref(), b"w");
    let again = admin.promote(region("eu-west")).await.unwrap_err();
    assert_words(&again, &ErrorKind::Conflict, &["no tenant is to be promoted"]);
}

#[tokio::test]
async fn second_operator_is_told_of_first_promotion_and_may_undo_it() {
    let _lock = exclusive_lock();
    let cluster = three_regions().await;
    let client = cluster.client("us-east").await.unwrap();
    let admin = client.admin();
    wait_for_promotions(&admin).await;
    create(&admin, "acme", Followers::default()).await;
    let acme = client.tenant("acme").unwrap();
    acme.put("k", "v").await.unwrap();
    wait_for_copies(&admin, "acme").await;
    cluster.kill("eu-west-1").await.unwrap();
    let (planned, outcome) = plan(&admin, region("eu-west")).await;
    assert!(matches!(outcome, Some(OperationOutcome::Promoted(_))), "{outcome:?}");
    let item = &planned.items[0];
    assert_eq!((item.tenant.as_str(), item.blocker.as_str()), ("acme", ""), "{item:?}");
    assert_ne!(item.loss, stead_client::LossWindow::None, "its home is gone: {item:?}");
    assert!(item.copies.iter().any(|copy| copy.silent), "{item:?}");

    let first = admin.promote(region("eu-west")).await.unwrap();
    let second = admin.promote(region("eu-west")).await.unwrap_err();
    assert_words(
        &second,
        &ErrorKind::Conflict,
        &["being promoted already", "acme", &first.name],
    );
    let (_, outcome) = plan(&admin, region("eu-west")).await;
    assert!(matches!(outcome, Some(OperationOutcome::Failed(_))), "{outcome:?}");

    // It confirms that it serves no more, so that no lease is waited for.
    cluster.start("eu-west-1").await.unwrap();
    let first = ended_within(&admin, &first.name, 2 * WAIT_MAX).await.unwrap();
    assert!(
        matches!(first.outcome, Some(OperationOutcome::Promoted(_))),
        "{first:?}"
    );
    let undo = PromotionRequest {
        to: Some("eu-west".into()),
        ..even_if_healthy(named(&["acme"]))
    };
    let undone = promote(&admin, undo, WAIT_MAX).await.unwrap();
    let decided = undone.tenant("acme").unwrap();
    assert_eq!(decided.state, PromotedState::Promoted, "{decided:?}");
    assert_eq!(decided.to.as_ref().unwrap().region, "eu-west");
    assert_eq!(decided.loss, stead_client::LossWindow::None, "{decided:?}");
    assert_eq!(acme.get("k").await.unwrap().item.unwrap().value.as_ref(), b"v");
}

/// A group whose majority is lost is not recovered: its tenants get other homes, while one of its voters is alive.
#[tokio::test]
async fn tenants_of_group_with_one_living_voter_of_three_are_promoted_elsewhere() {
    let _lock = exclusive_lock();
    let builder = Fixture::builder().binary(binary());
    let regions = builder.region("us-east", 1).region("eu-west", 3).region("ap-south", 1);
    let cluster = regions.start().await.unwrap();
    let client = cluster.client("us-east").await.unwrap();
    let admin = client.admin();
    wait_for_promotions(&admin).await;
    create(&admin, "acme", Followers::default()).await;
    let acme = client.tenant("acme").unwrap();
    acme.put("k", "v").await.unwrap();
    wait_for_copies(&admin, "acme").await;
    let home = admin.tenant("acme").await.unwrap().home_group;
    // The voter that is left is the one that votes in the directory too.
    cluster.kill("eu-west-2").await.unwrap();
    cluster.kill("eu-west-3").await.unwrap();
    let request = PromotionRequest::new(PromotionSelection::Group(home));
    let deadline = Instant::now() + WAIT_MAX;
    let (planned, _) = loop {
        let (planned, outcome) = plan(&admin, request.clone()).await;
        if planned.homes.iter().all(|home| !home.healthy) {
            break (planned, outcome);
        }
        assert!(Instant::now() < deadline, "its leader steps down: {planned:?}");
        sleep(Duration::from_millis(50)).await;
    };
    assert_eq!((planned.tenants, planned.tenants_blocked), (1, 0), "{planned:?}");
    assert_eq!(
        (planned.homes[0].voters, planned.homes[0].voters_answering),
        (3, 1),
        "{planned:?}"
    );
    let promotion = promote(&admin, request, 3 * WAIT_MAX).await.unwrap();
    let decided = promotion.tenant("acme").unwrap();
    assert_eq!(decided.state, PromotedState::Promoted, "{decided:?}");
    assert_ne!(decided.to.as_ref().unwrap().region, "eu-west");
    assert_eq!(acme.get("k").await.unwrap().item.unwrap().value.as_ref(), b"v");
    let written = acme.put("k", "w").await.unwrap();
    assert_eq!(written.header.revision.epoch().get(), decided.epoch);

    // With its majority back the group follows.
    cluster.start("eu-west-2").await.unwrap();
    let far = cluster.client("eu-west").await.unwrap().tenant("acme").unwrap();
    let local = stead_client::ReadOptions::at(stead_client::Consistency::Local);
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        let read = far.get_with("k", &local).await.ok().and_then(|read| read.item);
        if read.is_some_and(|item| item.value.as_ref() == b"w") {
            break;
        }
        assert!(Instant::now() < deadline, "the old home follows");
        sleep(Duration::from_millis(50)).await;
    }
}
