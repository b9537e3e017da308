//! Services of a mock node: the operations of pipelines, and the directory.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use parking_lot::Mutex;
use stead_api::{
    proto::v1::{
        self, answer::Response as OperationResponse, directory_service_server as directory, kv_service_server as kv,
        operation::Request as OperationRequest,
    },
    status,
};
use stead_types::{Error, ErrorKind, RegionName, Revision, SessionToken, TenantNumber};
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming};

use super::{Faults, Store};

#[derive(Clone)]
pub(super) struct Service {
    pub(super) store: Arc<Store>,
    pub(super) faults: Arc<Faults>,
    pub(super) regions: Arc<Mutex<Vec<v1::Region>>>,
    pub(super) routes: watch::Receiver<Vec<v1::Route>>,
    pub(super) region: String,
    pub(super) number: u64,
    pub(super) stop: watch::Receiver<bool>,
}

type ResponseStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Returns a key that was created by its last change.
pub(super) fn item(key: Bytes, value: Bytes, sequence: u64) -> v1::KeyValue {
    v1::KeyValue {
        key,
        value,
        create_revision: Some(v1::Revision { epoch: 1, sequence }),
        mod_revision: Some(v1::Revision { epoch: 1, sequence }),
        version: 1,
        expire_time: None,
    }
}

impl Service {
    pub(super) fn header(&self, sequence: u64) -> Option<v1::ResponseHeader> {
        let tenant = TenantNumber::new(7);
        let revision = Revision::from_u64((1 << 40) | sequence);
        Some(v1::ResponseHeader {
            revision: Some(v1::Revision { epoch: 1, sequence }),
            tenant_number: 7,
            tenant_time_ms: self.store.time.load(SeqCst),
            session_token: Bytes::copy_from_slice(&SessionToken { tenant, revision }.to_bytes()),
            region: self.region.clone(),
            node: self.number,
            role: v1::Role::Home.into(),
            staleness: None,
            via: v1::Via::Direct.into(),
            unconfirmed: false,
        })
    }

    fn refusal(&self) -> Option<Error> {
        let counted = |count: &AtomicU64| count.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok();
        if counted(&self.faults.not_home) {
            let region: RegionName = "eu".parse().unwrap();
            let kind = ErrorKind::NotHome {
                region,
                epoch: stead_types::Epoch::FIRST,
                endpoints: Vec::new(),
            };
            return Some(Error::new(kind, "not here"));
        }
        if counted(&self.faults.no_leader) {
            return Some(Error::new(ErrorKind::NoLeader, "no leader"));
        }
        let next = self.faults.refusals.lock().pop_front();
        next.flatten().map(|kind| Error::new(kind, "refused"))
    }

    pub(super) fn write(
        &self,
        key: Option<v1::IdempotencyKey>,
        effect: impl FnOnce(u64),
    ) -> Result<(u64, bool), Error> {
        let key = key.unwrap();
        self.store.writes.lock().push(key.clone());
        if key.first_sent_ms == 0 && self.faults.expires.load(SeqCst) {
            let (edge, now) = (stead_types::TenantTime(50), stead_types::TenantTime(90));
            return Err(Error::new(ErrorKind::IdempotencyExpired { edge, now }, "too old"));
        }
        let mut outcomes = self.store.outcomes.lock();
        if let Some(first) = outcomes.get(&(key.client_id.clone(), key.sequence)) {
            return Ok((*first, true));
        }
        let sequence = self.store.sequence.fetch_add(1, SeqCst) + 1;
        outcomes.insert((key.client_id, key.sequence), sequence);
        self.store.effects.fetch_add(1, SeqCst);
        effect(sequence);
        Ok((sequence, false))
    }

