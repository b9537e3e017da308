//! Caller of Stead by generated gRPC stubs, as of any language: unary RPCs over one connection to the home's leader.

use anyhow::{Context, Result, bail, ensure};
use futures::{FutureExt, future::BoxFuture};
use stead_api::proto::v1::{self, kv_service_client::KvServiceClient};
use tonic::transport::Channel;

use super::{Caller, stead::TENANT};
use crate::work::{self, Request, SCANNED, Values};

/// Caller by stubs; callers share the connection.
#[derive(Clone)]
pub(super) struct StubCaller {
    stub: KvServiceClient<Channel>,
    values: Values,
    sent: u64,
}

impl StubCaller {
    /// Connects to the home's leader: the node that serves without forwarding.
    pub(super) async fn connect(addresses: &[String], values: Values) -> Result<Self> {
        for address in addresses {
            let channel = Channel::from_shared(format!("http://{address}"))?.connect().await?;
            let mut stub = KvServiceClient::new(channel);
            let request = v1::GetRequest {
                tenant: TENANT.to_owned(),
                key: work::key_name(0).into(),
                ..v1::GetRequest::default()
            };
            let header = stub.get(request).await?.into_inner().header.context("header")?;
            if header.via() == v1::Via::Direct {
                return Ok(Self { stub, values, sent: 0 });
            }
        }
        bail!("no node serves the tenant itself")
    }

    async fn run(&mut self, request: Request) -> Result<()> {
        self.sent += 1;
        let tenant = TENANT.to_owned();
        match request {
            Request::Put(key) => {
                let put = v1::PutRequest {
                    tenant,
                    key: work::key_name(key).into(),
                    value: self.values.get(self.sent),
                    ..v1::PutRequest::default()
                };
                self.stub.put(put).await?;
            }
            Request::PutBatch(keys) => self.put_all(&keys, Vec::new()).await?,
            Request::Txn(keys) => {
                let compare = v1::Compare {
                    key: work::key_name(keys[0]).into(),
                    target: Some(v1::compare::Target::Exists(true)),
                    ..v1::Compare::default()
                };
                self.put_all(&keys, vec![compare]).await?;
            }
            Request::Get(key) => self.get(key, None).await?,
            Request::GetStale(key) => {
                let level = v1::consistency::Level::Local(v1::consistency::Local {});
                self.get(key, Some(v1::Consistency { level: Some(level) })).await?;
            }
            Request::Increment(counter) => {
                let increment = v1::IncrementRequest {
                    tenant,
                    key: work::counter_name(counter).into(),
                    delta: 1,
                    ..v1::IncrementRequest::default()
                };
                self.stub.increment(increment).await?;
            }
            Request::Scan(from) => {
                let scan = v1::ScanRequest {
                    tenant,
                    start: work::key_name(from).into(),
                    page_size: SCANNED as i32,
                    ..v1::ScanRequest::default()
                };
                let scanned = self.stub.scan(scan).await?.into_inner().items.len();
                ensure!(scanned == SCANNED, "a scan returned {scanned} keys");
            }
            Request::PutStamped(_) | Request::Echo | Request::Sync => bail!(super::unsupported()),
        }
        Ok(())
    }

    async fn get(&mut self, key: u64, consistency: Option<v1::Consistency>) -> Result<()> {
        let get = v1::GetRequest {
            tenant: TENANT.to_owned(),
            key: work::key_name(key).into(),
            consistency,
            ..v1::GetRequest::default()
        };
        let got = self.stub.get(get).await?.into_inner();
        ensure!(got.item.is_some(), "key {key} is missing");
        Ok(())
    }

    async fn put_all(&mut self, keys: &[u64], compares: Vec<v1::Compare>) -> Result<()> {
        let put = |key: &u64| {
            let put = v1::txn_operation::Put {
                key: work::key_name(*key).into(),
                value: self.values.get(self.sent),
                ..v1::txn_operation::Put::default()
            };
            v1::TxnOperation {
                operation: Some(v1::txn_operation::Operation::Put(put)),
            }
        };
        let txn = v1::TxnRequest {
            tenant: TENANT.to_owned(),
            compares,
            then: keys.iter().map(put).collect(),
            ..v1::TxnRequest::default()
        };
        ensure!(self.stub.txn(txn).await?.into_inner().succeeded, "a key is missing");
        Ok(())
    }
}

impl Caller for StubCaller {
    fn call(&mut self, request: Request) -> BoxFuture<'_, Result<()>> {
        self.run(request).boxed()
    }
}
