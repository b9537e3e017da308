//! Health and readiness of a node, over HTTP and by the standard services of gRPC.

use std::time::Duration;

use stead_tests::process::{World, http_get};
use tonic::{Code, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

const WAIT_MAX: Duration = Duration::from_secs(60);

fn of(service: &str) -> HealthCheckRequest {
    HealthCheckRequest {
        service: service.into(),
    }
}

async fn channel(world: &World) -> Channel {
    let endpoint = Channel::from_shared(format!("http://{}", world.first().client)).unwrap();
    endpoint.connect().await.unwrap()
}

#[tokio::test]
async fn http_serves_health_metrics_and_routes() {
    let world = World::start(1).await;
    let made = world.stead(["tenant", "create", "acme"]).await;
    assert_eq!(made.code, Some(0), "{made:?}");
    let http = world.first().http.clone();
    let asked = async |path: &str| http_get(&http, path).await.unwrap();
    for path in ["/livez", "/readyz", "/readyz/region"] {
        assert_eq!(asked(path).await, (200, "ok\n".into()), "{path}");
    }
    let (status, checks) = asked("/readyz?verbose").await;
    assert_eq!(status, 200);
    for check in [
        "[+] draining: no",
        "[+] directory view: at ",
        "[+] leader: group g1 is led by n1",
    ] {
        assert!(checks.contains(check), "{check} is not in {checks}");
    }
    assert!(asked("/readyz/region?verbose").await.1.contains("[+] leader: group g1"));

    let (status, metrics) = asked("/metrics").await;
    assert_eq!(status, 200);
    for metric in [
        "stead_ready 1",
        "stead_view_tenants 1",
        "stead_raft_is_leader{group=\"1\"} 1",
        "# EOF",
    ] {
        assert!(metrics.contains(metric), "{metric} is not in {metrics}");
    }

    let (status, route) = asked("/route/acme").await;
    assert_eq!(status, 200);
    let route: serde_json::Value = serde_json::from_str(&route).unwrap();
    assert_eq!(route["tenant"], "acme");
    assert_eq!(route["home_region"], "eu-west");
    assert_eq!(route["endpoints"][0], world.first().client.as_str());
    assert_eq!(
        asked("/route/nobody").await,
        (404, "there is no tenant nobody: create it first\n".into())
    );
    let (status, why) = asked("/route/ACME").await;
    assert_eq!(status, 400);
    assert!(why.contains("only a-z, 0-9 and -"), "{why}");
    assert_eq!(asked(&format!("/route/{}", "a".repeat(65))).await.0, 400);
    assert_eq!(asked("/nothing").await.0, 404);
}

#[tokio::test]
async fn reflection_lists_services_and_each_has_health() {
    let world = World::start(1).await;
    let channel = channel(&world).await;
    let list = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut reflection = ServerReflectionClient::new(channel.clone());
    let asked = reflection.server_reflection_info(futures::stream::iter([list])).await;
    let answer = asked.unwrap().into_inner().message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(services)) = answer.message_response else {
        panic!("{answer:?}");
    };
    let services: Vec<String> = services.service.into_iter().map(|service| service.name).collect();
    assert!(services.contains(&"grpc.health.v1.Health".into()), "{services:?}");

    let mut health = HealthClient::new(channel);
    let ours = services
        .iter()
        .filter(|name| name.starts_with("stead.v1.") || name.starts_with("stead.admin."));
    for service in ours.map(String::as_str).chain([""]) {
        let answer = health.check(of(service)).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
    }
    let unknown = health.check(of("stead.v1.Nothing")).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    assert!(unknown.message().contains("stead.v1.KvService"), "{unknown:?}");
    let mut watch = health.watch(of("stead.v1.Nothing")).await.unwrap().into_inner();
    let answer = watch.message().await.unwrap().unwrap();
    assert_eq!(answer.status(), ServingStatus::ServiceUnknown);
}

#[tokio::test]
async fn node_without_quorum_is_unready_and_recovers() {
    let mut world = World::start(3).await;
    let http = world.first().http.clone();
    // The node that stays leads both groups, so that it is asked what it says of them without a majority.
    for group in ["0", "1"] {
        let leads = format!("stead_raft_is_leader{{group=\"{group}\"}} 1");
        let led = async {
            while !http_get(&http, "/metrics").await.unwrap().1.contains(&leads) {
                world.stead(["group", "move-leader", group, "--to", "1"]).await;
            }
        };
        tokio::time::timeout(WAIT_MAX, led).await.unwrap();
    }
    let mut health = HealthClient::new(channel(&world).await);
    let mut watch = health.watch(of("stead.v1.KvService")).await.unwrap().into_inner();
    let mut next_status = async || {
        let answer = tokio::time::timeout(WAIT_MAX, watch.message()).await.unwrap();
        answer.unwrap().map(|answer| answer.status())
    };
    assert_eq!(next_status().await, Some(ServingStatus::Serving));

    let others: Vec<String> = world.cluster.nodes()[1..]
        .iter()
        .map(|node| node.name.clone())
        .collect();
    for node in &others {
        world.cluster.kill_node(node).await.unwrap();
    }
    assert_eq!(next_status().await, Some(ServingStatus::NotServing));
    let answer = health.check(of("")).await.unwrap().into_inner();
    assert_eq!(answer.status(), ServingStatus::NotServing);
    for path in ["/readyz", "/readyz/region"] {
        let (status, why) = http_get(&http, path).await.unwrap();
        assert_eq!(status, 503, "{path}");
        let reasons = ["has no leader", "has no contact with", "its majority does not respond"];
        assert!(reasons.iter().any(|reason| why.contains(reason)), "{why}");
    }
    // A leader without a majority is none.
    let (_, metrics) = http_get(&http, "/metrics").await.unwrap();
    for group in ["0", "1"] {
        let leads = format!("stead_raft_is_leader{{group=\"{group}\"}} 0");
        assert!(metrics.contains(&leads), "{leads} is not in {metrics}");
    }
    let (_, checks) = http_get(&http, "/readyz?verbose").await.unwrap();
    assert!(checks.contains("[!] directory: "), "{checks}");
    let ran = world.stead(["region", "status", "eu-west"]).await;
    assert_eq!(ran.code, Some(8), "{ran:?}");
    assert!(ran.stderr.contains("region eu-west: node eu-west-"), "{}", ran.stderr);
    let killed = world.stead(["node", "status", &others[0]]).await;
    assert_eq!(killed.code, Some(8), "{killed:?}");
    assert!(killed.stderr.contains("does not answer"), "{}", killed.stderr);
    // A dead leader counts as the leader until the election timeout has passed.
    let headless = async {
        loop {
            let ran = world.stead(["group", "status", "1"]).await;
            if ran.code != Some(0) {
                return ran;
            }
        }
    };
    let headless = tokio::time::timeout(WAIT_MAX, headless).await.unwrap();
    assert_eq!(headless.code, Some(8), "{headless:?}");
    assert!(headless.stderr.contains("group 1 has no leader"), "{}", headless.stderr);
    assert_eq!(http_get(&http, "/livez").await.unwrap().0, 200, "it only cannot serve");

    world.cluster.start_all().unwrap();
    assert_eq!(next_status().await, Some(ServingStatus::Serving));
    let node = world.first().name.clone();
    let ended = world.cluster.terminate_node(&node).await.unwrap();
    assert!(ended.success(), "{ended}");
    assert_eq!(
        next_status().await,
        Some(ServingStatus::NotServing),
        "a node that stops says so"
    );
}
