//! Limits of a tenant: requests at, below and above each; above it the error names the limit, and nothing changes.

use std::time::{Duration, Instant};

use bytes::Bytes;
use stead_api::{
    proto::{
        admin::v1::{self as admin, UpdateTenantRequest, tenant_service_client::TenantServiceClient},
        v1::{
            DeleteRequest, GetRequest, IdempotencyKey, IncrementRequest, PutRequest, kv_service_client::KvServiceClient,
        },
    },
    status,
};
use stead_tests::process::{World, http_get};
use stead_types::{Error, ErrorKind};
use tonic::{Code, Response, Status, transport::Channel};

/// Value as long as the byte limit of one second.
const LARGE: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

struct Tenant {
    kv: KvServiceClient<Channel>,
    name: &'static str,
}

impl Tenant {
    async fn put(&mut self, key: &'static str, value: &'static str) -> Result<u64, Error> {
        self.put_as(key, value, None).await
    }

    /// Returns the sequence of the write.
    async fn put_as(&mut self, key: &'static str, value: &'static str, client: Option<u8>) -> Result<u64, Error> {
        let request = PutRequest {
            tenant: self.name.into(),
            key: key.into(),
            value: value.into(),
            idempotency_key: client.map(|client| IdempotencyKey {
                client_id: Bytes::from(vec![client; 16]),
                sequence: 1,
                first_sent_ms: 0,
            }),
            ..PutRequest::default()
        };
        let answer = answer(self.kv.put(request).await)?;
        Ok(answer.header.unwrap().revision.unwrap().sequence)
    }

    async fn get(&mut self) -> Result<(), Status> {
        let request = GetRequest {
            tenant: self.name.into(),
            key: "a".into(),
            ..GetRequest::default()
        };
        self.kv.get(request).await.map(drop)
    }

    async fn delete(&mut self, key: &'static str) -> Result<u64, Error> {
        let request = DeleteRequest {
            tenant: self.name.into(),
            key: key.into(),
            ..DeleteRequest::default()
        };
        let answer = answer(self.kv.delete(request).await)?;
        Ok(answer.header.unwrap().revision.unwrap().sequence)
    }

    async fn delete_for_previous(&mut self, key: &'static str) -> Result<Bytes, Error> {
        let request = DeleteRequest {
            tenant: self.name.into(),
            key: key.into(),
            want_previous: true,
            ..DeleteRequest::default()
        };
        Ok(answer(self.kv.delete(request).await)?.previous.unwrap().value)
    }

    async fn increment(&mut self, key: &'static str) -> Result<u64, Error> {
        let request = IncrementRequest {
            tenant: self.name.into(),
            key: key.into(),
            delta: 1,
            ..IncrementRequest::default()
        };
        let answer = answer(self.kv.increment(request).await)?;
        Ok(answer.header.unwrap().revision.unwrap().sequence)
    }
}

fn answer<T>(answer: Result<Response<T>, Status>) -> Result<T, Error> {
    answer
        .map(Response::into_inner)
        .map_err(|refusal| status::from_status(&refusal))
}

/// Asserts that the quota of this limit is exceeded, and that the error names the limit and what to do.
fn assert_full(outcome: Result<u64, Error>, limit: &str, max: &str) {
    let error = outcome.unwrap_err();
    assert_eq!(error.kind, ErrorKind::QuotaExceeded { limit: limit.into() });
    let option = format!("--limit {}=", limit.replace('_', "-"));
    for words in [limit, max, "is full", option.as_str()] {
        assert!(error.message.contains(words), "{words} is not in: {error}");
    }
}

