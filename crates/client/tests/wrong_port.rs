//! Error messages of a client whose endpoint is wrong.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use stead_client::{Client, Config, ErrorKind};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

/// Connects to a port that answers everything with these bytes and closes; returns the error.
async fn refusal(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 1024]).await;
                let _ = stream.write_all(answer).await;
            });
        }
    });
    refused(&address).await
}

async fn refused(endpoint: &str) -> String {
    let mut config = Config::new([endpoint]);
    config.timeout = Duration::from_millis(500);
    Client::connect(config).await.unwrap_err().message
}

#[tokio::test]
async fn tls_port_is_diagnosed() {
    let message = refusal(b"\x15\x03\x03\0\x02\x02\x46").await;
    assert!(message.contains("speaks TLS"), "{message}");
}

#[tokio::test]
async fn http_and_other_ports_are_diagnosed() {
    let message = refusal(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    assert!(message.contains("speaks HTTP/1"), "{message}");
    let message = refusal(b"SSH-2.0-OpenSSH_9.2\r\n").await;
    assert!(message.contains("something else than gRPC"), "{message}");
}

#[tokio::test]
async fn https_endpoint_and_closed_port_are_diagnosed() {
    let message = refused("https://127.0.0.1:7401").await;
    assert!(message.contains("asks for TLS"), "{message}");
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let message = refused(&closed.to_string()).await;
    assert!(
        message.contains("cannot reach") && message.contains("refused"),
        "{message}"
    );
}

#[tokio::test]
async fn invalid_tenant_name_is_rejected_locally() {
    let client = Client::lazy(Config::new(["127.0.0.1:1"])).unwrap();
    for name in ["Acme", "", &"a".repeat(65)] {
        let error = client.tenant(name).unwrap_err();
        assert!(matches!(error.kind, ErrorKind::Invalid { .. }), "{error}");
    }
}
