//! etcd: three members, each write fsynced by a majority; unary RPCs over one connection to the leader.

use std::{fs, process::Command, time::Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use prost::Message;
use tempfile::TempDir;
use tonic::{Request as Rpc, Streaming, client::Grpc, codegen::http::uri::PathAndQuery, transport::Channel};
use tonic_prost::ProstCodec;

use super::{Caller, System, Watcher, etcd_messages::*};
use crate::{
    processes::{self, Processes, Usage, eventually},
    work::{self, BATCH, KEYS, Request, SCANNED, Values, Work},
};

/// Ports for clients; those for peers follow.
const PORTS: [u16; 3] = [32_300, 32_302, 32_304];

/// Running members.
pub(super) struct Etcd {
    processes: Processes,
    channel: Channel,
    version: String,
    values: Values,
    _folder: TempDir,
}

impl Etcd {
    pub(super) async fn start() -> Result<Self> {
        let program = processes::find("etcd", &["/usr/sbin"])?;
        let folder = tempfile::tempdir()?;
        let mut processes = Processes::default();
        let member = |(at, port): (usize, &u16)| format!("m{at}=http://127.0.0.1:{}", port + 1);
        let members: Vec<String> = PORTS.iter().enumerate().map(member).collect();
        for (at, port) in PORTS.iter().enumerate() {
            let data = folder.path().join(format!("m{at}"));
            fs::create_dir(&data)?;
            let (client, peer) = (
                format!("http://127.0.0.1:{port}"),
                format!("http://127.0.0.1:{}", port + 1),
            );
            let mut command = Command::new(&program);
            command
                .args(["--name", &format!("m{at}")])
                .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
                .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
                .args(["--initial-cluster", &members.join(",")])
                .args([
                    "--initial-cluster-state",
                    "new",
                    "--logger",
                    "zap",
                    "--log-level",
                    "error",
                ])
                .arg("--data-dir")
                .arg(data.join("data"));
            processes.start(&data, &mut command)?;
        }
        let (channel, version) = eventually("an etcd leader", find_leader).await?;
        Ok(Self {
            processes,
            channel,
            version,
            values: Values::new(),
            _folder: folder,
        })
    }

    fn connection(&self) -> EtcdCaller {
        EtcdCaller {
            grpc: Grpc::new(self.channel.clone()),
            values: self.values.clone(),
            began: Instant::now(),
            sent: 0,
        }
    }
}

/// Returns a channel to the leader, and its version.
async fn find_leader() -> Result<(Channel, String)> {
    for port in PORTS {
        let channel = Channel::from_shared(format!("http://127.0.0.1:{port}"))?
            .connect()
            .await?;
        let mut grpc = Grpc::new(channel.clone());
        let status: StatusResponse = unary(&mut grpc, "/etcdserverpb.Maintenance/Status", StatusRequest {}).await?;
        let own = status.header.context("header")?.member_id;
        if status.leader == own {
            return Ok((channel, status.version));
        }
    }
    bail!("there is no leader")
}

async fn unary<Q, A>(grpc: &mut Grpc<Channel>, path: &'static str, request: Q) -> Result<A>
where
    Q: Message + 'static,
    A: Message + Default + 'static,
{
    grpc.ready().await?;
    let codec = ProstCodec::<Q, A>::default();
    let answer = grpc
        .unary(Rpc::new(request), PathAndQuery::from_static(path), codec)
        .await?;
    Ok(answer.into_inner())
}

impl System for Etcd {
    fn description(&self) -> String {
        format!("etcd {}: three members, each write fsynced by a majority", self.version)
    }

    fn does(&self, work: Work) -> bool {
        !matches!(work, Work::Echo | Work::Sync)
    }

    fn fill(&self) -> BoxFuture<'_, Result<()>> {
        async {
            let mut caller = self.connection();
            for first in (0..KEYS).step_by(BATCH) {
                let keys: Vec<u64> = (first..(first + BATCH as u64).min(KEYS)).collect();
                caller.put_all(&keys, Vec::new()).await?;
            }
            Ok(())
        }
        .boxed()
    }

    fn caller(&self, began: Instant) -> BoxFuture<'_, Result<Box<dyn Caller>>> {
        let caller = EtcdCaller {
            began,
            ..self.connection()
        };
        async { Ok(Box::new(caller) as Box<dyn Caller>) }.boxed()
    }

    fn watcher(&self, began: Instant) -> BoxFuture<'_, Result<Box<dyn Watcher>>> {
        async move {
            let mut grpc = Grpc::new(self.channel.clone());
            grpc.ready().await?;
            let create = WatchRequest {
                create: Some(WatchCreateRequest {
                    key: Bytes::from_static(b"key/"),
                    range_end: Bytes::from_static(b"key0"),
                }),
            };
            // The stream of requests stays open: its end would end the watch.
            let requests = futures::StreamExt::chain(futures::stream::iter([create]), futures::stream::pending());
            let path = PathAndQuery::from_static("/etcdserverpb.Watch/Watch");
            let codec = ProstCodec::<WatchRequest, WatchResponse>::default();
            let mut answers = grpc.streaming(Rpc::new(requests), path, codec).await?.into_inner();
            let created = answers.message().await?.context("the watch ended")?.created;
            ensure!(created, "the watch was not created");
            let watcher = EtcdWatcher {
                answers,
                began,
                events: Vec::new(),
            };
            Ok(Box::new(watcher) as Box<dyn Watcher>)
        }
        .boxed()
    }

    fn usage(&self) -> Result<Usage> {
        processes::usage(&self.processes.ids())
    }
}

