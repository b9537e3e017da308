//! Invalid requests: refused with the field, the limit and what to do, over gRPC and on the command line, without an
//! effect on the data.

use std::time::Duration;

use futures::stream;
use stead_api::{
    convert::read::{clock_difference, duration},
    proto::{
        admin::v1::{
            CreateTenantRequest, ListTenantsRequest, MoveTenantRequest, move_tenant_request::To,
            tenant_service_client::TenantServiceClient,
        },
        google::longrunning::{
            CancelOperationRequest, DeleteOperationRequest, GetOperationRequest, ListOperationsRequest,
            WaitOperationRequest, operations_client::OperationsClient,
        },
        v1::{
            AppendRequest, BatchGetRequest, GetRequest, IncrementRequest, ListRegionsRequest, Operation,
            PipelineRequest, PutRequest, ScanRequest, answer, directory_service_client::DirectoryServiceClient,
            kv_service_client::KvServiceClient, operation,
        },
    },
    status,
};
use stead_tests::process::{CommandOutput, World};
use stead_types::ErrorKind;
use tonic::{Code, Status, transport::Channel};

fn put(tenant: &str, key: impl Into<bytes::Bytes>, value: impl Into<bytes::Bytes>) -> PutRequest {
    PutRequest {
        tenant: tenant.into(),
        key: key.into(),
        value: value.into(),
        ..PutRequest::default()
    }
}

fn get(tenant: &str) -> GetRequest {
    GetRequest {
        tenant: tenant.into(),
        key: "a".into(),
        ..GetRequest::default()
    }
}

fn scan(prefix: &'static str, page_size: i32, page_token: &str) -> ScanRequest {
    ScanRequest {
        tenant: "acme".into(),
        prefix: prefix.into(),
        page_size,
        page_token: page_token.into(),
        ..ScanRequest::default()
    }
}

/// Asserts that a request is refused for this field, and that the message has these words.
pub(crate) fn assert_refused<T: std::fmt::Debug>(answer: Result<T, Status>, field: &str, words: &[&str]) {
    let refusal = answer.unwrap_err();
    assert_eq!(refusal.code(), Code::InvalidArgument, "{refusal:?}");
    let error = status::from_status(&refusal);
    assert_eq!(error.kind, ErrorKind::Invalid { field: field.into() });
    assert!(error.message.starts_with(field), "{}", error.message);
    for word in words {
        assert!(error.message.contains(word), "{word} is not in: {}", error.message);
    }
}

/// Asserts that a command ended with this code, with these words on standard error and nothing on standard output.
pub(crate) fn assert_failed(ran: &CommandOutput, code: i32, words: &[&str]) {
    assert_eq!(ran.code, Some(code), "{ran:?}");
    assert_eq!(ran.stdout, "", "{ran:?}");
    for word in words {
        assert!(ran.stderr.contains(word), "{word} is not in: {}", ran.stderr);
    }
}

#[tokio::test]
async fn invalid_request_is_refused_with_field_and_limit() {
    let world = World::start(1).await;
    let made = world.stead(["tenant", "create", "acme"]).await;
    assert_eq!(made.code, Some(0), "{made:?}");
    let channel = Channel::from_shared(format!("http://{}", world.first().client)).unwrap();
    let channel = channel.connect().await.unwrap();
    let mut kv = KvServiceClient::new(channel.clone());
    for (key, value) in [("a", "1"), ("a2", "2"), ("b", "3")] {
        kv.put(put("acme", key, value)).await.unwrap();
    }

    check_names(&world, channel.clone()).await;
    check_sizes(&world, &mut kv).await;
    check_counters(&world, &mut kv).await;
    check_pages(&world, channel.clone()).await;
    check_operations(&world, channel).await;

    let all = kv.scan(scan("", 0, "")).await.unwrap().into_inner();
    let pairs: Vec<(&[u8], &[u8])> = all
        .items
        .iter()
        .map(|item| (item.key.as_ref(), item.value.as_ref()))
        .collect();
    assert_eq!(
        pairs,
        [(&b"a"[..], &b"1"[..]), (b"a2", b"2"), (b"b", b"3")],
        "nothing is lost"
    );
    assert_eq!(all.header.unwrap().revision.unwrap().sequence, 3, "nothing was written");
}

