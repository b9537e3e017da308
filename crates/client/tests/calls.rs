//! Calls against mock nodes that die, freeze, refuse and forget to respond.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod mock;
mod recipes;

use std::{
    sync::atomic::Ordering::SeqCst,
    time::{Duration, Instant},
};

use mock::{Cluster, until};
use stead_client::{
    Client, Condition, Config, Consistency, ErrorKind, IdempotencyKey, Item, KeyRange, Op, OpResult, ReadOptions,
    Revision, TenantTime, WriteOptions,
};
use stead_types::ClientId;

async fn client(cluster: &Cluster) -> Client {
    Client::connect(Config::new(cluster.addresses())).await.unwrap()
}

/// Returns a client with a region of its own, so that nothing is measured.
async fn client_in(cluster: &Cluster, region: &str) -> Client {
    let mut config = Config::new(cluster.addresses());
    config.region = Some(region.parse().unwrap());
    Client::connect(config).await.unwrap()
}

#[tokio::test]
async fn put_is_read_back_and_session_keeps_token() {
    let cluster = Cluster::start(&["eu"]).await;
    let client = client(&cluster).await;
    let acme = client.tenant("acme").unwrap();
    assert_eq!(acme.token(), None);
    let written = acme.put("k", "v").await.unwrap();
    assert_eq!(acme.token(), written.header.token);
    let got = acme
        .get_with("k", &ReadOptions::at(Consistency::Session))
        .await
        .unwrap();
    assert_eq!(got.item.unwrap().value, "v");
    assert!(acme.delete("k").await.unwrap().existed);
    assert_eq!(acme.get("k").await.unwrap().item, None);
    let other = client.tenant("acme").unwrap();
    assert_eq!(other.token(), acme.token(), "handles share a session");
    assert!(client.tenant("Acme").is_err());
}

#[tokio::test]
async fn concurrent_calls_share_pipeline_messages() {
    let cluster = Cluster::start(&["eu"]).await;
    let acme = client(&cluster).await.tenant("acme").unwrap();
    let puts = (0..64).map(|at| {
        let acme = acme.clone();
        tokio::spawn(async move {
            for round in 0..20 {
                acme.put(format!("{at}/{round}"), "v").await.unwrap();
            }
        })
    });
    for put in puts.collect::<Vec<_>>() {
        put.await.unwrap();
    }
    let faults = &cluster.nodes[0].faults;
    let (asked, messages) = (faults.operations.load(SeqCst), faults.messages.load(SeqCst));
    assert_eq!(asked, 64 * 20);
    assert!(messages * 4 < asked, "{asked} operations in {messages} messages");
}

#[tokio::test]
async fn write_with_lost_response_is_retried_under_same_key() {
    let cluster = Cluster::start(&["eu", "eu"]).await;
    let acme = client(&cluster).await.tenant("acme").unwrap();
    cluster.store.time.store(40, SeqCst);
    acme.put("first", "v").await.unwrap();
    for node in &cluster.nodes {
        node.faults.cut_after_write.store(true, SeqCst);
    }
    let written = acme.put("second", "v").await.unwrap();
    assert!(written.repeated, "the first attempt had written");
    assert_eq!(cluster.store.effects.load(SeqCst), 2);
    let writes = cluster.store.writes.lock();
    assert!(writes.len() >= 3, "{writes:?}");
    assert!(
        writes[1..].iter().all(|key| *key == writes[1]),
        "one key for all attempts: {writes:?}"
    );
    assert_eq!(
        (writes[0].first_sent_ms, writes[1].first_sent_ms),
        (0, 40),
        "the highest tenant time seen"
    );
}

#[tokio::test]
async fn unanswered_write_fails_with_unknown_outcome_and_key() {
    let cluster = Cluster::start(&["eu"]).await;
    let acme = client(&cluster).await.tenant("acme").unwrap();
    cluster.nodes[0].faults.silent.store(true, SeqCst);
    let soon = Some(Duration::from_millis(300));
    let write = WriteOptions {
        timeout: soon,
        ..WriteOptions::default()
    };
    let error = acme.put_with("k", "v", &write).await.unwrap_err();
    let ErrorKind::OutcomeUnknown { key: Some(key) } = error.kind else {
        panic!("{error:?}");
    };
    assert_eq!(key.sequence, cluster.store.writes.lock()[0].sequence);
    assert!(error.message.contains(&key.to_string()), "{error}");
    let read = ReadOptions {
        timeout: soon,
        ..ReadOptions::default()
    };
    let error = acme.get_with("k", &read).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::DeadlineExceeded, "a read has no outcome");
}

