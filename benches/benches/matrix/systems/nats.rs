//! NATS JetStream: three servers, streams of three replicas, each write fsynced; one connection for each caller.

use std::{
    fmt::Write,
    fs,
    process::Command,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};
use futures::{FutureExt, future::BoxFuture};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use super::{Caller, System, Watcher};
use crate::{
    processes::{self, Processes, Usage, eventually},
    work::{self, KEYS, Request, Values, Work},
};

/// Ports for clients; those for other servers follow.
const PORTS: [u16; 3] = [32_700, 32_702, 32_704];
/// Streams: keys as the key-value store of JetStream keeps them, and counters.
const KEY_STREAM: &str = r#"{"name":"KV_bench","subjects":["$KV.bench.>"],"num_replicas":3,"storage":"file",
    "max_msgs_per_subject":1,"discard":"new","allow_direct":true,"allow_rollup_hdrs":true,"deny_delete":true}"#;
const COUNTER_STREAM: &str = r#"{"name":"counters","subjects":["counter.>"],"num_replicas":3,"storage":"file",
    "max_msgs_per_subject":1,"allow_msg_counter":true,"allow_direct":true}"#;
/// Puts in flight while keys are created.
const FILLERS: u64 = 64;

/// Running servers.
pub(super) struct Nats {
    processes: Processes,
    /// Port of the leader of the keys' stream.
    leader: u16,
    version: String,
    values: Values,
    _folder: TempDir,
}

impl Nats {
    pub(super) async fn start() -> Result<Self> {
        let program = processes::find("nats-server", &[])?;
        let folder = tempfile::tempdir()?;
        let mut processes = Processes::default();
        let routes = PORTS.map(|port| format!("nats://127.0.0.1:{}", port + 1)).join(", ");
        for port in PORTS {
            let data = folder.path().join(port.to_string());
            fs::create_dir(&data)?;
            let config = data.join("nats.conf");
            let store = data.join("store");
            let text = format!(
                "server_name: s{port}\nlisten: 127.0.0.1:{port}\n\
                 jetstream {{ store_dir: \"{}\", sync_interval: always }}\n\
                 cluster {{ name: bench, listen: 127.0.0.1:{}, routes: [{routes}] }}\n",
                store.display(),
                port + 1
            );
            fs::write(&config, text)?;
            processes.start(&data, Command::new(&program).arg("-c").arg(&config))?;
        }
        let [first, ..] = PORTS;
        let create = async |name: &str, stream: &str| {
            let mut connection = Connection::open(first).await?;
            let answer = connection
                .ask(&format!("$JS.API.STREAM.CREATE.{name}"), "", stream.as_bytes())
                .await?;
            leader_of(&answer)
        };
        eventually("a stream of counters", async || {
            create("counters", COUNTER_STREAM).await
        })
        .await?;
        let leader = eventually("a stream of keys", async || create("KV_bench", KEY_STREAM).await).await?;
        Ok(Self {
            processes,
            leader,
            version: processes::version(&program)?,
            values: Values::new(),
            _folder: folder,
        })
    }

    async fn connect(&self) -> Result<NatsCaller> {
        Ok(NatsCaller {
            connection: Connection::open(self.leader).await?,
            values: self.values.clone(),
            sent: 0,
        })
    }
}

/// Returns the port of the leader that an answer about a stream names.
fn leader_of(answer: &[u8]) -> Result<u16> {
    let answer: serde_json::Value = serde_json::from_slice(answer)?;
    let leader = answer["cluster"]["leader"]
        .as_str()
        .with_context(|| format!("no leader: {answer}"))?;
    Ok(leader.trim_start_matches('s').parse()?)
}

impl System for Nats {
    fn description(&self) -> String {
        format!(
            "{}: three servers, streams of three replicas, sync_interval always",
            self.version
        )
    }

    fn does(&self, work: Work) -> bool {
        match work {
            Work::Put
            | Work::Get
            | Work::GetStale
            | Work::HotCounter
            | Work::Counters
            | Work::MostlyReads
            | Work::OpenPut => true,
            Work::PutBatch | Work::Txn | Work::Scan | Work::Watch | Work::Echo | Work::Sync => false,
        }
    }

    fn fill(&self) -> BoxFuture<'_, Result<()>> {
        async {
            let fill = async |first: u64| {
                let mut caller = self.connect().await?;
                for key in (first..KEYS).step_by(FILLERS as usize) {
                    caller.run(Request::Put(key)).await?;
                }
                anyhow::Ok(())
            };
            futures::future::try_join_all((0..FILLERS).map(fill)).await?;
            Ok(())
        }
        .boxed()
    }

    fn caller(&self, _: Instant) -> BoxFuture<'_, Result<Box<dyn Caller>>> {
        async { Ok(Box::new(self.connect().await?) as Box<dyn Caller>) }.boxed()
    }

    fn watcher(&self, _: Instant) -> BoxFuture<'_, Result<Box<dyn Watcher>>> {
        async { Err(super::unsupported()) }.boxed()
    }

    fn usage(&self) -> Result<Usage> {
        processes::usage(&self.processes.ids())
    }
}

