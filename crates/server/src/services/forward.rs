//! `ForwardService`: operations and watches that another node forwards.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures::{Stream, StreamExt, TryStreamExt};
use stead_api::proto::internal::v1::{
    ForwardRequest, ForwardResponse, ForwardWatchRequest, ForwardWatchResponse, forward_service_server,
};
use stead_state::lease::loss::Confirmation;
use stead_types::{Epoch, Error, GroupId, TenantNumber};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::{
    call_metadata::bounded_timeout,
    data_services::DataServices,
    operations::{self, InboundOperations},
};
use crate::{
    answers::UnsentAnswers,
    auth::{Access, AccessContext},
    router::{Call, ForwardTarget, Responder, ResponseSender},
    watch::ForwardedWatch,
};

/// The service.
#[derive(Clone)]
pub(crate) struct ForwardService {
    data_services: DataServices,
    stop: CancellationToken,
}

impl ForwardService {
    /// Returns the service; streams end when the token fires.
    pub(crate) fn new(data_services: DataServices, stop: CancellationToken) -> Self {
        Self { data_services, stop }
    }
}

fn read_message(message: ForwardRequest, answers: &ResponseSender, context: &Arc<AccessContext>) -> InboundOperations {
    let now = Instant::now();
    let callers = message.callers.into_iter();
    let callers: Vec<_> = callers
        .map(|caller| Access::of_forwarded(Some(caller), context))
        .collect();
    let mut inbound = InboundOperations {
        cancel_ids: message.cancel_ids,
        ..InboundOperations::default()
    };
    for forwarded in message.operations {
        // An entry without an operation has no id under which it could be answered.
        let Some(operation) = forwarded.operation else { continue };
        let responder = Responder::new(operation.id, answers.clone());
        let Some(epoch) = Epoch::new(forwarded.epoch) else {
            let message = "epoch: is larger than any";
            inbound.rejected.push((responder, Error::invalid("epoch", message)));
            continue;
        };
        let named = usize::try_from(forwarded.caller)
            .ok()
            .and_then(|place| callers.get(place.checked_sub(1)?));
        let access = match named.cloned().unwrap_or_else(|| Access::of_forwarded(None, context)) {
            Ok(access) => access,
            Err(error) => {
                inbound.rejected.push((responder, error));
                continue;
            }
        };
        let within = bounded_timeout(Some(Duration::from_millis(operation.deadline_ms.into())));
        inbound.calls.push(Call {
            access,
            confirmation: Confirmation::Leased,
            deadline: now + within,
            // The node that received the call first has refused retries that are not safe.
            is_retry: false,
            hops: forwarded.hops,
            forwarded: Some(ForwardTarget {
                group: GroupId::new(forwarded.group),
                epoch,
                tenant: TenantNumber::new(forwarded.tenant_number),
            }),
            responder,
            operation,
        });
    }
    inbound
}

#[tonic::async_trait]
impl forward_service_server::ForwardService for ForwardService {
    type PipeStream = Pin<Box<dyn Stream<Item = Result<ForwardResponse, Status>> + Send>>;

    async fn pipe(&self, request: Request<Streaming<ForwardRequest>>) -> Result<Response<Self::PipeStream>, Status> {
        let context = self.data_services.access_context.clone();
        let read = move |message, answers: &ResponseSender| read_message(message, answers, &context);
        let inbound = operations::inbound(request.into_inner(), read);
        let unsent = UnsentAnswers::default();
        let (data_services, stop) = (self.data_services.clone(), self.stop.clone());
        let answers = operations::serve(data_services, inbound, None, unsent.clone(), stop);
        let messages: Self::PipeStream = Box::pin(answers.map_ok(|answers| ForwardResponse { answers }));
        Ok(unsent.attach(messages))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<ForwardWatchResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<ForwardWatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let request = request.into_inner();
        let malformed = || Status::invalid_argument("a forwarded watch needs create and a valid epoch");
        let forwarded_watch = ForwardedWatch {
            forwarded: ForwardTarget {
                group: GroupId::new(request.group),
                epoch: Epoch::new(request.epoch).ok_or_else(malformed)?,
                tenant: TenantNumber::new(request.tenant_number),
            },
            hops: request.hops,
            at_home: request.at_home,
        };
        let access = Access::of_forwarded(request.caller, &self.data_services.access_context)
            .map_err(|error| stead_api::status::to_status(&error))?;
        let create = request.create.ok_or_else(malformed)?;
        let messages = self.data_services.watches.watch(create, access, Some(forwarded_watch));
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
    use crate::auth::access_fixture;

    #[tokio::test]
    async fn malformed_operation_is_answered_others_are_served() {
        let (answers, mut answered) = ResponseSender::channel(std::sync::Arc::default());
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
            callers: vec![],
        };
        let inbound = read_message(message, &answers, &access_fixture::open());
        assert_eq!(inbound.calls.len(), 1);
        assert_eq!(inbound.calls[0].operation.id, 2);
        inbound.reject_all();
        let answer = answered.recv().await.answer;
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
