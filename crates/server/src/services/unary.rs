//! One operation and its response: the way of every call that is no stream.

use std::sync::Arc;

use stead_api::{
    proto::v1::{Operation, answer::Response},
    status,
};
use stead_state::lease::loss::Confirmation;
use stead_types::{Error, ErrorKind};
use tokio::time::Instant;
use tonic::Status;

use crate::{
    answers::{AnswerAccount, AnswerPermit},
    auth::Access,
    router::{Call, ReadyAnswer, Responder, ResponseSender, Router},
};

/// Serves one operation and waits for its response, whose room among the answers that wait comes with it; `is_retry` if a
/// gRPC library may have sent it before.
pub(super) async fn serve_operation(
    router: &Arc<Router>,
    account: Arc<AnswerAccount>,
    access: Access,
    operation: Operation,
    deadline: Instant,
    is_retry: bool,
) -> Result<(Response, AnswerPermit), Status> {
    let (answers, mut answer) = ResponseSender::channel(account);
    let call = Call {
        access,
        confirmation: Confirmation::Leased,
        operation,
        deadline,
        is_retry,
        hops: 0,
        forwarded: None,
        responder: Responder::new(0, answers),
    };
    router.clone().dispatch(vec![call]).await;
    let ReadyAnswer { answer, permit } = answer.recv().await;
    match answer.response {
        Some(Response::Error(error)) => Err(status::to_status(&status::from_operation_error(error))),
        Some(response) => Ok((response, permit)),
        None => Err(missing_response()),
    }
}

/// Returns the status of a call whose operation got no response, or that of another operation.
pub(super) fn missing_response() -> Status {
    status::to_status(&Error::new(
        ErrorKind::Internal,
        "the operation was not answered: this is a bug, please report it",
    ))
}