async fn check_names(world: &World, channel: Channel) {
    let mut kv = KvServiceClient::new(channel.clone());
    let mut tenants = TenantServiceClient::new(channel);
    let long = "a".repeat(65);

    for unknown in [
        kv.get(get("nobody")).await.unwrap_err(),
        kv.put(put("nobody", "a", "x")).await.unwrap_err(),
    ] {
        assert_eq!(unknown.code(), Code::NotFound);
        let error = status::from_status(&unknown);
        assert_eq!(error.kind, ErrorKind::TenantNotFound);
        assert_eq!(error.message, "there is no tenant nobody: create it first");
    }
    assert_refused(kv.get(get(&long)).await, "tenant", &["1 to 64 characters", "has 65"]);
    assert_refused(
        kv.put(put("ACME", "a", "x")).await,
        "tenant",
        &["a-z, 0-9 and -", "'A'"],
    );
    for (name, word) in [
        (long.as_str(), "1 to 64 characters"),
        ("ACME", "a-z, 0-9 and -"),
        ("", "1 to 64"),
    ] {
        let new = CreateTenantRequest {
            name: name.into(),
            ..CreateTenantRequest::default()
        };
        assert_refused(tenants.create_tenant(new).await, "name", &[word]);
    }

    let words = ["there is no tenant nobody", "create it first", "stead tenant list"];
    assert_failed(&world.stead(["kv", "get", "nobody", "a"]).await, 4, &words);
    assert_failed(&world.stead(["kv", "put", "nobody", "a", "x"]).await, 4, &words);
    assert_failed(&world.stead(["tenant", "get", "nobody"]).await, 4, &words[..1]);
    assert_failed(
        &world.stead(["kv", "get", &long, "a"]).await,
        2,
        &["tenant", "1 to 64", "65"],
    );
    assert_failed(
        &world.stead(["kv", "put", "ACME", "a", "x"]).await,
        2,
        &["tenant", "a-z, 0-9 and -", "'A'"],
    );
    assert_failed(
        &world.stead(["tenant", "create", &long]).await,
        2,
        &["name", "1 to 64", "65"],
    );
    assert_failed(
        &world.stead(["tenant", "create", "ACME"]).await,
        2,
        &["name", "a-z, 0-9 and -"],
    );
    let elsewhere = world.stead(["tenant", "create", "other", "--residency", "US"]).await;
    assert_failed(
        &elsewhere,
        2,
        &["residency[0]", "no region has the jurisdiction US", "EU"],
    );
    let nowhere = world.stead(["tenant", "create", "other", "--home", "nowhere"]).await;
    assert_failed(&nowhere, 4, &["there is no region nowhere", "stead region list"]);
    let again = world.stead(["tenant", "create", "acme"]).await;
    assert_failed(&again, 5, &["acme", "choose another name"]);
}

fn increment(key: &'static str, delta: i64) -> IncrementRequest {
    IncrementRequest {
        tenant: "acme".into(),
        key: key.into(),
        delta,
        ..IncrementRequest::default()
    }
}

fn append(key: &'static str, value: impl Into<bytes::Bytes>, max_length: u32) -> AppendRequest {
    AppendRequest {
        tenant: "acme".into(),
        key: key.into(),
        value: value.into(),
        max_length,
        ..AppendRequest::default()
    }
}

