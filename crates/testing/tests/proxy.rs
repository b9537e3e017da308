//! Tests of links: their effect on bytes, measured from outside.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use stead_testing::{Link, Proxy};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

const LONG: Duration = Duration::from_secs(20);

/// Starts an echo server.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await
            });
        }
    });
    address
}

async fn through(link: &Link) -> (Proxy, TcpStream) {
    let target = echo().await.to_string();
    let proxy = Proxy::start("127.0.0.1:0".parse().unwrap(), target, link.clone())
        .await
        .unwrap();
    let stream = TcpStream::connect(proxy.address()).await.unwrap();
    stream.set_nodelay(true).unwrap();
    (proxy, stream)
}

async fn round_trip(stream: &mut TcpStream) -> Duration {
    let sent = Instant::now();
    stream.write_all(&[7; 64]).await.unwrap();
    stream.read_exact(&mut [0; 64]).await.unwrap();
    sent.elapsed()
}

#[tokio::test]
async fn message_and_response_take_the_round_trip() {
    let asked = Duration::from_millis(80);
    let link = Link::new(asked);
    let (_proxy, mut stream) = through(&link).await;
    let first = round_trip(&mut stream).await;
    assert!(first >= asked * 2, "the first one pays the handshake: {first:?}");
    let mut taken = Vec::new();
    for _ in 0..15 {
        taken.push(round_trip(&mut stream).await);
    }
    taken.sort();
    assert!(taken[0] >= asked, "fastest {:?}", taken[0]);
    assert!(taken[7] < asked + Duration::from_millis(20), "median {:?}", taken[7]);
    assert_eq!(link.there.bytes(), 16 * 64);
    assert_eq!(link.back.bytes(), 16 * 64);
}

#[tokio::test]
async fn cut_holds_bytes_until_heal() {
    let link = Link::new(Duration::from_millis(2));
    let (_proxy, mut stream) = through(&link).await;
    round_trip(&mut stream).await;
    link.cut();
    stream.write_all(b"held").await.unwrap();
    let mut answer = [0; 4];
    let during = timeout(Duration::from_millis(150), stream.read_exact(&mut answer)).await;
    assert!(during.is_err(), "nothing passes a cut");
    link.heal();
    timeout(LONG, stream.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"held");
}

#[tokio::test]
async fn refusing_link_closes_connections_until_heal() {
    let link = Link::new(Duration::ZERO);
    let (proxy, mut stream) = through(&link).await;
    round_trip(&mut stream).await;
    link.refuse();
    let read = timeout(LONG, stream.read(&mut [0; 1])).await.unwrap();
    assert!(matches!(read, Ok(0) | Err(_)), "closed");
    let mut again = TcpStream::connect(proxy.address()).await.unwrap();
    let read = timeout(LONG, again.read(&mut [0; 1])).await.unwrap();
    assert!(matches!(read, Ok(0) | Err(_)), "closed at once");
    link.heal();
    round_trip(&mut TcpStream::connect(proxy.address()).await.unwrap()).await;
}

#[tokio::test]
async fn shorter_delay_keeps_byte_order() {
    let link = Link::new(Duration::from_millis(200));
    let (_proxy, mut stream) = through(&link).await;
    let sent: Vec<u8> = (0..100).collect();
    for byte in &sent {
        stream.write_all(&[*byte]).await.unwrap();
        if *byte == 50 {
            // Lets the proxy read what was sent under the long delay.
            while link.there.bytes() == 0 {
                tokio::task::yield_now().await;
            }
            link.set_round_trip(Duration::ZERO);
        }
    }
    let mut arrived = vec![0; sent.len()];
    timeout(LONG, stream.read_exact(&mut arrived)).await.unwrap().unwrap();
    assert_eq!(arrived, sent);
}

#[tokio::test]
async fn bandwidth_limit_is_shared_by_connections() {
    let link = Link::new(Duration::ZERO);
    link.there.set(|shape| shape.bytes_per_second = Some(2_000_000));
    let (proxy, first) = through(&link).await;
    let second = TcpStream::connect(proxy.address()).await.unwrap();
    let started = Instant::now();
    let send = |mut stream: TcpStream| async move {
        let (mut read, mut write) = stream.split();
        let bytes = vec![1; 500_000];
        let mut back = vec![0; bytes.len()];
        let (sent, received) = tokio::join!(write.write_all(&bytes), read.read_exact(&mut back));
        sent.unwrap();
        received.unwrap();
    };
    tokio::join!(send(first), send(second));
    let taken = started.elapsed();
    assert!(taken >= Duration::from_millis(450), "{taken:?}");
    assert!(taken < Duration::from_secs(3), "{taken:?}");
}
