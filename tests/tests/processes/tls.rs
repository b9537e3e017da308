//! Certificates: what a node refuses at its start, whom it lets in, the way from plain text to TLS.

use std::{
    fs,
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::stream;
use stead_api::{
    net::{Channel, Keepalive, channel},
    proto::internal::v1::{
        FeedOpen, PullRequest, RaftEnvelope, SeedRequest, SubscribeRequest, feed_service_client::FeedServiceClient,
        raft_service_client::RaftServiceClient, subscribe_request,
    },
};
use stead_cert::{CertificateFolder, LIFETIME, NewCertificate, Overwrite, Validity};
use stead_client::{Client, Config, TlsFiles, dial};
use stead_testing::{Fixture, cluster::Node};
use stead_tests::process::{self, binary, exclusive_lock};
use stead_tls::{CertificateName, Credentials, ExpectedPeer, PlainText, Subject};
use tonic::{Code, Response, Status, Streaming};

const REGIONS: [&str; 3] = ["us-east", "eu-west", "ap-south"];

async fn cluster() -> Fixture {
    let builder = Fixture::builder().binary(binary()).tls();
    let builder = REGIONS
        .iter()
        .fold(builder, |builder, region| builder.region(region, 1));
    builder.start().await.unwrap()
}

fn certificates(cluster: &Fixture) -> CertificateFolder {
    CertificateFolder::at(cluster.folder().join("certs"))
}

fn node<'a>(cluster: &'a Fixture, region: &str) -> &'a Node {
    cluster.nodes().iter().find(|node| node.region == region).unwrap()
}

fn subject(node: &Node) -> Subject {
    Subject::Node {
        region: node.region.clone(),
        name: node.name.clone(),
    }
}

/// Opens a channel to the peer port of a node with the files of somebody.
fn to_peer_port(of: &Node, files: TlsFiles) -> Channel {
    let expected = ExpectedPeer::Node(subject(of));
    let credentials = Credentials::load(files, None).unwrap();
    let expect = Arc::new(move |_: &str| expected.clone());
    let connect = stead_tls::dial(dial(Default::default()), credentials, expect, PlainText::Refused);
    channel(&connect, &of.peer, Keepalive::PEER).unwrap()
}

/// Tells whether a status was made on this side: nothing was answered.
fn was_made_here(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
}

/// Returns the first answer of a stream of answers.
async fn first_of<T>(answers: Result<Response<Streaming<T>>, Status>) -> Status {
    match answers {
        Err(status) => status,
        Ok(answers) => match answers.into_inner().message().await {
            Err(status) => status,
            Ok(_) => Status::ok("it is let in"),
        },
    }
}