/// Invalid increments and appends; `a` holds 1, which is a number.
async fn check_counters(world: &World, kv: &mut KvServiceClient<Channel>) {
    let beyond = kv.increment(increment("a", i64::MAX)).await;
    assert_refused(beyond, "delta", &["1 and 9223372036854775807", "exceed 64 bits"]);
    let contradiction = IncrementRequest {
        floor: Some(5),
        ceiling: Some(4),
        ..increment("a", 1)
    };
    assert_refused(
        kv.increment(contradiction).await,
        "ceiling",
        &["4 is below the floor, 5"],
    );
    let days = |count: u64| Duration::from_secs(count * 24 * 3600);
    for window in [Duration::ZERO, Duration::from_micros(1_500), days(367)] {
        let asked = IncrementRequest {
            window: Some(duration(window)),
            ..increment("a", 1)
        };
        assert_refused(
            kv.increment(asked).await,
            "window",
            &["whole number of milliseconds", "366 days"],
        );
    }
    assert_refused(kv.increment(increment("", 1)).await, "key", &["at least one byte"]);
    assert_refused(kv.append(append("a", "", 0)).await, "value", &["nothing to append"]);
    assert_refused(
        kv.append(append("a", "x", (1 << 20) + 1)).await,
        "max_length",
        &["at most 1048576", "1048577"],
    );
    assert_refused(
        kv.append(append("a", "xyz", 3)).await,
        "value",
        &["holds 1 bytes already", "max_length"],
    );
    let full = kv.append(append("a", vec![b'x'; 1 << 20], 0)).await;
    assert_refused(full, "value", &["holds 1 bytes already"]);

    let bounded = IncrementRequest {
        floor: Some(0),
        ..increment("a", -2)
    };
    let answer = kv.increment(bounded).await.unwrap().into_inner();
    assert_eq!((answer.admitted, answer.value), (false, Some(1)));
    assert_eq!(
        answer.header.unwrap().revision.unwrap().sequence,
        3,
        "nothing was written"
    );

    let nothing = world.stead(["kv", "append", "acme", "a", ""]).await;
    assert_failed(&nothing, 2, &["value", "nothing to append"]);
    let bounded = world
        .stead(["kv", "increment", "acme", "a", "-2", "--floor", "0"])
        .await;
    assert_eq!(
        (bounded.code, bounded.stdout.as_str()),
        (Some(5), "acme@1.3 1\n"),
        "{bounded:?}"
    );
    assert!(bounded.stderr.contains("not admitted"), "{bounded:?}");
}

// Increments and appends through the command line, valid and invalid.
#[tokio::test]
async fn increment_and_append_report_new_value() {
    let world = World::start(1).await;
    let ran = async |arguments: &str| world.stead(arguments.split(' ')).await;
    assert_eq!(ran("tenant create acme").await.code, Some(0));
    for (arguments, shown) in [
        ("kv increment acme visits", "acme@1.1 1\n"),
        ("kv increment acme visits 41", "acme@1.2 42\n"),
        (
            "kv increment acme visits -2 --previous",
            "acme@1.3 40\nbefore, 1.2: 42\n",
        ),
        (
            "kv increment acme visits 60 --ceiling 100 --if-revision 1.3",
            "acme@1.4 100\n",
        ),
        ("kv get acme visits", "100"),
        ("kv append acme log one", "acme@1.5 3 bytes\n"),
        ("kv append acme log ,two --max-length 7", "acme@1.6 7 bytes\n"),
        ("kv get acme log", "one,two"),
    ] {
        let ran = ran(arguments).await;
        assert_eq!(
            (ran.code, ran.stdout.as_str()),
            (Some(0), shown),
            "{arguments}: {ran:?}"
        );
    }
    assert_failed(&ran("kv increment acme log").await, 2, &["key", "not a decimal number"]);
    assert_failed(
        &ran("kv append acme log ! --max-length 7").await,
        2,
        &["value", "7 bytes already"],
    );
    assert_failed(
        &ran("kv increment acme visits --if-absent").await,
        5,
        &["last changed at 1.4"],
    );
    let json = ran("kv increment acme visits 1 --ceiling 100 -o json").await;
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(
        (&json["admitted"], &json["value"]),
        (&false.into(), &"100".into()),
        "{json}"
    );
}

async fn check_sizes(world: &World, kv: &mut KvServiceClient<Channel>) {
    let key = "k".repeat(5 << 10);
    assert_refused(
        kv.put(put("acme", key.clone(), "x")).await,
        "key",
        &["at most 4096", "5120", "shorten it"],
    );
    assert_refused(kv.put(put("acme", "", "x")).await, "key", &["at least one byte"]);
    let value = vec![0; 2 << 20];
    assert_refused(
        kv.put(put("acme", "big", value.clone())).await,
        "value",
        &["at most 1048576", "2097152", "split it"],
    );
    let limit = (8 << 20).to_string();
    let too_long = put("acme", "huge", vec![0; 9 << 20]);
    assert_refused(kv.put(too_long.clone()).await, "request", &[&limit, "send less"]);
    let asked = [operation::Request::Get(get("acme")), operation::Request::Put(too_long)];
    let messages = asked.into_iter().zip(1..).map(|(request, id)| PipelineRequest {
        operations: vec![Operation {
            id,
            request: Some(request),
            ..Operation::default()
        }],
        ..PipelineRequest::default()
    });
    let messages: Vec<_> = messages.collect();
    let mut answers = kv.pipeline(stream::iter(messages)).await.unwrap().into_inner();
    let answered = answers.message().await.unwrap().unwrap().answers;
    assert_eq!(answered.iter().map(|answer| answer.id).collect::<Vec<_>>(), [1]);
    assert!(
        matches!(answered[0].response, Some(answer::Response::Get(_))),
        "{answered:?}"
    );
    assert_refused(answers.message().await, "request", &[&limit, "send less"]);
    check_item_counts(kv).await;

    assert_failed(
        &world.stead(["kv", "put", "acme", &key, "x"]).await,
        2,
        &["key", "at most 4096", "5120"],
    );
    assert_failed(
        &world.stead(["kv", "get", "acme", &key]).await,
        2,
        &["key", "at most 4096", "5120"],
    );
    let file = world.folder.path().join("big");
    std::fs::write(&file, value).unwrap();
    let ran = world
        .stead(["kv", "put", "acme", "big", "--file", file.to_str().unwrap()])
        .await;
    assert_failed(&ran, 2, &["value", "at most 1048576", "2097152"]);
}

