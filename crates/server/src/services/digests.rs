//! `DigestService`: digests of a copy that this node holds, for a node that verifies a tenant.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use stead_api::proto::internal::v1::{
    DigestSample, SampleDigestsRequest, SampleDigestsResponse, digest_service_server,
};
use stead_store::shard::ReadView;
use stead_types::{GroupId, Revision, TenantNumber};
use tokio::time::{Instant, timeout_at};
use tonic::{Request, Response, Status};

use crate::host::{Host, HostedGroup};

/// Longest wait for a copy to reach a revision.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(2);
/// Time for which a copy is sampled.
pub(crate) const SAMPLED_FOR: Duration = Duration::from_millis(500);
/// Most samples of one response.
const SAMPLES_MAX: usize = 4_096;

/// The service.
#[derive(Clone)]
pub(crate) struct DigestService(Arc<Host>);

impl DigestService {
    /// Returns the service.
    pub(crate) fn new(host: Arc<Host>) -> Self {
        Self(host)
    }
}

/// Position and digests of a copy at one moment.
struct CopyReading {
    is_owner: bool,
    revision: Revision,
    keys: u128,
}

/// Samples a copy of this node: waits until it has reached a revision, then reads it after each apply for a while.
pub(crate) async fn sample(host: &Host, request: &SampleDigestsRequest) -> SampleDigestsResponse {
    let missing = |why: &str| SampleDigestsResponse {
        missing: why.to_owned(),
        ..SampleDigestsResponse::default()
    };
    let Some(hosted) = host.groups.get(&GroupId::new(request.group)) else {
        return missing("the node does not vote in the group");
    };
    let (tenant, from) = (TenantNumber::new(request.tenant), Revision::from_u64(request.from));
    let wait_until = Instant::now() + Duration::from_millis(request.wait_ms.into()).min(WAIT_MAX);
    let mut applied = hosted.raft.applied();
    let mut samples = Vec::new();
    let mut until = None;
    loop {
        applied.borrow_and_update();
        let Some(copy) = read(hosted, tenant) else {
            return missing("it has no copy, or not all of it yet");
        };
        let now = Instant::now();
        if copy.revision >= from || now >= wait_until {
            until.get_or_insert(now + SAMPLED_FOR);
            let sample = (copy.revision, copy.keys);
            if samples.last() != Some(&sample) {
                samples.push(sample);
            }
        }
        let next = until.unwrap_or(wait_until);
        let is_full = samples.len() >= SAMPLES_MAX || until.is_some_and(|until| now >= until);
        if is_full || !matches!(timeout_at(next, applied.changed()).await, Ok(Ok(()))) {
            if until.is_some() {
                return response(hosted, copy.is_owner, samples);
            }
            // It has not reached the revision: what it has says how far it is.
            until = Some(now);
        }
    }
}

fn read(hosted: &HostedGroup, tenant: TenantNumber) -> Option<CopyReading> {
    let read = |view: ReadView<'_>| {
        let record = view.record(tenant).filter(|record| record.has_data())?;
        Some(CopyReading {
            is_owner: record.owned().is_some(),
            revision: record.live.revision,
            keys: record.live.digests.keys,
        })
    };
    hosted.machine.read(read).ok().flatten()
}

fn response(hosted: &HostedGroup, is_owner: bool, samples: Vec<(Revision, u128)>) -> SampleDigestsResponse {
    let sample = |(revision, keys): (Revision, u128)| DigestSample {
        revision: revision.to_u64(),
        keys: Bytes::copy_from_slice(&keys.to_be_bytes()),
    };
    SampleDigestsResponse {
        leads_home: is_owner && hosted.raft.is_leader(),
        missing: String::new(),
        samples: samples.into_iter().map(sample).collect(),
    }
}

#[tonic::async_trait]
impl digest_service_server::DigestService for DigestService {
    async fn sample_digests(
        &self,
        request: Request<SampleDigestsRequest>,
    ) -> Result<Response<SampleDigestsResponse>, Status> {
        Ok(Response::new(sample(&self.0, request.get_ref()).await))
    }
}