/// Caller; all callers share the connection.
struct EtcdCaller {
    grpc: Grpc<Channel>,
    values: Values,
    began: Instant,
    sent: u64,
}

impl EtcdCaller {
    async fn run(&mut self, request: Request) -> Result<()> {
        self.sent += 1;
        match request {
            Request::Put(key) => self.put(key, self.values.get(self.sent)).await,
            Request::PutStamped(key) => self.put(key, self.values.stamped(self.began)).await,
            Request::PutBatch(keys) => self.put_all(&keys, Vec::new()).await,
            Request::Get(key) => self.get(key, false).await,
            Request::GetStale(key) => self.get(key, true).await,
            Request::Increment(counter) => self.increment(counter).await,
            Request::Txn(keys) => {
                let exists = Compare {
                    result: 1,
                    target: 2,
                    key: work::key_name(keys[0]).into(),
                    mod_revision: Some(0),
                };
                self.put_all(&keys, vec![exists]).await
            }
            Request::Scan(from) => {
                let range = RangeRequest {
                    key: work::key_name(from).into(),
                    range_end: Bytes::from_static(b"key0"),
                    limit: SCANNED as i64,
                    serializable: false,
                };
                let scanned = self.range(range).await?.len();
                ensure!(scanned == SCANNED, "a scan returned {scanned} keys");
                Ok(())
            }
            Request::Echo | Request::Sync => Err(super::unsupported()),
        }
    }

    async fn put(&mut self, key: u64, value: Bytes) -> Result<()> {
        let put = PutRequest {
            key: work::key_name(key).into(),
            value,
        };
        let PutResponse {} = unary(&mut self.grpc, "/etcdserverpb.KV/Put", put).await?;
        Ok(())
    }

    async fn range(&mut self, range: RangeRequest) -> Result<Vec<KeyValue>> {
        let answer: RangeResponse = unary(&mut self.grpc, "/etcdserverpb.KV/Range", range).await?;
        Ok(answer.kvs)
    }

    async fn get(&mut self, key: u64, serializable: bool) -> Result<()> {
        let range = RangeRequest {
            key: work::key_name(key).into(),
            serializable,
            ..RangeRequest::default()
        };
        ensure!(self.range(range).await?.len() == 1, "key {key} is missing");
        Ok(())
    }

    async fn put_all(&mut self, keys: &[u64], compare: Vec<Compare>) -> Result<()> {
        let put = |key: &u64| RequestOp {
            put: Some(PutRequest {
                key: work::key_name(*key).into(),
                value: self.values.get(self.sent),
            }),
            range: None,
        };
        let txn = TxnRequest {
            compare,
            success: keys.iter().map(put).collect(),
            failure: Vec::new(),
        };
        let done: TxnResponse = unary(&mut self.grpc, "/etcdserverpb.KV/Txn", txn).await?;
        ensure!(done.succeeded, "a key is missing");
        Ok(())
    }

    /// Adds one by compare-and-swap, until nobody else was faster: etcd has no other way. A failed attempt returns the
    /// counter as it is, so that the next one needs no read.
    async fn increment(&mut self, counter: u64) -> Result<()> {
        let key: Bytes = work::counter_name(counter).into();
        let read = RangeRequest {
            key: key.clone(),
            ..RangeRequest::default()
        };
        let mut found = self.range(read.clone()).await?.pop();
        loop {
            let (revision, number) = match &found {
                Some(item) => (item.mod_revision, std::str::from_utf8(&item.value)?.parse::<i64>()?),
                None => (0, 0),
            };
            let unchanged = Compare {
                result: 0,
                target: 2,
                key: key.clone(),
                mod_revision: Some(revision),
            };
            let put = PutRequest {
                key: key.clone(),
                value: (number + 1).to_string().into(),
            };
            let txn = TxnRequest {
                compare: vec![unchanged],
                success: vec![RequestOp {
                    put: Some(put),
                    range: None,
                }],
                failure: vec![RequestOp {
                    range: Some(read.clone()),
                    put: None,
                }],
            };
            let done: TxnResponse = unary(&mut self.grpc, "/etcdserverpb.KV/Txn", txn).await?;
            if done.succeeded {
                return Ok(());
            }
            let response = done.responses.into_iter().next().and_then(|response| response.range);
            found = response.context("a failed transaction returned no range")?.kvs.pop();
        }
    }
}

impl Caller for EtcdCaller {
    fn call(&mut self, request: Request) -> BoxFuture<'_, Result<()>> {
        self.run(request).boxed()
    }
}

/// Watcher of all keys.
struct EtcdWatcher {
    answers: Streaming<WatchResponse>,
    began: Instant,
    /// Times of events that were received together, the next one last.
    events: Vec<Instant>,
}

impl Watcher for EtcdWatcher {
    fn next(&mut self) -> BoxFuture<'_, Result<Instant>> {
        async {
            loop {
                if let Some(sent) = self.events.pop() {
                    return Ok(sent);
                }
                let events = self.answers.message().await?.context("the watch ended")?.events;
                let items = events.into_iter().filter_map(|event| event.kv);
                let sent = items.filter_map(|item| work::stamp(&item.value, self.began));
                self.events = sent.collect();
                self.events.reverse();
            }
        }
        .boxed()
    }
}