struct NatsCaller {
    connection: Connection,
    values: Values,
    sent: u64,
}

impl NatsCaller {
    async fn run(&mut self, request: Request) -> Result<()> {
        self.sent += 1;
        match request {
            Request::Put(key) => {
                let value = self.values.get(self.sent);
                let answer = self.connection.ask(&subject(key), "", &value).await?;
                check(&answer)
            }
            Request::Increment(counter) => {
                let subject = format!("counter.{counter:08}");
                let answer = self
                    .connection
                    .ask(&subject, "NATS/1.0\r\nNats-Incr: +1\r\n\r\n", b"")
                    .await?;
                check(&answer)
            }
            Request::Get(key) => {
                let query = format!(r#"{{"last_by_subj":"{}"}}"#, subject(key));
                let answer = self
                    .connection
                    .ask("$JS.API.STREAM.MSG.GET.KV_bench", "", query.as_bytes())
                    .await?;
                check(&answer)
            }
            Request::GetStale(key) => {
                let path = format!("$JS.API.DIRECT.GET.KV_bench.{}", subject(key));
                let value = self.connection.ask(&path, "", b"").await?;
                ensure!(value.len() == work::VALUE_LEN, "key {key} is missing");
                Ok(())
            }
            Request::PutStamped(_)
            | Request::PutBatch(_)
            | Request::Txn(_)
            | Request::Scan(_)
            | Request::Echo
            | Request::Sync => Err(super::unsupported()),
        }
    }
}

fn subject(key: u64) -> String {
    format!("$KV.bench.{}", work::key_name(key))
}

fn check(answer: &[u8]) -> Result<()> {
    let has_error = answer.windows(7).any(|part| part == b"\"error\"");
    ensure!(!answer.is_empty() && !has_error, "{}", String::from_utf8_lossy(answer));
    Ok(())
}

impl Caller for NatsCaller {
    fn call(&mut self, request: Request) -> BoxFuture<'_, Result<()>> {
        self.run(request).boxed()
    }
}

/// Connection with an inbox for answers, one request at a time.
struct Connection {
    stream: BufReader<TcpStream>,
    inbox: String,
}

impl Connection {
    async fn open(port: u16) -> Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        let inbox = format!("_INBOX.b{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let mut stream = BufReader::new(stream);
        let hello = format!(
            "CONNECT {{\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true}}\r\nSUB {inbox} 1\r\n"
        );
        stream.write_all(hello.as_bytes()).await?;
        Ok(Self { stream, inbox })
    }

    async fn ask(&mut self, subject: &str, headers: &str, payload: &[u8]) -> Result<Vec<u8>> {
        let mut line = String::new();
        let total = headers.len() + payload.len();
        // Writing to a string cannot fail.
        let _ = if headers.is_empty() {
            write!(line, "PUB {subject} {} {total}\r\n", self.inbox)
        } else {
            write!(
                line,
                "HPUB {subject} {} {} {total}\r\n{headers}",
                self.inbox,
                headers.len()
            )
        };
        let mut message = line.into_bytes();
        message.extend_from_slice(payload);
        message.extend_from_slice(b"\r\n");
        self.stream.write_all(&message).await?;
        self.receive().await
    }

    async fn receive(&mut self) -> Result<Vec<u8>> {
        loop {
            let mut line = String::new();
            ensure!(0 < self.stream.read_line(&mut line).await?, "the connection was closed");
            let mut words = line.split_ascii_whitespace();
            match words.next().unwrap_or_default() {
                "PING" => self.stream.write_all(b"PONG\r\n").await?,
                "MSG" => {
                    let total = words.next_back().context("a length")?.parse()?;
                    return self.payload(0, total).await;
                }
                "HMSG" => {
                    let total = words.next_back().context("a length")?.parse()?;
                    let headers = words.next_back().context("a length")?.parse()?;
                    return self.payload(headers, total).await;
                }
                "-ERR" => bail!("the server said {line}"),
                _ => {}
            }
        }
    }

    async fn payload(&mut self, headers: usize, total: usize) -> Result<Vec<u8>> {
        let mut message = vec![0; total + 2];
        self.stream.read_exact(&mut message).await?;
        message.truncate(total);
        Ok(message.split_off(headers))
    }
}
