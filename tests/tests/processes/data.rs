//! Data API on a real node, by the client library and by the command line: transactions, conditions, TTLs, ranges and
//! scans.

use std::time::Duration;

use bytes::Bytes;
use stead_api::{
    convert::read::duration,
    proto::v1::{
        Compare, DeleteRangeRequest, PutRequest, Revision, TxnOperation, TxnRequest, compare::Target,
        kv_service_client::KvServiceClient, txn_operation as message,
    },
};
use stead_client::{
    Client, Condition, Config, ErrorKind, Increment, KeyRange, Op, OpResult, Operand, ReadOptions, RejectedIncrement,
    Relation, ScanOptions, Tenant, WriteOptions,
};
use stead_tests::process::World;
use tokio::time::{Instant, sleep};
use tonic::transport::Channel;

use crate::requests::{assert_failed, assert_refused};

async fn world() -> (World, Tenant) {
    let world = World::start(1).await;
    let made = world.stead(["tenant", "create", "acme"]).await;
    assert_eq!(made.code, Some(0), "{made:?}");
    let client = Client::connect(Config::new([world.first().client.clone()]))
        .await
        .unwrap();
    (world, client.tenant("acme").unwrap())
}

async fn value(acme: &Tenant, key: &'static str) -> Option<String> {
    let got = acme.get(key).await.unwrap();
    got.item.map(|item| String::from_utf8(item.value.to_vec()).unwrap())
}

#[tokio::test]
async fn transaction_is_atomic() {
    let (world, acme) = world().await;
    acme.put("stock", "1").await.unwrap();
    let order = |id: &'static str| {
        acme.txn()
            .when("stock", Condition::Exists)
            .then(Op::increment(
                "stock",
                Increment {
                    floor: Some(0),
                    ..Increment::by(-1)
                },
            ))
            .then(Op::put(id, "new"))
            .then(Op::append("log", id, None).with_previous())
            .otherwise(Op::get("stock"))
    };
    let done = order("order/1").send().await.unwrap();
    assert!(done.succeeded && !done.repeated);
    let (stock, put) = (
        OpResult::Increment {
            value: 0,
            previous: None,
        },
        OpResult::Put { previous: None },
    );
    assert_eq!(
        done.results,
        [
            stock,
            put,
            OpResult::Append {
                length: 7,
                previous: None
            }
        ]
    );
    assert_eq!(
        acme.get("order/1").await.unwrap().item.unwrap().modified,
        done.header.revision
    );

    let sold_out = order("order/2").send().await.unwrap();
    assert_eq!(
        sold_out.not_admitted,
        Some(RejectedIncrement { operation: 0, value: 0 })
    );
    assert_eq!(
        (value(&acme, "order/2").await, value(&acme, "log").await),
        (None, Some("order/1".into()))
    );

    acme.delete("stock").await.unwrap();
    let otherwise = order("order/3").send().await.unwrap();
    assert_eq!(
        (otherwise.succeeded, otherwise.results),
        (false, vec![OpResult::Get(None)])
    );
    assert_eq!(value(&acme, "order/3").await, None);

    let unfit = acme
        .txn()
        .then(Op::put("a", "1"))
        .then(Op::increment("order/1", Increment::by(1)));
    let unfit = unfit.send().await.unwrap_err();
    assert_eq!(
        unfit.kind,
        ErrorKind::Invalid {
            field: "then[1].increment.key".into()
        }
    );
    assert_eq!(value(&acme, "a").await, None);
    check_command_line(&world).await;
}

