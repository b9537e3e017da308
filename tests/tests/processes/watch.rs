//! Watches on real nodes: in order, complete, without gaps while nodes die; and invalid watches, which are refused.

use std::{collections::BTreeMap, time::Duration};

use futures::{SinkExt, channel::mpsc, future::join_all};
use stead_api::{
    convert::read::duration,
    proto::v1::{
        self, KeyRange as Range, WatchCancel, WatchCreate, WatchRequest, WatchResponse,
        kv_service_client::KvServiceClient, watch_create::From as Begin, watch_request::Request,
        watch_response::Response,
    },
    status,
};
use stead_client::{
    Client, Config, ErrorKind, Event, EventKind, Item, KeyRange, Op, Revision, SessionToken, Tenant, WatchFrom,
    WatchMessage, WatchOptions, Watcher, WriteOptions,
};
use stead_testing::Fixture;
use stead_tests::process::{World, binary, exclusive_lock};
use tokio::time::{Instant, timeout};
use tonic::{Streaming, transport::Channel};

const WAIT_MAX: Duration = Duration::from_secs(60);

async fn next(watcher: &mut Watcher) -> WatchMessage {
    timeout(WAIT_MAX, watcher.next())
        .await
        .expect("a watch says something in time")
        .unwrap()
}

/// Returns the next events; progress messages are skipped.
async fn changes(watcher: &mut Watcher) -> Vec<Event> {
    loop {
        match next(watcher).await {
            WatchMessage::Changes(events) => return events,
            WatchMessage::Progress => {}
            WatchMessage::State { .. } => panic!("no state was asked for"),
            WatchMessage::Forked { .. } => panic!("nothing was promoted"),
        }
    }
}

fn key(item: &Item) -> String {
    String::from_utf8(item.key.to_vec()).unwrap()
}

fn shown(events: &[Event]) -> Vec<(EventKind, String, String)> {
    let shown = |event: &Event| (event.kind, key(&event.item), event.item.modified.to_string());
    events.iter().map(shown).collect()
}

fn at(sequence: u64) -> Revision {
    format!("1.{sequence}").parse().unwrap()
}

/// Creates the tenant and returns it by a client of its own.
async fn acme(world: &World) -> Tenant {
    assert_eq!(world.stead(["tenant", "create", "acme"]).await.code, Some(0));
    let client = Client::connect(Config::new([world.first().client.clone()]))
        .await
        .unwrap();
    client.tenant("acme").unwrap()
}

#[tokio::test]
async fn watch_delivers_each_change_once_in_order() {
    let world = World::start(1).await;
    let acme = acme(&world).await;
    acme.put("a/1", "before").await.unwrap();
    let mut all = acme.watch(WatchOptions::default()).await.unwrap();
    let mut some = acme.watch(some_of_a()).await.unwrap();
    acme.put("b", "other").await.unwrap();
    acme.put("a/1", "after").await.unwrap();
    let txn = acme
        .txn()
        .then(Op::put("a/2", "x"))
        .then(Op::delete("a/1"))
        .then(Op::put("b", "y"));
    txn.send().await.unwrap();
    acme.put_expiring("a/3", "x", Duration::from_millis(50), &WriteOptions::default())
        .await
        .unwrap();

    let mut seen = Vec::new();
    while seen.len() < 7 {
        seen.extend(shown(&changes(&mut all).await));
    }
    let event = |kind, key: &str, revision: &str| (kind, key.to_owned(), revision.to_owned());
    let (put, delete) = (EventKind::Put, EventKind::Delete);
    assert_eq!(
        seen,
        [
            event(put, "b", "1.2"),
            event(put, "a/1", "1.3"),
            event(put, "a/2", "1.4"),
            event(delete, "a/1", "1.4"),
            event(put, "b", "1.4"),
            event(put, "a/3", "1.5"),
            event(EventKind::Expire, "a/3", "1.6"),
        ]
    );
    let mut seen = Vec::new();
    while seen.len() < 4 {
        seen.extend(changes(&mut some).await);
    }
    let before: Vec<_> = seen
        .iter()
        .map(|event| event.previous.as_ref().map(|item| item.value.clone()))
        .collect();
    assert_eq!(before, [Some("before".into()), None, None, Some("x".into())]);
    assert_eq!(
        shown(&seen),
        [
            event(put, "a/1", "1.3"),
            event(put, "a/2", "1.4"),
            event(put, "a/3", "1.5"),
            event(EventKind::Expire, "a/3", "1.6")
        ]
    );
    check_start_points(&acme).await;
    check_command_line(&world).await;
}

