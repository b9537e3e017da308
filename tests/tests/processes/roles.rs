//! Callers and their roles, on real nodes in two regions: what a token may do by each way, also across regions.

use std::time::{Duration, Instant};

use stead_api::{message_codec::MessageCodec, net};
use stead_client::{
    Client, Config, Consistency, ErrorKind, KeyRange, ReadOptions, ScanOptions, TokenSource, WatchFrom, WatchMessage,
    WatchOptions,
};
use stead_state::authorization::{REQUIREMENTS, Requirement};
use stead_testing::Fixture;
use stead_tests::process::{binary, exclusive_lock};
use tonic::{Code, Request, codegen::http::uri::PathAndQuery};

/// Longest wait on a machine that is busy with other tests.
const WAIT_MAX: Duration = Duration::from_secs(60);

struct World {
    cluster: Fixture,
}

impl World {
    /// Starts two regions with tenants `acme` and `other` in the first one, each with the keys `a/1` and `b`.
    async fn start() -> Self {
        let regions = Fixture::builder()
            .binary(binary())
            .region("us-east", 1)
            .region("eu-west", 1);
        let cluster = regions.credentials().start().await.unwrap();
        for tenant in ["acme", "other"] {
            cluster.create_tenant(tenant, "us-east").await.unwrap();
            let tenant = cluster.client("us-east").await.unwrap().tenant(tenant).unwrap();
            for key in ["a/1", "b"] {
                tenant.put(key, "secret").await.unwrap();
            }
        }
        Self { cluster }
    }

    fn token(&self, subject: &str, roles: &[&str]) -> TokenSource {
        let file = self.cluster.folder().join(format!("{subject}.token"));
        let credentials = self.cluster.credentials().unwrap();
        credentials.make_token(subject, roles, &file).unwrap();
        TokenSource::file(file).unwrap()
    }

    /// Returns a client that sends every call to a node of `region`, which forwards what it cannot serve.
    async fn client(&self, region: &str, token: TokenSource) -> Result<Client, stead_client::Error> {
        let config = Config {
            nearest_only: true,
            token,
            ..self.cluster.config(region).unwrap()
        };
        Client::connect(config).await
    }
}