#[tokio::test]
async fn request_above_tenant_limit_is_refused_without_effect() {
    let world = World::start(1).await;
    let channel = Channel::from_shared(format!("http://{}", world.first().client)).unwrap();
    let channel = channel.connect().await.unwrap();
    let make = async |name: &'static str, limits: &str| {
        let made = world
            .stead(format!("tenant create {name} {limits}").split_whitespace())
            .await;
        assert_eq!(made.code, Some(0), "{made:?}");
        let kv = KvServiceClient::new(channel.clone());
        Tenant { kv, name }
    };
    keys(make("keys", "--limit keys=3").await).await;
    stored(make("stored", "--limit stored-bytes=10").await).await;
    clients(make("clients", "--limit clients=2").await).await;
    rate(make("rate", "--limit operations-per-second=3").await).await;
    bytes(make("bytes", "--limit bytes-per-second=64").await).await;
    shown(&world, channel).await;

    let (_, metrics) = http_get(&world.first().http, "/metrics").await.unwrap();
    for limit in [
        "keys",
        "stored_bytes",
        "clients",
        "operations_per_second",
        "bytes_per_second",
    ] {
        let counted = format!("stead_refused_total{{limit=\"{limit}\"}}");
        assert!(metrics.contains(&counted), "{counted} is not in {metrics}");
    }
}

async fn keys(mut tenant: Tenant) {
    for (sequence, key) in ["a", "b", "c"].into_iter().enumerate() {
        assert_eq!(tenant.put(key, "1").await, Ok(sequence as u64 + 1));
    }
    assert_full(tenant.put("d", "1").await, "keys", "at most 3");
    assert_full(tenant.increment("d").await, "keys", "at most 3");
    assert_eq!(tenant.increment("a").await, Ok(4), "nothing was written meanwhile");
    assert_eq!(tenant.put("b", "a longer one").await, Ok(5));
    tenant.get().await.unwrap();
    assert_eq!(tenant.delete("c").await, Ok(6));
    assert_eq!(tenant.put("d", "1").await, Ok(7));
    assert_full(tenant.put("c", "1").await, "keys", "at most 3");
    assert_eq!(tenant.delete("d").await, Ok(8));
    assert_eq!(tenant.put_as("c", "1", Some(1)).await, Ok(9));
    assert_eq!(tenant.delete("c").await, Ok(10));
    assert_eq!(tenant.put("d", "1").await, Ok(11));
    assert_eq!(
        tenant.put_as("c", "1", Some(1)).await,
        Ok(9),
        "a repeat is answered, also by a tenant that is full now"
    );
}

async fn stored(mut tenant: Tenant) {
    assert_eq!(tenant.put("a", "12345678").await, Ok(1), "one below");
    assert_full(tenant.put("b", "1").await, "stored_bytes", "at most 10");
    assert_eq!(tenant.put("b", "").await, Ok(2), "exactly");
    assert_full(tenant.put("c", "").await, "stored_bytes", "at most 10");
    assert_full(tenant.put("a", "123456789").await, "stored_bytes", "at most 10");
    assert_eq!(tenant.put("a", "87654321").await, Ok(3), "no larger than before");
    tenant.get().await.unwrap();
    assert_eq!(tenant.put("a", "1").await, Ok(4));
    assert_eq!(tenant.put("c", "123456").await, Ok(5));
    assert_eq!(tenant.delete("c").await, Ok(6));
}

async fn clients(mut tenant: Tenant) {
    assert_eq!(tenant.put_as("a", "1", Some(1)).await, Ok(1));
    assert_eq!(tenant.put_as("a", "2", Some(2)).await, Ok(2));
    let refusal = tenant.put_as("a", "3", Some(3)).await.unwrap_err();
    let ErrorKind::RateLimited { limit, wait } = &refusal.kind else {
        panic!("{refusal}")
    };
    assert_eq!(limit, "clients");
    assert!(
        Duration::from_secs(50) < *wait && *wait <= Duration::from_secs(61),
        "{wait:?}"
    );
    assert!(refusal.message.contains("at most 2 client ids"), "{refusal}");
    assert_eq!(tenant.put_as("a", "1", Some(1)).await, Ok(1), "a repeat is answered");
    assert_eq!(tenant.put("a", "4").await, Ok(3), "without a key nothing is remembered");
}