#[tokio::test]
async fn updated_key_gets_requested_ttl() {
    let cluster = Cluster::start(&["eu"]).await;
    let acme = client(&cluster).await.tenant("acme").unwrap();
    let longer = |item: Option<&Item>| {
        let before = item.map(|item| item.value.clone()).unwrap_or_default();
        Some([before.as_ref(), b"x"].concat().into())
    };
    let second = Duration::from_secs(1);
    acme.update_expiring("k", second, longer).await.unwrap();
    acme.update("k", longer).await.unwrap();
    assert_eq!(acme.get("k").await.unwrap().item.unwrap().value, "xx");
    assert_eq!(*cluster.store.ttls_ms.lock(), [Some(1_000), None]);
}

#[tokio::test]
async fn expired_stamp_of_write_sent_once_is_renewed() {
    let cluster = Cluster::start(&["eu"]).await;
    let acme = client(&cluster).await.tenant("acme").unwrap();
    cluster.nodes[0].faults.expires.store(true, SeqCst);
    acme.put("k", "v").await.unwrap();
    let stamps: Vec<u64> = cluster
        .store
        .writes
        .lock()
        .iter()
        .map(|key| key.first_sent_ms)
        .collect();
    assert_eq!(stamps, [0, 90]);
    assert_eq!(cluster.store.effects.load(SeqCst), 1);
}

/// Its first attempt was sent before the client knew any time of the tenant.
#[tokio::test]
async fn write_of_unknown_outcome_without_stamp_is_stamped_by_time_of_copy() {
    let cluster = Cluster::start(&["eu", "eu"]).await;
    let acme = client(&cluster).await.tenant("acme").unwrap();
    let now = 5_000_000;
    cluster.store.time.store(now, SeqCst);
    for node in &cluster.nodes {
        node.faults.cut_after_write.store(true, SeqCst);
    }
    let written = acme.put("k", "v").await.unwrap();
    assert!(written.repeated, "the first attempt had written");
    assert_eq!(cluster.store.effects.load(SeqCst), 1);
    let writes = cluster.store.writes.lock();
    assert_eq!(writes[0].first_sent_ms, 0);
    let stamp = writes[1].first_sent_ms;
    assert!(
        (now - 60_000..now).contains(&stamp),
        "before it was sent first, and not long: {stamp}"
    );
    assert!(
        writes.iter().all(|key| key.sequence == writes[0].sequence),
        "{writes:?}"
    );
}

/// The copy's time was read long before the attempt failed: what passed since then is not taken off.
#[tokio::test]
async fn late_failure_of_write_to_young_tenant_is_stamped() {
    let cluster = Cluster::start(&["eu"]).await;
    let acme = client(&cluster).await.tenant("acme").unwrap();
    let young = 1_500;
    cluster.store.time.store(young, SeqCst);
    let faults = cluster.nodes[0].faults.clone();
    faults.silent_writes.store(true, SeqCst);
    let answered = async {
        // The first attempt is never answered; the next ones are.
        while cluster.store.writes.lock().is_empty() {
            tokio::task::yield_now().await;
        }
        faults.silent_writes.store(false, SeqCst);
    };
    let (written, ()) = tokio::join!(acme.put("k", "v"), answered);
    assert!(written.unwrap().repeated, "the first attempt had written");
    let stamps: Vec<u64> = cluster
        .store
        .writes
        .lock()
        .iter()
        .map(|key| key.first_sent_ms)
        .collect();
    assert!(
        matches!(stamps[..], [0, stamp] if (1..young).contains(&stamp)),
        "{stamps:?}"
    );
}

