//! Changes that a promotion cuts: told to clients exactly, listed with the three values of each key, written again once,
//! discarded.

use std::time::Duration;

use stead_client::{
    Admin, AtForkPoint, BulkMoveOptions, Client, Condition, Consistency, ErrorKind, Event, ForkClass, ForkEntry,
    ForkInfo, ForkName, Item, NewTenant, OperationOutcome, PromotedState, PromotionRequest, PromotionSelection,
    ReadOptions, ReceiptStatus, Receipts, ReplayOptions, ReplayOutcome, ReplayPage, Revision, ScanOptions,
    SessionToken, Tenant, WatchFrom, WatchMessage, WatchOptions, Watcher, WriteOptions,
};
use stead_testing::{Fixture, promotions::promote};
use stead_tests::process::{binary, exclusive_lock};
use tokio::time::{Instant, sleep, timeout};

/// Longest wait on a machine that is busy with other tests.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Longest time of a promotion that waits for a whole lease.
const PROMOTION_MAX: Duration = Duration::from_secs(150);

/// Waits until something holds.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + WAIT_MAX;
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Home, its clients, and what they have seen of a tail that nobody else has received.
struct Cut {
    cluster: Fixture,
    near: Client,
    far: Client,
    /// The change at which copies were equal.
    point: Revision,
    /// Acknowledged changes behind it, in their order.
    lost: Vec<Revision>,
    token: SessionToken,
    page: String,
    watcher: Watcher,
}

async fn copies_have(cluster: &Fixture, revision: Revision) {
    for region in ["us-east", "ap-south"] {
        let copy = cluster.client(region).await.unwrap().tenant("acme").unwrap();
        let local = ReadOptions::at(Consistency::Local);
        until("copies follow", async || {
            let got = copy.get_with("a", &local).await;
            got.is_ok_and(|got| got.header.revision >= revision)
        })
        .await;
    }
}

/// Has the home acknowledge writes that no other region receives, and kills it.
async fn cut_tail() -> Cut {
    let builder = Fixture::builder().binary(binary());
    let regions = builder.region("us-east", 1).region("eu-west", 1).region("ap-south", 1);
    let cluster = regions.start().await.unwrap();
    let (near, far) = (
        cluster.client("eu-west").await.unwrap(),
        cluster.client("us-east").await.unwrap(),
    );
    let admin = far.admin();
    until("the cluster has feature level 4", async || {
        admin.cluster().await.is_ok_and(|cluster| cluster.feature_level >= 4)
    })
    .await;
    let new = NewTenant {
        name: "acme".into(),
        home_region: "eu-west".into(),
        ..NewTenant::default()
    };
    admin.create_tenant(new).await.unwrap();
    let acme = near.tenant("acme").unwrap();
    for key in ["a", "c", "d"] {
        acme.put(key, "base").await.unwrap();
    }
    acme.increment("n", 5).await.unwrap();
    let point = acme.append("t", "x").await.unwrap().header.revision;
    copies_have(&cluster, point).await;
    cluster.isolate("eu-west").unwrap();
    let from = WatchFrom::After(point);
    let watch = WatchOptions {
        from,
        ..WatchOptions::default()
    };
    let mut watcher = acme.watch(watch).await.unwrap();
    let mut lost = Vec::new();
    for key in ["a", "c", "new"] {
        lost.push(acme.put(key, "cut").await.unwrap().header.revision);
    }
    for _ in 0..2 {
        lost.push(acme.increment("n", 3).await.unwrap().header.revision);
    }
    lost.push(acme.append("t", "yz").await.unwrap().header.revision);
    lost.push(acme.delete("d").await.unwrap().header.revision);
    let mut seen = Vec::new();
    while seen.len() < lost.len() {
        seen.extend(changes(&mut watcher).await);
    }
    assert_eq!(seen.iter().map(|event| event.item.modified).collect::<Vec<_>>(), lost);
    let scan = ScanOptions {
        page_size: 1,
        ..ScanOptions::default()
    };
    let page = acme.scan(&scan).await.unwrap().next.unwrap();
    let token = acme.token().unwrap();
    cluster.kill("eu-west-1").await.unwrap();
    Cut {
        cluster,
        near,
        far,
        point,
        lost,
        token,
        page,
        watcher,
    }
}

