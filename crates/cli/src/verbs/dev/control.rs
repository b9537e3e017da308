//! Orders to a cluster that is up, over a socket in its folder: one line of JSON each way.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use clap::Args;
use serde::{Deserialize, Serialize};
use stead_testing::{Cluster, Flow, cluster, process};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::Mutex,
};

use crate::{
    exit::{Code, Failure},
    output,
};

#[derive(Debug, Args)]
pub(super) struct Names {
    /// Nodes and regions, such as eu-west-1 or eu-west
    names: Vec<String>,
    /// The cluster's folder
    #[arg(long, default_value = "target/dev", value_name = "FOLDER")]
    data: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct Delay {
    /// One region
    from: String,
    /// The other region
    to: String,
    /// The round trip, such as 150ms
    #[arg(value_parser = humantime::parse_duration)]
    round_trip: Duration,
    /// The cluster's folder
    #[arg(long, default_value = "target/dev", value_name = "FOLDER")]
    data: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) verb: String,
    pub(super) names: Vec<String>,
    pub(super) round_trip: Option<Duration>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    done: bool,
    text: String,
}

impl Names {
    pub(super) async fn ask(self, verb: &str) -> Result<(), Failure> {
        ask(
            &self.data,
            &Order {
                verb: verb.into(),
                names: self.names,
                round_trip: None,
            },
        )
        .await
    }
}

impl Delay {
    pub(super) async fn ask(self) -> Result<(), Failure> {
        let names = vec![self.from, self.to];
        ask(
            &self.data,
            &Order {
                verb: "delay".into(),
                names,
                round_trip: Some(self.round_trip),
            },
        )
        .await
    }
}

pub(super) fn socket(data: &std::path::Path) -> PathBuf {
    data.join("control.sock")
}

async fn ask(data: &std::path::Path, order: &Order) -> Result<(), Failure> {
    let nobody = |error| {
        Failure::new(
            Code::Connect,
            format!("no cluster is up in {}: {error}", data.display()),
        )
        .hint("`stead dev` starts one; --data names its folder")
    };
    let mut stream = UnixStream::connect(socket(data)).await.map_err(nobody)?;
    let order = serde_json::to_string(order).map_err(anyhow::Error::from)?;
    stream.write_all(format!("{order}\n").as_bytes()).await?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).await?;
    let answer: Answer = serde_json::from_str(&line).map_err(anyhow::Error::from)?;
    if answer.done {
        output::line(&answer.text)
    } else {
        Err(Failure::new(Code::Failed, answer.text))
    }
}

/// Listens for orders.
pub(super) fn listen(data: &std::path::Path) -> std::io::Result<UnixListener> {
    let path = socket(data);
    // The cluster's lock is held: what is left here is of a run that has ended.
    let _ = fs::remove_file(&path);
    UnixListener::bind(&path)
}

/// Takes orders until dropped.
pub(super) async fn serve(listener: UnixListener, cluster: Arc<Mutex<Cluster>>) -> Result<(), Failure> {
    loop {
        let (stream, _) = listener.accept().await?;
        // Orders come from one person: one after the other. Whoever leaves early misses the answer only.
        let _ = take(stream, &cluster).await;
    }
}

async fn take(stream: UnixStream, cluster: &Mutex<Cluster>) -> Result<(), Failure> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let order: Order = serde_json::from_str(&line).map_err(anyhow::Error::from)?;
    let mut cluster = cluster.lock().await;
    let answer = match carry_out(&mut cluster, &order).await {
        Ok(text) => Answer { done: true, text },
        Err(error) => Answer {
            done: false,
            text: error.to_string(),
        },
    };
    let answer = serde_json::to_string(&answer).map_err(anyhow::Error::from)?;
    stream.get_mut().write_all(format!("{answer}\n").as_bytes()).await?;
    Ok(())
}

/// Does what is asked for and says what was done.
pub(super) async fn carry_out(cluster: &mut Cluster, order: &Order) -> Result<String, cluster::Error> {
    match order.verb.as_str() {
        "status" => return Ok(status(cluster)),
        "cut" | "heal" => return links(cluster, order),
        "delay" => {
            if let ([from, to], Some(round_trip)) = (order.names.as_slice(), order.round_trip) {
                cluster.link(from, to)?.set_round_trip(round_trip);
                return Ok(format!("{from} - {to}: {}", output::duration(round_trip)));
            }
        }
        verb => {
            let mut done = Vec::new();
            for name in &order.names {
                for node in cluster.named(name)? {
                    match verb {
                        "kill" => cluster.kill_node(&node).await?,
                        "start" => cluster.start_node(&node)?,
                        "stop" => cluster.stop_node(&node)?,
                        "cont" => cluster.cont_node(&node)?,
                        other => return Err(cluster::Error::Unknown(format!("order {other}"))),
                    }
                    done.push(node);
                }
            }
            if !done.is_empty() {
                return Ok(format!("{verb}: {}", done.join(", ")));
            }
        }
    }
    Err(cluster::Error::Unknown(format!(
        "name after {}: name a node or a region",
        order.verb
    )))
}

/// Cuts or heals the links between two regions, of one region, or all.
fn links(cluster: &Cluster, order: &Order) -> Result<String, cluster::Error> {
    let meant = |from: &str, to: &str| order.names.iter().all(|name| name == from || name == to);
    let named: Vec<_> = cluster.links().filter(|(from, to, _)| meant(from, to)).collect();
    if named.is_empty() || (order.names.is_empty() && order.verb == "cut") {
        return Err(cluster::Error::Unknown(format!(
            "link {}: name one or two regions",
            order.names.join(" - ")
        )));
    }
    let mut done = Vec::new();
    for (from, to, link) in named {
        if order.verb == "cut" {
            link.cut()
        } else {
            link.heal()
        }
        done.push(format!("{from} - {to}"));
    }
    Ok(format!("{}: {}", order.verb, done.join(", ")))
}

fn status(cluster: &mut Cluster) -> String {
    let mut lines = vec![format!(
        "{:<12}{:<10}{:<8}{:<17}{:<17}{:>8}  ENGINE",
        "NODE", "REGION", "PID", "CLIENT", "HTTP", "MEMORY"
    )];
    for node in cluster.nodes().to_vec() {
        let process = cluster.process(&node.name);
        let memory = process
            .and_then(|process| process::usage(process).ok())
            .map(|usage| output::size(usage.resident));
        let process = process.map_or_else(|| "-".into(), |process| process.to_string());
        let memory = memory.unwrap_or_else(|| "-".into());
        let addresses = format!("{:<17}{:<17}", node.client, node.http);
        lines.push(format!(
            "{:<12}{:<10}{process:<8}{addresses}{memory:>8}  {}",
            node.name, node.region, node.engine
        ));
    }
    lines.push(String::new());
    lines.push(format!(
        "{:<24}{:<12}{:<9}{:>12}",
        "LINK", "ROUND TRIP", "FLOW", "BYTES"
    ));
    for (from, to, link) in cluster.links() {
        let flow = match link.there.shape().flow {
            Flow::Open => "open",
            Flow::Held => "cut",
            Flow::Refused => "refused",
        };
        let (pair, bytes) = (
            format!("{from} - {to}"),
            output::size(link.there.bytes() + link.back.bytes()),
        );
        lines.push(format!(
            "{pair:<24}{:<12}{flow:<9}{bytes:>12}",
            output::duration(link.round_trip())
        ));
    }
    lines.join("\n")
}
