#!/bin/sh
# Needs cargo and a C compiler; exits 77 without them.
#
# tonic 0.14.9: deadlines and concurrency limits end when the response's headers come, so streams have neither.
#
# Source: the documentation of Request::set_timeout ("set the max duration the request is allowed to take"),
#   Server::timeout ("set a timeout on for all request handlers"), Endpoint::timeout ("apply a timeout to each
#   request"), Server::concurrency_limit_per_connection ("the concurrency limit applied to on requests inbound per
#   connection") and Server::load_shed.
# One would guess: as in the gRPC of other languages, where a deadline ends a stream: with a timeout of one second set
#   in all three places, a server-streaming call ends within a second with DEADLINE_EXCEEDED or CANCELLED, and a limit
#   of one request bounds the open streams to one.
# What is so: all of them wrap the future that gives the response, which for a stream is ready with its headers. The
#   stream itself lives for ever, on both sides. A slot of the limit is free again as soon as a stream has begun.
# Output, of the Watch of the standard health service, on a paused clock:
#   | three timeouts of 1 s; the first message comes after 0 s
#   | a message that is sent an hour later arrives: Ok
#   | with a limit of 1 and load shedding, streams that opened and stay open: 10 of 10
# Why it matters: a server that counts on deadlines to end calls of vanished or careless clients, or on the limit to
#   bound memory, has no bound for streams; and a client in another language, talking to the same server, does end its
#   stream at the deadline, so that tests with one client say nothing about the other. Bound the stream inside the
#   handler.

set -eu
expected=$(sed -n 's/^#   | //p' "$0")
for tool in cargo cc; do
    command -v $tool >/dev/null || { echo "skipped: there is no $tool"; exit 77; }
done
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap 'exit 1' INT TERM
cd "$folder"
mkdir src

cat >Cargo.toml <<'TOML'
[package]
name = "tonic-deadline-ends-at-headers"
edition = "2024"

[dependencies]
hyper-util = { version = "=0.1.21", features = ["tokio"] }
tokio = { version = "=1.54.1", features = ["full", "test-util"] }
tokio-stream = { version = "=0.1.19", features = ["net"] }
tonic = { version = "=0.14.9", default-features = false, features = ["transport", "codegen", "router"] }
tonic-health = "=0.14.9"
tower = { version = "=0.5.3", features = ["util"] }
TOML

cat >src/main.rs <<'RUST'
use std::future::ready;
use std::io;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout};
use tonic::Request;
use tonic::transport::{Channel, Endpoint, Server};
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::server::{HealthReporter, health_reporter};

const SECOND: Duration = Duration::from_secs(1);

/// Starts a server, and a client that is connected to it in memory.
async fn connect(server: Server) -> (HealthReporter, HealthClient<Channel>) {
    let mut server = server;
    let (reporter, service) = health_reporter();
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let connections = tokio_stream::once(Ok::<_, io::Error>(theirs));
    tokio::spawn(server.add_service(service).serve_with_incoming(connections));
    let mut ours = Some(ours);
    let connector = tower::service_fn(move |_| {
        ready(ours.take().map(TokioIo::new).ok_or_else(|| io::Error::other("there is one connection only")))
    });
    let endpoint = Endpoint::from_static("http://in.memory").timeout(SECOND);
    let channel = endpoint.connect_with_connector(connector).await.expect("a connection");
    (reporter, HealthClient::new(channel))
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() {
    let (reporter, mut client) = connect(Server::builder().timeout(SECOND)).await;
    let mut request = Request::new(HealthCheckRequest::default());
    request.set_timeout(SECOND);
    let start = Instant::now();
    let mut stream = client.watch(request).await.expect("a stream").into_inner();
    stream.message().await.expect("no failure").expect("a message");
    println!("three timeouts of 1 s; the first message comes after {} s", start.elapsed().as_secs());
    tokio::time::sleep(Duration::from_secs(3600)).await;
    reporter.set_service_status("", ServingStatus::NotServing).await;
    let later = match timeout(60 * SECOND, stream.message()).await {
        Ok(Ok(Some(_))) => "Ok".into(),
        other => format!("{other:?}"),
    };
    println!("a message that is sent an hour later arrives: {later}");

    let server = Server::builder().concurrency_limit_per_connection(1).load_shed(true);
    let (_reporter, mut client) = connect(server).await;
    let mut streams = Vec::new();
    for _ in 0..10 {
        if let Ok(response) = client.watch(HealthCheckRequest::default()).await {
            let mut stream = response.into_inner();
            stream.message().await.expect("no failure").expect("a message");
            streams.push(stream);
        }
    }
    let mut open = 0;
    for stream in &mut streams {
        open += usize::from(timeout(60 * SECOND, stream.message()).await.is_err()); // waits for a change of the status
    }
    println!("with a limit of 1 and load shedding, streams that opened and stay open: {open} of 10");
}
RUST

actual=$(CARGO_TARGET_DIR="${FINDINGS_TARGET:-$folder/target}" cargo run --quiet)
printf '%s\n' "$actual"
if [ "$actual" != "$expected" ]; then
    printf 'CHANGED: this was expected:\n%s\n' "$expected"
    exit 1
fi