fn some_of_a() -> WatchOptions {
    WatchOptions {
        ranges: vec![KeyRange::prefix("a/"), KeyRange::key("a/1")],
        previous: true,
        exclude: vec![EventKind::Delete],
        ..WatchOptions::default()
    }
}

/// Start points of a watch: after a revision, after a token, with the state, with all retained history.
async fn check_start_points(acme: &Tenant) {
    let from = async |from| {
        acme.watch(WatchOptions {
            from,
            ..WatchOptions::default()
        })
        .await
        .unwrap()
    };
    let history = changes(&mut from(WatchFrom::After(Revision::ZERO)).await).await;
    assert_eq!(history.len(), 8);
    let behind = changes(&mut from(WatchFrom::After(at(4))).await).await;
    assert_eq!(shown(&behind), shown(&history[6..]));

    let mut broken_off = from(WatchFrom::After(Revision::ZERO)).await;
    changes(&mut broken_off).await;
    let token = broken_off.token().unwrap();
    acme.put("c", "1").await.unwrap();
    let resumed = changes(&mut from(WatchFrom::Token(token)).await).await;
    assert_eq!(shown(&resumed), [(EventKind::Put, "c".into(), "1.7".into())]);

    let mut state = from(WatchFrom::State).await;
    acme.put("d", "1").await.unwrap();
    let WatchMessage::State {
        items,
        is_first,
        is_last,
    } = next(&mut state).await
    else {
        panic!("the state comes first")
    };
    assert!(is_first && is_last);
    assert_eq!(items.iter().map(key).collect::<Vec<_>>(), ["a/2", "b", "c"]);
    assert_eq!(
        shown(&changes(&mut state).await),
        [(EventKind::Put, "d".into(), "1.8".into())]
    );
}

async fn check_command_line(world: &World) {
    let watch = [
        "kv",
        "watch",
        "acme",
        "--after",
        "1.2",
        "--prefix",
        "a/",
        "--previous",
        "--limit",
        "2",
    ];
    let ran = world.stead(watch).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let lines: Vec<serde_json::Value> = ran
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2, "{ran:?}");
    assert_eq!(
        (&lines[0]["type"], &lines[0]["revision"]),
        (&"PUT".into(), &"1.3".into())
    );
    assert!(
        lines[0]["previous"]["modRevision"] == "1.1" && lines[1]["resumeToken"].is_null(),
        "the second line is in the middle of 1.4: {ran:?}"
    );
    let token = lines[0]["resumeToken"].as_str().unwrap();
    let rest = [
        "kv", "watch", "acme", "--token", token, "--prefix", "a/", "--limit", "1",
    ];
    let ran = world.stead(rest).await;
    let next: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(next["revision"], "1.4", "the line's own token skips nothing: {ran:?}");
    let state = world.stead(["kv", "watch", "acme", "--state", "--limit", "4"]).await;
    assert_eq!(state.stdout.lines().count(), 4, "{state:?}");
}

/// Stream of watches, driven by hand.
struct WatchStream {
    requests: mpsc::Sender<WatchRequest>,
    answers: Streaming<WatchResponse>,
}

impl WatchStream {
    async fn open(kv: &mut KvServiceClient<Channel>) -> Self {
        let (requests, receiver) = mpsc::channel(8);
        let answers = kv.watch(receiver).await.unwrap().into_inner();
        Self { requests, answers }
    }

    async fn ask(&mut self, request: Request) {
        let request = WatchRequest { request: Some(request) };
        self.requests.send(request).await.unwrap();
    }

    async fn answer(&mut self) -> WatchResponse {
        timeout(WAIT_MAX, self.answers.message())
            .await
            .unwrap()
            .unwrap()
            .unwrap()
    }

    /// Sends an invalid watch, and returns its error.
    async fn refusal(&mut self, create: WatchCreate) -> stead_client::Error {
        self.ask(Request::Create(create)).await;
        match self.answer().await.response {
            Some(Response::Ended(ended)) => status::from_operation_error(ended.error.unwrap()),
            other => panic!("{other:?}"),
        }
    }
}

