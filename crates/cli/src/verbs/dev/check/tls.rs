//! Step: everything is encrypted, plain text is refused with an answer, and an operator's certificate opens no peer port.

use std::time::Duration;

use anyhow::{Context, ensure};
use stead_client::{Client, Config, Connect, dial};
use stead_testing::cluster::Node;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::verdict::Verdict;
use crate::verbs::dev::{plan::REGIONS, world::World};

/// Beginning of HTTP/2, which a plain client sends.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// First byte of a TLS alert.
const ALERT: u8 = 0x15;
const ANSWER_MAX: Duration = Duration::from_secs(5);

pub(super) async fn run(world: &mut World) -> anyhow::Result<Verdict> {
    for (region, _) in REGIONS {
        let tenant = world.tenant(&format!("check-{region}"), region, region).await?;
        tenant.put(format!("tls/{}", world.run), "v").await?;
    }
    let (nodes, is_encrypted) = {
        let cluster = world.cluster.lock().await;
        (cluster.nodes().to_vec(), cluster.tls().is_some())
    };
    ensure!(is_encrypted, "this cluster speaks plain text: run it without --plain");
    let (mut plain, mut encrypted, mut unanswered, mut let_in) = (0.0, 0.0, 0, 0);
    for node in &nodes {
        let metrics = node.metrics().await?;
        plain += connections(&metrics, "plain");
        encrypted += connections(&metrics, "tls");
        for address in [&node.client, &node.peer] {
            unanswered += usize::from(!is_answered_with_alert(address).await?);
        }
        let_in += usize::from(is_let_in(&world.connector(&node.region)?, node).await);
    }
    let refused = refusal_of_plain_client(&nodes).await?;
    ensure!(refused.contains("speaks TLS"), "a plain client is told: {refused}");
    ensure!(encrypted > 0.0, "no connection is encrypted");
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
    let plain = plain as usize;
    Ok(Verdict::default()
        .none("connections in plain text", plain)
        .none("ports that do not refuse plain text with an alert", unanswered)
        .none("peer ports open to an operator", let_in)
        .note(format!("{encrypted} connections encrypted at {} nodes", nodes.len())))
}

/// Returns the open connections of clients and nodes with this transport.
fn connections(metrics: &str, transport: &str) -> f64 {
    let is_counted = |line: &&str| {
        line.starts_with("stead_connections{")
            && line.contains(&format!("transport=\"{transport}\""))
            && !line.contains("listener=\"http\"")
    };
    let counted = metrics.lines().filter(is_counted);
    counted
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

async fn is_answered_with_alert(address: &str) -> anyhow::Result<bool> {
    let mut stream = dial_plain(address).await?;
    stream.write_all(PREFACE).await?;
    let mut answer = [0; 7];
    let read = timeout(ANSWER_MAX, stream.read(&mut answer))
        .await
        .context("no answer to plain text")?;
    Ok(matches!(read, Ok(1..)) && answer[0] == ALERT)
}

async fn dial_plain(address: &str) -> anyhow::Result<std::pin::Pin<Box<dyn stead_client::Io>>> {
    let connect = dial(std::collections::BTreeMap::new());
    connect(address.to_owned()).await.context("cannot connect")
}

/// Tells whether a node's peer port takes a request over a connection with an operator's certificate.
async fn is_let_in(connect: &Connect, node: &Node) -> bool {
    let asked = async {
        let mut stream = connect(node.peer.clone()).await?;
        stream.write_all(PREFACE).await?;
        stream.flush().await?;
        stream.read_u8().await
    };
    matches!(timeout(ANSWER_MAX, asked).await, Ok(Ok(_)) | Err(_))
}

/// Returns what a client without a CA is told.
async fn refusal_of_plain_client(nodes: &[Node]) -> anyhow::Result<String> {
    let first = nodes.first().context("there are no nodes")?;
    match Client::connect(Config::new([first.client.clone()])).await {
        Ok(_) => Ok("it is let in".into()),
        Err(error) => Ok(error.message),
    }
}
