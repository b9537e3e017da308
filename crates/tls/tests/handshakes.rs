//! Handshakes between two ends with certificates from files, and reload of these files.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::Path,
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use stead_api::net::{Connect, Io};
use stead_cert::{BACKDATE, CertificateFolder, LIFETIME, LIFETIME_CA, NewCertificate, Overwrite, Validity};
use stead_tls::{
    CertificateName, Credentials, ExpectedPeer, HandshakeFailure, PlainText, Reload, Subject, TlsError, TlsFiles,
    accept_client, accept_peer, dial, failure_of,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

/// Folders of certificates of a cluster.
struct Fixture {
    folder: TempDir,
    certificates: CertificateFolder,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let certificates = CertificateFolder::at(folder.path().join("certs"));
        certificates.create("prod", from_now(LIFETIME_CA)).unwrap();
        Self { folder, certificates }
    }

    fn issue(&self, uri: &str, validity: Validity) -> TlsFiles {
        issue(&self.certificates, uri, validity)
    }

    fn node(&self, region: &str, name: &str) -> Credentials {
        let uri = format!("stead://prod/node/{region}/{name}");
        load(&self.issue(&uri, from_now(LIFETIME)), Some(&uri)).unwrap()
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }
}

fn issue(certificates: &CertificateFolder, uri: &str, validity: Validity) -> TlsFiles {
    let name: CertificateName = uri.parse().unwrap();
    let new = NewCertificate {
        name: name.clone(),
        hosts: vec!["localhost".into(), "127.0.0.1".into()],
        validity,
    };
    certificates.issue(&new, Overwrite::Allowed).unwrap();
    certificates.tls_files(&name.subject)
}

fn from_now(lifetime: Duration) -> Validity {
    Validity::from_now(SystemTime::now(), lifetime)
}

fn load(files: &TlsFiles, uri: Option<&str>) -> Result<Credentials, TlsError> {
    Credentials::load(files.clone(), uri.map(|uri| uri.parse().unwrap()))
}

fn node(region: &str, name: &str) -> ExpectedPeer {
    ExpectedPeer::Node(Subject::Node {
        region: region.into(),
        name: name.into(),
    })
}

/// Returns a dialler to one end of a pipe, of which this is the other.
fn pipe() -> (Connect, DuplexStream) {
    let (near, far) = duplex(64 << 10);
    let near = Arc::new(std::sync::Mutex::new(Some(near)));
    let connect: Connect = Arc::new(move |_| {
        let near = near.lock().unwrap().take();
        Box::pin(async move {
            let near = near.ok_or(io::ErrorKind::ConnectionRefused)?;
            Ok(Box::pin(near) as Pin<Box<dyn Io>>)
        })
    });
    (connect, far)
}

/// Outcome of a handshake at both ends, after a byte each way.
struct Outcome {
    dialled: Result<(), io::Error>,
    accepted: Result<Option<CertificateName>, HandshakeFailure>,
}

#[derive(Clone, Copy)]
enum Side {
    Client,
    Peer,
}

async fn handshake(from: &Credentials, expected: ExpectedPeer, to: &Credentials, side: Side) -> Outcome {
    let (connect, far) = pipe();
    let connect = dial(
        connect,
        from.clone(),
        Arc::new(move |_| expected.clone()),
        PlainText::Refused,
    );
    // The pipe is dropped with the dialler, so that the other end does not wait.
    let dialled = async move {
        let mut stream = connect("localhost:7401".into()).await?;
        stream.write_all(b"?").await?;
        stream.flush().await?;
        stream.read_u8().await.map(drop)
    };
    let accepted = async {
        let accepted = match side {
            Side::Client => accept_client(to, far).await,
            Side::Peer => accept_peer(to, far).await,
        };
        let mut accepted = accepted.map_err(|error| failure_of(&error))?;
        // The dialling end may have refused this one after its own part.
        if accepted.stream.read_u8().await.is_ok() {
            accepted.stream.write_all(b"!").await.unwrap();
            accepted.stream.flush().await.unwrap();
        }
        Ok(accepted.name)
    };
    let (dialled, accepted) = tokio::join!(dialled, accepted);
    Outcome { dialled, accepted }
}

#[tokio::test]
async fn nodes_recognise_each_other_by_name() {
    let prod = Fixture::new();
    let (eu, us) = (prod.node("eu-west", "a"), prod.node("us-east", "b"));
    let outcome = handshake(&us, node("eu-west", "a"), &eu, Side::Peer).await;
    outcome.dialled.unwrap();
    let name = outcome.accepted.unwrap().unwrap();
    assert_eq!(name.to_string(), "stead://prod/node/us-east/b");
}

#[tokio::test]
async fn dialled_node_of_another_name_or_region_is_refused() {
    let prod = Fixture::new();
    let (eu, us) = (prod.node("eu-west", "a"), prod.node("us-east", "b"));
    for expected in [node("eu-west", "c"), node("us-east", "a"), ExpectedPeer::Unknown] {
        let outcome = handshake(&us, expected.clone(), &eu, Side::Peer).await;
        let error = outcome.dialled.unwrap_err().to_string();
        let said = error.contains("was dialled") || error.contains("of no node in the directory");
        assert!(said, "{expected:?}: {error}");
        assert!(outcome.accepted.is_err(), "{expected:?}");
    }
}