/// Its key can be asked for also when the tenant has forgotten outcomes since.
#[tokio::test]
async fn first_write_without_answer_names_key_with_time_of_copy() {
    let cluster = Cluster::start(&["eu"]).await;
    let acme = client(&cluster).await.tenant("acme").unwrap();
    let now = 5_000_000;
    cluster.store.time.store(now, SeqCst);
    cluster.nodes[0].faults.silent_writes.store(true, SeqCst);
    let short = WriteOptions {
        timeout: Some(Duration::from_millis(800)),
        ..WriteOptions::default()
    };
    let unknown = acme.put_with("k", "v", &short).await.unwrap_err();
    let ErrorKind::OutcomeUnknown { key: Some(key) } = unknown.kind else {
        panic!("{unknown}");
    };
    assert!((now - 60_000..now).contains(&key.first_sent.0), "{key}");
    cluster.nodes[0].faults.silent_writes.store(false, SeqCst);
    let again = WriteOptions {
        idempotency_key: Some(key),
        ..WriteOptions::default()
    };
    assert!(acme.put_with("k", "v", &again).await.unwrap().repeated);
}

#[tokio::test]
async fn session_of_what_was_cut_is_told_once_and_goes_on() {
    let cluster = Cluster::start(&["eu"]).await;
    let acme = client(&cluster).await.tenant("acme").unwrap();
    for _ in 0..3 {
        acme.put("k", "v").await.unwrap();
    }
    let seen = acme.token().unwrap();
    let [kept, first, last] = ["1.1", "1.2", "1.3"].map(|revision| revision.parse::<Revision>().unwrap());
    assert_eq!(seen.revision, last);
    let forked = ErrorKind::Forked {
        epoch: last.epoch(),
        first,
        last,
        kept,
    };
    cluster.nodes[0].faults.refusals.lock().push_back(Some(forked.clone()));
    let session = ReadOptions::at(Consistency::Session);
    let told = acme.get_with("k", &session).await.unwrap_err();
    assert_eq!(told.kind, forked, "nothing of it is lost on the way");
    assert_eq!(acme.token().unwrap().revision, kept);
    acme.get_with("k", &session).await.unwrap();
}

/// Returns the error for an expired stamp, which `expired_stamp_of_write_sent_once_is_renewed` shows to be renewed.
fn expired() -> Option<ErrorKind> {
    let (edge, now) = (TenantTime(50), TenantTime(90));
    Some(ErrorKind::IdempotencyExpired { edge, now })
}

#[tokio::test]
async fn partial_range_delete_is_never_restarted() {
    let refused = || Some(ErrorKind::QuotaExceeded { limit: "bytes".into() });
    for refusal in [expired(), refused()] {
        let cluster = Cluster::start(&["eu"]).await;
        let acme = client(&cluster).await.tenant("acme").unwrap();
        for key in ["a", "b", "c"] {
            acme.put(key, "old").await.unwrap();
        }
        cluster.nodes[0].faults.refusals.lock().extend([None, refusal]);
        let error = acme.delete_range(&KeyRange::all()).await.unwrap_err();
        assert!(
            matches!(error.kind, ErrorKind::OutcomeUnknown { key: Some(_) }),
            "{error}"
        );
        assert_eq!(cluster.store.rows.lock().len(), 1, "nothing after the refusal");
    }
    let cluster = Cluster::start(&["eu"]).await;
    let acme = client(&cluster).await.tenant("acme").unwrap();
    for key in ["a", "b", "c"] {
        acme.put(key, "old").await.unwrap();
    }
    let whole = acme.delete_range(&KeyRange::all()).await.unwrap();
    assert_eq!((whole.keys, whole.changes), (3, 2));
}

#[tokio::test]
async fn refused_retry_of_ambiguous_write_has_unknown_outcome() {
    let gone = ErrorKind::ConditionFailed {
        current: Revision::ZERO,
    };
    for refusal in [expired(), Some(gone), Some(ErrorKind::KeyNotFound)] {
        let cluster = Cluster::start(&["eu"]).await;
        let acme = client(&cluster).await.tenant("acme").unwrap();
        let faults = &cluster.nodes[0].faults;
        // The stamp is the tenant's time.
        cluster.store.time.store(40, SeqCst);
        acme.get("k").await.unwrap();
        faults.cut_after_write.store(true, SeqCst);
        faults.refusals.lock().extend([None, refusal]);
        let error = acme.put("k", "v").await.unwrap_err();
        assert!(
            matches!(error.kind, ErrorKind::OutcomeUnknown { key: Some(_) }),
            "{error}"
        );
    }
}