fn create(id: u64) -> WatchCreate {
    WatchCreate {
        id,
        tenant: "acme".into(),
        ..WatchCreate::default()
    }
}

fn token(token: SessionToken) -> Option<Begin> {
    Some(Begin::ResumeToken(token.to_bytes().to_vec().into()))
}

type InvalidWatch = (WatchCreate, &'static str, &'static str);

/// Returns a watch that is invalid in this field, with words of its error.
fn invalid_watch(field: &'static str, words: &'static str, change: impl FnOnce(&mut WatchCreate)) -> InvalidWatch {
    let mut wrong = create(2);
    change(&mut wrong);
    (wrong, field, words)
}

fn invalid_watches(mine: SessionToken, other: SessionToken) -> Vec<InvalidWatch> {
    let mut tampered = mine.to_bytes();
    tampered[10] ^= 1;
    let tampered = Some(Begin::ResumeToken(tampered.to_vec().into()));
    let future = v1::Revision { epoch: 1, sequence: 9 };
    let range = |start: &'static str, end: &'static str| Range {
        start: start.into(),
        end: end.into(),
        ..Range::default()
    };
    let soon = duration(Duration::from_millis(99));
    vec![
        invalid_watch("resume_token", "belongs to another tenant", |create| {
            create.from = token(other)
        }),
        invalid_watch("resume_token", "not a token of this store", |create| {
            create.from = tampered
        }),
        invalid_watch("after_revision", "has not reached it", |create| {
            create.from = Some(Begin::AfterRevision(future));
        }),
        invalid_watch("initial_state", "leave out", |create| {
            (create.from, create.initial_state) = (token(mine), true);
        }),
        invalid_watch("ranges", "at most 64", |create| {
            create.ranges = vec![range("a", "b"); 65]
        }),
        invalid_watch("ranges[0]", "ends before it begins", |create| {
            create.ranges = vec![range("b", "a")]
        }),
        invalid_watch("exclude[1]", "no type of event 7", |create| create.exclude = vec![1, 7]),
        invalid_watch("progress_interval", "at least 100 ms", |create| {
            create.progress_interval = Some(soon)
        }),
        invalid_watch("create.id", "has the id 1 already", |create| create.id = 1),
        invalid_watch("tenant", "a-z, 0-9 and -", |create| create.tenant = "ACME".into()),
    ]
}

#[tokio::test]
async fn invalid_watch_is_refused_and_others_continue() {
    let world = World::start(1).await;
    for tenant in ["acme", "other"] {
        assert_eq!(world.stead(["tenant", "create", tenant]).await.code, Some(0));
    }
    let channel = Channel::from_shared(format!("http://{}", world.first().client)).unwrap();
    let mut kv = KvServiceClient::new(channel.connect().await.unwrap());
    let client = Client::connect(Config::new([world.first().client.clone()]))
        .await
        .unwrap();
    let acme = client.tenant("acme").unwrap();
    acme.put("a", "1").await.unwrap();
    let other = client
        .tenant("other")
        .unwrap()
        .put("a", "1")
        .await
        .unwrap()
        .header
        .token
        .unwrap();
    let mine = acme.token().unwrap();
    let mut stream = WatchStream::open(&mut kv).await;
    stream.ask(Request::Create(create(1))).await;
    assert!(matches!(stream.answer().await.response, Some(Response::Created(_))));

    for (create, field, words) in invalid_watches(mine, other) {
        let refusal = stream.refusal(create).await;
        assert_eq!(refusal.kind, ErrorKind::Invalid { field: field.into() }, "{refusal}");
        assert!(refusal.message.contains(words), "{refusal}");
    }
    let nobody = WatchCreate {
        tenant: "nobody".into(),
        ..create(2)
    };
    assert_eq!(stream.refusal(nobody).await.kind, ErrorKind::TenantNotFound);

    acme.put("a", "2").await.unwrap();
    let answer = stream.answer().await;
    assert!(
        matches!(&answer.response, Some(Response::Events(events)) if events.events.len() == 1),
        "{answer:?}"
    );
    assert_eq!(answer.id, 1);
    stream.ask(Request::Cancel(WatchCancel { id: 1 })).await;
    let answer = stream.answer().await;
    assert!(
        matches!(&answer.response, Some(Response::Ended(ended)) if ended.error.is_none()),
        "{answer:?}"
    );
    let quick = WatchCreate {
        progress_interval: Some(duration(Duration::from_millis(100))),
        ..create(1)
    };
    stream.ask(Request::Create(quick)).await;
    assert!(
        matches!(stream.answer().await.response, Some(Response::Created(_))),
        "the id is free again"
    );
    let progress = stream.answer().await;
    assert!(matches!(progress.response, Some(Response::Progress(_))), "{progress:?}");
    assert_eq!(progress.resume_token, acme.token().unwrap().to_bytes().to_vec());
}

