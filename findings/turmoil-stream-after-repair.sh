#!/bin/sh
# Needs cargo and a C compiler; exits 77 without them.
#
# turmoil 0.7.2: a TCP stream over which one message was lost never carries anything again, and never fails.
#
# Source: the documentation of turmoil::partition ("resulting in all messages sent between them to be dropped"), of
#   turmoil::repair ("repair the connection between two hosts ... resulting in messages to be delivered"), and of
#   turmoil::net as the counterpart of tokio::net.
# One would guess: a short partition delays a TCP stream, as real ones do: what was sent meanwhile is sent again after
#   the repair, or the stream fails.
# What is so: segments that are sent in a partition are dropped and never sent again, while the receiver waits for
#   their number. After the repair both ends accept writes and report no error; nothing arrives, in either direction
#   where something was lost, for ever. A new connection works at once. hold and release deliver what was held.
# Output, of a client that sends one byte a time to a server that echoes it:
#   | partition: echo of the byte sent meanwhile, within 60 s of the repair: none
#   | partition: echo of a byte sent after the repair, within 60 s: none; the write itself: Ok
#   | partition: echo over a new connection: yes
#   | hold:      echo of the byte sent meanwhile, within 60 s of the release: yes
#   | hold:      echo of a byte sent after the release, within 60 s: yes; the write itself: Ok
#   | hold:      echo over a new connection: yes
# Why it matters: a simulated partition tests something else than meant: not a delay, but streams that are dead while
#   both ends think them alive. Without keepalive in virtual time (HTTP/2 pings, deadlines) a cluster "does not heal"
#   in the simulation, or heals only through code that real networks would never run. Use hold and release for a
#   network that delays; use partition for one in which every connection is lost, with something that notices.

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
name = "turmoil-stream-after-repair"
edition = "2024"

[dependencies]
tokio = { version = "=1.54.1", features = ["full", "test-util"] }
turmoil = "=0.7.2"
TOML

cat >src/main.rs <<'RUST'
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use turmoil::net::{TcpListener, TcpStream};

const LIMIT: Duration = Duration::from_secs(60);

async fn echo(stream: &mut TcpStream) -> &'static str {
    let mut byte = [0];
    match timeout(LIMIT, stream.read_exact(&mut byte)).await {
        Ok(Ok(_)) => "yes",
        Ok(Err(_)) => "an error",
        Err(_) => "none",
    }
}

fn main() -> turmoil::Result {
    for (name, end, held) in [("partition:", "repair", false), ("hold:     ", "release", true)] {
        let mut simulation = turmoil::Builder::new().simulation_duration(LIMIT * 4).build();
        simulation.host("server", || async {
            let listener = TcpListener::bind("0.0.0.0:80").await?;
            loop {
                let (mut stream, _) = listener.accept().await?;
                tokio::spawn(async move {
                    let mut byte = [0];
                    while stream.read_exact(&mut byte).await.is_ok() && stream.write_all(&byte).await.is_ok() {}
                });
            }
        });
        simulation.client("client", async move {
            let mut stream = TcpStream::connect("server:80").await?;
            stream.write_all(b"1").await?;
            assert_eq!(echo(&mut stream).await, "yes");
            match held {
                true => turmoil::hold("client", "server"),
                false => turmoil::partition("client", "server"),
            }
            stream.write_all(b"2").await?;
            tokio::time::sleep(Duration::from_secs(1)).await;
            match held {
                true => turmoil::release("client", "server"),
                false => turmoil::repair("client", "server"),
            }
            println!("{name} echo of the byte sent meanwhile, within 60 s of the {end}: {}", echo(&mut stream).await);
            let written = if stream.write_all(b"3").await.is_ok() { "Ok" } else { "an error" };
            let answer = echo(&mut stream).await;
            println!("{name} echo of a byte sent after the {end}, within 60 s: {answer}; the write itself: {written}");
            let mut stream = TcpStream::connect("server:80").await?;
            stream.write_all(b"4").await?;
            println!("{name} echo over a new connection: {}", echo(&mut stream).await);
            Ok(())
        });
        simulation.run()?;
    }
    Ok(())
}
RUST

actual=$(CARGO_TARGET_DIR="${FINDINGS_TARGET:-$folder/target}" cargo run --quiet)
printf '%s\n' "$actual"
if [ "$actual" != "$expected" ]; then
    printf 'CHANGED: this was expected:\n%s\n' "$expected"
    exit 1
fi
