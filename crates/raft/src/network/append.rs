//! AppendEntries to a follower: one pipelined bidirectional stream for as long as openraft replicates, and a call for
//! each heartbeat.
//!
//! openraft's stream of requests holds a lock while it waits, which its next stream needs. It must therefore end at
//! once with the stream of responses, and is driven from there: HTTP/2 would keep a request body for as long as the
//! peer reads nothing.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, stream};
use openraft::network::{NetStreamAppend, RPCOption};
use stead_api::proto::internal::v1::RaftEnvelope;
use stead_types::NodeId;
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{Network, Peer};
use crate::clock::{GroupClock, PeerClockSample};
use crate::peer_channels::{ChannelClass, unreachable};
use crate::types::{AppendError, AppendRequest, AppendResult, RpcError, TypeConfig};
use crate::wire::{self, MessageKind, Sender};

/// Timeout of a stream: a peer that sends no response for this long while requests are open is given up.
pub(crate) const STALL_MAX: Duration = Duration::from_secs(2);

/// Most requests that wait for the connection to take them.
const OUTBOX_LEN_MAX: usize = 8;

type AppendResponses<'s> = BoxStream<'s, Result<AppendResult, RpcError>>;

impl NetStreamAppend<TypeConfig> for Peer {
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<AppendResponses<'s>, RpcError>>
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
    async fn heartbeat<'s, S>(&mut self, mut input: S, option: RPCOption) -> Result<AppendResponses<'s>, RpcError>
    where
        S: Stream<Item = AppendRequest> + Send + Unpin + 'static,
    {
        let Some(request) = input.next().await else {
            return Ok(Box::pin(stream::empty()));
        };
        let times = self.times();
        let sent = times.clock.boot();
        let body = wire::append(&request, times.clock.now());
        let answer = self.call(MessageKind::Append, body, &option).await?;
        let answer = times.read(answer, sent)?;
        Ok(Box::pin(stream::iter([Ok(answer)])))
    }

    fn times(&self) -> PeerTimes {
        PeerTimes {
            clock: self.network.clock.clone(),
            peer: self.to,
        }
    }

    async fn replicate<'s, S>(&mut self, mut input: S) -> Result<AppendResponses<'s>, RpcError>
    where
        S: Stream<Item = AppendRequest> + Send + Unpin + 'static,
    {
        // openraft backs off only after a request. A connection that is refused before any request was made would be
        // dialled again in a busy loop.
        let Some(first) = input.next().await else {
            return Ok(Box::pin(stream::empty()));
        };
        let mut client = self.network.peers.client(self.to, ChannelClass::Bulk)?;
        let (outbox, requests) = mpsc::channel(OUTBOX_LEN_MAX);
        let mut progress = StreamProgress::new(self.network.sender, self.times());
        if let Ok(place) = outbox.try_reserve() {
            place.send(progress.request(&first));
        }
        let opened = timeout(STALL_MAX, client.append(ReceiverStream::new(requests))).await;
        let opened = opened.map_err(|_| unreachable(format!("{} did not open a stream", self.to)))?;
        let answers = opened.map_err(|status| self.network.failed(&status))?.into_inner();
        let append_stream = OutgoingAppendStream {
            network: self.network.clone(),
            input,
            outbox: Some(outbox),
            answers,
            progress,
        };
        Ok(Box::pin(stream::unfold(
            Some(append_stream),
            |append_stream| async move {
                let mut append_stream = append_stream?;
                match append_stream.next().await.transpose()? {
                    Ok(answer) => Some((Ok(answer), Some(append_stream))),
                    Err(error) => Some((Err(error), None)),
                }
            },
        )))
    }
}

/// Open append stream. Dropping it ends both directions.
struct OutgoingAppendStream<S> {
    network: Network,
    input: S,
    /// Closed after the last request.
    outbox: Option<mpsc::Sender<RaftEnvelope>>,
    answers: Streaming<RaftEnvelope>,
    progress: StreamProgress,
}