#[tokio::test]
async fn client_without_certificate_is_anonymous_and_checks_the_host() {
    let prod = Fixture::new();
    let eu = prod.node("eu-west", "a");
    let ca_only = TlsFiles {
        certificate: None,
        key: None,
        ..eu.files().clone()
    };
    let client = load(&ca_only, None).unwrap();
    let outcome = handshake(&client, ExpectedPeer::Host, &eu, Side::Client).await;
    outcome.dialled.unwrap();
    assert_eq!(outcome.accepted, Ok(None));
    let outcome = handshake(&client, ExpectedPeer::Host, &eu, Side::Peer).await;
    assert_eq!(outcome.accepted, Err(HandshakeFailure::NoCertificate));
    let error = outcome.dialled.unwrap_err().to_string();
    assert!(error.contains("requires a certificate"), "{error}");
}

#[tokio::test]
async fn client_certificate_is_refused_at_the_peer_port() {
    let prod = Fixture::new();
    let eu = prod.node("eu-west", "a");
    for uri in ["stead://prod/client/shop", "stead://prod/operator/ada"] {
        let bearer = load(&prod.issue(uri, from_now(LIFETIME)), None).unwrap();
        let outcome = handshake(&bearer, node("eu-west", "a"), &eu, Side::Peer).await;
        assert_eq!(outcome.accepted, Err(HandshakeFailure::OtherName), "{uri}");
        let error = outcome.dialled.unwrap_err().to_string();
        assert!(error.contains("refuses the name"), "{uri}: {error}");
        let outcome = handshake(&bearer, ExpectedPeer::Host, &eu, Side::Client).await;
        assert_eq!(outcome.accepted.unwrap().unwrap().to_string(), uri);
    }
}

#[tokio::test]
async fn certificates_of_another_ca_or_cluster_are_refused_at_both_ends() {
    let (prod, other) = (Fixture::new(), Fixture::new());
    let (eu, stranger) = (prod.node("eu-west", "a"), other.node("us-east", "b"));
    let outcome = handshake(&stranger, node("eu-west", "a"), &eu, Side::Peer).await;
    let error = outcome.dialled.unwrap_err().to_string();
    assert!(error.contains("no CA that is trusted here"), "{error}");
    assert!(outcome.accepted.is_err());
    // It trusts the cluster's CA, and is issued by its own.
    let mixed = prod.path().join("ca-of-both.crt");
    let cas = [&prod, &other].map(|fixture| fs::read_to_string(fixture.certificates.authority().certificate).unwrap());
    fs::write(&mixed, cas.concat()).unwrap();
    let files = TlsFiles {
        ca: mixed,
        ..stranger.files().clone()
    };
    let outcome = handshake(&load(&files, None).unwrap(), node("eu-west", "a"), &eu, Side::Peer).await;
    assert_eq!(outcome.accepted, Err(HandshakeFailure::UnknownCa));
    let error = outcome.dialled.unwrap_err().to_string();
    assert!(error.contains("does not trust the CA"), "{error}");
    // One CA for two clusters.
    let test = prod.issue("stead://test/node/us-east/b", from_now(LIFETIME));
    let outcome = handshake(&load(&test, None).unwrap(), node("eu-west", "a"), &eu, Side::Peer).await;
    assert!(outcome.dialled.is_err());
    let operator = prod.issue("stead://test/operator/ada", from_now(LIFETIME));
    let operator = TlsFiles {
        ca: prod.certificates.authority().certificate,
        ..operator
    };
    let outcome = handshake(&load(&operator, None).unwrap(), ExpectedPeer::Host, &eu, Side::Client).await;
    assert!(outcome.dialled.is_err());
}

#[tokio::test]
async fn certificate_made_by_a_clock_a_minute_ahead_is_valid() {
    assert!(BACKDATE > Duration::from_secs(60));
    let prod = Fixture::new();
    let ahead = SystemTime::now() + Duration::from_secs(60);
    let files = prod.issue("stead://prod/client/shop", Validity::from_now(ahead, LIFETIME));
    let (client, eu) = (load(&files, None).unwrap(), prod.node("eu-west", "a"));
    let outcome = handshake(&client, ExpectedPeer::Host, &eu, Side::Client).await;
    outcome.dialled.unwrap();
}

