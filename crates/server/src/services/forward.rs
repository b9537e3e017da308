//! `ForwardService`: operations that another node hands on.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures::{Stream, StreamExt};
use stead_api::proto::internal::v1::{ForwardRequest, ForwardResponse, ForwardedOperation, forward_service_server};
use stead_types::{Epoch, GroupId, TenantNumber};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::{kv::within, operations};
use crate::router::{Answers, Call, Forwarded, Reply, Router};

/// The service.
#[derive(Clone)]
pub(crate) struct ForwardService {
    router: Arc<Router>,
    stop: CancellationToken,
}

impl ForwardService {
    /// Returns the service; streams end when the token fires.
    pub(crate) fn new(router: Arc<Router>, stop: CancellationToken) -> Self {
        Self { router, stop }
    }
}

fn calls(message: ForwardRequest, answers: &Answers) -> Vec<Call> {
    let now = Instant::now();
    let call = |forwarded: ForwardedOperation| {
        let operation = forwarded.operation?;
        let asked = Duration::from_millis(operation.deadline_ms.into());
        Some(Call {
            deadline: now + within(Some(asked)),
            hops: forwarded.hops,
            forwarded: Some(Forwarded {
                group: GroupId::new(forwarded.group),
                epoch: Epoch::new(forwarded.epoch)?,
                tenant: TenantNumber::new(forwarded.tenant_number),
            }),
            reply: Reply::new(operation.id, answers.clone()),
            operation,
        })
    };
    message.operations.into_iter().filter_map(call).collect()
}

#[tonic::async_trait]
impl forward_service_server::ForwardService for ForwardService {
    type PipeStream = Pin<Box<dyn Stream<Item = Result<ForwardResponse, Status>> + Send>>;

    async fn pipe(&self, request: Request<Streaming<ForwardRequest>>) -> Result<Response<Self::PipeStream>, Status> {
        let inbound = operations::inbound(request.into_inner(), calls);
        let answers = operations::serve(self.router.clone(), inbound, self.stop.clone());
        let stream = answers.map(|answers| Ok(ForwardResponse { answers }));
        Ok(Response::new(Box::pin(stream)))
    }
}