/// Returns the next events of a watch.
async fn changes(watcher: &mut Watcher) -> Vec<Event> {
    loop {
        match message(watcher).await {
            WatchMessage::Changes(events) => return events,
            WatchMessage::Progress => {}
            other @ (WatchMessage::State { .. } | WatchMessage::Forked { .. }) => panic!("{other:?}"),
        }
    }
}

async fn message(watcher: &mut Watcher) -> WatchMessage {
    timeout(WAIT_MAX, watcher.next())
        .await
        .expect("a watch goes on")
        .unwrap()
}

/// Promotes the tenants of the region that is gone, and writes at the new home.
async fn promote_and_go_on(cut: &Cut) -> Tenant {
    let request = PromotionRequest::new(PromotionSelection::Region("eu-west".into()));
    let promotion = promote(&cut.far.admin(), request, PROMOTION_MAX).await.unwrap();
    // Not before: the links hold what the lost home had sent.
    cut.cluster.heal_all();
    let decided = promotion.tenant("acme").unwrap();
    assert_eq!(decided.state, PromotedState::Promoted, "{decided:?}");
    assert_eq!(decided.kept, Some(cut.point), "{decided:?}");
    let acme = cut.far.tenant("acme").unwrap();
    acme.put("c", "live").await.unwrap();
    acme.increment("n", 10).await.unwrap();
    acme.append("t", "!").await.unwrap();
    acme
}

async fn value(tenant: &Tenant, key: &str) -> Option<String> {
    let item = tenant.get(key.to_owned()).await.unwrap().item?;
    Some(String::from_utf8(item.value.to_vec()).unwrap())
}

fn assert_told(cut: &Cut, kind: &ErrorKind, seen: Revision) {
    let expected = ErrorKind::Forked {
        epoch: seen.epoch(),
        first: cut.lost[0],
        last: seen,
        kept: cut.point,
    };
    assert_eq!(*kind, expected);
}

/// Checks that a client whose session is of what was cut is told once, exactly, and goes on.
async fn check_client(cut: &mut Cut, home: &Tenant) {
    let last = *cut.lost.last().unwrap();
    let is_told = |kind: &ErrorKind, seen: Revision| assert_told(cut, kind, seen);
    // A fresh client with the token of the lost home: told once, and the next call works.
    let other = cut.cluster.client("ap-south").await.unwrap();
    let acme = other.tenant("acme").unwrap();
    acme.resume(cut.token).unwrap();
    let session = ReadOptions::at(Consistency::Session);
    let told = acme.get_with("a", &session).await.unwrap_err();
    is_told(&told.kind, last);
    let read = acme.get_with("c", &session).await.unwrap();
    assert!(read.header.revision >= cut.point, "{read:?}");
    // Every acknowledged revision, in both directions, at every region.
    for region in ["us-east", "ap-south"] {
        let acme = cut.cluster.client(region).await.unwrap().tenant("acme").unwrap();
        for seen in &cut.lost {
            let tenant = cut.token.tenant;
            let token = SessionToken {
                tenant,
                revision: *seen,
            };
            let told = acme
                .get_with("a", &ReadOptions::at(Consistency::Token(token)))
                .await
                .unwrap_err();
            is_told(&told.kind, *seen);
        }
        let at_point = SessionToken {
            tenant: cut.token.tenant,
            revision: cut.point,
        };
        acme.get_with("a", &ReadOptions::at(Consistency::Token(at_point)))
            .await
            .unwrap();
    }
    let condition = WriteOptions {
        precondition: Some(Condition::modified_at(last)),
        ..WriteOptions::default()
    };
    let told = home.put_with("a", "w", &condition).await.unwrap_err();
    is_told(&told.kind, last);
    let scan = ScanOptions {
        page_size: 1,
        page_token: cut.page.clone(),
        ..ScanOptions::default()
    };
    let told = home.scan(&scan).await.unwrap_err();
    is_told(&told.kind, last);
    check_watch(cut).await;
}

/// Checks that a watch is told too, and goes on with what came instead.
async fn check_watch(cut: &mut Cut) {
    let (first, last) = (cut.lost[0], *cut.lost.last().unwrap());
    let told = message(&mut cut.watcher).await;
    let expected = (first, last, cut.point);
    assert!(
        matches!(told, WatchMessage::Forked { first, last, kept, .. } if (first, last, kept) == expected),
        "{told:?}"
    );
    let mut seen = Vec::new();
    while seen.len() < 3 {
        seen.extend(changes(&mut cut.watcher).await);
    }
    let keys: Vec<_> = seen.iter().map(|event| event.item.key.clone()).collect();
    assert_eq!(keys, ["c", "n", "t"]);
    assert!(seen.iter().all(|event| event.item.modified.epoch() > cut.point.epoch()));
    let session = ReadOptions::at(Consistency::Session);
    let near = cut.near.tenant("acme").unwrap();
    let told = near.get_with("a", &session).await;
    // The watch has told it to this client's session already.
    assert!(told.is_ok(), "{told:?}");
}

