//! `google.longrunning.Operations`: the standard service, for stock clients.
//!
//! # Invariants
//!
//! 1. `GetOperation` is answered within a second, on every node, and passes no admission.
//! 2. A client that gives up, or whose call is cancelled, cancels no operation: only `CancelOperation` does.

use std::{sync::Arc, time::Duration};

use stead_api::{
    convert,
    proto::google::longrunning::{
        self, CancelOperationRequest, DeleteOperationRequest, GetOperationRequest, ListOperationsRequest,
        ListOperationsResponse, WaitOperationRequest, operations_server,
    },
    status,
};
use stead_state::directory::{Command, Operation, OperationResult, Rejection};
use stead_types::{Error, ErrorKind};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::{
    admin::{
        PAGE_DEFAULT, PAGE_MAX, authorize, by,
        operation::{OperationFollower, message, message_with_seed},
    },
    call_metadata,
};
use crate::{directory::OperationQuery, host::Host};

/// Longest time that `WaitOperation` waits.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Longest time of a `GetOperation`, the progress of a copy included.
const GET_MAX: Duration = Duration::from_millis(950);
/// Time before a caller's deadline at which `WaitOperation` answers: the response has to arrive.
const WAIT_MARGIN: Duration = Duration::from_millis(500);
/// Time for which a cancellation waits for its outcome. It is known within a round trip between the two groups unless
/// one of them has no leader.
const CANCEL_WAIT: Duration = Duration::from_secs(2);

/// The service.
#[derive(Clone)]
pub(crate) struct Operations {
    host: Arc<Host>,
    stop: CancellationToken,
}

impl Operations {
    /// Returns the service; waits end when the token fires.
    pub(crate) fn new(host: Arc<Host>, stop: CancellationToken) -> Self {
        Self { host, stop }
    }

    fn message(&self, operation: &Operation) -> longrunning::Operation {
        self.host.directory_view.read(|view| message(view, operation))
    }

    async fn get(&self, name: &str) -> Result<longrunning::Operation, Error> {
        let id = convert::operation::number("name", name)?;
        let version = self.host.directory_view.version();
        let deadline = Instant::now() + GET_MAX;
        let operation = self.host.directory.operation(id, version).await?;
        Ok(message_with_seed(&self.host, &operation, deadline).await)
    }

    async fn list(&self, request: &ListOperationsRequest) -> Result<ListOperationsResponse, Error> {
        if !["", convert::operation::COLLECTION].contains(&request.name.as_str()) {
            let message = format!(
                "name: {:?} is no collection: write operations, or nothing",
                request.name
            );
            return Err(Error::invalid("name", message));
        }
        let filter = convert::operation::filter(&request.filter)?;
        let size = convert::page::size(request.page_size, PAGE_DEFAULT, PAGE_MAX)?;
        let invalid = || Error::invalid("page_token", "page_token: not a token of this store");
        let below = match convert::page::position(request.filter.as_bytes(), &request.page_token)? {
            Some(bytes) => Some(u64::from_be_bytes(bytes.try_into().map_err(|_| invalid())?)),
            None => None,
        };
        let query = OperationQuery {
            id: None,
            below,
            tenant: filter.tenant,
            done: filter.done,
            limit: size as usize,
            at_least: self.host.directory_view.version(),
        };
        let page = self.host.directory.read_operations(&query).await?;
        let last = page.operations.last().filter(|_| page.more);
        let next = last.map(|last| convert::page::token(request.filter.as_bytes(), &last.id.to_be_bytes()));
        Ok(ListOperationsResponse {
            operations: page
                .operations
                .iter()
                .map(|operation| self.message(operation))
                .collect(),
            next_page_token: next.unwrap_or_default(),
        })
    }

