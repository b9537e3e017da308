//! Entries to a follower: one bidirectional stream for as long as openraft keeps replicating, and a call for each
//! heartbeat.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, stream};
use openraft::network::{NetStreamAppend, RPCOption};
use stead_api::proto::internal::v1::RaftEnvelope;
use tokio::sync::Notify;
use tokio::time::timeout;
use tonic::Streaming;

use super::Peer;
use crate::peers::{Class, unreachable};
use crate::types::{AppendRequest, AppendResult, RpcError, TypeConfig};
use crate::wire::{self, Kind};

/// A peer that answers nothing for this long while requests are open is given up.
pub(crate) const STALL_MAX: Duration = Duration::from_secs(2);

type Answers<'s> = BoxStream<'s, Result<AppendResult, RpcError>>;

impl NetStreamAppend<TypeConfig> for Peer {
    fn stream_append<'s, S>(&'s mut self, input: S, option: RPCOption) -> BoxFuture<'s, Result<Answers<'s>, RpcError>>
    where
        S: Stream<Item = AppendRequest> + Send + Unpin + 'static,
    {
        Box::pin(async move {
            if self.is_heartbeat {
                self.heartbeat(input, option).await
            } else {
                self.replicate(input).await
            }
        })
    }
}

impl Peer {
    async fn heartbeat<'s, S>(&mut self, mut input: S, option: RPCOption) -> Result<Answers<'s>, RpcError>
    where
        S: Stream<Item = AppendRequest> + Send + Unpin + 'static,
    {
        let Some(request) = input.next().await else {
            return Ok(Box::pin(stream::empty()));
        };
        let answer = self.call(Kind::Append, wire::append(&request), &option).await?;
        let answer = wire::body(answer, Kind::AppendAnswer).and_then(wire::read_append_answer);
        let answer = answer.map_err(|malformed| unreachable(malformed.to_string()))?;
        Ok(Box::pin(stream::iter([Ok(answer)])))
    }

    async fn replicate<'s, S>(&mut self, mut input: S) -> Result<Answers<'s>, RpcError>
    where
        S: Stream<Item = AppendRequest> + Send + Unpin + 'static,
    {
        // openraft backs off where it makes a request. A connection that is refused at once, before any request was
        // made, would be dialled again in a loop without end.
        let Some(first) = input.next().await else {
            return Ok(Box::pin(stream::empty()));
        };
        let mut client = self.network.peers.client(self.to, Class::Bulk)?;
        let progress = Arc::new(Progress::default());
        let sender = self.network.sender;
        let sent = progress.clone();
        let requests = stream::iter([first]).chain(input).map(move |request| {
            let id = sent.sent();
            sender.envelope(Kind::Append, id, wire::append(&request))
        });
        let opened = timeout(STALL_MAX, client.append(requests)).await;
        let opened = opened.map_err(|_| unreachable(format!("{} did not open a stream", self.to)))?;
        let answers = opened.map_err(|status| unreachable(status.to_string()))?.into_inner();
        let state = Some((answers, progress));
        Ok(Box::pin(stream::unfold(state, |state| async move {
            let (mut answers, progress) = state?;
            match next(&mut answers, &progress).await.transpose()? {
                Ok(answer) => Some((Ok(answer), Some((answers, progress)))),
                Err(error) => Some((Err(error), None)),
            }
        })))
    }
}

/// Returns the next answer, which must be to the next request.
async fn next(answers: &mut Streaming<RaftEnvelope>, progress: &Progress) -> Result<Option<AppendResult>, RpcError> {
    let answer = tokio::select! {
        biased;
        answer = answers.message() => answer.map_err(|status| unreachable(status.to_string()))?,
        () = progress.stalled() => return Err(unreachable("the peer answers nothing".to_owned())),
    };
    let Some(answer) = answer else {
        return Ok(None);
    };
    if answer.id != progress.answered() {
        return Err(unreachable("an answer is out of order".to_owned()));
    }
    let answer = wire::body(answer, Kind::AppendAnswer).and_then(wire::read_append_answer);
    answer.map(Some).map_err(|malformed| unreachable(malformed.to_string()))
}

/// How many requests were sent over a stream, and how many of them answered.
#[derive(Default)]
struct Progress {
    sent: AtomicU64,
    answered: AtomicU64,
    /// Told when a request is sent while none was open.
    busy: Notify,
}

impl Progress {
    /// Counts a request and returns its number.
    fn sent(&self) -> u64 {
        let id = self.sent.fetch_add(1, Ordering::AcqRel) + 1;
        if id == self.answered.load(Ordering::Acquire) + 1 {
            self.busy.notify_one();
        }
        id
    }

    /// Counts an answer and returns its number.
    fn answered(&self) -> u64 {
        self.answered.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Returns when something has been open for [`STALL_MAX`] without any answer.
    async fn stalled(&self) {
        loop {
            let answered = self.answered.load(Ordering::Acquire);
            if self.sent.load(Ordering::Acquire) == answered {
                self.busy.notified().await;
            }
            tokio::time::sleep(STALL_MAX).await;
            let is_open = self.sent.load(Ordering::Acquire) > answered;
            if is_open && self.answered.load(Ordering::Acquire) == answered {
                return;
            }
        }
    }
}