async fn the_fork(admin: &Admin) -> ForkInfo {
    let mut found = None;
    until("the old home has a fork", async || {
        let list = admin.forks("acme", None, "").await.unwrap();
        found = list.forks.into_iter().find(|fork| !fork.is_filling);
        found.is_some()
    })
    .await;
    found.unwrap()
}

async fn entries(admin: &Admin, name: &ForkName) -> Vec<ForkEntry> {
    let mut entries = Vec::new();
    until("the old home follows", async || {
        let page = admin.fork_entries(name, 1_000, "").await.unwrap();
        entries = page.entries;
        let of_c = entries.iter().find(|entry| entry.key.as_ref() == b"c");
        of_c.is_some_and(|entry| text(entry.live.as_ref()).as_deref() == Some("live"))
    })
    .await;
    entries
}

fn text(item: Option<&Item>) -> Option<String> {
    Some(String::from_utf8(item?.value.to_vec()).unwrap())
}

fn count(page: &ReplayPage, outcome: ReplayOutcome) -> usize {
    page.changes.iter().filter(|change| change.outcome == outcome).count()
}

async fn replay(admin: &Admin, name: &ForkName, replay: &ReplayOptions) -> ReplayPage {
    let page = admin.replay_fork(name, replay, "").await.unwrap();
    assert_eq!(page.next_page_token, "");
    page
}

#[tokio::test]
async fn tail_of_lost_home_is_told_shown_replayed_once_and_discarded() {
    let _lock = exclusive_lock();
    let mut cut = cut_tail().await;
    let home = promote_and_go_on(&cut).await;
    check_client(&mut cut, &home).await;
    cut.cluster.start("eu-west-1").await.unwrap();
    let admin = cut.far.admin();
    let fork = the_fork(&admin).await;
    assert_eq!((fork.region.as_str(), fork.changes), ("eu-west", cut.lost.len() as u64));
    assert_eq!(
        (fork.first, fork.last),
        (Some(cut.lost[0]), cut.lost[cut.lost.len() - 1])
    );
    let name = ForkName {
        tenant: "acme".into(),
        group: fork.group,
        number: fork.number,
    };
    let shown = entries(&admin, &name).await;
    let of_c = shown.iter().find(|entry| entry.key.as_ref() == b"c").unwrap();
    let AtForkPoint::Known(before) = &of_c.at_fork_point else {
        panic!()
    };
    let three = [before.as_ref(), of_c.cut.as_ref(), of_c.live.as_ref()].map(|item| text(item).unwrap());
    assert_eq!(three, ["base", "cut", "live"]);
    let classes: Vec<ForkClass> = shown.iter().map(|entry| entry.class).collect();
    use ForkClass::{Clean, Commutative, Conflict};
    assert_eq!(
        classes,
        [Clean, Conflict, Clean, Commutative, Commutative, Commutative, Clean]
    );

    check_drain(&admin).await;
    check_replay(&cut, &home, &name).await;
    check_receipts(&cut, &fork).await;
    check_conflict_and_discard(&cut, &home, &name).await;
}

fn options() -> ReplayOptions {
    ReplayOptions {
        reason: "tested".into(),
        ..ReplayOptions::default()
    }
}

fn written(page: &ReplayPage) -> usize {
    count(page, ReplayOutcome::Written)
}

/// Checks that the region with the fork is drained with consent only.
async fn check_drain(admin: &Admin) {
    let drain = async |dry_run, keep_forks| {
        let options = BulkMoveOptions {
            dry_run,
            keep_forks,
            ..BulkMoveOptions::default()
        };
        admin.drain_region("eu-west", None, options).await
    };
    let refused = drain(false, false).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Conflict);
    for words in [
        "holds forks, 1, of tenant acme",
        "are lost if these are taken away",
        "--keep-forks",
    ] {
        assert!(refused.message.contains(words), "{refused}");
    }
    let planned = drain(true, false).await.unwrap();
    assert!(
        matches!(&planned.outcome, Some(OperationOutcome::Failed(error)) if error.message == refused.message),
        "{planned:?}"
    );
    let planned = drain(true, true).await.unwrap();
    assert!(
        !matches!(&planned.outcome, Some(OperationOutcome::Failed(error)) if error.message == refused.message),
        "{planned:?}"
    );
}

