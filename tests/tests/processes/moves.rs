//! Planned moves of tenants on real nodes, as their callers see them: watches go on wherever they began, without a lost,
//! doubled or reordered event; what names a revision of an earlier epoch holds at the new home.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use futures::{SinkExt, channel::mpsc, future::join_all};
use stead_api::{
    proto::v1::{
        Consistency, DeleteRangeRequest, IdempotencyKey, ScanRequest, WatchCreate, WatchRequest, WatchResponse,
        consistency::Level, kv_service_client::KvServiceClient, watch_create::From as Begin, watch_request::Request,
        watch_response::Response,
    },
    status,
};
use stead_client::{
    Condition, ErrorKind, Followers, MoveSource, MoveTarget, NewTenant, Op, OperationOutcome, SessionToken, Tenant,
    TenantMove, Txn, WriteOptions,
};
use stead_testing::Fixture;
use stead_tests::process::{binary, exclusive_lock, wait_until_moves_are_allowed};
use tokio::time::{Instant, sleep, timeout};
use tonic::{Streaming, transport::Channel};

const ROUND_TRIP: Duration = Duration::from_millis(40);
const WAIT_MAX: Duration = Duration::from_secs(60);
const REGIONS: [&str; 3] = ["us-east", "eu-west", "ap-south"];

async fn three_regions() -> Fixture {
    let builder = Fixture::builder().binary(binary());
    let builder = REGIONS
        .iter()
        .fold(builder, |builder, region| builder.region(region, 1));
    let builder = builder
        .round_trip("us-east", "eu-west", ROUND_TRIP)
        .round_trip("us-east", "ap-south", ROUND_TRIP)
        .round_trip("eu-west", "ap-south", ROUND_TRIP);
    let cluster = builder.start().await.unwrap();
    wait_until_moves_are_allowed(cluster.folder()).await;
    cluster
}

async fn kv(cluster: &Fixture, region: &str) -> KvServiceClient<Channel> {
    let address = cluster.endpoints(region).unwrap().remove(0);
    let channel = Channel::from_shared(format!("http://{address}")).unwrap();
    KvServiceClient::new(channel.connect().await.unwrap())
}

/// A watch over one stream that is opened once: the test's client does not resume it.
struct RawWatch {
    answers: Streaming<WatchResponse>,
    _requests: mpsc::Sender<WatchRequest>,
    /// Revisions and keys of all events.
    events: Vec<(u32, u64, String)>,
    tokens: Vec<(usize, bytes::Bytes)>,
}

impl RawWatch {
    async fn open(cluster: &Fixture, region: &str, tenant: &str, from: Option<Begin>) -> Self {
        let (mut requests, receiver) = mpsc::channel(1);
        let create = WatchCreate {
            id: 1,
            tenant: tenant.into(),
            from,
            ..WatchCreate::default()
        };
        let request = Some(Request::Create(create));
        requests.send(WatchRequest { request }).await.unwrap();
        let answers = kv(cluster, region).await.watch(receiver).await.unwrap().into_inner();
        let mut watch = Self {
            answers,
            _requests: requests,
            events: Vec::new(),
            tokens: Vec::new(),
        };
        watch.step().await;
        watch
    }

    async fn step(&mut self) {
        let message = timeout(WAIT_MAX, self.answers.message())
            .await
            .expect("a watch goes on in time");
        let message = message.unwrap().expect("a watch does not end");
        match message.response.unwrap() {
            Response::Created(_) | Response::Progress(_) => {}
            Response::State(_) => panic!("no state was asked for"),
            Response::Ended(ended) => panic!("{:?}", ended.error.map(status::from_operation_error)),
            Response::Events(events) => {
                for event in events.events {
                    let item = event.item.unwrap();
                    let revision = item.mod_revision.unwrap();
                    let key = String::from_utf8(item.key.to_vec()).unwrap();
                    self.events.push((revision.epoch, revision.sequence, key));
                }
            }
        }
        if !message.resume_token.is_empty() {
            self.tokens.push((self.events.len(), message.resume_token));
        }
    }