#[tokio::test]
async fn read_only_transaction_is_retried_without_key() {
    let cluster = Cluster::start(&["eu"]).await;
    let acme = client(&cluster).await.tenant("acme").unwrap();
    acme.put("k", "v").await.unwrap();
    cluster.nodes[0].faults.cut_after_write.store(true, SeqCst);
    let read = acme.txn().when("k", Condition::Exists).then(Op::get("k"));
    let done = read.send().await.unwrap();
    let [OpResult::Get(Some(item))] = &done.results[..] else {
        panic!("{done:?}");
    };
    assert_eq!(item.value, "v");
    assert_eq!(cluster.store.writes.lock().len(), 1, "it used no key");
}

#[tokio::test]
async fn deadline_at_one_node_does_not_end_call() {
    let cluster = Cluster::start(&["eu", "eu"]).await;
    let acme = client(&cluster).await.tenant("acme").unwrap();
    for node in &cluster.nodes {
        node.faults.refusals.lock().push_back(Some(ErrorKind::DeadlineExceeded));
    }
    acme.put("k", "v").await.unwrap();
    assert_eq!(acme.get("k").await.unwrap().item.unwrap().value, "v");
}

/// A node that answers nothing afterwards tells less.
#[tokio::test]
async fn call_past_its_deadline_returns_what_a_node_answered() {
    let cluster = Cluster::start(&["eu"]).await;
    let acme = client(&cluster).await.tenant("acme").unwrap();
    let faults = &cluster.nodes[0].faults;
    faults.refusals.lock().push_back(Some(ErrorKind::NoLeader));
    let read = ReadOptions {
        timeout: Some(Duration::from_millis(700)),
        ..ReadOptions::default()
    };
    let call = tokio::spawn(async move { acme.get_with("k", &read).await });
    until("it was refused", || faults.refusals.lock().is_empty()).await;
    faults.silent.store(true, SeqCst);
    assert_eq!(call.await.unwrap().unwrap_err().kind, ErrorKind::NoLeader);
}

#[tokio::test]
async fn dropped_call_is_cancelled_without_another_call() {
    let cluster = Cluster::start(&["eu"]).await;
    let acme = client(&cluster).await.tenant("acme").unwrap();
    let faults = &cluster.nodes[0].faults;
    faults.silent.store(true, SeqCst);
    let call = tokio::spawn(async move { acme.put("k", "v").await });
    until("it was asked", || faults.operations.load(SeqCst) == 1).await;
    call.abort();
    until("it is cancelled", || faults.cancelled.load(SeqCst) == 1).await;
}

#[tokio::test]
async fn write_repeated_by_caller_keeps_key_and_stamp() {
    let cluster = Cluster::start(&["eu"]).await;
    let acme = client(&cluster).await.tenant("acme").unwrap();
    let key = IdempotencyKey {
        client: ClientId(7),
        sequence: 3,
        first_sent: TenantTime(0),
    };
    let again = WriteOptions {
        idempotency_key: Some(key),
        ..WriteOptions::default()
    };
    cluster.nodes[0].faults.expires.store(true, SeqCst);
    acme.put_with("k", "v", &again).await.unwrap_err();
    let stamps: Vec<(u64, u64)> = cluster
        .store
        .writes
        .lock()
        .iter()
        .map(|key| (key.sequence, key.first_sent_ms))
        .collect();
    assert_eq!(
        stamps,
        [(3, 0)],
        "it may have happened: a new stamp could write it twice"
    );
    assert_eq!(cluster.store.effects.load(SeqCst), 0);
}

#[tokio::test]
async fn call_waits_for_election() {
    let cluster = Cluster::start(&["eu"]).await;
    let acme = client(&cluster).await.tenant("acme").unwrap();
    cluster.nodes[0].faults.no_leader.store(5, SeqCst);
    let started = Instant::now();
    acme.put("k", "v").await.unwrap();
    assert!(
        started.elapsed() >= Duration::from_millis(350),
        "waits as the node asked: {:?}",
        started.elapsed()
    );
    assert_eq!(cluster.store.effects.load(SeqCst), 1);
}

