//! `ForwardService`: operations that another node hands on.

use std::{pin::Pin, time::Duration};

use futures::{Stream, StreamExt, TryStreamExt};
use stead_api::proto::internal::v1::{
    ForwardRequest, ForwardResponse, ForwardWatchRequest, ForwardWatchResponse, forward_service_server,
};
use stead_types::{Epoch, Error, GroupId, TenantNumber};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::{
    Serving,
    kv::within,
    operations::{self, Asked},
};
use crate::{
    router::{Answers, Call, Forwarded, Reply},
    watch::Came,
};

/// The service.
#[derive(Clone)]
pub(crate) struct ForwardService {
    serving: Serving,
    stop: CancellationToken,
}

impl ForwardService {
    /// Returns the service; streams end when the token fires.
    pub(crate) fn new(serving: Serving, stop: CancellationToken) -> Self {
        Self { serving, stop }
    }
}

fn asked(message: ForwardRequest, answers: &Answers) -> Asked {
    let now = Instant::now();
    let mut asked = Asked {
        cancel_ids: message.cancel_ids,
        ..Asked::default()
    };
    for forwarded in message.operations {
        // One without an operation has no id under which it could be answered.
        let Some(operation) = forwarded.operation else { continue };
        let reply = Reply::new(operation.id, answers.clone());
        let Some(epoch) = Epoch::new(forwarded.epoch) else {
            let message = "epoch: is larger than any";
            asked.refused.push((reply, Error::invalid("epoch", message)));
            continue;
        };
        let within = within(Some(Duration::from_millis(operation.deadline_ms.into())));
        asked.calls.push(Call {
            deadline: now + within,
            // The node that was asked first has refused what its caller's library must not repeat.
            is_repeated: false,
            hops: forwarded.hops,
            forwarded: Some(Forwarded {
                group: GroupId::new(forwarded.group),
                epoch,
                tenant: TenantNumber::new(forwarded.tenant_number),
            }),
            reply,
            operation,
        });
    }
    asked
}

#[tonic::async_trait]
impl forward_service_server::ForwardService for ForwardService {
    type PipeStream = Pin<Box<dyn Stream<Item = Result<ForwardResponse, Status>> + Send>>;

    async fn pipe(&self, request: Request<Streaming<ForwardRequest>>) -> Result<Response<Self::PipeStream>, Status> {
        let inbound = operations::inbound(request.into_inner(), asked);
        let answers = operations::serve(self.serving.router.clone(), inbound, self.stop.clone());
        Ok(Response::new(Box::pin(
            answers.map_ok(|answers| ForwardResponse { answers }),
        )))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<ForwardWatchResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<ForwardWatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let request = request.into_inner();
        let malformed = || Status::invalid_argument("a watch that was handed on lacks what it should carry");
        let came = Came {
            forwarded: Forwarded {
                group: GroupId::new(request.group),
                epoch: Epoch::new(request.epoch).ok_or_else(malformed)?,
                tenant: TenantNumber::new(request.tenant_number),
            },
            hops: request.hops,
            at_home: request.at_home,
        };
        let messages = self
            .serving
            .watches
            .watch(request.create.ok_or_else(malformed)?, Some(came));
        let stopped = self.stop.clone().cancelled_owned();
        let messages = messages.map(|response| {
            Ok(ForwardWatchResponse {
                response: Some(response),
            })
        });
        Ok(Response::new(Box::pin(messages.take_until(stopped))))
    }
}

#[cfg(test)]
mod tests {
    use stead_api::{
        proto::{
            internal::v1::ForwardedOperation,
            v1::{Operation, answer::Response},
        },
        status,
    };
    use stead_types::ErrorKind;

    use super::*;

    #[tokio::test]
    async fn what_is_malformed_is_answered_and_holds_up_nobody() {
        let (answers, mut answered) = Answers::channel();
        let operation = |id, epoch| ForwardedOperation {
            operation: Some(Operation {
                id,
                ..Operation::default()
            }),
            epoch,
            ..ForwardedOperation::default()
        };
        let operations = vec![operation(1, u32::MAX), operation(2, 1), ForwardedOperation::default()];
        let message = ForwardRequest {
            operations,
            cancel_ids: vec![],
        };
        let asked = asked(message, &answers);
        assert_eq!(asked.calls.len(), 1);
        assert_eq!(asked.calls[0].operation.id, 2);
        asked.refuse();
        let answer = answered.recv().await.unwrap();
        let Some(Response::Error(error)) = answer.response else {
            panic!("{answer:?}")
        };
        let field = "epoch".to_owned();
        assert_eq!(
            (answer.id, status::from_operation_error(error).kind),
            (1, ErrorKind::Invalid { field })
        );
    }
}