async fn check_item_counts(kv: &mut KvServiceClient<Channel>) {
    let operations = PipelineRequest {
        operations: vec![Operation::default(); 32_769],
        ..PipelineRequest::default()
    };
    let cancels = PipelineRequest {
        cancel_ids: (0..32_769).collect(),
        ..PipelineRequest::default()
    };
    for message in [operations, cancels] {
        let mut answers = kv.pipeline(stream::iter([message])).await.unwrap().into_inner();
        assert_refused(
            answers.message().await,
            "request",
            &["more than 32768 list items", "send less"],
        );
    }
    let keys = BatchGetRequest {
        tenant: "acme".into(),
        keys: vec!["k".into(); 32_769],
        ..BatchGetRequest::default()
    };
    assert_refused(
        kv.batch_get(keys).await,
        "request",
        &["more than 32768 list items", "send less"],
    );
}

async fn check_pages(world: &World, channel: Channel) {
    let mut kv = KvServiceClient::new(channel.clone());
    let first = kv.scan(scan("a", 1, "")).await.unwrap().into_inner();
    let token = first.next_page_token;
    let next = kv.scan(scan("a", 7, &token)).await.unwrap().into_inner();
    assert_eq!(next.items.len(), 1, "a token of this scan, with another page size");
    let other = ["not of this scan", "unchanged"];
    assert_refused(kv.scan(scan("b", 1, &token)).await, "page_token", &other);
    let garbage = ["not of this scan", "unchanged"];
    assert_refused(kv.scan(scan("a", 1, "x")).await, "page_token", &garbage);
    assert_refused(
        kv.scan(scan("a", -1, "")).await,
        "page_size",
        &["1 to 10000", "not -1", "0 means"],
    );
    let reversed = ScanRequest {
        reverse: true,
        ..scan("a", 1, &token)
    };
    assert_refused(kv.scan(reversed).await, "page_token", &other);

    let negative = ListRegionsRequest {
        page_size: -1,
        ..ListRegionsRequest::default()
    };
    let mut directory = DirectoryServiceClient::new(channel.clone());
    assert_refused(directory.list_regions(negative).await, "page_size", &["not -1"]);
    let foreign = ListTenantsRequest {
        page_token: token,
        ..ListTenantsRequest::default()
    };
    let mut tenants = TenantServiceClient::new(channel);
    assert_refused(
        tenants.list_tenants(foreign).await,
        "page_token",
        &["of another request"],
    );

    let ran = world.stead(["kv", "scan", "acme", "--page-size", "-1"]).await;
    assert_failed(&ran, 2, &["--page-size", "-1", "0..="]);
}

/// Moves that cannot begin as written, and operations that do not exist.
async fn check_operations(world: &World, channel: Channel) {
    let mut tenants = TenantServiceClient::new(channel.clone());
    let to = |to: Option<To>| MoveTenantRequest {
        name: "acme".into(),
        to,
        ..MoveTenantRequest::default()
    };
    let region = |name: &str| Some(To::Region(name.to_owned()));
    assert_refused(tenants.move_tenant(to(None)).await, "to", &["region", "group"]);
    assert_refused(tenants.move_tenant(to(region("EU"))).await, "region", &["a-z"]);
    let source = MoveTenantRequest {
        source: 9,
        ..to(region("eu-west"))
    };
    assert_refused(tenants.move_tenant(source).await, "source", &["9"]);
    let reason = MoveTenantRequest {
        reason: "r".repeat(257),
        ..to(region("eu-west"))
    };
    assert_refused(tenants.move_tenant(reason).await, "reason", &["at most 256", "257"]);
    check_operation_requests(OperationsClient::new(channel)).await;
    check_operation_verbs(world).await;
}

