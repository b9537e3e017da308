//! Readiness of a node, by its HTTP endpoint.

use std::{fs, path::Path, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use super::{Error, layout::Node, node_process::NodeProcess};

const POLL_INTERVAL: Duration = Duration::from_millis(50);
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);
const LOG_LINES: usize = 12;
const RESPONSE_LEN_MAX: u64 = 64 << 10;

impl Node {
    /// Tells whether the node can serve.
    pub async fn is_ready(&self) -> bool {
        let answer = timeout(RESPONSE_TIMEOUT, get(&self.http, "/readyz")).await;
        matches!(answer, Ok(Ok((200, _))))
    }

    /// Returns the node's metrics in Prometheus format.
    ///
    /// # Errors
    ///
    /// It does not respond, or not in time.
    pub async fn metrics(&self) -> std::io::Result<String> {
        let (_, text) = timeout(RESPONSE_TIMEOUT, get(&self.http, "/metrics")).await??;
        Ok(text)
    }
}

/// Polls a node until it is ready.
pub(super) async fn wait(node: &Node, running: &mut NodeProcess, log: &Path, deadline: Instant) -> Result<(), Error> {
    loop {
        let answer = match timeout(RESPONSE_TIMEOUT, get(&node.http, "/readyz?verbose")).await {
            Ok(Ok((200, _))) => return Ok(()),
            Ok(Ok((status, body))) => format!("it answers {status}: {}", body.trim()),
            Ok(Err(error)) => format!("it does not answer: {error}"),
            Err(_) => "it does not answer in time".to_owned(),
        };
        let node = node.name.clone();
        if let Some(status) = running.status() {
            let log = tail(log);
            return Err(Error::Ended { node, status, log });
        }
        if deadline <= Instant::now() {
            let log = tail(log);
            return Err(Error::NotReady { node, answer, log });
        }
        sleep(POLL_INTERVAL).await;
    }
}

/// Gets a path over HTTP; returns status and body.
async fn get(address: &str, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(RESPONSE_LEN_MAX).read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((status.unwrap_or(0), body.to_owned()))
}

fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}