/// Number of watches that are not read: more than the flow-control window of one connection has room for.
const UNREAD: usize = 6;

#[tokio::test]
async fn unread_watches_block_no_calls_or_watches() {
    let world = World::start(1).await;
    let acme = acme(&world).await;
    let value = vec![b'x'; 1 << 20];
    for number in 0..8 {
        acme.put(format!("large/{number}"), value.clone()).await.unwrap();
    }
    let all = || WatchOptions {
        from: WatchFrom::After(Revision::ZERO),
        previous: true,
        ..WatchOptions::default()
    };
    let mut unread: Vec<Watcher> = join_all((0..UNREAD).map(|_| acme.watch(all())))
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    // Each value is as long as a watch's message: by the end the unread watches have sent what they can.
    for _ in 0..5 {
        for number in 0..8 {
            let got = timeout(WAIT_MAX, acme.get(format!("large/{number}"))).await;
            assert!(got.expect("a call is answered in time").unwrap().item.is_some());
        }
    }
    let mut read = acme.watch(all()).await.unwrap();
    let mut sequence = 0;
    while sequence < 8 {
        sequence += changes(&mut read).await.len();
    }
    let (_, metrics) = stead_tests::process::http_get(&world.first().http, "/metrics")
        .await
        .unwrap();
    let watches = format!("stead_watches {}", UNREAD + 1);
    assert!(metrics.contains(&watches), "{watches} is not in {metrics}");
    acme.put("large/0", "small").await.unwrap();
    for watcher in unread.iter_mut().chain([&mut read]) {
        let mut last = None;
        while last != Some(at(9)) {
            last = changes(watcher).await.last().map(|event| event.item.modified);
        }
    }
}

#[tokio::test]
async fn watch_ends_at_once_when_tenant_is_disabled() {
    let world = World::start(1).await;
    assert_eq!(world.stead(["tenant", "create", "acme"]).await.code, Some(0));
    let channel = Channel::from_shared(format!("http://{}", world.first().client)).unwrap();
    let mut kv = KvServiceClient::new(channel.connect().await.unwrap());
    let mut stream = WatchStream::open(&mut kv).await;
    let quiet = WatchCreate {
        progress_interval: Some(duration(Duration::from_secs(3_600))),
        ..create(1)
    };
    stream.ask(Request::Create(quiet)).await;
    assert!(matches!(stream.answer().await.response, Some(Response::Created(_))));
    let disabled = world.stead(["tenant", "update", "acme", "--disable"]).await;
    assert_eq!(disabled.code, Some(0), "{disabled:?}");
    let Some(Response::Ended(ended)) = stream.answer().await.response else {
        panic!("a watch of a disabled tenant ends");
    };
    let error = status::from_operation_error(ended.error.unwrap());
    assert_eq!(error.kind, ErrorKind::TenantNotFound, "{error}");
}

/// Receives events up to a revision.
#[tokio::test]
async fn watch_ends_with_its_token_when_the_node_loses_its_group() {
    let mut world = World::start(3).await;
    assert_eq!(world.stead(["tenant", "create", "acme"]).await.code, Some(0));
    let address = format!("http://{}", world.first().client);
    let mut kv = KvServiceClient::new(Channel::from_shared(address).unwrap().connect().await.unwrap());
    let mut watch = WatchStream::open(&mut kv).await;
    let create = WatchCreate {
        progress_interval: Some(duration(Duration::from_secs(600))),
        ..create(1)
    };
    watch.ask(Request::Create(create.clone())).await;
    let created = watch.answer().await;
    assert!(matches!(created.response, Some(Response::Created(_))), "{created:?}");
    let others: Vec<String> = world.cluster.nodes()[1..]
        .iter()
        .map(|node| node.name.clone())
        .collect();
    for node in &others {
        world.cluster.kill_node(node).await.unwrap();
    }
    let ended = watch.answer().await;
    // Where the watch was passed on, the client has the token of the last message.
    assert!(ended.resume_token.is_empty() || ended.resume_token == created.resume_token);
    let Some(Response::Ended(why)) = ended.response else {
        panic!("{ended:?}")
    };
    assert_eq!(
        status::from_operation_error(why.error.unwrap()).kind,
        ErrorKind::NoLeader
    );
    let refused = WatchStream::open(&mut kv).await.refusal(create).await;
    assert_eq!(refused.kind, ErrorKind::NoLeader, "no other begins there");
}

