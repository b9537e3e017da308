//! Pipeline stream of one connection: all calls to a node share one stream.
//!
//! ```text
//!  call ──▶ outbox ──▶ next message (all that queued while the last one was being sent) ──▶ node
//!  call ◀── waiter ◀── answers, in the order in which they are ready              ◀───────┘
//! ```
//!
//! # Invariants
//!
//! * **P1** A call whose operation was put into no message is reported as never sent, any other one as ambiguous.
//! * **P2** A caller that goes away leaves nothing behind, and its operation is cancelled at the node.
//! * **P3** No more than [`state::OPERATIONS_MAX`] operations wait for an answer.

mod request_stream;
mod state;

use std::sync::Arc;

use stead_api::{
    proto::v1::{self, kv_service_client::KvServiceClient},
    status,
};
use stead_types::{Error, ErrorKind};
use tokio::{
    task::AbortHandle,
    time::{Instant, timeout_at},
};

use self::{
    request_stream::RequestStream,
    state::{PendingCall, Shared},
};
use crate::{
    channel::Channel,
    failure::{self, AttemptFailure},
};

/// Largest message accepted from a node; the node bounds what it sends by its own limits.
const RESPONSE_LEN_MAX: usize = 64 << 20;

/// Pipeline stream to one node; it opens with the first call, and again after it broke.
#[derive(Debug)]
pub(crate) struct Pipeline {
    address: String,
    channel: Channel,
    shared: Arc<Shared>,
    task: parking_lot::Mutex<Option<AbortHandle>>,
}

impl Pipeline {
    pub(crate) fn new(address: String, channel: Channel) -> Self {
        let shared = Arc::new(Shared::default());
        Self {
            address,
            channel,
            shared,
            task: parking_lot::Mutex::new(None),
        }
    }

    /// Sends one operation and waits for its response.
    pub(crate) async fn call(
        &self,
        request: v1::operation::Request,
        deadline: Instant,
    ) -> Result<v1::answer::Response, AttemptFailure> {
        let (mut pending, answer) = PendingCall::enqueue(&self.shared, request, deadline)?;
        if let Some(generation) = self.shared.claim_open() {
            self.open(generation);
        }
        match timeout_at(deadline, answer).await {
            Ok(Ok(outcome)) => outcome.and_then(response),
            // The waiter is dropped without a response only together with the whole pipeline.
            Ok(Err(_)) => Err(AttemptFailure::Ambiguous(failure::unreachable(
                &self.address,
                "the client is closing",
            ))),
            Err(_) => Err(pending.timed_out(&self.address)),
        }
    }

    fn open(&self, generation: u64) {
        let client = KvServiceClient::new(self.channel.clone()).max_decoding_message_size(RESPONSE_LEN_MAX);
        let messages = RequestStream::new(self.shared.clone(), generation);
        let stream = run(client, messages, self.shared.clone(), self.address.clone());
        *self.task.lock() = Some(tokio::spawn(stream).abort_handle());
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        if let Some(task) = self.task.lock().take() {
            task.abort();
        }
    }
}

/// Runs one generation of the stream until it breaks, and then fails all waiters (P1).
async fn run(mut client: KvServiceClient<Channel>, messages: RequestStream, shared: Arc<Shared>, address: String) {
    let failure = match client.pipeline(messages).await {
        Ok(answers) => read(answers.into_inner(), &shared, &address).await,
        Err(status) => failure::of(&status, &address),
    };
    shared.fail_all(&failure, &address);
}

async fn read(mut answers: tonic::Streaming<v1::PipelineResponse>, shared: &Shared, address: &str) -> AttemptFailure {
    loop {
        match answers.message().await {
            Ok(Some(message)) => shared.complete(message.answers),
            Ok(None) => {
                let error = Error::new(ErrorKind::Unavailable, format!("{address} closed the stream"));
                return AttemptFailure::Ambiguous(error);
            }
            Err(status) => return failure::of(&status, address),
        }
    }
}

fn response(answer: v1::answer::Response) -> Result<v1::answer::Response, AttemptFailure> {
    let v1::answer::Response::Error(error) = answer else {
        return Ok(answer);
    };
    let retry_after = status::operation_retry_after(&error);
    Err(AttemptFailure::ErrorResponse(
        status::from_operation_error(error),
        retry_after,
    ))
}