/// Transactions on the command line.
async fn check_command_line(world: &World) {
    let said = [
        "kv",
        "txn",
        "acme",
        "--when",
        "absent 'my key'",
        "--then",
        "put 'my key' 'one two' --ttl 1h",
    ];
    let ran = world.stead(said.into_iter().chain(["--else", "get 'my key'"])).await;
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (Some(0), "acme@1.4 then\n  put\n"),
        "{ran:?}"
    );
    let ran = world.stead(said.into_iter().chain(["--else", "get 'my key'"])).await;
    assert_eq!(ran.stdout, "acme@1.4 else\n  my key = one two, 1.4\n", "{ran:?}");
    let bounded = [
        "kv",
        "txn",
        "acme",
        "--when",
        "version 'my key' < 2",
        "--then",
        "increment n -1 --floor 0",
    ];
    let ran = world.stead(bounded).await;
    assert_eq!(ran.code, Some(5), "{ran:?}");
    assert!(
        ran.stderr.contains("operation 0 would pass its bound, the number is 0"),
        "{ran:?}"
    );
    let wrong = [
        ("--when", "exists", "no condition"),
        ("--when", "value k ~ v", "none of =, !=, < and >"),
        ("--then", "put k", "required"),
        ("--then", "put 'k", "a quote is not closed"),
    ];
    for (flag, text, word) in wrong {
        assert_failed(&world.stead(["kv", "txn", "acme", flag, text]).await, 2, &[text, word]);
    }
}

#[tokio::test]
async fn failed_conditions_leave_key_unchanged() {
    let (_world, acme) = world().await;
    let first = acme.put("k", "b").await.unwrap().header.revision;
    let second = acme.put("k", "b").await.unwrap().header.revision;
    let holds = [
        Condition::Exists,
        Condition::modified_at(second),
        Condition::value_equals("b"),
        Condition::Compared(Relation::Greater, Operand::Modified(first)),
        Condition::Compared(Relation::NotEqual, Operand::Created(second)),
        Condition::Compared(Relation::Equal, Operand::Version(2)),
        Condition::Compared(Relation::Less, Operand::Value("c".into())),
    ];
    let fails = [
        Condition::Absent,
        Condition::modified_at(first),
        Condition::value_equals("a"),
        Condition::Compared(Relation::Less, Operand::Created(first)),
        Condition::Compared(Relation::Greater, Operand::Version(2)),
    ];
    let with = |condition: &Condition| WriteOptions {
        precondition: Some(condition.clone()),
        ..WriteOptions::default()
    };
    for condition in &fails {
        let error = acme.put_with("k", "x", &with(condition)).await.unwrap_err();
        assert_eq!(
            error.kind,
            ErrorKind::ConditionFailed { current: second },
            "{condition:?}"
        );
        let done = acme
            .txn()
            .when("k", condition.clone())
            .then(Op::put("k", "x"))
            .send()
            .await
            .unwrap();
        assert!(!done.succeeded, "{condition:?}");
    }
    for condition in &holds {
        let done = acme
            .txn()
            .when("k", condition.clone())
            .then(Op::get("k"))
            .send()
            .await
            .unwrap();
        assert!(done.succeeded, "{condition:?}");
    }
    // Of an absent key only `Absent` holds.
    for condition in holds.iter().chain(&fails[1..]) {
        let error = acme.put_with("none", "x", &with(condition)).await.unwrap_err();
        assert!(matches!(error.kind, ErrorKind::ConditionFailed { .. }), "{condition:?}");
    }
    acme.put_with("k", "c", &with(&holds[2])).await.unwrap();
    assert_eq!(value(&acme, "k").await, Some("c".into()));
    let counted = acme.update("n", |item| {
        let number: u64 = item.map_or(0, |item| String::from_utf8_lossy(&item.value).parse().unwrap());
        Some((number + 1).to_string().into())
    });
    counted.await.unwrap();
    assert_eq!(value(&acme, "n").await, Some("1".into()));
    assert_eq!(acme.update("n", |_| None).await.unwrap(), None);
}