/// Checks what a dry run and two operators at once write, and that nothing is written twice.
async fn check_replay(cut: &Cut, home: &Tenant, name: &ForkName) {
    let admin = cut.far.admin();
    let options = options();
    let before = home.get("a").await.unwrap().header.revision;
    let dry_run = ReplayOptions {
        dry_run: true,
        ..options.clone()
    };
    let planned = replay(&admin, name, &dry_run).await;
    assert_eq!(
        (
            count(&planned, ReplayOutcome::Written),
            count(&planned, ReplayOutcome::Left)
        ),
        (6, 1)
    );
    assert_eq!(
        home.get("a").await.unwrap().header.revision,
        before,
        "nothing was written"
    );
    // Two operators at once, at two regions: each change is written by one of them.
    let second = cut.cluster.client("ap-south").await.unwrap().admin();
    let (one, other) = tokio::join!(replay(&admin, name, &options), replay(&second, name, &options));
    assert_eq!(written(&one) + written(&other), 6, "{one:?} {other:?}");
    let values = [
        value(home, "a").await,
        value(home, "new").await,
        value(home, "n").await,
        value(home, "t").await,
    ];
    assert_eq!(values, ["cut", "cut", "21", "x!yz"].map(|value| Some(value.to_owned())));
    assert_eq!(
        (value(home, "c").await.as_deref(), value(home, "d").await),
        (Some("live"), None)
    );

    let again = replay(&admin, name, &options).await;
    assert_eq!(
        (written(&again), count(&again, ReplayOutcome::Found)),
        (0, 6),
        "{again:?}"
    );
}

/// Returns what became of the last change that was kept, and of those that were cut.
async fn receipts(cut: &Cut, region: &str) -> Receipts {
    let acme = cut.cluster.client(region).await.unwrap().tenant("acme").unwrap();
    let asked = [&[cut.point][..], &cut.lost[..]].concat();
    acme.check_receipts(&asked).await.unwrap()
}

async fn check_receipts(cut: &Cut, fork: &ForkInfo) {
    for region in ["us-east", "ap-south", "eu-west"] {
        let found = receipts(cut, region).await;
        assert!(!found.replays_unknown && found.silent_groups.is_empty(), "{found:?}");
        let statuses: Vec<_> = found.receipts.iter().map(|receipt| receipt.status).collect();
        assert_eq!(statuses[0], ReceiptStatus::Survived);
        assert_eq!(statuses[2], ReceiptStatus::Cut, "the conflict");
        let replayed = statuses
            .iter()
            .filter(|status| matches!(status, ReceiptStatus::Replayed(_)));
        assert_eq!(replayed.count(), 6, "{statuses:?}");
        assert_eq!(
            found.receipts[2].forks,
            [(fork.group, "eu-west".to_owned(), fork.number)]
        );
    }
}

async fn check_conflict_and_discard(cut: &Cut, home: &Tenant, name: &ForkName) {
    let (admin, options) = (cut.far.admin(), options());
    // The conflict is written only where it is named, and says what it replaces.
    let named = ReplayOptions {
        classes: vec![ForkClass::Conflict],
        key: "c".into(),
        ..options.clone()
    };
    let conflict = replay(&admin, name, &named).await;
    assert_eq!((written(&conflict), conflict.changes[0].touched.len()), (1, 1));
    assert_eq!(value(home, "c").await.as_deref(), Some("cut"));

    let ghost = ForkName {
        number: 99,
        ..name.clone()
    };
    assert_eq!(
        admin.discard_fork(&ghost, "tested").await.unwrap_err().kind,
        ErrorKind::NotFound
    );
    admin.discard_fork(name, "tested").await.unwrap();
    let gone = admin.replay_fork(name, &options, "").await.unwrap_err();
    assert_eq!(gone.kind, ErrorKind::NotFound);
    assert!(gone.message.contains("discarded is gone"), "{gone}");
    assert!(admin.forks("acme", None, "").await.unwrap().forks.is_empty());
    // What was replayed stays known.
    let found = receipts(cut, "us-east").await;
    assert!(
        matches!(found.receipts[1].status, ReceiptStatus::Replayed(_)),
        "{found:?}"
    );
}
