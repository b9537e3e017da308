//! Stead: three nodes of one region, as real processes with default settings, by its own client and by stock stubs.

use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use futures::{FutureExt, future::BoxFuture};
use stead_client::{
    Client, Condition, Consistency, NewTenant, Op, ReadOptions, ScanOptions, Tenant, TenantLimit, TenantLimits,
    WatchMessage, WatchOptions,
};
use stead_testing::Fixture;
use tokio::sync::OnceCell;

use super::{Caller, System, Watcher, stead_stubs::StubCaller};
use crate::{
    processes::{self, Usage, eventually},
    work::{self, BATCH, KEYS, Request, SCANNED, Values, Work},
};

const REGION: &str = "eu-west";
/// Name of the tenant of all keys.
pub(super) const TENANT: &str = "bench";

/// Interface that callers use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interface {
    /// The client library, which sends operations in a pipeline.
    Client,
    /// Generated stubs: each request is an RPC.
    Stubs,
}

/// Running nodes.
pub(super) struct Stead {
    interface: Interface,
    fixture: Fixture,
    tenant: Tenant,
    ids: Vec<u32>,
    values: Values,
    /// Cloned for each caller, so that they share a connection.
    stubs: OnceCell<StubCaller>,
}

impl Stead {
    pub(super) async fn start(interface: Interface) -> Result<Self> {
        let fixture = Fixture::builder().region(REGION, 3).start().await?;
        let client = fixture.client(REGION).await?;
        create_tenant(&client).await?;
        let mut ids = Vec::new();
        for node in fixture.nodes() {
            ids.push(fixture.process(&node.name).await.context("a node is not running")?);
        }
        Ok(Self {
            interface,
            tenant: client.tenant(TENANT)?,
            fixture,
            ids,
            values: Values::new(),
            stubs: OnceCell::new(),
        })
    }

    async fn caller_of(&self, began: Instant) -> Result<Box<dyn Caller>> {
        Ok(match self.interface {
            Interface::Client => Box::new(ClientCaller {
                tenant: self.tenant.clone(),
                values: self.values.clone(),
                began,
                sent: 0,
            }),
            Interface::Stubs => {
                let connect = async || StubCaller::connect(&self.fixture.endpoints(REGION)?, self.values.clone()).await;
                Box::new(self.stubs.get_or_try_init(connect).await?.clone())
            }
        })
    }
}

/// Creates the tenant without a limit of its rate: the store is measured, not the default limits.
async fn create_tenant(client: &Client) -> Result<()> {
    let mut limits = TenantLimits::default();
    limits.set(TenantLimit::OperationsPerSecond, 1_000_000_000)?;
    limits.set(TenantLimit::BytesPerSecond, 1 << 40)?;
    let new = NewTenant {
        name: TENANT.to_owned(),
        home_region: REGION.to_owned(),
        limits,
        ..NewTenant::default()
    };
    let create = async || {
        client
            .admin()
            .create_tenant(new.clone())
            .await
            .map(drop)
            .map_err(Into::into)
    };
    eventually("creation of the tenant", create).await
}

impl System for Stead {
    fn description(&self) -> String {
        format!(
            "Stead {}: three voters, each write fsynced by a majority",
            env!("CARGO_PKG_VERSION")
        )
    }

    fn does(&self, work: Work) -> bool {
        match work {
            Work::Echo | Work::Sync => false,
            Work::Watch => self.interface == Interface::Client,
            Work::Put
            | Work::PutBatch
            | Work::Get
            | Work::GetStale
            | Work::HotCounter
            | Work::Counters
            | Work::Txn
            | Work::Scan
            | Work::MostlyReads
            | Work::OpenPut => true,
        }
    }