async fn rate(mut tenant: Tenant) {
    let began = Instant::now();
    let (mut admitted, mut refusals) = (0.0, Vec::new());
    for _ in 0..200 {
        match tenant.get().await {
            Ok(()) => admitted += 1.0,
            Err(refusal) => refusals.push(refusal),
        }
    }
    assert!(admitted >= 3.0, "a second's worth");
    assert!(
        admitted <= 4.0 + 3.0 * began.elapsed().as_secs_f64(),
        "{admitted} in {:?}",
        began.elapsed()
    );
    let wait = |refusal| status::retry_after(refusal).unwrap();
    let first = wait(&refusals[0]);
    assert!(!first.is_zero() && first <= Duration::from_millis(334), "{first:?}");
    let refusal = refusals.last().unwrap();
    assert_eq!(refusal.code(), Code::ResourceExhausted);
    let wait = wait(refusal);
    assert!(
        wait > first && wait <= Duration::from_millis(1_334),
        "behind those who were refused before, a second at most: {wait:?}"
    );
    let pushback = refusal.metadata().get("grpc-retry-pushback-ms").unwrap();
    assert_eq!(pushback.to_str().unwrap(), wait.as_millis().to_string());
    let limit = "operations_per_second".to_owned();
    assert_eq!(
        status::from_status(refusal).kind,
        ErrorKind::RateLimited { limit, wait }
    );
    tokio::time::sleep(wait).await;
    tenant.get().await.unwrap();
}

async fn bytes(mut tenant: Tenant) {
    assert_eq!(tenant.put("a", LARGE).await, Ok(1), "more than there is, once");
    let error = tenant.put("b", "1").await.unwrap_err();
    let ErrorKind::RateLimited { limit, wait } = &error.kind else {
        panic!("{error:?}")
    };
    assert_eq!(limit, "bytes_per_second");
    tokio::time::sleep(*wait).await;
    assert_eq!(tenant.put("b", "1").await, Ok(2));
    // Data in a write's response counts, too; first the token bucket must recover from the writes before.
    let paid = async {
        loop {
            match tenant.delete_for_previous("a").await {
                Err(Error {
                    kind: ErrorKind::RateLimited { wait, .. },
                    ..
                }) => tokio::time::sleep(wait).await,
                answered => break answered,
            }
        }
    };
    let deleted = tokio::time::timeout(Duration::from_secs(10), paid).await;
    assert_eq!(deleted.expect("it is paid for").unwrap(), LARGE);
    let error = tenant.put("b", "1").await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::RateLimited { .. }), "{error:?}");
}

async fn shown(world: &World, channel: Channel) {
    let json = async |arguments: &str| -> serde_json::Value {
        let ran = world.stead(arguments.split(' ')).await;
        assert_eq!(ran.code, Some(0), "{arguments}: {ran:?}");
        serde_json::from_str(&ran.stdout).unwrap()
    };
    let tenant = json("tenant get keys -o json").await;
    assert_eq!(tenant["limits"], serde_json::json!({ "keys": "3" }));
    assert_eq!(tenant["effectiveLimits"]["operationsPerSecond"], "100000");
    assert_eq!(tenant["effectiveLimits"]["historyAge"], "600s");
    let tenant = json("tenant update keys --limit history-age=36h --limit keys=default -o json").await;
    assert_eq!(tenant["limits"], serde_json::json!({ "historyAge": "129600s" }));
    assert_eq!(tenant["effectiveLimits"]["keys"], "100000000");

    let mut tenants = TenantServiceClient::new(channel);
    let wrong = UpdateTenantRequest {
        name: "keys".into(),
        limits: Some(admin::Limits {
            clients: Some(65_537),
            ..admin::Limits::default()
        }),
        ..UpdateTenantRequest::default()
    };
    let refusal = status::from_status(&tenants.update_tenant(wrong).await.unwrap_err());
    let field = "limits.clients".to_owned();
    assert_eq!(refusal.kind, ErrorKind::Invalid { field });
    assert!(
        refusal.message.contains("at least 1 and at most 65536, not 65537"),
        "{refusal}"
    );
    let ran = world.stead("tenant update keys --limit size=1".split(' ')).await;
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.stderr.contains("operations_per_second"), "{ran:?}");
}
