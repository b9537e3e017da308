//! Control of a running cluster, over a socket in its folder: one line of JSON each way.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::json;
use stead_testing::{Cluster, Flow, cluster, process};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::Mutex,
};

use super::json::Status;
use crate::{
    exit::{Code, CommandError},
    output::{self, Output},
};

/// Folder of the cluster.
#[derive(Debug, Args)]
pub(super) struct Folder {
    /// The cluster's folder
    #[arg(long, default_value = "target/dev", value_name = "FOLDER")]
    data: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct Nodes {
    /// Nodes and regions, such as eu-west-1 or eu-west
    #[arg(required = true)]
    names: Vec<String>,
    #[command(flatten)]
    folder: Folder,
}

#[derive(Debug, Args)]
pub(super) struct Cut {
    /// Two regions, or one that loses all others
    #[arg(required = true, num_args = 1..=2)]
    regions: Vec<String>,
    #[command(flatten)]
    folder: Folder,
}

#[derive(Debug, Args)]
pub(super) struct Heal {
    /// Two regions, or one; else all
    #[arg(num_args = 0..=2)]
    regions: Vec<String>,
    #[command(flatten)]
    folder: Folder,
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
    #[command(flatten)]
    folder: Folder,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ControlRequest {
    pub(super) verb: String,
    pub(super) names: Vec<String>,
    pub(super) round_trip: Option<Duration>,
    /// Whether the status is to be JSON.
    #[serde(default)]
    pub(super) json: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct ControlResponse {
    text: String,
    /// Absent: it was done.
    refused: Option<ControlError>,
}

/// Reason why a request failed.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum ControlError {
    /// The request is invalid.
    Usage,
    /// The request could not be executed.
    Failed,
}

impl Folder {
    pub(super) async fn status(self, output: Output) -> Result<(), CommandError> {
        ask(&self.data, ControlRequest::new("status", Vec::new()), output).await
    }
}

impl Nodes {
    pub(super) async fn ask(self, verb: &str, output: Output) -> Result<(), CommandError> {
        ask(&self.folder.data, ControlRequest::new(verb, self.names), output).await
    }
}

impl Cut {
    pub(super) async fn ask(self, output: Output) -> Result<(), CommandError> {
        ask(&self.folder.data, ControlRequest::new("cut", self.regions), output).await
    }
}

impl Heal {
    pub(super) async fn ask(self, output: Output) -> Result<(), CommandError> {
        ask(&self.folder.data, ControlRequest::new("heal", self.regions), output).await
    }
}

impl Delay {
    pub(super) async fn ask(self, output: Output) -> Result<(), CommandError> {
        let request = ControlRequest {
            round_trip: Some(self.round_trip),
            ..ControlRequest::new("delay", vec![self.from, self.to])
        };
        ask(&self.folder.data, request, output).await
    }
}

impl ControlRequest {
    fn new(verb: &str, names: Vec<String>) -> Self {
        Self {
            verb: verb.to_owned(),
            names,
            round_trip: None,
            json: false,
        }
    }
}

pub(super) fn socket(data: &Path) -> PathBuf {
    data.join("control.sock")
}

async fn ask(data: &Path, mut request: ControlRequest, output: Output) -> Result<(), CommandError> {
    request.json = output == Output::Json;
    let nobody = |error| {
        CommandError::new(
            Code::Connect,
            format!("no cluster is up in {}: {error}", data.display()),
        )
        .hint("`stead dev` starts one; --data names its folder")
    };
    let mut stream = UnixStream::connect(socket(data)).await.map_err(nobody)?;
    let is_status = request.verb == "status";
    let request = serde_json::to_string(&request).map_err(anyhow::Error::from)?;
    stream.write_all(format!("{request}\n").as_bytes()).await?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).await?;
    let answer: ControlResponse = serde_json::from_str(&line).map_err(anyhow::Error::from)?;
    let code = match answer.refused {
        None if output == Output::Json && !is_status => return output::json(&json!({ "ok": answer.text })),
        None => return output::line(&answer.text),
        Some(ControlError::Usage) => Code::Usage,
        Some(ControlError::Failed) => Code::Failed,
    };
    Err(CommandError::new(code, answer.text))
}

/// Listens for requests.
pub(super) fn listen(data: &Path) -> std::io::Result<UnixListener> {
    let path = socket(data);
    // The cluster's lock is held: a socket here was left by a run that has ended.
    let _ = fs::remove_file(&path);
    UnixListener::bind(&path)
}

/// Serves requests until dropped.
pub(super) async fn serve(
    listener: UnixListener,
    cluster: Arc<Mutex<Cluster>>,
    data: PathBuf,
) -> Result<(), CommandError> {
    loop {
        let (stream, _) = listener.accept().await?;
        // Requests come from one person: one after the other. A client that leaves early only misses the response.
        let _ = take(stream, &cluster, &data).await;
    }
}

async fn take(stream: UnixStream, cluster: &Mutex<Cluster>, data: &Path) -> Result<(), CommandError> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let request: ControlRequest = serde_json::from_str(&line).map_err(anyhow::Error::from)?;
    let mut cluster = cluster.lock().await;
    let executed = if request.verb == "status" && request.json {
        Ok(serde_json::to_string(&Status::of(&mut cluster, data)).map_err(anyhow::Error::from)?)
    } else {
        execute(&mut cluster, &request).await
    };
    let answer = match executed {
        Ok(text) => ControlResponse { text, refused: None },
        Err(failure) => ControlResponse {
            text: failure.text().to_owned(),
            refused: Some(if failure.code() == Code::Usage {
                ControlError::Usage
            } else {
                ControlError::Failed
            }),
        },
    };
    let answer = serde_json::to_string(&answer).map_err(anyhow::Error::from)?;
    stream.get_mut().write_all(format!("{answer}\n").as_bytes()).await?;
    Ok(())
}