fn denied<T>(outcome: Result<T, stead_client::Error>) -> bool {
    match outcome {
        Ok(_) => false,
        Err(error) => {
            assert!(!error.message.contains("secret"), "{error}");
            error.kind == ErrorKind::PermissionDenied
        }
    }
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + WAIT_MAX;
    while !holds().await {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The way is the pipeline, here and forwarded from the other region, a watch, and pages; a session that has seen one
/// tenant shows nothing of another.
#[tokio::test]
async fn token_reaches_only_keys_of_its_prefix_by_every_way() {
    let _lock = exclusive_lock();
    let world = World::start().await;
    for region in ["us-east", "eu-west"] {
        let token = world.token(&format!("reader-{region}"), &["tenant-reader:acme:a/"]);
        let client = world.client(region, token).await.unwrap();
        let (acme, other) = (client.tenant("acme").unwrap(), client.tenant("other").unwrap());
        acme.get("a/1").await.unwrap().item.unwrap();
        assert!(denied(acme.get("b").await), "{region}");
        assert!(denied(other.get("a/1").await), "{region}");
        let local = ReadOptions::at(Consistency::Local);
        assert!(denied(other.get_with("a/1", &local).await), "{region}");
        assert!(denied(acme.put("a/1", "x").await), "{region}");
        let inside = ScanOptions {
            prefix: "a/".into(),
            ..ScanOptions::default()
        };
        assert_eq!(acme.scan(&inside).await.unwrap().items.len(), 1);
        assert!(denied(acme.scan(&ScanOptions::default()).await), "{region}");
        let watch = |range| WatchOptions {
            ranges: vec![range],
            from: WatchFrom::State,
            ..WatchOptions::default()
        };
        assert!(denied(acme.watch(watch(KeyRange::all())).await), "{region}");
        let mut watcher = acme.watch(watch(KeyRange::prefix("a/"))).await.unwrap();
        match watcher.next().await.unwrap() {
            WatchMessage::State { items, .. } => assert_eq!(items.len(), 1),
            message @ (WatchMessage::Changes(_) | WatchMessage::Progress | WatchMessage::Forked { .. }) => {
                panic!("{message:?}")
            }
        }
        let admin = client.admin();
        assert!(denied(admin.tenants("", "").await), "{region}");
        assert!(denied(admin.nodes("").await), "{region}");
        assert!(denied(admin.audit("", 10).await), "{region}");
    }
}

/// A role that is bound counts at every node, and one that is taken away ends a watch that runs.
#[tokio::test]
async fn bound_role_counts_everywhere_until_it_is_revoked() {
    let _lock = exclusive_lock();
    let world = World::start().await;
    let operator = world.cluster.client("us-east").await.unwrap().admin();
    let client = world
        .client("eu-west", world.token("ada", &["tenant-writer:acme"]))
        .await
        .unwrap();
    let acme = client.tenant("acme").unwrap();
    assert!(denied(acme.get("b").await));
    until("the role is granted", async || {
        operator
            .grant_role("token/dev/ada", "tenant-reader:acme", "test")
            .await
            .is_ok()
    })
    .await;
    until("the role counts at every node", async || acme.get("b").await.is_ok()).await;
    let mut watcher = acme.watch(WatchOptions::default()).await.unwrap();
    acme.put("b", "changed").await.unwrap();
    assert!(matches!(watcher.next().await.unwrap(), WatchMessage::Changes(_)));
    operator
        .revoke_role("token/dev/ada", "tenant-reader:acme", "test")
        .await
        .unwrap();
    until("the watch ends", async || {
        watcher
            .next()
            .await
            .is_err_and(|error| error.kind == ErrorKind::PermissionDenied)
    })
    .await;
    until("the role is gone", async || denied(acme.get("b").await)).await;
    assert!(denied(
        client.admin().grant_role("token/dev/ada", "cluster-operator", "").await
    ));
    // Changes and refusals are in the audit log, with who asked.
    let find = async |action: &str, who: &str| {
        let records = operator.audit("", 100).await.unwrap();
        records
            .into_iter()
            .any(|record| record.action.starts_with(action) && record.who == who)
    };
    assert!(find("grant tenant-reader:acme", "token/dev/operator").await);
    until("the refusal is in the audit log", async || {
        find("refused", "token/dev/ada").await
    })
    .await;
}

/// Every method, called with an empty message over a connection of its own.
#[tokio::test]
async fn every_method_refuses_who_has_no_role() {
    let _lock = exclusive_lock();
    let world = World::start().await;
    let node = world.cluster.nodes()[0].clone();
    let token = world.token("nobody", &[]);
    drop(token);
    let text = std::fs::read_to_string(world.cluster.folder().join("nobody.token")).unwrap();
    let connect = stead_client::dial(std::collections::BTreeMap::default());
    let channel = net::channel(&connect, &node.client, net::Keepalive::CLIENT).unwrap();
    let call = async |path: &str, token: Option<&str>| {
        let mut grpc = tonic::client::Grpc::new(channel.clone());
        grpc.ready().await.unwrap();
        let mut request = Request::new(());
        if let Some(token) = token {
            let header = format!("Bearer {}", token.trim()).parse().unwrap();
            request.metadata_mut().insert("authorization", header);
        }
        let path: PathAndQuery = format!("/{path}").parse().unwrap();
        let codec = MessageCodec::<(), ()>::default();
        match tokio::time::timeout(Duration::from_secs(5), grpc.unary(request, path, codec)).await {
            Ok(Ok(_)) => Code::Ok,
            Ok(Err(status)) => status.code(),
            Err(_) => Code::DeadlineExceeded,
        }
    };
    for (path, requirement) in REQUIREMENTS {
        let (without, with) = (call(path, None).await, call(path, Some(&text)).await);
        match requirement {
            Requirement::Nothing => assert_ne!(without, Code::Unauthenticated, "{path}"),
            Requirement::Credential => {
                assert_eq!(without, Code::Unauthenticated, "{path}");
                assert_ne!(with, Code::PermissionDenied, "{path}");
            }
            Requirement::ReadKeys
            | Requirement::WriteKeys
            | Requirement::AccessKeys
            | Requirement::Member
            | Requirement::InspectTenant
            | Requirement::AdministerTenant
            | Requirement::OperateRegion
            | Requirement::OperateCluster
            | Requirement::Inspect
            | Requirement::Audit => assert_eq!(
                (without, with),
                (Code::Unauthenticated, Code::PermissionDenied),
                "{path}"
            ),
        }
        assert_eq!(
            call(path, Some("a.b.c")).await == Code::Unauthenticated,
            *requirement != Requirement::Nothing
        );
    }
    // Nor does the metadata count that nodes put into their requests to each other.
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let mut request = Request::new(());
    request.metadata_mut().insert("x-stead-passed-on", "1".parse().unwrap());
    let path = PathAndQuery::from_static("/stead.admin.v1.TenantService/ListTenantLoads");
    let refused = grpc
        .unary(request, path, MessageCodec::<(), ()>::default())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
}