#[tokio::test]
async fn writes_go_home_and_local_reads_to_nearest() {
    let cluster = Cluster::start(&["us", "eu"]).await;
    cluster.set_home("acme", "eu");
    let client = client_in(&cluster, "us").await;
    client.home("acme").unwrap().now().await.unwrap();
    let acme = client.tenant("acme").unwrap();
    let written = acme.put("k", "v").await.unwrap();
    assert_eq!(written.header.region.unwrap().as_str(), "eu");
    let got = acme.get_with("k", &ReadOptions::at(Consistency::Local)).await.unwrap();
    assert_eq!(got.header.region.unwrap().as_str(), "us");
}

#[tokio::test]
async fn route_is_cleared_on_not_home_and_relearned() {
    let cluster = Cluster::start(&["us", "eu"]).await;
    cluster.set_home("acme", "us");
    let client = client_in(&cluster, "us").await;
    client.home("acme").unwrap().now().await.unwrap();
    let acme = client.tenant("acme").unwrap();
    cluster.nodes[0].faults.not_home.store(1, SeqCst);
    acme.put("k", "v").await.unwrap();
    cluster.set_home("acme", "eu");
    until("the new home is known", || {
        acme.home().is_some_and(|home| home.home_region.as_str() == "eu")
    })
    .await;
    assert_eq!(acme.put("k", "w").await.unwrap().header.region.unwrap().as_str(), "eu");
}

#[tokio::test]
async fn routes_are_kept_while_no_node_answers() {
    let mut cluster = Cluster::start(&["us", "eu"]).await;
    cluster.set_home("acme", "eu");
    let client = client_in(&cluster, "us").await;
    client.home("acme").unwrap().now().await.unwrap();
    let acme = client.tenant("acme").unwrap();
    cluster.kill_node(0);
    assert_eq!(acme.put("k", "v").await.unwrap().header.region.unwrap().as_str(), "eu");
    assert!(acme.home().is_some());
}

#[tokio::test]
async fn tenant_missing_in_snapshot_has_no_home() {
    let cluster = Cluster::start(&["eu"]).await;
    cluster.set_home("acme", "eu");
    let client = client(&cluster).await;
    let home = client.home("acme").unwrap();
    assert_eq!(home.now().await.unwrap().home_region.as_str(), "eu");
    let acme = client.tenant("acme").unwrap();
    until("it is watched", || !cluster.store.directory_watches.lock().is_empty()).await;
    cluster.delete_tenant("acme");
    until("it is forgotten", || acme.home().is_none()).await;
    assert_eq!(home.now().await.unwrap_err().kind, ErrorKind::TenantNotFound);
}

#[tokio::test]
async fn only_existing_tenants_are_watched() {
    let cluster = Cluster::start(&["eu"]).await;
    cluster.set_home("brix", "eu");
    let client = client(&cluster).await;
    let watches = || cluster.store.directory_watches.lock().clone();
    client.tenant("acme").unwrap().get("k").await.unwrap();
    until("acme is watched", || watches().len() == 1).await;
    let unknown: Vec<_> = (0..10)
        .map(|at| client.home(&format!("nobody-{at}")).unwrap())
        .collect();
    for home in &unknown {
        assert_eq!(home.now().await.unwrap_err().kind, ErrorKind::TenantNotFound);
    }
    client.home("brix").unwrap().now().await.unwrap();
    until("brix is watched", || watches().len() == 2).await;
    assert_eq!(watches(), [vec!["acme"], vec!["acme", "brix"]]);
}

#[tokio::test]
async fn home_without_lease_is_told_although_other_region_is_silent() {
    let mut cluster = Cluster::start(&["us", "eu"]).await;
    cluster.set_home("acme", "eu");
    let client = client_in(&cluster, "eu").await;
    let acme = client.tenant("acme").unwrap();
    acme.put("k", "v").await.unwrap();
    // The region is cut off: its own node refuses, and the other one is silent.
    let refusals = std::iter::repeat_n(Some(ErrorKind::NoLease), 1_000);
    cluster.nodes[1].faults.refusals.lock().extend(refusals);
    cluster.kill_node(0);
    let write = WriteOptions {
        timeout: Some(Duration::from_secs(1)),
        ..WriteOptions::default()
    };
    let refused = acme.put_with("k", "v", &write).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::NoLease, "{refused}");
}

