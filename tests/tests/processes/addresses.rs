//! Wrong endpoints: the error says what listens there. And a listener survives other protocols than its own.

use std::time::{Duration, Instant};

use stead_client::{Client, Config};
use stead_tests::process::World;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Starts a server that sends these bytes on each connection and closes it; returns its address.
async fn serve_bytes(says: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut asked = [0; 64];
            let _ = stream.read(&mut asked).await;
            let _ = stream.write_all(says).await;
        }
    });
    address
}

#[tokio::test]
async fn wrong_endpoint_error_names_what_listens_there() {
    let world = World::start(1).await;
    let node = world.first().clone();
    let tls = serve_bytes(b"\x15\x03\x01\0\x02\x02\x46").await;
    let http = serve_bytes(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    let ssh = serve_bytes(b"SSH-2.0-OpenSSH_9.2\r\n").await;
    let https = format!("https://{}", node.client);
    let cases: [(&str, i32, &[&str]); 8] = [
        (
            &https,
            2,
            &["endpoints", "asks for TLS", "name the file of the cluster's CA"],
        ),
        ("node", 2, &["endpoints", "is no host:port"]),
        (&tls, 3, &["speaks TLS", "name the file of the cluster's CA"]),
        (&http, 3, &["speaks HTTP/1, not gRPC", "name its client port"]),
        (&ssh, 3, &["speaks something else than gRPC", "client port"]),
        (&node.http, 2, &["is no node's client port", "name its client port"]),
        (&node.peer, 2, &["is no node's client port", "name its client port"]),
        (
            "127.0.0.1:1",
            3,
            &["cannot reach 127.0.0.1:1", "check that the node is running"],
        ),
    ];
    for (address, code, words) in cases {
        let asked = Instant::now();
        let ran = world.stead(["tenant", "list", "--endpoint", address]).await;
        assert_eq!(ran.code, Some(code), "{address}: {ran:?}");
        for words in words {
            assert!(ran.stderr.contains(words), "{words} is not in: {}", ran.stderr);
        }
        assert!(
            asked.elapsed() < Duration::from_secs(10),
            "{address} keeps people waiting"
        );

        let mut config = Config::new([address]);
        config.connect_timeout = Duration::from_secs(1);
        let error = Client::connect(config).await.unwrap_err();
        assert!(error.message.contains(words[0]), "{}", error.message);
    }
}

#[tokio::test]
async fn listener_survives_invalid_protocol() {
    let world = World::start(1).await;
    let node = world.first().clone();
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    for address in [&node.client, &node.peer, &node.http] {
        for says in [
            &hello[..],
            b"SSH-2.0-OpenSSH_9.2\r\n",
            b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\r\n\r\n",
        ] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(says).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut answer = Vec::new();
            let ended = stream.read_to_end(&mut answer);
            // It may close the connection in the middle of the input.
            let _ = tokio::time::timeout(Duration::from_secs(30), ended).await.unwrap();
        }
    }
    let ran = world.stead(["tenant", "list"]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
}