#[test]
fn unusable_files_are_refused_with_their_name_and_a_remedy() {
    let prod = Fixture::new();
    let uri = "stead://prod/node/eu-west/a";
    let refused = |files: &TlsFiles| load(files, Some(uri)).err().unwrap().to_string();
    let (now, hour) = (SystemTime::now(), Duration::from_secs(3600));
    let expired = Validity {
        not_before: now - 2 * hour,
        not_after: now - hour,
    };
    let said = refused(&prod.issue(uri, expired));
    assert!(
        said.contains("node-a.crt has expired") && said.contains("stead cert rotate"),
        "{said}"
    );
    let early = Validity {
        not_before: now + hour,
        not_after: now + 2 * hour,
    };
    let said = refused(&prod.issue(uri, early));
    assert!(
        said.contains("node-a.crt is valid from") && said.contains("clock"),
        "{said}"
    );
    let files = prod.issue(uri, from_now(LIFETIME));
    let said = load(&files, Some("stead://prod/node/us-east/a"))
        .err()
        .unwrap()
        .to_string();
    assert!(
        said.contains("names stead://prod/node/eu-west/a, but this is stead://prod/node/us-east/a"),
        "{said}"
    );
    let other = Fixture::new();
    let wrong_ca = TlsFiles {
        ca: other.certificates.authority().certificate,
        ..files.clone()
    };
    let said = refused(&wrong_ca);
    assert!(said.contains("node-a.crt is not issued by a CA of"), "{said}");
    let key = files.key.clone().unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let said = refused(&files);
    assert!(
        said.contains("0644") && said.contains("chmod 600") && said.contains("node-a.key"),
        "{said}"
    );
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let client = prod.issue("stead://prod/client/shop", from_now(LIFETIME));
    let mixed = TlsFiles {
        key: client.key,
        ..files.clone()
    };
    let said = refused(&mixed);
    assert!(said.contains("client-shop.key is not the key of"), "{said}");
    let keyless = TlsFiles { key: None, ..files };
    assert!(refused(&keyless).contains("both a certificate and its key"));
}

#[tokio::test]
async fn new_files_are_used_and_bad_ones_are_not() {
    let prod = Fixture::new();
    let (eu, us) = (prod.node("eu-west", "a"), prod.node("us-east", "b"));
    let serial = || eu.own().unwrap().serial;
    let first = serial();
    assert!(matches!(eu.reload(), Reload::Unchanged));
    prod.certificates.renew(SystemTime::now()).unwrap();
    assert!(matches!(eu.reload(), Reload::Loaded));
    assert_ne!(serial(), first);
    // Invariant 1: a bad file is reported once, on the second look, and what works stays.
    let (second, file) = (serial(), eu.files().certificate.clone().unwrap());
    let good = fs::read(&file).unwrap();
    fs::write(&file, "no certificate").unwrap();
    assert!(matches!(eu.reload(), Reload::Unchanged), "it may be being written");
    assert!(matches!(eu.reload(), Reload::Failed(TlsError::Missing { .. })));
    assert!(matches!(eu.reload(), Reload::Unchanged), "reported once");
    assert_eq!(serial(), second);
    fs::write(&file, good).unwrap();
    assert!(matches!(eu.reload(), Reload::Unchanged));
    // Certificates of both CAs are trusted during a roll-over.
    prod.certificates.begin_roll_over(from_now(LIFETIME_CA)).unwrap();
    for credentials in [&eu, &us] {
        credentials.reload();
        assert_eq!(credentials.ca().len(), 2);
    }
    prod.certificates.renew(SystemTime::now()).unwrap();
    assert!(matches!(eu.reload(), Reload::Loaded));
    let outcome = handshake(&us, node("eu-west", "a"), &eu, Side::Peer).await;
    outcome.dialled.unwrap();
    us.reload();
    prod.certificates.end_roll_over().unwrap();
    assert!(matches!(eu.reload(), Reload::Loaded));
    let outcome = handshake(&us, node("eu-west", "a"), &eu, Side::Peer).await;
    outcome.dialled.unwrap();
    outcome.accepted.unwrap();
}

#[tokio::test]
async fn plain_text_is_dialled_only_where_it_is_allowed() {
    // Invariant 3.
    let prod = Fixture::new();
    let eu = prod.node("eu-west", "a");
    for (plain, expected) in [(PlainText::Refused, false), (PlainText::Allowed, true)] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut first = [0];
                let _ = stream.read(&mut first).await;
                let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            }
        });
        let tcp: Connect = Arc::new(|address| {
            Box::pin(async move {
                let stream = tokio::net::TcpStream::connect(address).await?;
                Ok(Box::pin(stream) as Pin<Box<dyn Io>>)
            })
        });
        let connect = dial(tcp, eu.clone(), Arc::new(|_| node("eu-west", "a")), plain);
        let dialled = connect(address).await;
        assert_eq!(dialled.is_ok(), expected, "{plain:?}");
        if let Err(error) = dialled {
            assert!(error.to_string().contains("does not speak TLS"), "{error}");
        }
    }
}

#[test]
fn credentials_show_no_key() {
    // Invariant 2.
    let prod = Fixture::new();
    let eu = prod.node("eu-west", "a");
    let key = fs::read_to_string(eu.files().key.as_ref().unwrap()).unwrap();
    let secret = key.lines().nth(1).unwrap();
    let shown = format!("{eu:?} {:?}", eu.files());
    assert!(shown.contains("node-a.key"), "{shown}");
    assert!(!shown.contains(secret) && !shown.contains("PRIVATE KEY"), "{shown}");
    let broken = eu.files().certificate.clone().unwrap();
    fs::write(broken, &key).unwrap();
    let error = load(eu.files(), None).err().unwrap();
    let said = format!("{error} {error:?}");
    assert!(!said.contains(secret), "{said}");
}