#[tokio::test]
async fn watch_is_opened_at_another_node_once_its_own_is_gone() {
    let mut cluster = Cluster::start(&["us", "eu"]).await;
    let client = client_in(&cluster, "us").await;
    let directory = client.directory();
    let mut watch = directory.watch(vec!["acme".into()]).await.unwrap();
    watch.next().await.unwrap();
    cluster.kill_node(0);
    watch.next().await.unwrap_err();
    let mut watch = directory.watch(vec!["acme".into()]).await.unwrap();
    watch.next().await.unwrap();
}

#[tokio::test]
async fn round_trips_of_all_regions_are_measured() {
    let cluster = Cluster::start(&["us", "eu"]).await;
    let client = client(&cluster).await;
    let measured = || {
        client
            .regions()
            .iter()
            .filter(|(_, round_trip)| round_trip.is_some())
            .count()
    };
    until("both are measured", || measured() == 2).await;
}

/// Runs 16 callers against two nodes during a fault, and checks that each write happened once.
async fn under_load(trouble: impl AsyncFnOnce(&mut Cluster)) {
    let mut cluster = Cluster::start(&["eu", "eu"]).await;
    let client = client(&cluster).await;
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let callers = (0..16).map(|caller| {
        let (acme, stop) = (client.tenant("acme").unwrap(), stop.clone());
        tokio::spawn(async move {
            let mut written = 0;
            while !stop.load(SeqCst) {
                acme.put(format!("{caller}/{written}"), "v").await.unwrap();
                written += 1;
            }
            written
        })
    });
    let callers: Vec<_> = callers.collect();
    trouble(&mut cluster).await;
    stop.store(true, SeqCst);
    let mut written = 0;
    for caller in callers {
        written += caller.await.unwrap();
    }
    assert_eq!(cluster.store.rows.lock().len() as u64, written);
    assert_eq!(cluster.store.effects.load(SeqCst), written, "each once");
}

async fn progress(cluster: &Cluster) {
    let before = cluster.store.effects.load(SeqCst);
    until("writes go on", || cluster.store.effects.load(SeqCst) > before + 100).await;
}

#[tokio::test]
async fn server_restart_under_load_is_invisible() {
    under_load(async |cluster| {
        for round in 0..6 {
            progress(cluster).await;
            cluster.kill_node(round % 2);
            progress(cluster).await;
            cluster.start_node(round % 2).await;
        }
    })
    .await;
}

#[tokio::test]
async fn server_drain_under_load_is_invisible() {
    under_load(async |cluster| {
        for round in 0..6 {
            progress(cluster).await;
            cluster.drain_node(round % 2);
            progress(cluster).await;
            cluster.start_node(round % 2).await;
        }
    })
    .await;
}

#[tokio::test]
async fn frozen_server_costs_one_attempt_then_is_avoided() {
    let mut cluster = Cluster::start(&["us", "eu"]).await;
    cluster.kill_node(0);
    // The kernel accepts connections, and nobody reads them.
    let address = cluster.nodes[0].address;
    let mut frozen = None;
    until("the port is free", || {
        frozen = std::net::TcpListener::bind(address).ok();
        frozen.is_some()
    })
    .await;
    let mut config = Config::new([cluster.nodes[1].address.to_string()]);
    config.region = Some("us".parse().unwrap());
    let acme = Client::connect(config).await.unwrap().tenant("acme").unwrap();
    let started = Instant::now();
    acme.put("first", "v").await.unwrap();
    let first = started.elapsed();
    assert!(first > Duration::from_secs(1), "the nearest was asked: {first:?}");
    for at in 0..50 {
        acme.put(format!("after/{at}"), "v").await.unwrap();
    }
    assert!(
        started.elapsed() - first < Duration::from_secs(1),
        "{:?}",
        started.elapsed()
    );
}