    fn run(&self, request: OperationRequest) -> Result<OperationResponse, Error> {
        if let Some(refusal) = self.refusal() {
            return Err(refusal);
        }
        let rows = &self.store.rows;
        match request {
            OperationRequest::Put(put) => {
                let millis = |ttl| Duration::try_from(ttl).unwrap().as_millis();
                self.store.ttls_ms.lock().push(put.ttl.map(millis));
                let effect = |sequence| drop(rows.lock().insert((put.tenant, put.key), (put.value, sequence)));
                let (sequence, repeated_outcome) = self.write(put.idempotency_key, effect)?;
                let header = self.header(sequence);
                Ok(OperationResponse::Put(v1::PutResponse {
                    header,
                    previous: None,
                    repeated_outcome,
                }))
            }
            OperationRequest::Delete(delete) => {
                let effect = |_| drop(rows.lock().remove(&(delete.tenant, delete.key)));
                let (sequence, repeated_outcome) = self.write(delete.idempotency_key, effect)?;
                let header = self.header(sequence);
                Ok(OperationResponse::Delete(v1::DeleteResponse {
                    header,
                    deleted: true,
                    previous: None,
                    repeated_outcome,
                }))
            }
            OperationRequest::Get(get) => {
                let found = rows.lock().get(&(get.tenant, get.key.clone())).cloned();
                let item = found.map(|(value, sequence)| item(get.key, value, sequence));
                let header = self.header(self.store.sequence.load(SeqCst));
                Ok(OperationResponse::Get(v1::GetResponse { header, item }))
            }
            OperationRequest::Txn(txn) => self.txn(txn).map(OperationResponse::Txn),
            OperationRequest::DeleteRange(range) => self.delete_range(range).map(OperationResponse::DeleteRange),
            OperationRequest::BatchGet(_)
            | OperationRequest::Increment(_)
            | OperationRequest::Append(_)
            | OperationRequest::Scan(_) => Err(Error::new(ErrorKind::Unimplemented, "not here")),
        }
    }

    /// Runs the operations of a message; `None`: the connection is to be cut.
    fn message(&self, message: v1::PipelineRequest) -> Option<v1::PipelineResponse> {
        self.faults.messages.fetch_add(1, SeqCst);
        let cancelled = message.cancel_ids.len() as u64;
        self.faults.cancelled.fetch_add(cancelled, SeqCst);
        let mut answers = Vec::with_capacity(message.operations.len());
        for operation in message.operations {
            self.faults.operations.fetch_add(1, SeqCst);
            let request = operation.request.unwrap();
            let writes = matches!(
                request,
                OperationRequest::Put(_) | OperationRequest::Delete(_) | OperationRequest::Txn(_)
            );
            let response = self
                .run(request)
                .unwrap_or_else(|error| OperationResponse::Error(status::to_operation_error(&error)));
            if writes && self.faults.cut_after_write.swap(false, SeqCst) {
                return None;
            }
            let is_silent = self.faults.silent.load(SeqCst) || (writes && self.faults.silent_writes.load(SeqCst));
            if !is_silent {
                answers.push(v1::Answer {
                    id: operation.id,
                    response: Some(response),
                });
            }
        }
        Some(v1::PipelineResponse { answers })
    }
}

#[tonic::async_trait]
impl kv::KvService for Service {
    type PipelineStream = ResponseStream<v1::PipelineResponse>;

    async fn pipeline(
        &self,
        request: Request<Streaming<v1::PipelineRequest>>,
    ) -> Result<Response<Self::PipelineStream>, Status> {
        let service = self.clone();
        let mut stop = self.stop.clone();
        let answers = request
            .into_inner()
            .map(move |message| match message.map(|message| service.message(message)) {
                Ok(Some(answers)) => Ok(answers),
                Ok(None) | Err(_) => Err(Status::unknown("cut")),
            });
        let stopped = async move { drop(stop.wait_for(|stop| *stop).await) };
        Ok(Response::new(Box::pin(answers.take_until(stopped))))
    }

    async fn get(&self, _: Request<v1::GetRequest>) -> Result<Response<v1::GetResponse>, Status> {
        Err(Status::unimplemented("only pipelines here"))
    }

    async fn batch_get(&self, _: Request<v1::BatchGetRequest>) -> Result<Response<v1::BatchGetResponse>, Status> {
        Err(Status::unimplemented("only pipelines here"))
    }

