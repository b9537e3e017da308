//! Redis and Valkey: a primary and two replicas with append-only files; one connection for each caller.
//!
//! With Redis a write is acknowledged after `WAIT 1`: fsynced at the primary and received by a replica, which may not
//! have synced it. With Valkey after `WAITAOF 1 1`: fsynced at both.

use std::{fs, path::PathBuf, process::Command, time::Instant};

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
    work::{self, BATCH, KEYS, Request, SCANNED, Values, Work},
};

/// Sorted set with the names of all keys, because keys themselves have no order.
const INDEX: &[u8] = b"index";
/// Longest wait for a replica, in milliseconds.
const WAIT_MS: &[u8] = b"10000";

/// Kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Redis,
    Valkey,
}

impl Kind {
    fn program(self) -> Result<PathBuf> {
        match self {
            Self::Redis => processes::find("redis-server", &[]),
            Self::Valkey => processes::find("valkey-server", &[]),
        }
    }

    /// Returns the ports of the primary and of its replicas.
    fn ports(self) -> [u16; 3] {
        match self {
            Self::Redis => [32_400, 32_401, 32_402],
            Self::Valkey => [32_410, 32_411, 32_412],
        }
    }

    /// Returns the command after which a connection's writes have the durability that is compared.
    fn wait(self) -> &'static [&'static [u8]] {
        match self {
            Self::Redis => &[b"WAIT", b"1", WAIT_MS],
            Self::Valkey => &[b"WAITAOF", b"1", b"1", WAIT_MS],
        }
    }
}

/// Running servers.
pub(super) struct Resp {
    kind: Kind,
    processes: Processes,
    version: String,
    values: Values,
    _folder: TempDir,
}

impl Resp {
    pub(super) async fn start(kind: Kind) -> Result<Self> {
        let program = kind.program()?;
        let folder = tempfile::tempdir()?;
        let mut processes = Processes::default();
        let [primary, ..] = kind.ports();
        for port in kind.ports() {
            let data = folder.path().join(port.to_string());
            fs::create_dir(&data)?;
            let mut command = Command::new(&program);
            command.current_dir(&data).args(["--port", &port.to_string()]);
            command.args(["--appendonly", "yes", "--appendfsync", "always", "--save", ""]);
            if port != primary {
                command.args(["--replicaof", &format!("127.0.0.1 {primary}")]);
            }
            processes.start(&data, &mut command)?;
        }
        let synced = async || {
            let mut connection = Connection::open(primary).await?;
            match connection.ask(&[b"WAIT", b"2", b"1"]).await? {
                Reply::Integer(2) => Ok(()),
                Reply::Integer(_) | Reply::Text(_) | Reply::Array(_) | Reply::Nil => bail!("too few replicas"),
            }
        };
        eventually("two replicas", synced).await?;
        Ok(Self {
            kind,
            processes,
            version: processes::version(&program)?,
            values: Values::new(),
            _folder: folder,
        })
    }

    async fn connect(&self) -> Result<RespCaller> {
        let [primary, replica, _] = self.kind.ports();
        Ok(RespCaller {
            kind: self.kind,
            primary: Connection::open(primary).await?,
            replica: Connection::open(replica).await?,
            values: self.values.clone(),
            sent: 0,
        })
    }
}

impl System for Resp {
    fn description(&self) -> String {
        match self.kind {
            Kind::Redis => format!(
                "{}: primary and two replicas, WAIT 1: fsynced at the primary, received by a replica (weaker)",
                self.version
            ),
            Kind::Valkey => format!("{}: primary and two replicas, WAITAOF 1 1", self.version),
        }
    }

    fn does(&self, work: Work) -> bool {
        !matches!(work, Work::Watch | Work::Echo | Work::Sync)
    }