/// Requests about operations that are malformed, or that name none.
async fn check_operation_requests(mut operations: OperationsClient<Channel>) {
    let name = || "7".to_owned();
    let words = ["such as operations/7"];
    assert_refused(
        operations.get_operation(GetOperationRequest { name: name() }).await,
        "name",
        &words,
    );
    let cancel = CancelOperationRequest { name: name() };
    assert_refused(operations.cancel_operation(cancel).await, "name", &words);
    let list = |filter: &str, page_token: &str| ListOperationsRequest {
        filter: filter.into(),
        page_token: page_token.into(),
        ..ListOperationsRequest::default()
    };
    let kind = operations.list_operations(list("kind=move", "")).await;
    assert_refused(kind, "filter", &["kind=move", "tenant=NAME"]);
    assert_refused(
        operations.list_operations(list("", "x")).await,
        "page_token",
        &["not a token"],
    );
    let negative = WaitOperationRequest {
        name: "operations/7".into(),
        timeout: Some(clock_difference(-1_000_000)),
    };
    assert_refused(operations.wait_operation(negative).await, "timeout", &["not negative"]);
    let delete = DeleteOperationRequest {
        name: "operations/7".into(),
    };
    let kept = operations.delete_operation(delete).await.unwrap_err();
    assert_eq!(kept.code(), Code::Unimplemented);
    let unknown = GetOperationRequest {
        name: "operations/7".into(),
    };
    let unknown = operations.get_operation(unknown).await.unwrap_err();
    assert_eq!(status::from_status(&unknown).kind, ErrorKind::NotFound, "{unknown:?}");
    let all = operations
        .list_operations(list("tenant=acme AND done=false", ""))
        .await
        .unwrap();
    assert_eq!(all.into_inner().operations, []);
}

/// Verbs about operations and moves that name none, or nobody.
async fn check_operation_verbs(world: &World) {
    let words = ["there is no operation 7", "seven days", "stead operation list"];
    for verb in ["show", "watch", "cancel"] {
        assert_failed(&world.stead(["operation", verb, "7"]).await, 4, &words);
    }
    let misspelt = world.stead(["operation", "show", "acme"]).await;
    assert_failed(&misspelt, 2, &["operations/7, or 7"]);
    let nobody = world.stead(["tenant", "move", "nobody", "--to", "eu-west"]).await;
    assert_failed(&nobody, 4, &["there is no tenant nobody"]);
    let shown = world.stead(["tenant", "where", "acme"]).await;
    assert_eq!(shown.code, Some(0), "{shown:?}");
    assert!(
        shown.stdout.contains("eu-west") && shown.stdout.contains("home"),
        "{shown:?}"
    );
}

// Several keys, misspelt flags, dry runs, refusals and repeats with an idempotency key.
#[tokio::test]
async fn command_line_refuses_rehearses_and_repeats() {
    let world = World::start(1).await;
    for name in ["acme", "other"] {
        let made = world.stead(["tenant", "create", name, "--label", "a=b"]).await;
        assert_eq!(made.code, Some(0), "{made:?}");
    }
    check_several_keys(&world).await;
    check_misspelt_flags(&world).await;
    check_dry_runs(&world).await;
    check_refusals(&world).await;
    check_repeats(&world).await;
}

/// Runs a command line; a word with spaces may be in single quotes.
async fn ran(world: &World, line: &str) -> CommandOutput {
    let parts = line.split('\'').enumerate();
    let words = parts.flat_map(|(place, part)| match place % 2 {
        0 => part.split_whitespace().collect(),
        _ => vec![part],
    });
    world.stead(words).await
}

async fn json(world: &World, line: &str) -> serde_json::Value {
    let ran = ran(world, &format!("{line} -o json")).await;
    assert_eq!(ran.code, Some(0), "{line}: {ran:?}");
    serde_json::from_str(&ran.stdout).unwrap()
}