    async fn put(&self, _: Request<v1::PutRequest>) -> Result<Response<v1::PutResponse>, Status> {
        Err(Status::unimplemented("only pipelines here"))
    }

    async fn delete(&self, _: Request<v1::DeleteRequest>) -> Result<Response<v1::DeleteResponse>, Status> {
        Err(Status::unimplemented("only pipelines here"))
    }

    async fn increment(&self, _: Request<v1::IncrementRequest>) -> Result<Response<v1::IncrementResponse>, Status> {
        Err(Status::unimplemented("only pipelines here"))
    }

    async fn append(&self, _: Request<v1::AppendRequest>) -> Result<Response<v1::AppendResponse>, Status> {
        Err(Status::unimplemented("only pipelines here"))
    }

    async fn txn(&self, _: Request<v1::TxnRequest>) -> Result<Response<v1::TxnResponse>, Status> {
        Err(Status::unimplemented("only pipelines here"))
    }

    async fn delete_range(
        &self,
        _: Request<v1::DeleteRangeRequest>,
    ) -> Result<Response<v1::DeleteRangeResponse>, Status> {
        Err(Status::unimplemented("only pipelines here"))
    }

    type ScanStreamStream = ResponseStream<v1::ScanStreamResponse>;

    async fn scan_stream(&self, _: Request<v1::ScanStreamRequest>) -> Result<Response<Self::ScanStreamStream>, Status> {
        Err(Status::unimplemented("only pipelines here"))
    }

    type WatchStream = ResponseStream<v1::WatchResponse>;

    async fn watch(&self, _: Request<Streaming<v1::WatchRequest>>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("only pipelines here"))
    }

    async fn scan(&self, _: Request<v1::ScanRequest>) -> Result<Response<v1::ScanResponse>, Status> {
        Err(Status::unimplemented("only pipelines here"))
    }
}

#[tonic::async_trait]
impl directory::DirectoryService for Service {
    type WatchStream = ResponseStream<v1::DirectoryServiceWatchResponse>;

    async fn lookup(&self, request: Request<v1::LookupRequest>) -> Result<Response<v1::LookupResponse>, Status> {
        let tenant = request.into_inner().tenant;
        let route = self
            .routes
            .borrow()
            .iter()
            .find(|route| route.tenant == tenant)
            .cloned();
        let unknown = || status::to_status(&Error::new(ErrorKind::TenantNotFound, format!("no tenant {tenant}")));
        Ok(Response::new(v1::LookupResponse {
            route: Some(route.ok_or_else(unknown)?),
            version: None,
        }))
    }

    async fn batch_lookup(
        &self,
        _: Request<v1::BatchLookupRequest>,
    ) -> Result<Response<v1::BatchLookupResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn watch(
        &self,
        request: Request<v1::DirectoryServiceWatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let names = request.into_inner().tenants;
        self.store.directory_watches.lock().push(names.clone());
        let regions = self.regions.lock().clone();
        let routes = tokio_stream::wrappers::WatchStream::new(self.routes.clone());
        let changes = routes.map(move |routes| {
            let wanted = routes
                .into_iter()
                .filter(|route| names.is_empty() || names.contains(&route.tenant));
            Ok(v1::DirectoryServiceWatchResponse {
                reset: true,
                regions: regions.clone(),
                routes: wanted.collect(),
                removed_tenants: Vec::new(),
                version: Some(v1::DirectoryVersion::default()),
            })
        });
        let mut stop = self.stop.clone();
        let stopped = async move { drop(stop.wait_for(|stop| *stop).await) };
        Ok(Response::new(Box::pin(changes.take_until(stopped))))
    }

    async fn list_regions(
        &self,
        _: Request<v1::ListRegionsRequest>,
    ) -> Result<Response<v1::ListRegionsResponse>, Status> {
        let regions = self.regions.lock().clone();
        Ok(Response::new(v1::ListRegionsResponse {
            regions,
            next_page_token: String::new(),
            version: None,
        }))
    }
}