    async fn wait(&self, request: Request<WaitOperationRequest>) -> Result<longrunning::Operation, Error> {
        let deadline = call_metadata::timeout(request.metadata()).map(|deadline| deadline.saturating_sub(WAIT_MARGIN));
        let request = request.into_inner();
        let id = convert::operation::number("name", &request.name)?;
        let asked = match request.timeout {
            Some(timeout) => Some(convert::read::to_duration(timeout).ok_or_else(negative_timeout)?),
            None => None,
        };
        let wait = asked.into_iter().chain(deadline).fold(WAIT_MAX, Duration::min);
        let mut follower = OperationFollower::new(self.host.clone(), id);
        // The state at the beginning is there whatever the timeout.
        let mut last = follower.next().await?;
        let end = async {
            while !follower.is_over() {
                // A voter that does not answer for a moment ends no wait.
                match follower.next().await {
                    Ok(operation) => last = operation,
                    Err(error) if error.is_transient() => {}
                    Err(_) => return,
                }
            }
        };
        tokio::select! {
            _ = timeout(wait, end) => {}
            () = self.stop.cancelled() => {}
        }
        Ok(self.message(&last))
    }

    async fn cancel(&self, request: Request<CancelOperationRequest>) -> Result<(), Error> {
        let by = by(&request, "");
        let id = convert::operation::number("name", &request.get_ref().name)?;
        // An unknown operation is told from one that this version may not cancel yet.
        let version = self.host.directory_view.version();
        let operation = self.host.directory.operation(id, version).await?;
        authorize::operation(&request, &self.host, &operation)?;
        self.host.directory_view.read(|view| view.settings().check_moves())?;
        self.host.directory.propose(&Command::AbortMove(by, id)).await?;
        let mut follower = OperationFollower::new(self.host.clone(), id);
        // Without an outcome in time the cancellation goes on: it is accepted.
        let ended = timeout(CANCEL_WAIT, follower.end()).await;
        let succeeded = |operation: &Operation| {
            let end = operation.end.as_ref();
            end.is_some_and(|end| end.result == OperationResult::Succeeded)
        };
        match ended {
            Ok(Ok(operation)) if succeeded(&operation) => Err(Rejection::OperationSucceeded(id).into()),
            Ok(Ok(_) | Err(_)) | Err(_) => Ok(()),
        }
    }
}

fn to_status(error: &Error) -> Status {
    status::to_status(error)
}

fn negative_timeout() -> Error {
    Error::invalid("timeout", "timeout: it is not negative")
}

#[tonic::async_trait]
impl operations_server::Operations for Operations {
    async fn list_operations(
        &self,
        request: Request<ListOperationsRequest>,
    ) -> Result<Response<ListOperationsResponse>, Status> {
        let listed = self.list(request.get_ref()).await;
        listed.map(Response::new).map_err(|error| to_status(&error))
    }

    async fn get_operation(
        &self,
        request: Request<GetOperationRequest>,
    ) -> Result<Response<longrunning::Operation>, Status> {
        let read = self.get(&request.get_ref().name).await;
        read.map(Response::new).map_err(|error| to_status(&error))
    }

    async fn delete_operation(&self, request: Request<DeleteOperationRequest>) -> Result<Response<()>, Status> {
        let refused = || {
            convert::operation::number("name", &request.get_ref().name)?;
            let message = "operations are kept for seven days after their end and not deleted: they say who moved what";
            Err(Error::new(ErrorKind::Unimplemented, message))
        };
        refused().map(Response::new).map_err(|error| to_status(&error))
    }

    async fn cancel_operation(&self, request: Request<CancelOperationRequest>) -> Result<Response<()>, Status> {
        let cancelled = self.cancel(request).await;
        cancelled.map(Response::new).map_err(|error| to_status(&error))
    }

    async fn wait_operation(
        &self,
        request: Request<WaitOperationRequest>,
    ) -> Result<Response<longrunning::Operation>, Status> {
        let waited = self.wait(request).await;
        waited.map(Response::new).map_err(|error| to_status(&error))
    }
}