/// Errors about arguments have the output format that the arguments ask for.
async fn check_misspelt_flags(world: &World) {
    for form in ["-o json", "-ojson", "--output json", "--output=json"] {
        let output = ran(world, &format!("kv get acme a {form} --consistence local")).await;
        assert_eq!(output.code, Some(2), "{output:?}");
        let error: serde_json::Value = serde_json::from_str(&output.stderr).unwrap();
        assert_eq!(error["error"]["reason"], "INVALID");
        let message = error["error"]["message"].as_str().unwrap();
        assert!(
            message.contains("--consistence") && message.contains("--consistency"),
            "{message}"
        );
    }
    let output = ran(world, "kv get acme a -o table --consistence local").await;
    assert_eq!(output.code, Some(2), "{output:?}");
    assert!(output.stderr.starts_with("error: unexpected argument"), "{output:?}");
}

async fn check_several_keys(world: &World) {
    for (key, value) in [("a", "1"), ("b", "2")] {
        assert_eq!(ran(world, &format!("kv put acme {key} {value}")).await.code, Some(0));
    }
    let table = ran(world, "kv get acme a nothing b").await;
    assert_eq!(table.code, Some(4), "{table:?}");
    let keys: Vec<&str> = table.stdout.lines().map(|line| line.trim_start()).collect();
    assert_eq!(keys.len(), 3, "a head and two keys: {table:?}");
    assert!(keys[1].starts_with("a ") && keys[2].starts_with("b "), "{table:?}");
    assert!(table.stderr.contains("tenant acme has no key nothing"), "{table:?}");
    let output = ran(world, "kv get acme a nothing b -o json").await;
    assert_eq!(output.code, Some(4), "{output:?}");
    let value: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(value["items"][0]["value"], "MQ==");
    assert_eq!(value["items"][1], serde_json::Value::Null);
    assert_eq!(value["items"][2]["value"], "Mg==");
    let error: serde_json::Value = serde_json::from_str(&output.stderr).unwrap();
    assert_eq!(error["error"]["reason"], "KEY_NOT_FOUND");
}

/// A dry run shows the result, refuses what would be refused, and has no effect.
async fn check_dry_runs(world: &World) {
    let new = json(world, "tenant create new --followers none --label c=d --dry-run").await;
    assert_eq!(new["replicas"][0]["region"], "eu-west");
    assert_eq!(new["labels"]["c"], "d");
    let nowhere = ran(world, "tenant create new --home nowhere --dry-run").await;
    assert_failed(&nowhere, 4, &["there is no region nowhere"]);
    let elsewhere = ran(world, "tenant create new --residency US --dry-run").await;
    assert_failed(
        &elsewhere,
        2,
        &["residency[0]", "no region has the jurisdiction US", "EU"],
    );
    assert_failed(&ran(world, "tenant get new").await, 4, &["there is no tenant new"]);

    let now = json(world, "tenant get acme").await;
    let planned = json(world, "tenant update acme --no-labels --disable --dry-run").await;
    assert_eq!(planned["labels"], serde_json::json!({}));
    assert_eq!(planned["state"], "STATE_DISABLED");
    assert_eq!((&planned["etag"], &planned["number"]), (&now["etag"], &now["number"]));
    let stale = ran(world, "tenant update acme --disable --etag 1/1 --dry-run").await;
    assert_failed(&stale, 5, &["has changed since it was read"]);
    let planned = json(world, "tenant delete acme --dry-run").await;
    assert_eq!(planned["state"], "STATE_DISABLED");
    let planned = ran(world, "tenant delete acme --dry-run").await;
    assert!(planned.stderr.contains("nothing was changed"), "{planned:?}");
    let early = ran(world, "tenant delete acme --erase --dry-run").await;
    assert_failed(&early, 5, &["is not disabled"]);
    let stale = ran(world, "tenant delete acme --etag 1/1 --yes").await;
    assert_failed(&stale, 5, &["has changed since it was read"]);
    assert_eq!(json(world, "tenant get acme").await, now, "nothing was done");
    let cleared = json(world, "tenant update acme --no-labels").await;
    assert_eq!(cleared["labels"], serde_json::json!({}));
}