/// Executes a request and returns a description of the result.
pub(super) async fn execute(cluster: &mut Cluster, request: &ControlRequest) -> Result<String, CommandError> {
    match request.verb.as_str() {
        "status" => Ok(status(cluster)),
        "cut" | "heal" => links(cluster, request),
        "delay" => match (request.names.as_slice(), request.round_trip) {
            ([from, to], Some(round_trip)) => {
                cluster.link(from, to).map_err(refused)?.set_round_trip(round_trip);
                Ok(format!("{from} - {to}: {}", output::duration(round_trip)))
            }
            _ => Err(usage("delay: name two regions and the round trip between them")),
        },
        _ => nodes(cluster, request).await,
    }
}

/// Kills, starts, freezes or continues nodes. Nodes that are in that state already are left out, and named.
async fn nodes(cluster: &mut Cluster, request: &ControlRequest) -> Result<String, CommandError> {
    let verb = request.verb.as_str();
    if request.names.is_empty() {
        return Err(usage(format!("{verb}: name a node or a region")));
    }
    let mut named = Vec::new();
    for name in &request.names {
        named.extend(cluster.named(name).map_err(refused)?);
    }
    let (mut done, mut left_out) = (Vec::new(), Vec::new());
    for node in named {
        let outcome = match verb {
            "kill" => cluster.kill_node(&node).await,
            "start" => cluster.start_node(&node),
            "stop" => cluster.freeze_node(&node),
            "cont" => cluster.thaw_node(&node),
            other => return Err(usage(format!("there is no command {other}"))),
        };
        match outcome {
            Ok(()) => done.push(node),
            Err(why @ (cluster::Error::Running(_) | cluster::Error::NotRunning(_))) => left_out.push(why.to_string()),
            Err(error) => return Err(refused(error)),
        }
    }
    if done.is_empty() {
        return Err(CommandError::new(Code::Failed, left_out.join(", ")));
    }
    let done = format!("{verb}: {}", done.join(", "));
    Ok(if left_out.is_empty() {
        done
    } else {
        format!("{done}; {}", left_out.join(", "))
    })
}

fn usage(what: impl Into<String>) -> CommandError {
    CommandError::new(Code::Usage, what)
}

fn refused(error: cluster::Error) -> CommandError {
    if matches!(error, cluster::Error::Unknown(_)) {
        return usage(error.to_string());
    }
    anyhow::Error::from(error).into()
}

/// Cuts or heals the links between two regions, of one region, or all.
fn links(cluster: &Cluster, request: &ControlRequest) -> Result<String, CommandError> {
    let verb = request.verb.as_str();
    check_names(verb, &request.names)?;
    let is_named = |from: &str, to: &str| request.names.iter().all(|name| name == from || name == to);
    let named: Vec<_> = cluster.links().filter(|(from, to, _)| is_named(from, to)).collect();
    if named.is_empty() {
        let names = request.names.join(" and ");
        return Err(usage(format!(
            "{verb}: there is no link of {names}: name one or two regions"
        )));
    }
    let mut done = Vec::new();
    for (from, to, link) in named {
        if verb == "cut" {
            link.cut()
        } else {
            link.heal()
        }
        done.push(format!("{from} - {to}"));
    }
    Ok(format!("{verb}: {}", done.join(", ")))
}

/// Rejects names that select no link, or more than one pair.
fn check_names(verb: &str, names: &[String]) -> Result<(), CommandError> {
    match names {
        [] if verb == "cut" => Err(usage("cut: name one or two regions")),
        [one, other] if one == other => Err(usage(format!("{verb}: {one} has no link to itself"))),
        [] | [_] | [_, _] => Ok(()),
        _ => Err(usage(format!("{verb}: name two regions at most"))),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_names_are_one_or_two_distinct_regions() {
        let names = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        for (verb, right) in [("cut", "a"), ("cut", "a b"), ("heal", "")] {
            assert!(check_names(verb, &names(right)).is_ok(), "{verb} {right}");
        }
        for (verb, wrong) in [("cut", ""), ("cut", "a a"), ("heal", "a a"), ("cut", "a b c")] {
            let refused = check_names(verb, &names(wrong)).unwrap_err();
            assert_eq!(refused.code(), Code::Usage, "{verb} {wrong}");
        }
    }
}