async fn receive_until(mut watcher: Watcher, up_to: Revision) -> Vec<(String, Revision)> {
    let mut received = Vec::new();
    while received.last().is_none_or(|(_, revision)| *revision < up_to) {
        let events = changes(&mut watcher).await;
        received.extend(events.iter().map(|event| (key(&event.item), event.item.modified)));
    }
    received
}

/// Writes until a deadline; returns the acknowledged revisions by key.
async fn write(acme: Tenant, writer: usize, until: Instant) -> BTreeMap<String, Revision> {
    let mut written = BTreeMap::new();
    let mut number = 0;
    while Instant::now() < until {
        let key = format!("{writer}/{number}");
        let write = WriteOptions {
            timeout: Some(WAIT_MAX),
            ..WriteOptions::default()
        };
        let done = acme.put_with(key.clone(), "v", &write).await.unwrap();
        written.insert(key, done.header.revision);
        number += 1;
    }
    written
}

#[tokio::test]
async fn watchers_receive_each_change_once_while_leaders_die() {
    let _lock = exclusive_lock();
    let builder = Fixture::builder()
        .binary(binary())
        .region("us-east", 3)
        .region("eu-west", 1);
    let cluster = builder
        .round_trip("us-east", "eu-west", Duration::from_millis(20))
        .start()
        .await
        .unwrap();
    cluster.create_tenant("acme", "us-east").await.unwrap();
    let home = cluster.client("us-east").await.unwrap().tenant("acme").unwrap();
    let far = cluster.client("eu-west").await.unwrap().tenant("acme").unwrap();
    let from_start = || WatchOptions {
        from: WatchFrom::After(Revision::ZERO),
        ..WatchOptions::default()
    };
    let watchers = join_all([
        home.watch(from_start()),
        far.watch(from_start()),
        home.watch(WatchOptions::default()),
    ])
    .await;

    let until = Instant::now() + Duration::from_secs(8);
    let writers: Vec<_> = (0..8)
        .map(|writer| tokio::spawn(write(home.clone(), writer, until)))
        .collect();
    for _ in 0..2 {
        let leader = home.put("ping", "x").await.unwrap().header.node;
        // Nodes are numbered from 1, in their order.
        let name = cluster.nodes()[usize::try_from(leader.get()).unwrap() - 1].name.clone();
        cluster.kill(&name).await.unwrap();
        home.put("ping", "y").await.unwrap();
        cluster.start(&name).await.unwrap();
    }
    let mut written = BTreeMap::new();
    for writer in writers {
        written.extend(writer.await.unwrap());
    }
    let last = home.put("last", "x").await.unwrap().header.revision;

    let received = join_all(
        watchers
            .into_iter()
            .map(|watcher| receive_until(watcher.unwrap(), last)),
    )
    .await;
    let sequences = received[0].iter().map(|(_, revision)| revision.sequence().get());
    assert!(
        sequences.eq(1..=last.sequence().get()),
        "each revision once, in order, none is missing"
    );
    for other in &received[1..] {
        assert_eq!(other, &received[0], "all receive the same");
    }
    let revisions: BTreeMap<_, _> = received[0].iter().cloned().collect();
    for (key, revision) in &written {
        assert_eq!(revisions.get(key), Some(revision), "an acknowledged write is delivered");
    }
    assert!(
        written.len() > 100,
        "{} writes are too few to show anything",
        written.len()
    );
    // A watch that starts on the follower, far behind, catches up from history to the same events.
    let late = far.watch(from_start()).await.unwrap();
    assert_eq!(receive_until(late, last).await, received[0]);
}