    fn fill(&self) -> BoxFuture<'_, Result<()>> {
        async {
            for first in (0..KEYS).step_by(BATCH) {
                let keys = first..(first + BATCH as u64).min(KEYS);
                put_all(&self.tenant, keys, &self.values).await?;
            }
            Ok(())
        }
        .boxed()
    }

    fn caller(&self, began: Instant) -> BoxFuture<'_, Result<Box<dyn Caller>>> {
        self.caller_of(began).boxed()
    }

    fn watcher(&self, began: Instant) -> BoxFuture<'_, Result<Box<dyn Watcher>>> {
        async move {
            let watcher = self.tenant.watch(WatchOptions::default()).await?;
            let watcher = ClientWatcher {
                watcher,
                began,
                events: Vec::new(),
            };
            Ok(Box::new(watcher) as Box<dyn Watcher>)
        }
        .boxed()
    }

    fn usage(&self) -> Result<Usage> {
        processes::usage(&self.ids)
    }
}

async fn put_all(tenant: &Tenant, keys: impl IntoIterator<Item = u64>, values: &Values) -> Result<()> {
    let mut txn = tenant.txn();
    for key in keys {
        txn = txn.then(Op::put(work::key_name(key), values.get(key)));
    }
    ensure!(txn.send().await?.succeeded, "a transaction without conditions failed");
    Ok(())
}

/// Caller through the client library.
struct ClientCaller {
    tenant: Tenant,
    values: Values,
    began: Instant,
    sent: u64,
}

impl ClientCaller {
    async fn run(&mut self, request: Request) -> Result<()> {
        let tenant = &self.tenant;
        self.sent += 1;
        match request {
            Request::Put(key) => {
                tenant.put(work::key_name(key), self.values.get(self.sent)).await?;
            }
            Request::PutStamped(key) => {
                tenant.put(work::key_name(key), self.values.stamped(self.began)).await?;
            }
            Request::PutBatch(keys) => put_all(tenant, keys, &self.values).await?,
            Request::Get(key) => {
                let got = tenant.get(work::key_name(key)).await?;
                ensure!(got.item.is_some(), "key {key} is missing");
            }
            Request::GetStale(key) => {
                let options = ReadOptions::at(Consistency::Local);
                let got = tenant.get_with(work::key_name(key), &options).await?;
                ensure!(got.item.is_some(), "key {key} is missing");
            }
            Request::Increment(counter) => {
                tenant.increment(work::counter_name(counter), 1).await?;
            }
            Request::Txn(keys) => {
                let mut txn = tenant.txn().when(work::key_name(keys[0]), Condition::Exists);
                for key in keys {
                    txn = txn.then(Op::put(work::key_name(key), self.values.get(self.sent)));
                }
                ensure!(txn.send().await?.succeeded, "key {} is missing", keys[0]);
            }
            Request::Scan(from) => {
                let scan = ScanOptions {
                    start: work::key_name(from).into(),
                    page_size: SCANNED as u32,
                    ..ScanOptions::default()
                };
                let page = tenant.scan(&scan).await?;
                ensure!(page.items.len() == SCANNED, "a scan returned {} keys", page.items.len());
            }
            Request::Echo | Request::Sync => bail!(super::unsupported()),
        }
        Ok(())
    }
}

impl Caller for ClientCaller {
    fn call(&mut self, request: Request) -> BoxFuture<'_, Result<()>> {
        self.run(request).boxed()
    }
}

/// Watcher through the client library.
struct ClientWatcher {
    watcher: stead_client::Watcher,
    began: Instant,
    /// Times of events that were received together, the next one last.
    events: Vec<Instant>,
}

impl Watcher for ClientWatcher {
    fn next(&mut self) -> BoxFuture<'_, Result<Instant>> {
        async {
            loop {
                if let Some(sent) = self.events.pop() {
                    return Ok(sent);
                }
                if let WatchMessage::Changes(events) = self.watcher.next().await? {
                    let sent = events
                        .iter()
                        .filter_map(|event| work::stamp(&event.item.value, self.began));
                    self.events = sent.collect();
                    self.events.reverse();
                }
            }
        }
        .boxed()
    }
}