    /// Reads up to a sequence, and checks that every change since `first` came once, in order.
    async fn check(&mut self, name: &str, first: u64, last: u64) {
        while self.events.last().is_none_or(|(_, sequence, _)| *sequence < last) {
            self.step().await;
        }
        let sequences: Vec<u64> = self.events.iter().map(|(_, sequence, _)| *sequence).collect();
        assert_eq!(sequences, (first..=last).collect::<Vec<_>>(), "{name}");
        assert!(self.events.is_sorted_by(|a, b| (a.0, a.1) < (b.0, b.1)), "{name}");
    }
}

async fn move_to(cluster: &Fixture, tenant: &str, region: &str, source: MoveSource) {
    let admin = cluster.client(REGIONS[2]).await.unwrap().admin();
    let request = TenantMove {
        name: tenant.into(),
        etag: String::new(),
        to: MoveTarget::Region(region.into()),
        source,
        reason: "test".into(),
        dry_run: false,
    };
    let deadline = Instant::now() + WAIT_MAX;
    // A group that still leaves the tenant is no target yet.
    let name = loop {
        match admin.move_tenant(request.clone()).await {
            Ok(planned) => break planned.name,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        sleep(Duration::from_millis(50)).await;
    };
    let mut watch = admin.watch_operation(&name).await.unwrap();
    let mut last = None;
    while let Some(state) = timeout(WAIT_MAX, watch.next()).await.expect("a move ends").unwrap() {
        last = Some(state);
    }
    let outcome = last.and_then(|last| last.outcome);
    assert!(matches!(outcome, Some(OperationOutcome::Moved { .. })), "{outcome:?}");
}

/// Writes until it is told to stop, and returns the sequence of the last write.
async fn write(tenant: &Tenant, stop: &AtomicBool, written: &AtomicU64) -> u64 {
    while !stop.load(Ordering::Relaxed) {
        let number = written.load(Ordering::Relaxed);
        let put = tenant
            .put(format!("k/{}", number % 7), number.to_string())
            .await
            .unwrap();
        assert_eq!(
            put.header.revision.sequence().get(),
            number + 1,
            "a sequence is used once"
        );
        written.store(number + 1, Ordering::Relaxed);
        sleep(Duration::from_millis(2)).await;
    }
    written.load(Ordering::Relaxed)
}

/// Watches of a tenant that all regions follow, and of one that no region follows, so that each home leaves.
#[tokio::test]
async fn watches_go_on_across_moves() {
    let _lock = exclusive_lock();
    let cluster = three_regions().await;
    cluster.create_tenant("followed", REGIONS[0]).await.unwrap();
    let alone = NewTenant {
        name: "alone".into(),
        home_region: REGIONS[0].into(),
        followers: Followers::Regions(Vec::new()),
        ..NewTenant::default()
    };
    let admin = cluster.client(REGIONS[0]).await.unwrap().admin();
    admin.create_tenant(alone).await.unwrap();
    for tenant in ["followed", "alone"] {
        let writer = cluster.client(REGIONS[1]).await.unwrap().tenant(tenant).unwrap();
        writer.put("begin", "1").await.unwrap();
        let zero = || Some(Begin::AfterRevision(Default::default()));
        let mut watches: Vec<RawWatch> = Vec::new();
        for region in REGIONS {
            watches.push(RawWatch::open(&cluster, region, tenant, zero()).await);
        }
        let (stop, written) = (AtomicBool::new(false), AtomicU64::new(1));
        let moves = async {
            for to in [1, 0, 2, 1] {
                move_to(&cluster, tenant, REGIONS[to], MoveSource::Policy).await;
                sleep(Duration::from_millis(200)).await;
            }
            stop.store(true, Ordering::Relaxed);
        };
        let (last, ()) = tokio::join!(write(&writer, &stop, &written), moves);
        for (watch, region) in watches.iter_mut().zip(REGIONS) {
            watch.check(&format!("{tenant} at {region}"), 1, last).await;
        }
        let epochs: std::collections::BTreeSet<u32> = watches[0].events.iter().map(|event| event.0).collect();
        assert_eq!(epochs.len(), 5, "{epochs:?}");
        // A home that was seeded for its move has history from then on only.
        if tenant == "followed" {
            check_resumed(&cluster, tenant, &watches[0], last).await;
        }
    }
}

/// Resumes at every node from tokens of every epoch.
async fn check_resumed(cluster: &Fixture, tenant: &str, seen: &RawWatch, last: u64) {
    let few = seen.tokens.iter().step_by(seen.tokens.len().div_ceil(12));
    for (have, token) in few {
        let resumed = REGIONS.map(async |region| {
            let begin = Some(Begin::ResumeToken(token.clone()));
            let mut watch = RawWatch::open(cluster, region, tenant, begin).await;
            let name = format!("{tenant} at {region}, resumed after {have} events");
            watch.check(&name, *have as u64 + 1, last).await;
        });
        if (*have as u64) < last {
            join_all(resumed).await;
        }
    }
}

const WIDE_KEYS: u64 = 30_000;

fn keyed(client: u8, sequence: u64) -> Option<IdempotencyKey> {
    Some(IdempotencyKey {
        client_id: vec![client; 16].into(),
        sequence,
        first_sent_ms: 0,
    })
}

async fn fill(tenant: &Tenant) {
    let numbers: Vec<u64> = (0..WIDE_KEYS).collect();
    let puts = numbers.chunks(100).map(|chunk| {
        let put = |txn: Txn, number: &u64| txn.then(Op::put(format!("wide/{number:06}"), "x"));
        chunk.iter().fold(tenant.txn(), put)
    });
    for txn in puts {
        txn.send().await.unwrap();
    }
}

/// Pages, conditions and large range deletions that begin at one home and end at the next.
#[tokio::test]
async fn pages_conditions_and_range_deletions_go_on_across_moves() {
    let _lock = exclusive_lock();
    let cluster = three_regions().await;
    cluster.create_tenant("acme", REGIONS[0]).await.unwrap();
    let tenant = cluster.client(REGIONS[0]).await.unwrap().tenant("acme").unwrap();
    let mut crossed = 0;
    for (round, to) in [1, 0, 1, 2].into_iter().enumerate() {
        fill(&tenant).await;
        let old = tenant
            .put("condition", round.to_string())
            .await
            .unwrap()
            .header
            .revision;
        let mut kv = kv(&cluster, REGIONS[0]).await;
        let scan = |page_token: String, level| ScanRequest {
            tenant: "acme".into(),
            prefix: "wide/".into(),
            page_size: 10_000,
            page_token,
            keys_only: true,
            consistency: Some(Consistency { level: Some(level) }),
            ..ScanRequest::default()
        };
        let linearizable = || Level::Linearizable(Default::default());
        let first = kv.scan(scan(String::new(), linearizable())).await.unwrap().into_inner();
        let deletion = async {
            sleep(Duration::from_millis(60 * round as u64)).await;
            let request = DeleteRangeRequest {
                tenant: "acme".into(),
                prefix: "wide/".into(),
                idempotency_key: keyed(7, round as u64 + 1),
                ..DeleteRangeRequest::default()
            };
            kv.clone().delete_range(request).await.unwrap().into_inner()
        };
        let moving = move_to(&cluster, "acme", REGIONS[to], MoveSource::Policy);
        let (deleted, ()) = tokio::join!(deletion, moving);
        let header = deleted.header.as_ref().unwrap();
        let last = SessionToken::from_bytes(&header.session_token).unwrap().revision;
        crossed += u32::from(last.epoch().get() > header.revision.unwrap().epoch);
        let is_whole = !deleted.incomplete && !deleted.repeated_outcome;
        assert!(is_whole && deleted.deleted == WIDE_KEYS, "{deleted:?}");
        // The pages show the keys that were deleted since.
        let (mut seen, mut token) = (first.items.len() as u64, first.next_page_token);
        for level in [Level::Local(Default::default()), linearizable()] {
            let page = kv.scan(scan(token, level)).await.unwrap().into_inner();
            assert_eq!(
                page.header.unwrap().revision,
                first.header.as_ref().unwrap().revision,
                "all pages are of one revision"
            );
            seen += page.items.len() as u64;
            token = page.next_page_token;
        }
        assert_eq!((seen, token), (WIDE_KEYS, String::new()));
        let only_if = |revision| WriteOptions {
            precondition: Some(Condition::modified_at(revision)),
            ..WriteOptions::default()
        };
        let put = tenant.put_with("condition", "changed", &only_if(old)).await.unwrap();
        let refused = tenant.put_with("condition", "again", &only_if(old)).await.unwrap_err();
        assert!(matches!(refused.kind, ErrorKind::ConditionFailed { .. }), "{refused}");
        assert!(put.header.revision.epoch() > old.epoch());
    }
    eprintln!("{crossed} range deletions began at one home and ended at the next");
}
