//! The calls of one connection, all over one stream.
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

mod outgoing;
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
use tonic::transport::Channel;

use self::{
    outgoing::Outgoing,
    state::{Shared, Ticket},
};
use crate::failure::{self, Failure};

/// Largest message that is taken from a node: what a node sends is bounded by its own limits.
const ANSWERS_LEN_MAX: usize = 64 << 20;

/// The stream to one node; it opens with the first call, and again after it broke.
#[derive(Debug)]
pub(crate) struct Pipe {
    address: String,
    channel: Channel,
    shared: Arc<Shared>,
    task: parking_lot::Mutex<Option<AbortHandle>>,
}

impl Pipe {
    pub(crate) fn new(address: String, channel: Channel) -> Self {
        let shared = Arc::new(Shared::default());
        Self {
            address,
            channel,
            shared,
            task: parking_lot::Mutex::new(None),
        }
    }

    /// Sends one operation and waits for its answer.
    pub(crate) async fn call(
        &self,
        request: v1::operation::Request,
        deadline: Instant,
    ) -> Result<v1::answer::Response, Failure> {
        let (mut ticket, answer) = Ticket::draw(&self.shared, request, deadline)?;
        if let Some(life) = self.shared.must_open() {
            self.open(life);
        }
        match timeout_at(deadline, answer).await {
            Ok(Ok(outcome)) => outcome.and_then(response),
            // The waiter is dropped unanswered only with the whole pipe.
            Ok(Err(_)) => Err(Failure::Ambiguous(failure::unreachable(
                &self.address,
                "the client is closing",
            ))),
            Err(_) => Err(ticket.expired(&self.address)),
        }
    }

    fn open(&self, life: u64) {
        let client = KvServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWERS_LEN_MAX);
        let messages = Outgoing::new(self.shared.clone(), life);
        let stream = run(client, messages, self.shared.clone(), self.address.clone());
        *self.task.lock() = Some(tokio::spawn(stream).abort_handle());
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        if let Some(task) = self.task.lock().take() {
            task.abort();
        }
    }
}

/// One life of the stream: ends when it breaks, and tells all who wait (P1).
async fn run(mut client: KvServiceClient<Channel>, messages: Outgoing, shared: Arc<Shared>, address: String) {
    let failure = match client.pipeline(messages).await {
        Ok(answers) => read(answers.into_inner(), &shared, &address).await,
        Err(status) => failure::of(&status, &address),
    };
    shared.broke(&failure, &address);
}

async fn read(mut answers: tonic::Streaming<v1::PipelineResponse>, shared: &Shared, address: &str) -> Failure {
    loop {
        match answers.message().await {
            Ok(Some(message)) => shared.answered(message.answers),
            Ok(None) => {
                let error = Error::new(ErrorKind::Unavailable, format!("{address} closed the stream"));
                return Failure::Ambiguous(error);
            }
            Err(status) => return failure::of(&status, address),
        }
    }
}

fn response(answer: v1::answer::Response) -> Result<v1::answer::Response, Failure> {
    let v1::answer::Response::Error(error) = answer else {
        return Ok(answer);
    };
    let retry_after = status::operation_retry_after(&error);
    Err(Failure::Answered(status::from_operation_error(error), retry_after))
}