async fn check_refusals(world: &World) {
    let of_other = json(world, "kv put other k v").await;
    let token = of_other["header"]["sessionToken"].as_str().unwrap();
    for verb in ["get acme a", "scan acme"] {
        let foreign = ran(world, &format!("kv {verb} --token {token}")).await;
        assert_failed(&foreign, 2, &["--token", "belongs to tenant number"]);
    }
    let linearizable = ran(world, &format!("kv get other k -c linearizable --token {token}")).await;
    assert_failed(&linearizable, 2, &["neither --token nor --max-staleness"]);
    assert_failed(
        &ran(world, "kv get acme a --region nope").await,
        2,
        &["the cluster has no region nope", "eu-west"],
    );
    for condition in ["--if-revision 0.0", "--if-created 0.0", "--if-version 0"] {
        let never = ran(world, &format!("kv put acme a x {condition}")).await;
        assert_failed(&never, 2, &["precondition", "must_not_exist"]);
    }
    assert_failed(
        &ran(world, "kv append acme a 3456789 --max-length 4").await,
        2,
        &["the key holds 1 bytes already, and 7 more would pass max_length, 4"],
    );
    assert_failed(
        &ran(
            world,
            "kv txn acme --then 'get b' --then 'append a 3456789 --max-length 4'",
        )
        .await,
        2,
        &["--then \"append a 3456789 --max-length 4\", value: the key holds 1 bytes"],
    );
    assert_failed(
        &ran(world, "group move-leader 1 --to 99").await,
        2,
        &["node 99 is no voter of group 1; voters are 1"],
    );
    assert_failed(
        &ran(world, "group move-leader 1 --to nowhere").await,
        2,
        &["--to: the cluster has no node nowhere; nodes are"],
    );
    assert_failed(
        &ran(world, "tenant update acme --limit history-age=1ms").await,
        2,
        &["history_age is at least 1000", "milliseconds, not 1"],
    );
    assert_failed(&ran(world, "kv put acme a x --ttl 0s").await, 2, &["ttl", "not 0s"]);
}

/// The lease ttl and what a home does without a lease, on the command line.
#[tokio::test]
async fn lease_settings_are_changed_and_bounded() {
    let world = World::start(1).await;
    // Before the first tenant, so that the cluster need not wait for a day.
    let is_newest = |cluster: serde_json::Value| cluster["featureLevel"] == cluster["featureLevelSupported"];
    while !is_newest(json(&world, "cluster show").await) {}
    assert_eq!(json(&world, "cluster show").await["leaseTtl"], "60.000s");
    for ttl in ["14s", "2h"] {
        let refused = ran(&world, &format!("cluster set lease-ttl {ttl}")).await;
        assert_failed(&refused, 2, &["lease_ttl", "15 s to 3600 s"]);
    }
    assert_eq!(json(&world, "cluster set lease-ttl 20s").await["leaseTtl"], "20.000s");
    let of = |tenant: serde_json::Value| tenant["onLeaseLoss"].as_str().unwrap().to_owned();
    let made = json(&world, "tenant create acme --on-lease-loss continue").await;
    assert_eq!(of(made), "ON_LEASE_LOSS_CONTINUE");
    let put = json(&world, "kv put acme k v").await;
    assert_eq!(put["header"]["unconfirmed"], false, "it has a lease");
    json(&world, "tenant update acme --on-lease-loss stop").await;
    // Until the home has reported it.
    while of(json(&world, "tenant get acme").await) != "ON_LEASE_LOSS_STOP" {}
    let region = json(&world, "region status eu-west").await;
    assert!(region["groups"][0]["status"]["leaseLeft"].is_string(), "{region}");
    assert!(region["groups"][0]["status"]["noLeaseSince"].is_null(), "{region}");
}

async fn check_repeats(world: &World) {
    let key = format!("{:032x}/1/0", 7);
    let line = format!("kv increment acme count 5 --idempotency-key {key}");
    for repeated in [false, true] {
        let counted = json(world, &line).await;
        assert_eq!(counted["repeatedOutcome"], repeated, "{counted}");
        assert_eq!(counted["value"], "5");
    }
    let key = format!("{:032x}/2/0", 7);
    let line = format!("kv txn acme --then 'put at @@home --previous' --idempotency-key {key}");
    for repeated in [false, true] {
        assert_eq!(json(world, &line).await["repeatedOutcome"], repeated);
    }
    assert_eq!(ran(world, "kv get acme at").await.stdout, "@home");
    let before = ran(world, "kv txn acme --then 'put at x --previous'").await;
    assert!(before.stdout.contains("  put; before, 1."), "{before:?}");
    let key = format!("{:032x}/3/0", 7);
    let line = format!("kv delete-range acme --prefix at --yes --idempotency-key {key}");
    for repeated in [false, true] {
        assert_eq!(json(world, &line).await["repeatedOutcome"], repeated);
    }
}