/// Requests changes of the first region's group for the second one's, group 2, by each way that there is.
async fn request_changes(channel: &Channel) -> [(&'static str, Status); 3] {
    let mut feed = FeedServiceClient::new(channel.clone());
    let seed = SeedRequest {
        follower_group: 2,
        home_group: 1,
        ..SeedRequest::default()
    };
    let pull = PullRequest {
        to_group: 2,
        from_group: 1,
        ..PullRequest::default()
    };
    let open = FeedOpen {
        follower_group: 2,
        home_group: 1,
        ..FeedOpen::default()
    };
    let open = SubscribeRequest {
        message: Some(subscribe_request::Message::Open(open)),
    };
    [
        ("seed", first_of(feed.seed(seed).await).await),
        ("pull", first_of(feed.pull(pull).await).await),
        ("subscribe", first_of(feed.subscribe(stream::iter([open])).await).await),
    ]
}

/// Requests a copy of the first region's group.
async fn request_copy(channel: Channel) -> Status {
    let [(_, status), ..] = request_changes(&channel).await;
    status
}

/// Sends a Raft message to the group of the first region as one of its own nodes, by each way that there is.
async fn send_raft_message(channel: &Channel, from_node: u64, incarnation: u32) -> [(&'static str, Status); 4] {
    let mut raft = RaftServiceClient::new(channel.clone());
    let envelope = RaftEnvelope {
        group: 1,
        incarnation,
        from_node,
        ..RaftEnvelope::default()
    };
    let unary = |answer: Result<Response<RaftEnvelope>, Status>| {
        answer.map_or_else(|status| status, |_| Status::ok("it is let in"))
    };
    let one = || stream::iter([envelope.clone()]);
    [
        ("control", unary(raft.control(envelope.clone()).await)),
        ("snapshot", unary(raft.snapshot(one()).await)),
        ("append", first_of(raft.append(one()).await).await),
        ("fetch", first_of(raft.fetch(envelope.clone()).await).await),
    ]
}

#[tokio::test]
async fn node_of_another_region_gets_no_changes_and_takes_no_part_in_the_group() {
    let _lock = exclusive_lock();
    let cluster = cluster().await;
    let certificates = certificates(&cluster);
    let files = |region: &str| certificates.tls_files(&subject(node(&cluster, region)));
    let home = node(&cluster, "us-east");
    // The follower's own node is let in, up to what the empty request lacks.
    for (way, own) in request_changes(&to_peer_port(home, files("eu-west"))).await {
        assert_ne!(own.code(), Code::PermissionDenied, "{way}: {own}");
    }
    for (way, other) in request_changes(&to_peer_port(home, files("ap-south"))).await {
        assert_eq!(other.code(), Code::PermissionDenied, "{way}: {other}");
        assert!(other.message().contains("is of n3 in ap-south"), "{way}: {other}");
    }
    for (from_node, words) in [
        (1, "the certificate of its connection is of n2 in eu-west"),
        (2, "is no voter of g1"),
    ] {
        let channel = to_peer_port(home, files("eu-west"));
        // The group's incarnation, which a stranger would find as this loop does.
        for (way, answer) in send_raft_message(&channel, from_node, 1).await {
            assert_eq!(answer.code(), Code::PermissionDenied, "{way}: {answer}");
            assert!(answer.message().contains(words), "{way}: {answer}");
        }
    }
}

#[tokio::test]
async fn peer_port_is_for_nodes_that_the_directory_knows() {
    let _lock = exclusive_lock();
    let cluster = cluster().await;
    let certificates = certificates(&cluster);
    let home = node(&cluster, "us-east");
    let validity = Validity::from_now(SystemTime::now(), LIFETIME);
    // A certificate of another cluster is refused by its bearer first, which finds the node foreign.
    for (uri, reason) in [
        ("stead://test/node/eu-west/eu-west-7", None),
        ("stead://dev/client/shop", Some("other_name")),
        ("stead://dev/operator/ada", Some("other_name")),
        ("stead://dev/node/us-east/us-east-9", Some("other_name")),
    ] {
        let name: CertificateName = uri.parse().unwrap();
        let new = NewCertificate {
            name: name.clone(),
            hosts: Vec::new(),
            validity,
        };
        certificates.issue(&new, Overwrite::Refused).unwrap();
        let status = request_copy(to_peer_port(home, certificates.tls_files(&name.subject))).await;
        assert!(was_made_here(&status), "{uri}: {status:?}");
        let Some(reason) = reason else { continue };
        let metrics = home.metrics().await.unwrap();
        let line = format!("stead_tls_refused_total{{listener=\"peer\",reason=\"{reason}\"}}");
        assert!(metrics.contains(&line), "{uri}: {line} is not in the metrics");
    }
    // A node of one region that calls itself one of another.
    let name = Subject::Node {
        region: "us-east".into(),
        name: "eu-west-1".into(),
    };
    let folder = tempfile::tempdir().unwrap();
    let forged = CertificateFolder::at(folder.path());
    for file in ["ca.crt", "ca.key"] {
        fs::copy(cluster.folder().join("certs").join(file), folder.path().join(file)).unwrap();
    }
    let new = NewCertificate {
        name: CertificateName {
            cluster: "dev".into(),
            subject: name.clone(),
        },
        hosts: Vec::new(),
        validity,
    };
    forged.issue(&new, Overwrite::Refused).unwrap();
    let status = request_copy(to_peer_port(home, forged.tls_files(&name))).await;
    assert!(
        was_made_here(&status),
        "it is refused before its first request: {status:?}"
    );
}

#[tokio::test]
async fn client_is_told_what_is_wrong_with_its_side() {
    let _lock = exclusive_lock();
    let cluster = cluster().await;
    let mut good = cluster.config("us-east").unwrap();
    good.timeout = Duration::from_secs(3);
    Client::connect(good.clone()).await.unwrap();
    let refused = async |tls: Option<TlsFiles>| {
        let mut config: Config = good.clone();
        config.tls = tls;
        Client::connect(config).await.unwrap_err().message
    };
    let plain = refused(None).await;
    assert!(plain.contains("speaks TLS"), "{plain}");
    let other = tempfile::tempdir().unwrap();
    let stranger = CertificateFolder::at(other.path());
    let validity = Validity::from_now(SystemTime::now(), LIFETIME);
    stranger.create("dev", validity).unwrap();
    let ca = stranger.authority().certificate;
    let wrong_ca = refused(Some(TlsFiles {
        ca,
        certificate: None,
        key: None,
    }));
    let wrong_ca = wrong_ca.await;
    assert!(wrong_ca.contains("no CA that is trusted here"), "{wrong_ca}");
    let missing = refused(Some(TlsFiles {
        ca: other.path().join("nothing.crt"),
        certificate: None,
        key: None,
    }));
    let missing = missing.await;
    assert!(missing.contains("nothing.crt cannot be read"), "{missing}");
}

/// Runs a node with this configuration, which it refuses; returns what it says.
async fn refusal_of_start(config: &Path) -> String {
    let mut command = Command::new(binary());
    command.arg("serve").arg("--config").arg(config);
    let ran = process::run(command).await;
    assert_ne!(ran.code, Some(0));
    ran.stderr
}

#[tokio::test]
async fn node_refuses_certificates_that_it_cannot_use() {
    let _lock = exclusive_lock();
    let folder = tempfile::tempdir().unwrap();
    let certificates = CertificateFolder::at(folder.path().join("certs"));
    let (now, hour) = (SystemTime::now(), Duration::from_secs(3600));
    certificates.create("prod", Validity::from_now(now, LIFETIME)).unwrap();
    let config = folder.path().join("stead.toml");
    let write = |uri: &str, validity: Validity| {
        let name: CertificateName = uri.parse().unwrap();
        let new = NewCertificate {
            name,
            hosts: vec!["127.0.0.1".into()],
            validity,
        };
        let files = certificates.issue(&new, Overwrite::Allowed).unwrap();
        let text = format!(
            "[cluster]\nname = \"prod\"\ninitial = [{{ name = \"a\", region = \"eu\", peer = \"127.0.0.1:28911\", client = \
             \"127.0.0.1:28912\", http = \"127.0.0.1:28913\" }}]\nregions = [{{ name = \"eu\", jurisdiction = \"EU\" }}]\n\
             [node]\nname = \"a\"\ndata_dir = {:?}\n[tls]\nca = {:?}\ncertificate = {:?}\nkey = {:?}\n",
            folder.path().join("data"),
            certificates.authority().certificate,
            files.certificate,
            files.key
        );
        fs::write(&config, text).unwrap();
    };
    let lasting = Validity::from_now(now, LIFETIME);
    let expired = Validity {
        not_before: now - 2 * hour,
        not_after: now - hour,
    };
    let early = Validity {
        not_before: now + hour,
        not_after: now + 2 * hour,
    };
    for (uri, validity, words) in [
        ("stead://prod/node/eu/a", expired, "node-a.crt has expired at"),
        ("stead://prod/node/eu/a", early, "node-a.crt is valid from"),
        (
            "stead://test/node/eu/a",
            lasting,
            "names stead://test/node/eu/a, but this is stead://prod/node/eu/a",
        ),
        ("stead://prod/node/us/a", lasting, "but this is stead://prod/node/eu/a"),
    ] {
        write(uri, validity);
        let said = refusal_of_start(&config).await;
        assert!(said.contains(words), "{words} is not in: {said}");
    }
}

/// Setting of TLS of one node, in the order of a migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No certificates.
    Plain,
    /// Certificates, and plain text beside them.
    Both,
    /// Certificates only.
    Required,
}

/// Returns a node's configuration with TLS of this phase, given the one that requires it.
fn in_phase(required: &str, phase: Phase) -> String {
    let (before, rest) = required.split_once("[tls]\n").unwrap();
    let (files, after) = rest.split_once("\n\n").unwrap();
    match phase {
        Phase::Plain => format!("{before}{after}"),
        Phase::Both => format!("{before}[tls]\nplaintext = \"allow\"\n{files}\n\n{after}"),
        Phase::Required => required.to_owned(),
    }
}

/// A cluster in plain text gets certificates node by node, and works on all the way.
#[tokio::test]
async fn cluster_goes_over_to_tls_node_by_node() {
    let _lock = exclusive_lock();
    let cluster = cluster().await;
    cluster.create_tenant("acme", "us-east").await.unwrap();
    let nodes: Vec<Node> = cluster.nodes().to_vec();
    let file = |node: &Node| cluster.folder().join(format!("{}.toml", node.name));
    let required: Vec<String> = nodes
        .iter()
        .map(|node| fs::read_to_string(file(node)).unwrap())
        .collect();
    let mut plain = cluster.config("us-east").unwrap();
    plain.tls = None;
    plain.timeout = Duration::from_secs(3);
    // The first two phases lead back to plain text, where the migration begins.
    for phase in [Phase::Both, Phase::Plain, Phase::Both, Phase::Required] {
        for (node, required) in nodes.iter().zip(&required) {
            fs::write(file(node), in_phase(required, phase)).unwrap();
            cluster.kill(&node.name).await.unwrap();
            cluster.start(&node.name).await.unwrap();
            cluster.ready().await.unwrap();
        }
        let connected = Client::connect(plain.clone()).await;
        assert_eq!(connected.is_ok(), phase != Phase::Required, "{phase:?}: {connected:?}");
        let client = match phase {
            Phase::Plain => connected.unwrap(),
            Phase::Both | Phase::Required => cluster.client("us-east").await.unwrap(),
        };
        client.tenant("acme").unwrap().put("k", "v").await.unwrap();
    }
    for node in &nodes {
        let metrics = node.metrics().await.unwrap();
        let plain = metrics.lines().find(|line| {
            line.starts_with("stead_connections{")
                && line.contains("plain")
                && !line.contains("http")
                && !line.ends_with(" 0")
        });
        assert_eq!(plain, None, "{}", node.name);
    }
}
