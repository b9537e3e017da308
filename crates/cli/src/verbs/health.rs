//! `stead health`: asks the node of a configuration, on this machine, whether it is well. For containers, whose images have
//! nothing else that could ask.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use clap::Args;
use stead_client::{Config as ClientConfig, TlsFiles, dial};
use stead_server::config::Config;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::{
    exit::{Code, CommandError},
    output,
    verbs::serve,
};

/// Most bytes of an answer.
const ANSWER_LEN_MAX: u64 = 1 << 20;

#[derive(Debug, Args)]
pub(crate) struct HealthQuery {
    /// The node's configuration, as `stead serve` reads it; the environment stands over it
    #[arg(long, env = "STEAD_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Name of this node in cluster.initial
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Ask only whether the process responds, not whether the node can serve
    #[arg(long)]
    live: bool,
    /// Longest wait for the answer, such as 3s
    #[arg(long, default_value = "3s", value_parser = crate::args::time, value_name = "TIME")]
    within: Duration,
}

/// HTTP listener of a node: the address in its certificate, and the one to dial on this machine.
#[derive(Debug, PartialEq, Eq)]
struct HttpTarget {
    advertised: String,
    local: String,
}

impl HealthQuery {
    pub(crate) async fn run(self) -> Result<(), CommandError> {
        let mut config = serve::load(self.config.as_deref(), std::env::vars())?;
        if let Some(node) = self.node {
            config.node.name = node;
        }
        let listener = listener(&config)?;
        let path = if self.live { "/livez" } else { "/readyz" };
        let asked = timeout(self.within, get(&listener, tls_files(&config), path)).await;
        let unreachable = |why: String| CommandError::new(Code::Connect, format!("{}: {why}", listener.local));
        let (status, body) = match asked {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(unreachable(format!("{error:#}"))),
            Err(_) => {
                let why = format!(
                    "{path} has no answer within {}",
                    humantime::format_duration(self.within)
                );
                return Err(unreachable(why));
            }
        };
        let body = body.trim();
        if status != 200 {
            return Err(CommandError::new(
                Code::Unhealthy,
                format!("{path} answers {status}: {body}"),
            ));
        }
        output::line(body)
    }
}

/// Returns the HTTP listener of a configuration, for a node of `cluster.initial` or one that has joined.
fn listener(config: &Config) -> Result<HttpTarget, CommandError> {
    let mut initial = config.cluster.initial.iter();
    let listed = initial.find(|listed| listed.name == config.node.name);
    let listed = listed.map_or("", |listed| listed.http.as_str());
    let or = |first: &str, second: &str| {
        if first.is_empty() {
            second.to_owned()
        } else {
            first.to_owned()
        }
    };
    let advertised = or(&config.http.advertise, listed);
    let listen = or(&config.http.listen, &advertised);
    let Some((host, port)) = listen.rsplit_once(':') else {
        let why = format!(
            "http.listen: node {:?} has no HTTP address: name it there, in http.advertise, or in cluster.initial",
            config.node.name
        );
        return Err(CommandError::new(Code::Usage, why));
    };
    // Bound on every interface: the loopback one is among them.
    let local = match host {
        "0.0.0.0" | "" => format!("127.0.0.1:{port}"),
        "[::]" => format!("[::1]:{port}"),
        _ => listen.clone(),
    };
    Ok(HttpTarget {
        advertised: or(&advertised, &local),
        local,
    })
}

/// Returns the node's own certificate, which its listener accepts and shows; `None` where it has none.
fn tls_files(config: &Config) -> Option<TlsFiles> {
    let file = |path: &str| (!path.is_empty()).then(|| PathBuf::from(path));
    Some(TlsFiles {
        ca: file(&config.tls.ca)?,
        certificate: file(&config.tls.certificate),
        key: file(&config.tls.key),
    })
}

/// Gets a path over HTTP; returns status and body. With a CA the answering side must prove to be the advertised host.
async fn get(listener: &HttpTarget, tls: Option<TlsFiles>, path: &str) -> anyhow::Result<(u16, String)> {
    let mut client = ClientConfig::new([listener.advertised.clone()]);
    client.connect = dial(BTreeMap::from([(listener.advertised.clone(), listener.local.clone())]));
    client.tls = tls;
    let mut stream = client.connector()?(listener.advertised.clone()).await?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n",
        listener.advertised
    );
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut answer = Vec::new();
    let ended = stream.take(ANSWER_LEN_MAX).read_to_end(&mut answer).await;
    // What is there counts, however the connection ends after it.
    if answer.is_empty() {
        ended?;
    }
    parse(&String::from_utf8_lossy(&answer))
}

fn parse(answer: &str) -> anyhow::Result<(u16, String)> {
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or_else(|| anyhow::anyhow!("the answer is no HTTP"))?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| anyhow::anyhow!("the answer is no HTTP"))?;
    Ok((status, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<(String, String), String> {
        let config = Config::load(text, []).unwrap();
        let found = listener(&config).map_err(|error| error.text().to_owned())?;
        Ok((found.advertised, found.local))
    }

    #[test]
    fn listener_is_dialled_on_this_machine() {
        const LISTED: &str = "[cluster]\ninitial = [{ name = \"a\", region = \"eu\", peer = \"a.example:7501\", \
                              client = \"a.example:7401\", http = \"a.example:7601\" }]\n[node]\nname = \"a\"\n";
        let pair = |advertised: &str, local: &str| Ok((advertised.to_owned(), local.to_owned()));
        assert_eq!(of(LISTED), pair("a.example:7601", "a.example:7601"));
        let all = format!("{LISTED}[http]\nlisten = \"0.0.0.0:7602\"");
        assert_eq!(of(&all), pair("a.example:7601", "127.0.0.1:7602"));
        let joined = "[node]\nname = \"b\"\n[http]\nlisten = \"[::]:1\"\nadvertise = \"b.example:2\"";
        assert_eq!(of(joined), pair("b.example:2", "[::1]:1"));
        let nowhere = of("[node]\nname = \"b\"").unwrap_err();
        assert!(
            nowhere.starts_with("http.listen: node \"b\" has no HTTP address"),
            "{nowhere}"
        );
    }

    #[test]
    fn answer_has_status_and_body() {
        assert_eq!(
            parse("HTTP/1.1 503 x\r\na: b\r\n\r\nno\n").unwrap(),
            (503, "no\n".to_owned())
        );
        assert!(parse("SSH-2.0").is_err());
    }
}