#[tokio::test]
async fn key_with_ttl_expires_unless_overwritten() {
    let (world, acme) = world().await;
    let ttl = Duration::from_millis(300);
    let put = acme
        .put_expiring("short", "x", ttl, &WriteOptions::default())
        .await
        .unwrap();
    let item = acme.get("short").await.unwrap().item.unwrap();
    assert_eq!(item.expires.unwrap().0, put.header.tenant_time.0 + 300);
    acme.put_expiring("kept", "1", ttl, &WriteOptions::default())
        .await
        .unwrap();
    acme.put("kept", "2").await.unwrap();
    acme.put_expiring("number", "1", Duration::from_secs(3600), &WriteOptions::default())
        .await
        .unwrap();
    acme.increment("number", 1).await.unwrap();
    assert!(
        acme.get("number").await.unwrap().item.unwrap().expires.is_some(),
        "an increment leaves the end"
    );
    let deadline = Instant::now() + Duration::from_secs(10);
    while acme.get("short").await.unwrap().item.is_some() {
        assert!(Instant::now() < deadline, "the key does not expire");
        sleep(Duration::from_millis(5)).await;
    }
    let gone = acme.get("short").await.unwrap().header;
    assert!(gone.tenant_time >= item.expires.unwrap());
    assert_eq!(
        (value(&acme, "kept").await, value(&acme, "number").await),
        (Some("2".into()), Some("2".into()))
    );
    let before = ReadOptions {
        revision: Some(put.header.revision),
        ..ReadOptions::default()
    };
    assert!(
        acme.get_with("short", &before).await.unwrap().item.is_some(),
        "history has it"
    );

    let ran = world.stead(["kv", "put", "acme", "cli", "x", "--ttl", "0s"]).await;
    assert_failed(&ran, 2, &["ttl", "1 to", "3660 days"]);
    let ran = world
        .stead(["kv", "put", "acme", "cli", "x", "--ttl", "2h", "-o", "json"])
        .await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
}

#[tokio::test]
async fn large_range_scans_one_revision_and_deletes_in_steps() {
    let (world, acme) = world().await;
    let keys = 1_100;
    let put = |number: usize| {
        let acme = acme.clone();
        async move { acme.put(format!("k/{number:05}"), vec![b'v'; 100]).await.unwrap() }
    };
    futures::future::join_all((0..keys).map(put)).await;
    acme.put("l", "stays").await.unwrap();
    let scan = ScanOptions {
        prefix: "k/".into(),
        reverse: true,
        ..ScanOptions::default()
    };
    let mut stream = acme.scan_stream(&scan);
    let mut seen = Vec::new();
    while let Some(item) = stream.next().await.unwrap() {
        if seen.is_empty() {
            acme.delete(format!("k/{:05}", 3)).await.unwrap();
        }
        assert!(Some(item.modified) <= stream.revision());
        seen.push(item.key);
    }
    assert_eq!(seen.len(), keys, "the delete is later than the scan");
    assert!(seen.is_sorted_by(|one, next| one > next));

    let failed_ask = world.stead(["kv", "delete-range", "acme", "--prefix", "k/"]).await;
    assert_failed(&failed_ask, 2, &["tenant acme would lose 1099 keys", "--yes"]);
    let deleted = acme.delete_range(&KeyRange::prefix("k/")).await.unwrap();
    assert_eq!((deleted.keys, deleted.changes, deleted.repeated), (1_099, 3, false));
    assert_eq!(acme.delete_range(&KeyRange::prefix("k/")).await.unwrap().keys, 0);
    for nothing in [KeyRange::prefix(""), KeyRange::between("", ""), KeyRange::default()] {
        let refused = acme.delete_range(&nothing).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Invalid { field: "all".into() });
    }
    assert_eq!(value(&acme, "l").await, Some("stays".into()));
    let ran = world.stead(["kv", "delete-range", "acme", "--all", "--yes"]).await;
    assert!(ran.stdout.ends_with(" 1 keys deleted\n"), "{ran:?}");
}

fn txn(compares: Vec<Compare>, then: Vec<TxnOperation>) -> TxnRequest {
    TxnRequest {
        tenant: "acme".into(),
        compares,
        then,
        ..TxnRequest::default()
    }
}

fn compare(key: &'static str, target: Option<Target>) -> Compare {
    Compare {
        key: key.into(),
        relation: 0,
        target,
    }
}

fn op(operation: message::Operation) -> TxnOperation {
    TxnOperation {
        operation: Some(operation),
    }
}

fn op_get(key: impl Into<Bytes>) -> TxnOperation {
    op(message::Operation::Get(message::Get { key: key.into() }))
}

fn op_put(key: &'static str, len: usize) -> TxnOperation {
    op(message::Operation::Put(message::Put {
        key: key.into(),
        value: vec![0; len].into(),
        ..message::Put::default()
    }))
}