impl<S: Stream<Item = AppendRequest> + Send + Unpin> OutgoingAppendStream<S> {
    /// Sends requests until there is a response, which must be to the oldest open request.
    async fn next(&mut self) -> Result<Option<AppendResult>, RpcError> {
        loop {
            let Self {
                network,
                input,
                outbox,
                answers,
                progress,
            } = self;
            let is_over = tokio::select! {
                biased;
                answer = answers.message() => {
                    let answer = answer.map_err(|status| network.failed(&status))?;
                    return answer.map(|answer| progress.answer(answer)).transpose();
                }
                passed = next_request(input, outbox.as_ref()) => match passed {
                    Some((place, request)) => {
                        place.send(progress.request(&request));
                        false
                    }
                    None => true,
                },
                () = &mut progress.alarm, if progress.is_open() => {
                    progress.check()?;
                    false
                }
            };
            if is_over {
                self.outbox = None;
            }
        }
    }
}

/// Waits for the next request and space for it; `None` if there are no more. Never returns after that.
async fn next_request<'o, S: Stream<Item = AppendRequest> + Unpin>(
    input: &mut S,
    outbox: Option<&'o mpsc::Sender<RaftEnvelope>>,
) -> Option<(mpsc::Permit<'o, RaftEnvelope>, AppendRequest)> {
    match outbox {
        Some(outbox) => Some((outbox.reserve().await.ok()?, input.next().await?)),
        None => std::future::pending().await,
    }
}

/// Clock samples from the responses of a peer.
struct PeerTimes {
    clock: Arc<GroupClock>,
    peer: NodeId,
}

impl PeerTimes {
    /// Decodes the response to a request that was sent at `sent`, and records its clock sample.
    fn read(&self, answer: RaftEnvelope, sent: Duration) -> Result<AppendResult, RpcError> {
        let answer = wire::response_from(self.peer, answer).map_err(|other| unreachable(other.to_string()))?;
        let answer = wire::body(answer, MessageKind::AppendResponse).and_then(wire::read_append_response);
        let answer = answer.map_err(|malformed| unreachable(malformed.to_string()))?;
        let sample = PeerClockSample {
            sent,
            wall_ms: answer.time_ms,
            follows: !matches!(answer.body, Err(AppendError::HigherVote(_))),
        };
        self.clock.observe_response(self.peer, sample);
        Ok(answer.body)
    }
}

/// Counts of requests and responses of a stream, with its timeout.
struct StreamProgress {
    sender: Sender,
    times: PeerTimes,
    sent: u64,
    /// When the open requests were sent; openraft bounds their number.
    open: VecDeque<Duration>,
    answered: u64,
    /// When the last response came, or when a request was sent while none was open.
    since: Instant,
    alarm: Pin<Box<Sleep>>,
}

impl StreamProgress {
    fn new(sender: Sender, times: PeerTimes) -> Self {
        let now = Instant::now();
        Self {
            sender,
            times,
            sent: 0,
            open: VecDeque::new(),
            answered: 0,
            since: now,
            alarm: Box::pin(sleep_until(now + STALL_MAX)),
        }
    }

    fn is_open(&self) -> bool {
        self.sent > self.answered
    }

    fn request(&mut self, request: &AppendRequest) -> RaftEnvelope {
        if !self.is_open() {
            self.since = Instant::now();
        }
        self.sent += 1;
        self.open.push_back(self.times.clock.boot());
        let body = wire::append(request, self.times.clock.now());
        self.sender.envelope(MessageKind::Append, self.sent, body)
    }

    fn answer(&mut self, answer: RaftEnvelope) -> Result<AppendResult, RpcError> {
        self.answered += 1;
        self.since = Instant::now();
        if answer.id != self.answered {
            return Err(unreachable("a response is out of order".to_owned()));
        }
        let sent = self.open.pop_front().unwrap_or_default();
        self.times.read(answer, sent)
    }

    /// Gives the peer up if its response is overdue; otherwise resets the alarm.
    fn check(&mut self) -> Result<(), RpcError> {
        let latest = self.since + STALL_MAX;
        if latest <= Instant::now() {
            return Err(unreachable("the peer does not respond".to_owned()));
        }
        self.alarm.as_mut().reset(latest);
        Ok(())
    }
}