    fn fill(&self) -> BoxFuture<'_, Result<()>> {
        async {
            let mut caller = self.connect().await?;
            for first in (0..KEYS).step_by(BATCH) {
                let keys = first..(first + BATCH as u64).min(KEYS);
                let names: Vec<String> = keys.map(work::key_name).collect();
                let mut add = vec![&b"ZADD"[..], INDEX];
                for name in &names {
                    add.extend([&b"0"[..], name.as_bytes()]);
                }
                caller.primary.ask(&add).await?;
                let value = caller.values.get(first);
                let mut set = vec![&b"MSET"[..]];
                for name in &names {
                    set.extend([name.as_bytes(), &value]);
                }
                caller.primary.ask(&set).await?;
            }
            // Once, because a single WAITAOF waits for the replica's next report, which comes once a second.
            caller.write(&[]).await
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

/// Caller with connections of its own: a `WAIT` holds up all commands behind it.
struct RespCaller {
    kind: Kind,
    primary: Connection,
    replica: Connection,
    values: Values,
    sent: u64,
}

impl RespCaller {
    async fn run(&mut self, request: Request) -> Result<()> {
        self.sent += 1;
        let value = self.values.get(self.sent);
        match request {
            Request::Put(key) => {
                let name = work::key_name(key);
                self.write(&[&[b"SET", name.as_bytes(), &value]]).await
            }
            Request::PutBatch(keys) => {
                let names: Vec<String> = keys.into_iter().map(work::key_name).collect();
                let mut set = vec![&b"MSET"[..]];
                for name in &names {
                    set.extend([name.as_bytes(), &value]);
                }
                self.write(&[&set]).await
            }
            Request::Txn(keys) => {
                let names = keys.map(work::key_name);
                let [first, second, third] = names.each_ref().map(|name| [b"SET", name.as_bytes(), &value]);
                self.write(&[&[b"MULTI"], &first, &second, &third, &[b"EXEC"]]).await
            }
            Request::Increment(counter) => {
                let name = work::counter_name(counter);
                self.write(&[&[b"INCR", name.as_bytes()]]).await
            }
            Request::Get(key) => get(&mut self.primary, key).await,
            Request::GetStale(key) => get(&mut self.replica, key).await,
            Request::Scan(from) => self.scan(from).await,
            Request::PutStamped(_) | Request::Echo | Request::Sync => Err(super::unsupported()),
        }
    }

    /// Sends commands and waits for their durability.
    async fn write(&mut self, commands: &[&[&[u8]]]) -> Result<()> {
        for command in commands {
            self.primary.push(command);
        }
        self.primary.push(self.kind.wait());
        self.primary.send().await?;
        for _ in commands {
            self.primary.receive().await?;
        }
        match (self.kind, self.primary.receive().await?) {
            (Kind::Redis, Reply::Integer(1..)) => Ok(()),
            (Kind::Valkey, Reply::Array(counts))
                if matches!(counts[..], [Reply::Integer(1..), Reply::Integer(1..)]) =>
            {
                Ok(())
            }
            (_, reply) => bail!("the write is not durable: {reply:?}"),
        }
    }

    async fn scan(&mut self, from: u64) -> Result<()> {
        let start = format!("[{}", work::key_name(from));
        let count = SCANNED.to_string();
        let range: [&[u8]; 7] = [
            b"ZRANGEBYLEX",
            INDEX,
            start.as_bytes(),
            b"+",
            b"LIMIT",
            b"0",
            count.as_bytes(),
        ];
        let Reply::Array(names) = self.primary.ask(&range).await? else {
            bail!("no array of names");
        };
        let mut get = vec![&b"MGET"[..]];
        for name in &names {
            let Reply::Text(name) = name else {
                bail!("{name:?} is no name");
            };
            get.push(name);
        }
        let Reply::Array(values) = self.primary.ask(&get).await? else {
            bail!("no array of values");
        };
        let present = values.iter().filter(|value| matches!(value, Reply::Text(_))).count();
        ensure!(present == SCANNED, "a scan returned {present} keys");
        Ok(())
    }
}

async fn get(connection: &mut Connection, key: u64) -> Result<()> {
    let name = work::key_name(key);
    match connection.ask(&[b"GET", name.as_bytes()]).await? {
        Reply::Text(_) => Ok(()),
        Reply::Integer(_) | Reply::Array(_) | Reply::Nil => bail!("key {key} is missing"),
    }
}

impl Caller for RespCaller {
    fn call(&mut self, request: Request) -> BoxFuture<'_, Result<()>> {
        self.run(request).boxed()
    }
}

/// Reply of the server.
#[derive(Debug)]
enum Reply {
    Text(Vec<u8>),
    Integer(i64),
    Array(Vec<Reply>),
    Nil,
}

/// Connection that speaks RESP2.
struct Connection {
    stream: BufReader<TcpStream>,
    unsent: Vec<u8>,
}

impl Connection {
    async fn open(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream: BufReader::new(stream),
            unsent: Vec::new(),
        })
    }

    async fn ask(&mut self, command: &[&[u8]]) -> Result<Reply> {
        self.push(command);
        self.send().await?;
        self.receive().await
    }

    fn push(&mut self, command: &[&[u8]]) {
        let unsent = &mut self.unsent;
        unsent.extend(format!("*{}\r\n", command.len()).bytes());
        for word in command {
            unsent.extend(format!("${}\r\n", word.len()).bytes());
            unsent.extend_from_slice(word);
            unsent.extend(b"\r\n");
        }
    }

    async fn send(&mut self) -> Result<()> {
        self.stream.write_all(&self.unsent).await?;
        self.unsent.clear();
        Ok(())
    }

    async fn receive(&mut self) -> Result<Reply> {
        let (kind, rest) = self.line().await?;
        Ok(match kind {
            b'+' => Reply::Text(rest.into_bytes()),
            b':' => Reply::Integer(rest.parse()?),
            b'$' if rest == "-1" => Reply::Nil,
            b'$' => Reply::Text(self.text(rest.parse()?).await?),
            b'*' => {
                let mut items = Vec::new();
                for _ in 0..rest.parse::<i64>()?.max(0) {
                    items.push(Box::pin(self.receive()).await?);
                }
                Reply::Array(items)
            }
            _ => bail!("the server said {rest}"),
        })
    }

    async fn line(&mut self) -> Result<(u8, String)> {
        let mut line = String::new();
        self.stream.read_line(&mut line).await?;
        let line = line.trim_end();
        let kind = line.bytes().next().context("the connection was closed")?;
        Ok((kind, line[1..].to_owned()))
    }

    async fn text(&mut self, len: usize) -> Result<Vec<u8>> {
        let mut text = vec![0; len + 2];
        self.stream.read_exact(&mut text).await?;
        text.truncate(len);
        Ok(text)
    }
}