fn many(count: usize) -> Vec<TxnOperation> {
    (0..count).map(|number| op_get(format!("k{number}"))).collect()
}

type InvalidTxn = (TxnRequest, &'static str, &'static str);

fn invalid_branches() -> Vec<InvalidTxn> {
    let then = |field, words, then| (txn(vec![], then), field, words);
    let large = ["a", "b", "c", "d"].map(|key| op_put(key, 1 << 20));
    vec![
        then("then", "nothing to do", vec![]),
        then("then", "at most 512", many(513)),
        then("then[1].key", "then[0]", vec![op_get("a"), op_put("a", 1)]),
        then("then[0]", "names no operation", vec![TxnOperation::default()]),
        then("then[0].get.key", "at least one byte", vec![op_get("")]),
        then("then[0].put.value", "at most 1048576", vec![op_put("a", (1 << 20) + 1)]),
        then("request", "at most 4194304", large.into()),
    ]
}

fn invalid_compares() -> Vec<InvalidTxn> {
    let when = |field, words, compares| (txn(compares, many(1)), field, words);
    let version = |key, version| compare(key, Some(Target::Version(version)));
    let far = Revision {
        epoch: 1,
        sequence: 1 << 40,
    };
    let related = |relation, target| Compare {
        relation,
        ..compare("a", Some(target))
    };
    let modified = compare("a", Some(Target::ModRevision(far)));
    vec![
        when("compares[0]", "compares nothing", vec![compare("a", None)]),
        when("compares[0].key", "at least one byte", vec![version("", 1)]),
        when("compares[1]", "compares[0]", vec![version("a", 1), version("a", 2)]),
        when(
            "compares[0].mod_revision.sequence",
            "at most 1099511627775",
            vec![modified],
        ),
        when(
            "compares[0].relation",
            "leave it out",
            vec![related(3, Target::Exists(true))],
        ),
        when(
            "compares[0].relation",
            "unknown relation 9",
            vec![related(9, Target::Version(1))],
        ),
    ]
}

#[tokio::test]
async fn invalid_transaction_is_refused_with_its_field() {
    let (world, acme) = world().await;
    let channel = Channel::from_shared(format!("http://{}", world.first().client)).unwrap();
    let mut kv = KvServiceClient::new(channel.connect().await.unwrap());
    kv.txn(txn(vec![], many(512))).await.unwrap();
    for (request, field, words) in invalid_branches().into_iter().chain(invalid_compares()) {
        assert_refused(kv.txn(request).await, field, &[words]);
    }
    invalid_ranges_and_ttls(&mut kv).await;

    let large = ["a", "b", "c", "d", "e"];
    for key in large {
        acme.put(key, vec![0; 1 << 20]).await.unwrap();
    }
    assert_refused(
        kv.txn(txn(vec![], large.map(op_get).into())).await,
        "then",
        &["at most 3145728", "fewer keys"],
    );
    let keys = ScanOptions {
        keys_only: true,
        ..ScanOptions::default()
    };
    let found = acme.scan(&keys).await.unwrap();
    let sequence = found.header.revision.sequence().get();
    assert_eq!((found.count, sequence), (5, 5), "nothing else was written");
}

async fn invalid_ranges_and_ttls(kv: &mut KvServiceClient<Channel>) {
    let range = |all, prefix: &'static str| DeleteRangeRequest {
        tenant: "acme".into(),
        prefix: prefix.into(),
        all,
        ..DeleteRangeRequest::default()
    };
    assert_refused(kv.delete_range(range(false, "")).await, "all", &["no range is named"]);
    assert_refused(kv.delete_range(range(true, "a")).await, "all", &["leave out"]);
    let put = |ttl| PutRequest {
        tenant: "acme".into(),
        key: "a".into(),
        ttl: Some(duration(ttl)),
        ..PutRequest::default()
    };
    for wrong in [
        Duration::ZERO,
        Duration::from_micros(1_500),
        Duration::from_secs(3661 * 24 * 3600),
    ] {
        assert_refused(
            kv.put(put(wrong)).await,
            "ttl",
            &["whole number of milliseconds", "3660 days"],
        );
    }
}
